"""A real dataset on any machine: docstrings of the packages that are installed anyway, labelled by package."""

from __future__ import annotations

import ast
import importlib.util
import random
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

__all__ = ["PACKAGES", "docstring_table"]

PACKAGES = ("torch", "transformers", "ray", "pandas", "numpy", "sympy", "networkx", "botocore")
_MIN_WORDS, _MAX_WORDS = 5, 60


def docstring_table(*, rows_per_package: int = 800, packages: Sequence[str] = PACKAGES) -> pa.Table:
    """First paragraphs of docstrings; the package's own name is taken out of the text.

    Sources are parsed, never imported. A package that is not installed is left out.

    Returns:
        Columns `text` and `label`, both strings; no text twice, in a fixed random order.
    """
    rows: list[tuple[str, str]] = []
    seen: set[str] = set()
    for package in packages:
        found = 0
        for text in _docstrings(package):
            if text in seen:
                continue
            seen.add(text)
            rows.append((text, package))
            found += 1
            if found == rows_per_package:
                break
    random.Random(0).shuffle(rows)
    return pa.table({"text": [text for text, _ in rows], "label": [label for _, label in rows]})


def _docstrings(package: str) -> Iterator[str]:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return
    root = Path(spec.origin).parent
    files = sorted(file for file in root.rglob("*.py") if "tests" not in file.relative_to(root).parts)
    # In a random order, so that a bounded number of files is drawn from all over the package.
    random.Random(package).shuffle(files)
    own_name = re.compile(rf"\b{re.escape(package)}\b", re.IGNORECASE)
    for file in files:
        for text in _paragraphs(file):
            if _MIN_WORDS <= len(text.split()) <= _MAX_WORDS:
                yield own_name.sub("it", text)


def _paragraphs(file: Path) -> Iterator[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, OSError, RecursionError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield " ".join(text.split("\n\n")[0].split())
