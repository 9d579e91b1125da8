"""Entities in tags, as seqeval and conlleval find them: IO, IOB1, IOB2, IOE, IOBES and BILOU, without being strict.

seqeval (https://github.com/chakki-works/seqeval) scores lists of all tags at once, and had its last release in 2020;
what is added up over batches and workers is here instead, and tested against it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["TagScheme", "count_entities", "tag_scheme"]

_TAG = re.compile(r"([BIESLUM])-(.+)", re.DOTALL)
_SAME = {"L": "E", "U": "S", "M": "I"}
_O, _B, _I, _E, _S = range(5)
_PREFIX = {"B": _B, "I": _I, "E": _E, "S": _S}
Tags = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TagScheme:
    """What tags mean.

    Attributes:
        types: Of entities; plain tags (parts of speech ...) are their own, and each word is one.
        prefixes: By tag id: where in an entity its word stands; 0 outside.
        type_ids: By tag id: the entity's type; -1 outside.
    """

    types: tuple[str, ...]
    prefixes: Tags
    type_ids: Tags


def tag_scheme(tags: Sequence[str]) -> TagScheme:
    """Reads the scheme off the tags. If one is neither `O` nor like `B-PER`, all are plain."""
    matches = [_TAG.fullmatch(tag) for tag in tags]
    if not any(matches) or not all(match or tag == "O" for tag, match in zip(tags, matches, strict=True)):
        return TagScheme(tuple(tags), np.full(len(tags), _S), np.arange(len(tags)))
    types = tuple(sorted({match[2] for match in matches if match}))
    prefixes = [_PREFIX[_SAME.get(match[1], match[1])] if match else _O for match in matches]
    type_ids = [types.index(match[2]) if match else -1 for match in matches]
    return TagScheme(types, np.array(prefixes, np.int64), np.array(type_ids, np.int64))


def count_entities(true: Tags, predicted: Tags, scheme: TagScheme) -> npt.NDArray[np.int64]:
    """Entities by type.

    Args:
        true: (words,) tag ids of sequences one after the other, with -1 between them.
        predicted: As many, with -1 at the same places.
        scheme: Of the tags.

    Returns:
        (3, types): those that are in both, those predicted, those true.
    """
    kinds = len(scheme.types)
    found = [_entities(tags, scheme) for tags in (predicted, true)]
    first, second = (_as_numbers(entities, len(true) + 1, kinds) for entities in found)
    both = np.intersect1d(first, second, assume_unique=True)
    counted = [both % kinds, *(entities[2] for entities in found)]
    return np.stack([np.bincount(kind, minlength=kinds) for kind in counted])


def _entities(tags: Tags, scheme: TagScheme) -> tuple[Tags, Tags, Tags]:
    """First word, word after the last, and type of each entity."""
    outside = np.full(1, -1)
    tags = np.concatenate([outside, tags, outside])
    prefix = np.where(tags < 0, _O, scheme.prefixes[tags])
    kind = np.where(tags < 0, -1, scheme.type_ids[tags])
    before, now = prefix[:-1], prefix[1:]
    turns = kind[:-1] != kind[1:]
    ends = np.isin(before, (_E, _S)) | (np.isin(before, (_B, _I)) & np.isin(now, (_B, _S, _O)))
    ends |= (before != _O) & turns
    starts = np.isin(now, (_B, _S)) | (np.isin(before, (_E, _S, _O)) & np.isin(now, (_E, _I)))
    starts |= (now != _O) & turns
    stops, begins = np.flatnonzero(ends), np.flatnonzero(starts)
    # Each end belongs to the last start before it.
    first = begins[np.searchsorted(begins, stops, side="left") - 1]
    return first, stops, kind[1:][first]


def _as_numbers(entities: tuple[Tags, Tags, Tags], words: int, kinds: int) -> Tags:
    first, stop, kind = entities
    return (first * words + stop) * kinds + kind
