"""The rows in the bucket, the tokenizer made of them, and one process per case."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from machine import peak_memory
from tokenizers import BertWordPieceTokenizer

from feeding.case import Case

__all__ = ["run_case", "write_rows", "write_tokenizer"]

FILES, GROUPS_PER_FILE, VALIDATION_ROWS, VOCABULARY = 4, 2, 100, 8000
_BENCHMARKS = Path(__file__).parents[1]
_LIMIT_SECONDS = 900.0


def write_rows(data: Path, folder: Path, rows: int) -> pa.Table:
    """Repeats the rows of a folder's train*.parquet up to a number, as 4 Parquet files of 2 row groups each."""
    files = sorted(data.glob("**/train*.parquet"))
    if not files:
        raise SystemExit(f"{data} has no train*.parquet with the columns text and label")
    table = pa.concat_tables([pq.read_table(file, columns=["text", "label"]) for file in files])
    table = pa.table({name: table[name].cast(pa.string()) for name in ("text", "label")})
    whole = pa.concat_tables([table] * -(-rows // table.num_rows)).slice(0, rows).combine_chunks()
    for split in ("train", "validation"):
        (folder / split).mkdir(parents=True)
    each = -(-rows // FILES)
    for number in range(FILES):
        part = whole.slice(number * each, each)
        pq.write_table(part, folder / "train" / f"{number}.parquet", row_group_size=-(-each // GROUPS_PER_FILE))
    pq.write_table(whole.slice(0, VALIDATION_ROWS), folder / "validation" / "0.parquet")
    return whole


def write_tokenizer(rows: pa.Table, file: Path) -> None:
    """A WordPiece tokenizer as BERT's, of the rows' own words: nothing is fetched."""
    tokenizer = BertWordPieceTokenizer()
    tokenizer.train_from_iterator(rows["text"].unique().to_pylist(), vocab_size=VOCABULARY, show_progress=False)
    file.write_text(tokenizer.to_str())


def run_case(case: Case, python: str, environment: dict[str, str]) -> dict[str, Any]:
    """Runs a case in a process of its own.

    Returns:
        What it reports, with `peak_mb` of it and all its descendants; `failed` where it ended otherwise.
    """
    scratch = Path(case.scratch)
    scratch.mkdir(parents=True)
    case.write(scratch / "case.json")
    command = [python, "-m", "feeding.child", str(scratch / "case.json"), str(scratch / "report.json")]
    with (scratch / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=_BENCHMARKS, env=environment, stdout=log, stderr=log)
        peak = peak_memory(process, limit_s=_LIMIT_SECONDS)
    if not (scratch / "report.json").exists():  # the last thing it does: what ends badly after it has measured all
        lines = (scratch / "log").read_text(errors="replace").strip().splitlines()
        return {"failed": f"exit {process.returncode}", "said": lines[-8:]}
    report: dict[str, Any] = json.loads((scratch / "report.json").read_text())
    return {**report, "peak_mb": peak / 1e6}
