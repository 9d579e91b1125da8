"""A real text classification dataset, built on the spot: docstrings of installed packages, labelled by package."""

from __future__ import annotations

import ast
import importlib.util
import random
import re
import warnings
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from astraml_ray.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["PACKAGES", "docstring_table"]

# All of them come with astraml-ray itself, directly or through ray and torch.
PACKAGES = ("torch", "transformers", "ray", "pandas", "numpy", "sympy", "networkx", "pydantic")

_WORDS = range(5, 61)
_SEED = 0
_LARGEST_FILE = 400_000  # bytes; beyond that lie generated tables, slow to parse and poor in prose
# Tests hardly have prose, and vendored code is another package's.
_SKIPPED = re.compile(r"^(tests?|_?vendor(ed)?|.*third_?party.*|_?externals?)$")
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def docstring_table(*, rows_per_package: int = 1200, packages: Sequence[str] = PACKAGES) -> pa.Table:
    """Docstrings of the packages that are installed, in an order that is always the same.

    Sources are parsed, never imported. A text is the first paragraph of a docstring; the name of its own package
    is replaced by "it", so that the label has to be told from the words around it. Every text occurs once.

    Args:
        rows_per_package: At most so many rows of each package.
        packages: Names of top-level packages; those that are not installed are left out.

    Returns:
        A table with the string columns `text` and `label`, shuffled.

    Raises:
        DataError: Fewer than two of the packages are installed with their sources.
    """
    import pyarrow as pa

    labels: dict[str, str] = {}
    for package in packages:
        wanted = len(labels) + rows_per_package
        for text in _texts(package):
            if len(labels) == wanted:
                break
            labels.setdefault(text, package)
    if len(set(labels.values())) < 2:
        raise DataError(
            "fewer than two of the packages have docstrings here",
            param=", ".join(packages),
            hint="name packages that are installed with their Python sources",
        )
    rows = list(labels.items())
    random.Random(_SEED).shuffle(rows)
    return pa.table({"text": [text for text, _ in rows], "label": [label for _, label in rows]})


def _texts(package: str) -> Iterator[str]:
    """First paragraphs of a package's docstrings, without its name."""
    # "PyTorch" names torch and "ray_start" names Ray, but "array" does not.
    name = re.compile(rf"(?<![a-z])(?:py)?{re.escape(package)}(?![a-z])", re.IGNORECASE)
    for file in _sources(package):
        for docstring in _docstrings(file):
            paragraph = re.split(r"\n\s*\n", docstring.strip(), maxsplit=1)[0]
            text = " ".join(name.sub("it", paragraph).split())
            # Unprintable are lone surrogates too, which no file format takes.
            if len(text.split()) in _WORDS and text.isprintable():
                yield text


def _sources(package: str) -> list[Path]:
    """A package's source files, found without importing it, in an order that spreads over its folders."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return []
    found: list[tuple[int, str, Path]] = []
    for root in map(Path, (spec and spec.submodule_search_locations) or ()):
        for file in root.rglob("*.py"):
            place = file.relative_to(root)
            if not any(_SKIPPED.match(part) for part in place.parts[:-1]):
                # Alphabetical order would let the first folders make up the whole class.
                found.append((zlib.crc32(place.as_posix().encode()), place.as_posix(), file))
    return [file for *_, file in sorted(found)]


def _docstrings(file: Path) -> Iterator[str]:
    try:
        if file.stat().st_size > _LARGEST_FILE:
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # others' invalid escapes are none of the user's business
            tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return
    # Only bodies of modules and classes: to walk through every expression takes longer than to parse.
    nodes: list[ast.stmt | ast.Module] = [tree]
    while nodes:
        node = nodes.pop()
        if isinstance(node, _DOCUMENTED) and (docstring := ast.get_docstring(node)):
            yield docstring
        if isinstance(node, (ast.Module, ast.ClassDef)):
            nodes += reversed(node.body)
