"""Run by a test as a process of its own: reads files of 20 MB and of 200 MB or more; the most memory of each."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import zstandard

from astraml_ray.data.formats import formats_of, fragments_of, read_fragment
from astraml_ray.data.storage.credentials import OWN
from astraml_ray.data.storage.objects import list_objects

LINES = {
    "jsonl": "".join(json.dumps({"text": f"{i} " + "word " * 190, "label": i % 7}) + "\n" for i in range(1000)),
    "csv": "text,label\n" + "".join(f'"{i}, ""q""\n' + "word " * 190 + f'",{i % 7}\n' for i in range(1000)),
}


def write(kind: str, megabytes: int, folder: Path) -> Path:
    path = folder / f"{megabytes}.{kind}"
    if kind == "parquet":
        return write_row_group(megabytes, path)
    lines = LINES[kind.split(".")[0]].encode()
    with path.open("wb") as file:
        for _ in range(megabytes):
            file.write(zstandard.compress(lines) if kind.endswith("zst") else lines)
    return path


def write_row_group(megabytes: int, path: Path) -> Path:
    """All rows in one, as `DataFrame.to_parquet` writes up to a million."""
    numbers = pa.array(np.arange(megabytes * 1000))
    texts = pc.binary_join_element_wise(numbers.cast(pa.string()), "word " * 190, " ")  # no text is a Python object
    table = pa.table({"text": texts, "label": np.arange(len(numbers)) % 7})
    pq.write_table(table, path, row_group_size=len(numbers), dictionary_pagesize_limit=1 << 16)
    return path


def peak_of(path: str) -> tuple[int, int]:
    """The most memory, in bytes, that this process has while it reads a file, and the rows."""
    pa.default_memory_pool().release_unused()  # of what wrote it
    Path("/proc/self/clear_refs").write_text("5")
    objects = list_objects(path)
    kinds = formats_of(objects, "auto", OWN)
    rows = 0
    for part in fragments_of(objects, kinds, range(len(objects)), OWN):
        rows += read_fragment(objects, part, kinds[0], ["text", "label"], OWN).num_rows
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) << 10, rows


def main() -> None:
    pa.set_memory_pool(pa.system_memory_pool())
    found = {}
    for kind in ("parquet", "jsonl", "csv", "jsonl.zst"):
        sizes = (20, 300 if kind == "parquet" else 200)
        small, large = (write(kind, megabytes, Path(sys.argv[1])) for megabytes in sizes)
        (least, _), (most, rows) = peak_of(str(small)), peak_of(str(large))
        found[kind] = (least, most, rows)
        large.unlink()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
