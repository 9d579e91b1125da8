"""Where and with what a benchmark ran."""

from __future__ import annotations

import contextlib
import datetime
import os
import platform
import sqlite3
import subprocess
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

__all__ = ["describe_machine", "peak_memory"]

_SAMPLE_SECONDS = 0.25
_PACKAGES = ("astraml-ray", "ray", "fastapi", "uvicorn", "pydantic", "sqlalchemy", "psycopg", "torch")


def peak_memory(process: subprocess.Popen[bytes], *, limit_s: float) -> float:
    """Waits for a process, which is killed after a while.

    Returns:
        The peak of the memory of it and its descendants, bytes; a page that several share counts once.
    """
    peak, deadline = 0.0, time.monotonic() + limit_s
    while process.poll() is None:
        if time.monotonic() > deadline:
            process.kill()
        peak = max(peak, _memory(process.pid))
        time.sleep(_SAMPLE_SECONDS)
    return peak


def _memory(pid: int) -> float:
    total = 0.0
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        for one in [root, *root.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                total += one.memory_full_info().pss if psutil.LINUX else one.memory_info().rss
    return total


def describe_machine() -> dict[str, Any]:
    """Date, processor, memory, and versions."""
    info = Path("/proc/cpuinfo")
    models = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "cores": len(os.sched_getaffinity(0)),
        "processor": models[0] if models else platform.machine(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": platform.platform(),
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "versions": {name: version(name) for name in _PACKAGES},
    }
