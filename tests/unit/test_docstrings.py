"""The demo's dataset: docstrings of the packages that are installed here, and of a broken one made here."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest

from astraml_ray.cli.docstrings import PACKAGES, docstring_table
from astraml_ray.errors import DataError


@pytest.fixture(scope="module")
def table() -> pa.Table:
    return docstring_table()


def made(folder: Path, monkeypatch: pytest.MonkeyPatch, **packages: dict[str, bytes]) -> None:
    for package, files in packages.items():
        for name, source in files.items():
            (folder / package / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / package / name).write_bytes(source)
    monkeypatch.syspath_prepend(str(folder))


def test_there_are_thousands_of_rows_in_balanced_classes(table: pa.Table) -> None:
    counts = Counter(table["label"].to_pylist())
    assert table.schema.equals(pa.schema({"text": pa.string(), "label": pa.string()}))
    assert table.num_rows > 6000
    assert set(counts) == set(PACKAGES)
    assert min(counts.values()) > 500
    assert max(counts.values()) <= 0.3 * table.num_rows


def test_texts_are_short_unique_and_do_not_name_their_package(table: pa.Table) -> None:
    texts = table["text"].to_pylist()
    assert len(set(texts)) == len(texts)
    for text, label in zip(texts, table["label"].to_pylist(), strict=True):
        assert 5 <= len(text.split()) <= 60
        assert text == " ".join(text.split())
        assert label not in re.findall("[a-z]+", text.lower())


def test_the_order_is_shuffled_and_always_the_same() -> None:
    table = docstring_table(rows_per_package=100, packages=("numpy", "pandas"))
    assert table.equals(docstring_table(rows_per_package=100, packages=("numpy", "pandas")))
    assert Counter(table["label"].to_pylist()) == {"numpy": 100, "pandas": 100}
    assert len(set(table["label"].to_pylist()[:20])) == 2


def test_nothing_is_imported() -> None:
    code = (
        "import sys\n"
        "from astraml_ray.cli.docstrings import docstring_table\n"
        "docstring_table(rows_per_package=5)\n"
        "print({'torch', 'ray', 'transformers', 'sympy'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_broken_sources_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(
        tmp_path,
        monkeypatch,
        oakwood={
            "__init__.py": b'"""The first paragraph\n  of oakwood, PyOakwood and oakwood_tree.\n\nThe second one."""\n',
            "syntax.py": b'"""A docstring of a file that is broken."""\ndef (\n',
            "null.py": b'"""A docstring of a file with a null."""\n\0',
            "bytes.py": b'"""A docstring of a file \xff\xfe that is no UTF-8."""\n',
            "latin.py": b'# coding: latin-1\n"""Un caf\xe9 pour le petit d\xe9jeuner."""\n',
            "surrogate.py": b'"""A lone \\ud800 surrogate fits no file."""\n',
            "nested.py": b"x = " + b"(" * 5000 + b")" * 5000,
            "escape.py": b'"""An invalid \\d escape is no reason to warn."""\n',
            "short.py": b'"""Too short by one."""\n',
            "code.py": b'class A:\n    async def b(self):\n        """What an asynchronous method says here."""\n',
            "tests/test_a.py": b'"""A docstring of a test is no prose."""\n',
            "_vendor/other.py": b'"""A docstring of quite another package here."""\n',
            "again.py": b'"""What an asynchronous method says here."""\n',
        },
        elmwood={
            "__init__.py": b'"""What an asynchronous method says here."""\n',
            "trees.py": b'def elm():\n    "Elms in oakwood have leaves too."\n',
        },
    )
    rows = docstring_table(packages=("oakwood", "elmwood", "not_installed_anywhere")).to_pylist()
    assert {row["text"] for row in rows if row["label"] == "oakwood"} == {
        "The first paragraph of it, it and it_tree.",
        "Un café pour le petit déjeuner.",
        "An invalid \\d escape is no reason to warn.",
        "What an asynchronous method says here.",
    }
    assert [row["text"] for row in rows if row["label"] == "elmwood"] == ["Elms in oakwood have leaves too."]


def test_one_class_is_no_dataset() -> None:
    with pytest.raises(DataError, match="fewer than two"):
        docstring_table(packages=("numpy", "not_installed_anywhere"))
