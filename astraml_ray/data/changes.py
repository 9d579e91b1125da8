"""Whether a dataset is the one that a run has read: by its listing, which is small however many bytes it has."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import astuple

from astraml_ray.data.formats import objects_of
from astraml_ray.data.prepare import objects_by_split, rows_of_split
from astraml_ray.data.splits import SPLITS
from astraml_ray.data.storage.credentials import Access
from astraml_ray.data.storage.objects import ObjectInfo
from astraml_ray.spec.dataset import DatasetSpec

__all__ = ["digest_of", "listing_digest"]


def digest_of(spec: DatasetSpec, objects: Iterable[ObjectInfo]) -> str:
    """What tells a dataset from another: where it is and how it is read, and each object's size and ETag.

    Args:
        spec: The dataset; whose credentials read it makes no difference.
        objects: Those of a manifest, or of a listing, split after split.

    Returns:
        SHA-256, as 64 hexadecimal digits.
    """
    digest = hashlib.sha256(json.dumps(spec.model_dump(mode="json", exclude={"credentials"}), sort_keys=True).encode())
    for info in objects:
        digest.update(b"\n" + json.dumps(astuple(info)).encode())
    return digest.hexdigest()


def listing_digest(spec: DatasetSpec, secret: Callable[[], str] | None) -> str:
    """The digest of the dataset as it is now; a manifest that is made of it has the same.

    Args:
        spec: The dataset.
        secret: Gives its credentials; None is this machine's own.

    Raises:
        DataError: It cannot be listed, or a metadata file of its images cannot be read.
    """
    access = Access(spec.endpoint_url, secret)
    by_split = objects_by_split(spec, access)
    splits = [split for split in SPLITS if split in by_split]
    rows = {split: rows_of_split(spec, split, by_split, access) for split in splits}
    return digest_of(
        spec, (info for split in splits for info in objects_of(by_split[split], spec.format, access, rows[split]))
    )
