"""Ending processes: the ones that were started, and no others; and no file of the user's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil

from astraml_ray.cli.s3_server import start_server
from astraml_ray.control.head import end_head, end_process, free_port, is_alive, port_is_free


def sleeper(*arguments: str) -> dict[str, object]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", *arguments])
    return {"pid": process.pid, "created": psutil.Process(process.pid).create_time()}


def test_the_s3_server_ends_and_what_it_served_stays(tmp_path: Path) -> None:
    folder = tmp_path / "s3"
    (folder / "bucket").mkdir(parents=True)
    (folder / "bucket" / "precious").write_text("data")
    server = start_server(folder, log=tmp_path / "log")
    children = psutil.Process(server["pid"]).children(recursive=True)
    assert is_alive(server)
    end_process(server)
    assert not is_alive(server)
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    assert (folder / "bucket" / "precious").read_text() == "data"


def test_a_head_ends_with_what_names_its_folder_and_only_ray_s_own_folder_goes(tmp_path: Path) -> None:
    mine, other = tmp_path / "astraml-ray-1", tmp_path / "astraml-ray-2"
    for folder in (mine, other):
        folder.mkdir()
    head, orphan, bystander = sleeper(), sleeper(f"--dir={mine}"), sleeper(f"--dir={other}")
    end_head({**head, "ray_temp_dir": str(mine)})
    assert not is_alive(head)
    assert not is_alive(orphan)
    assert is_alive(bystander)
    assert (mine.exists(), other.exists()) == (False, True)
    end_process(bystander)
    elsewhere = tmp_path / "of-the-user"
    elsewhere.mkdir()
    end_head({**head, "ray_temp_dir": str(elsewhere)})
    assert elsewhere.exists()


def test_another_process_of_the_same_id_is_left_alone() -> None:
    process = sleeper()
    end_process({**process, "created": 1.0})
    assert is_alive(process)
    end_process(process)
    assert not is_alive(process)


def test_a_free_port_is_free_until_someone_listens() -> None:
    import socket

    port = free_port()
    assert port_is_free("127.0.0.1", port)
    with socket.socket() as server:
        server.bind(("127.0.0.1", port))
        server.listen()
        assert not port_is_free("127.0.0.1", port)
