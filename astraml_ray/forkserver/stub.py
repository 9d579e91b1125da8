"""What Ray starts in the place of Python: asks the fork server for the process, and stays for as long as that lives.

Run by its path with `-I -S`, so that it is up in a moment; only the standard library is there. Without a server that
answers it becomes the interpreter that Ray would have started.

    python -I -S stub.py NAME SCRIPT ARGUMENT...
"""

import json
import os
import socket
import struct
import sys

__all__ = ["main", "peer_uid"]

_WAIT_S = 45.0  # Ray gives a worker 60 s


def main() -> None:
    name, *arguments = sys.argv[1:]
    with socket.socket(socket.AF_UNIX) as server:
        if not _ask(server, name, arguments):
            os.execv(sys.executable, [sys.executable, *arguments])
        server.settimeout(None)
        server.recv(1)  # its end: the process that was forked has the only other one


def _ask(server: socket.socket, name: str, arguments: list[str]) -> bool:
    """Whether the process is there."""
    order = {
        "arguments": arguments,
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "oom_score_adj": _oom_score_adj(),
    }
    message = json.dumps(order).encode()
    try:
        server.settimeout(_WAIT_S)
        server.connect(f"\0{name}")
        if peer_uid(server) != os.getuid():
            return False
        socket.send_fds(server, [len(message).to_bytes(8, "big")], [0, 1, 2])
        server.sendall(message)
        return server.recv(1) == b"+"
    except OSError:
        return False


def peer_uid(connection: socket.socket) -> int:
    """Whose the other end is: names of abstract sockets are free to all users."""
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    uid: int = struct.unpack("3i", found)[1]
    return uid


def _oom_score_adj() -> str:
    """The raylet has its workers killed before others where memory ends."""
    try:
        with open("/proc/self/oom_score_adj") as file:
            return file.read().strip()
    except OSError:
        return "0"


if __name__ == "__main__":
    main()
