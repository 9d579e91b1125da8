"""Runs one case: `python -m feeding.child CASE.json REPORT.json`."""

from __future__ import annotations

import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

from feeding.case import MODULES, Case
from feeding.meter import measure


def run(case: Case) -> dict[str, Any]:
    """The report of a case; `missing` where a package is not there."""
    began = time.perf_counter()
    try:
        module = importlib.import_module(f"feeding.{MODULES[case.arm]}")
    except ModuleNotFoundError as error:
        return {"missing": str(error)}
    if case.convert:
        imported = time.perf_counter()
        module.convert(case)
        return {"seconds": time.perf_counter() - imported}
    if case.arm == "limits":
        return dict(module.limits(case))
    with module.runtime(case):
        ready = time.perf_counter()
        return {"start_s": ready - began, **measure(case, module.epochs(case))}


if __name__ == "__main__":
    report = run(Case.read(Path(sys.argv[1])))
    Path(sys.argv[2]).write_text(json.dumps(report))
