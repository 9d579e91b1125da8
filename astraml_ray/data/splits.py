"""Which objects are training, validation and test rows, by the convention of names."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from astraml_ray.data.storage.credentials import OWN, Access
from astraml_ray.data.storage.objects import ObjectInfo, read_range, resolve
from astraml_ray.errors import DataError

__all__ = ["IMAGE_SUFFIXES", "SPLITS", "assign_splits", "data_objects", "is_metadata", "split_of"]

SPLITS = ("train", "validation", "test")
IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff")
_COMPANIONS = re.compile(
    r"(dataset_infos?\.json|dataset_dict\.json|readme(\..*)?|licen[cs]e(\..*)?|.*\.(md|idx|crc)|thumbs\.db|desktop\.ini)$",
    re.IGNORECASE,
)
_SHARD_LIST = re.compile(rb'"__kind__"\s*:\s*"wids-shard-index')
_HEAD_BYTES = 1 << 14
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


def is_metadata(uri: str) -> bool:
    """Whether a file tells of the images beside and below it, where there are any."""
    return uri.rsplit("/", 1)[-1].lower() in ("metadata.jsonl", "metadata.csv", "metadata.parquet")


def data_objects(objects: Sequence[ObjectInfo], access: Access = OWN) -> list[ObjectInfo]:
    """The objects that hold rows: what lies beside them (state files, indexes, licences) is left out.

    Where there is nothing else, they are taken for data. JSON files among tar shards are looked into.
    """
    folders = {info.uri.rpartition("/")[0] for info in objects if info.uri.endswith("/state.json")}
    kept = [info for info in objects if not _is_companion(info.uri, folders)]
    if any(info.uri.lower().endswith(".tar") for info in kept):
        kept = [info for info in kept if not _lists_shards(info, access)]
    return kept or list(objects)


def _lists_shards(info: ObjectInfo, access: Access) -> bool:
    """Whether it is an index of WebDataset's `wids`: it has the names of shards, and how many samples each has."""
    named = info.uri.lower().endswith(".json")
    return named and bool(_SHARD_LIST.search(read_range(info, 0, _HEAD_BYTES, access)))


def _is_companion(uri: str, saved: Collection[str]) -> bool:
    """`saved` are the folders that `datasets.save_to_disk` wrote: they may hold cached arrow files, too."""
    folder, _, name = uri.rpartition("/")
    return bool(_COMPANIONS.match(name)) or (
        folder in saved and (name == "state.json" or (name.startswith("cache-") and name.endswith(".arrow")))
    )


def assign_splits(prefix: str, objects: Sequence[ObjectInfo], access: Access = OWN) -> dict[str, list[ObjectInfo]]:
    """Objects by split; where none is named, all are training rows.

    Raises:
        DataError: Some splits are named, but no training rows among them; or a metadata file is above them.
    """
    objects = data_objects(objects, access)
    filesystem, path = resolve(prefix, access)
    root = filesystem.unstrip_protocol(path).rstrip("/")
    splits: dict[str, list[ObjectInfo]] = {}
    unnamed = []
    for info in objects:
        relative = info.uri.removeprefix(root) or info.uri.rsplit("/", 1)[-1]
        if relative.lower().endswith(IMAGE_SUFFIXES):  # of images, the folder tells alone
            relative = relative.rpartition("/")[0]
        name = split_of(relative)
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
    else:
        _check_unnamed(unnamed, splits)
    return splits


def _check_unnamed(unnamed: Sequence[ObjectInfo], splits: Mapping[str, Sequence[ObjectInfo]]) -> None:
    """What is of no split is left out: a file without which images are not what they seem must not be."""
    for info in filter(lambda info: is_metadata(info.uri), unnamed):
        folder = f"{info.uri.rpartition('/')[0]}/"
        for name, objects in splits.items():
            images = any(one.uri.startswith(folder) and one.uri.lower().endswith(IMAGE_SUFFIXES) for one in objects)
            if images and not any(is_metadata(one.uri) for one in objects):
                raise DataError(
                    f"lies above the images of {name}, and a split is read from its own folder alone",
                    param=info.uri,
                    hint="write a metadata file into each split's folder, with names from there on; or take it out",
                )
