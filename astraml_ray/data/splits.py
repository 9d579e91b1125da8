"""Which objects are training, validation and test rows, by the convention of names."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from astraml_ray.data.storage.credentials import OWN, Access
from astraml_ray.data.storage.objects import ObjectInfo, read_range, resolve
from astraml_ray.errors import DataError

__all__ = [
    "IMAGE_SUFFIXES",
    "SPLITS",
    "SplitRows",
    "assign_splits",
    "data_objects",
    "is_metadata",
    "root_of",
    "split_of",
]

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

    A metadata file above the images of a split that has none of its own is in it, too: of all such splits.

    Raises:
        DataError: Some splits are named, but no training rows among them.
    """
    objects = data_objects(objects, access)
    root = root_of(prefix, access)
    splits: dict[str, list[ObjectInfo]] = {}
    unnamed = []
    for info in objects:
        name = _split_below(root, info.uri)
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
    return {name: _with_metadata_above(own, unnamed) for name, own in splits.items()}


def root_of(prefix: str, access: Access = OWN) -> str:
    """A prefix as the URIs of the objects below it begin."""
    filesystem, path = resolve(prefix, access)
    root: str = filesystem.unstrip_protocol(path).rstrip("/")
    return root


def _split_below(root: str, uri: str) -> str | None:
    relative = uri.removeprefix(root) or uri.rsplit("/", 1)[-1]
    if relative.lower().endswith(IMAGE_SUFFIXES):  # of images, the folder tells alone
        relative = relative.rpartition("/")[0]
    return split_of(relative)


def _with_metadata_above(own: list[ObjectInfo], unnamed: Sequence[ObjectInfo]) -> list[ObjectInfo]:
    """What is of no split is left out; a file without which images are not what they seem is of those below it."""
    if any(is_metadata(info.uri) for info in own):
        return own
    images = [info.uri for info in own if info.uri.lower().endswith(IMAGE_SUFFIXES)]
    above = [info for info in unnamed if is_metadata(info.uri) and _is_above(info.uri, images)]
    return sorted([*own, *above], key=lambda info: info.uri)


def _is_above(uri: str, others: Collection[str]) -> bool:
    folder = f"{uri.rpartition('/')[0]}/"
    return any(other.startswith(folder) for other in others)


@dataclass(frozen=True)
class SplitRows:
    """Which rows of a metadata file above several splits are those of one.

    Attributes:
        name: Of the split.
        root: See root_of.
        splits: Of the dataset.
    """

    name: str
    root: str
    splits: frozenset[str]

    def has(self, metadata: str, image: str) -> bool:
        """Whether a row of a metadata file is of the split: its image is in the split's folder.

        Args:
            metadata: The file.
            image: What the row names; what lies in no split's folder, or is no image, is for the training rows to tell.
        """
        if _split_below(self.root, metadata) is not None:
            return True
        split = _split_below(self.root, image)
        return (split if split in self.splits else "train") == self.name
