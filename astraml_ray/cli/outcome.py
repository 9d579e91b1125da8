"""How a verb ends: the result or the error, in words or as JSON, and the exit code of its class."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from astraml_ray.errors import AstraError, RunStopped
from astraml_ray.training.stop import Stop

__all__ = ["conclude", "fail", "stop_on_signals"]

STOPPED = RunStopped.exit_code


def conclude(work: Callable[[], dict[str, Any]], *, output: str, show: Callable[[dict[str, Any]], None]) -> None:
    """Does the work and prints its result; an error of ours becomes a message and its exit code."""
    try:
        result = work()
    except AstraError as error:
        fail(error, output=output)
    except BrokenPipeError:
        raise SystemExit(1) from None
    if output == "json":
        print(json.dumps(result), flush=True)
    else:
        show(result)


def fail(error: AstraError, *, output: str) -> NoReturn:
    """Prints an error, and leaves with its exit code."""
    print(f"{'stopped' if isinstance(error, RunStopped) else 'error'}: {error}", file=sys.stderr, flush=True)
    if output == "json":
        status = "cancelled" if isinstance(error, RunStopped) else "failed"
        print(json.dumps({"status": status, "reason": error.code, "error": error.as_dict()}), flush=True)
    raise SystemExit(error.exit_code) from error


def stop_on_signals(stop: Stop) -> None:
    """SIGINT or SIGTERM: the first asks the run to save and leave, the second leaves at once."""

    def handle(number: int, frame: Any) -> None:
        if stop.is_set():
            print("leaving at once", file=sys.stderr, flush=True)
            os._exit(STOPPED)
        print("stopping: saving first (once more to leave at once)", file=sys.stderr, flush=True)
        stop.set()

    signal.signal(signal.SIGINT, handle)
    signal.signal(signal.SIGTERM, handle)
