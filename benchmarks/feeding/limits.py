"""What bounds every arm: raw ranged GETs of the rows, decoding alone and tokenising alone."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from storage_reads import Raw, ranges_of

from astraml_ray.cli.s3_server import S3Server
from feeding.case import Case
from feeding.tokens import Tokens
from feeding.torch_parquet import filesystem

__all__ = ["limits"]

TIMES = 3


def limits(case: Case) -> dict[str, Any]:
    """Rows per second of each, the best of 3 times; and the tokens of all rows."""
    fs = filesystem(case)
    found = fs.get_file_info(pa.fs.FileSelector(f"{case.bucket}/rows/train"))
    local = []
    for number, file in enumerate(sorted(found, key=lambda one: one.path)):
        local.append(Path(case.scratch, f"{number}.parquet"))
        local[-1].write_bytes(fs.open_input_file(file.path).read())
    keys = sorted(file.path for file in found)
    server = S3Server(
        case.endpoint_url, os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"], Path(case.scratch), 0
    )
    raw = Raw(server)
    work = []
    for key, copy in zip(keys, local, strict=True):
        ranges = ranges_of(copy)
        raw.know(key, ranges)
        work += [(key, number) for number in range(len(ranges))]
    texts = pa.concat_tables([pq.read_table(copy) for copy in local])["text"].to_pylist()
    buffers = [pa.py_buffer(copy.read_bytes()) for copy in local]
    tokens = Tokens(case)
    count = sum(map(len, tokens.ids(texts)))
    return {
        "tokens": count,
        "text_bytes": sum(len(text.encode()) for text in texts),
        "rows_per_second": {
            "raw ranged GETs": _rate(case, lambda: [raw(key, number) for key, number in work]),
            "decoding": _rate(case, lambda: [pq.read_table(pa.BufferReader(one)) for one in buffers]),
            "tokenising": _rate(case, lambda: tokens.tokenizer.encode_batch(texts)),
        },
    }


def _rate(case: Case, work: Any) -> float:
    seconds = []
    for _ in range(TIMES):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return case.rows / min(seconds)
