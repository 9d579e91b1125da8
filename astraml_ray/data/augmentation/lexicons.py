"""Lexicons of a user: read once, before a run begins, and kept with it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from astraml_ray.data.storage.credentials import Access
from astraml_ray.data.storage.objects import describe, open_object
from astraml_ray.errors import DataError
from astraml_ray.spec.augmentation import Augmentation
from astraml_ray.spec.text_augmentation import RandomInsertion, Synonym

__all__ = ["read_lexicons"]

_MOST_BYTES = 8 << 20
_HINT = 'write it as JSON, {"word": ["other", "another"]}, or as lines of words with tabs between them'


def read_lexicons(augmentations: Sequence[Augmentation], access: Access) -> dict[str, dict[str, list[str]]]:
    """The lexicons that augmentations name, by URI.

    Raises:
        DataError: One is not there, too large, or no lexicon.
    """
    named = {
        rule.lexicon
        for rule in augmentations
        if isinstance(rule, (Synonym, RandomInsertion)) and isinstance(rule.lexicon, str)
    }
    return {uri: _read(uri, access) for uri in sorted(named)}


def _read(uri: str, access: Access) -> dict[str, list[str]]:
    info = describe(uri, access)
    if info.size > _MOST_BYTES:
        raise DataError(
            f"has {info.size:,} bytes; a lexicon has {_MOST_BYTES:,} at most",
            param=uri,
            hint="keep the words that the dataset has",
        )
    with open_object(info, access) as file:
        content = file.read(_MOST_BYTES + 1)
    try:
        text = content.decode("utf-8-sig")
        found = _of_json(text) if text.lstrip().startswith("{") else _of_lines(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"is no lexicon: {str(error)[:200]}", param=uri, hint=_HINT) from error
    if not found:
        raise DataError("is no lexicon: it has no words", param=uri, hint=_HINT)
    return found


def _of_json(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    data: dict[str, Any] = json.loads(text)
    for word, others in data.items():
        if not isinstance(others, list) or not others or not all(isinstance(o, str) and o.strip() for o in others):
            raise ValueError(f"{word!r} must have a list of words")
        found.setdefault(word.strip().lower(), []).extend(other.strip() for other in others)
    return found


def _of_lines(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        word, *others = (part.strip() for part in line.split("\t"))
        if not line.strip():
            continue
        if not word or not all(others) or not others:
            raise ValueError(f"line {number} is not word<TAB>other")
        found.setdefault(word.lower(), []).extend(others)
    return found
