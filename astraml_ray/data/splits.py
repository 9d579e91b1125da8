"""Which objects are training, validation and test rows, by the convention of names."""

from __future__ import annotations

import re
from collections.abc import Sequence

from astraml_ray.data.credentials import OWN, Access
from astraml_ray.data.objects import ObjectInfo, resolve
from astraml_ray.errors import DataError

__all__ = ["SPLITS", "assign_splits", "split_of"]

SPLITS = ("train", "validation", "test")
_NAMES = (
    ("train", re.compile(r"^train(?![a-z])|^training(?![a-z])", re.IGNORECASE)),
    ("validation", re.compile(r"^(validation|valid|val|dev|eval)(?![a-z])", re.IGNORECASE)),
    ("test", re.compile(r"^test(?![a-z])|^testing(?![a-z])", re.IGNORECASE)),
)


def split_of(relative: str) -> str | None:
    """The split that a path below the prefix names: by its folder first, else by its file name.

    `train/a.parquet`, `data/dev-00000.jsonl` and `validation.csv` name one; `a.parquet` does not.
    """
    for part in relative.strip("/").split("/"):
        for split, pattern in _NAMES:
            if pattern.match(part):
                return split
    return None


def assign_splits(prefix: str, objects: Sequence[ObjectInfo], access: Access = OWN) -> dict[str, list[ObjectInfo]]:
    """Objects by split; where none is named, all are training rows.

    Raises:
        DataError: Some splits are named, but no training rows among them.
    """
    filesystem, path = resolve(prefix, access)
    root = filesystem.unstrip_protocol(path).rstrip("/")
    splits: dict[str, list[ObjectInfo]] = {}
    unnamed = []
    for info in objects:
        name = split_of(info.uri.removeprefix(root) or info.uri.rsplit("/", 1)[-1])
        if name is None:
            unnamed.append(info)
        else:
            splits.setdefault(name, []).append(info)
    if not splits or (len(objects) == 1 and "train" not in splits):
        return {"train": list(objects)}
    if "train" not in splits:
        if not unnamed:
            raise DataError(
                f"has {', '.join(sorted(splits))} rows but no training rows",
                param=prefix,
                hint="name a file or folder train*, or give dataset.train",
            )
        splits["train"] = unnamed
    return splits
