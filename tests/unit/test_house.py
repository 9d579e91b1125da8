"""The house itself: sizes, public names, and that what is written elsewhere agrees with the code."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import astraml_ray
from astraml_ray.settings import RAY_ENVIRONMENT

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "astraml_ray").rglob("*.py"))
MODULES = [".".join(f.relative_to(ROOT).with_suffix("").parts) for f in FILES if not f.name.startswith("__")]


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.name)
def test_files_are_small(file: Path) -> None:
    assert len(file.read_text().splitlines()) <= 400


@pytest.mark.parametrize("name", MODULES)
def test_public_names_are_declared_and_exist(name: str) -> None:
    module = importlib.import_module(name)
    assert all(hasattr(module, public) for public in module.__all__)
    assert module.__doc__


def test_the_environment_is_read_in_few_places() -> None:
    """settings.py reads it; the others hand it on to processes they start, or set what Ray or a library reads."""
    readers = {f.name for f in FILES if re.search(r"os\.environ", f.read_text())}
    assert readers <= {
        "settings.py",
        "models.py",
        "s3_server.py",
        "worker.py",
        "head.py",
        "startup.py",
        "session.py",
        "tuner.py",
        "start.py",
        "stub.py",
        "child.py",
    }


def test_cluster_settings_agree() -> None:
    lines = [line for line in (ROOT / "cluster" / "ray.env").read_text().splitlines() if not line.startswith("#")]
    assert dict(line.split("=", 1) for line in lines) == RAY_ENVIRONMENT


def test_version_and_no_module_imports_torch_below_training() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", astraml_ray.__version__)
    for file in FILES:
        floor = file.relative_to(ROOT / "astraml_ray").parts[0]
        if floor in ("spec", "data", "errors.py", "settings.py") and file.parent != ROOT / "astraml_ray/data/images":
            imported = [
                alias.name
                for node in ast.walk(ast.parse(file.read_text()))
                if isinstance(node, ast.Import)
                for alias in node.names
            ]
            assert "torch" not in imported


def test_the_wheel_works_from_any_folder(tmp_path: Path) -> None:
    """It carries configs/, and needs no checkout."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = (
        "import astraml_ray.settings as s; from astraml_ray.spec.loading import *; f = s.configs_folder(); "
        "build_spec(read_document(f / 'jobs' / 'demo.yaml')); print(f, len(list((f / 'models').glob('*.yaml'))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == [str(tmp_path / "site" / "astraml_ray" / "configs"), "7"]
