"""Takes secrets out of log text: as they are, in base64, URL-encoded, or escaped for JSON. Pure.

Values under eight characters are left alone, and warned about: to mask "LIVE" would make DE***RY of DELIVERY.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, quote_plus

__all__ = ["MASK", "SHORTEST", "MaskedStream", "Masker", "mask_data", "maskable_parts"]

MASK = "***"
SHORTEST = 8
_BASE64 = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_=")
# Base64 is often cut into lines; so much of it at a line's edge is enough to be taken for the secret.
_EDGE = 12
# Of a secret that is a JSON object: what is no secret in it.
_PLAIN_KEYS = {"region", "region_name", "endpoint", "endpoint_url", "url", "host", "port", "type", "format", "scheme"}
_PLAIN_KEYS |= {"aws_region", "aws_default_region", "aws_endpoint_url", "aws_endpoint_url_s3"}


class Masker:
    """Masks the values of some secrets.

    Attributes:
        warnings: One for each secret that is too short to be masked.
    """

    def __init__(self, values: Mapping[str, str]) -> None:
        """
        Args:
            values: Name -> value.
        """
        self.warnings = [
            f"secret {name} has {len(value)} characters: values under {SHORTEST} are not masked in logs"
            for name, value in values.items()
            if len(value.strip()) < SHORTEST
        ]
        parts = {part for value in values.values() for part in maskable_parts(value)}
        self._plain = sorted({form for part in parts for form in _plain_forms(part)}, key=len, reverse=True)
        self._cores = sorted({core for part in parts for core in _base64_cores(part)}, key=len, reverse=True)

    @property
    def reach(self) -> int:
        """The longest text that can be one match."""
        return max((len(form) + 4 for form in [*self._plain, *self._cores]), default=0)

    def mask(self, text: str) -> str:
        """The text, of whole lines, without the values."""
        if not self._plain:
            return text
        return _covered(text, self.spans(text))

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Where values are, in order, without overlaps."""
        found = [span for form in self._plain for span in _occurrences(text, form)]
        for core in self._cores:
            pieces = list(_occurrences(text, core))
            if len(core) > 2 * _EDGE:
                pieces += _at_edges(text, core)
            found += [_widened(text, span) for span in pieces]
        merged: list[tuple[int, int]] = []
        for start, end in sorted(found):
            if merged and start <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
            else:
                merged.append((start, end))
        return merged

    def stream(self, *, longest_line: int = 65_536) -> MaskedStream:
        """Masks text that comes in pieces, wherever it is cut."""
        return MaskedStream(self, longest_line)


class MaskedStream:
    """Masks text that comes in pieces. It holds back the line that is not complete yet."""

    def __init__(self, masker: Masker, longest_line: int) -> None:
        self._masker = masker
        self._longest = max(longest_line, 2 * masker.reach)
        self._held = ""

    def feed(self, piece: str) -> str:
        """What can be shown by now."""
        self._held += piece
        cut = self._held.rfind("\n") + 1
        if len(self._held) - cut > self._longest:
            # A line that long is let go up to where no value can begin that has not ended.
            cut = len(self._held) - self._masker.reach
            for start, end in self._masker.spans(self._held):
                cut = start if start < cut < end else cut
        ready, self._held = self._held[:cut], self._held[cut:]
        return self._masker.mask(ready)

    def flush(self) -> str:
        """What is held back, at the end."""
        ready, self._held = self._held, ""
        return self._masker.mask(ready)


def mask_data(data: Any, masker: Masker) -> Any:
    """Plain data with every text in it masked."""
    if isinstance(data, str):
        return masker.mask(data)
    if isinstance(data, Mapping):
        return {name: mask_data(value, masker) for name, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [mask_data(value, masker) for value in data]
    return data


def maskable_parts(value: str) -> list[str]:
    """What of a secret must not be shown: it, its lines, and the texts in it if it is JSON, each if long enough."""
    try:
        document = json.loads(value)
    except (ValueError, RecursionError):
        document = None
    if isinstance(document, (dict, list, str)):
        parts = {value, value.strip(), *_texts(document)}
    else:
        parts = {value, *_texts(value)}
    return sorted(part for part in parts if len(part) >= SHORTEST)


def _texts(document: Any) -> Iterator[str]:
    if isinstance(document, str):
        yield document.strip()
        for line in document.splitlines():
            name, equals, value = line.strip().removeprefix("export ").partition("=")
            name = name.strip()
            if equals and name.isidentifier() and name.lower() not in _PLAIN_KEYS:
                yield value.strip("\"' ")
            if not line.startswith("-----"):  # the frame of a PEM file
                yield line.strip()
    elif isinstance(document, dict):
        for key, item in document.items():
            if key.lower() not in _PLAIN_KEYS:
                yield from _texts(item)
    elif isinstance(document, list):
        for item in document:
            yield from _texts(item)


def _plain_forms(text: str) -> set[str]:
    """As it is, and as JSON, URLs and Python's repr write it."""
    forms = {text, repr(text)[1:-1], json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]}
    forms.add(json.dumps(text)[1:-1].replace("/", "\\/"))
    for quoted in (quote(text, safe=""), quote(text), quote_plus(text)):
        forms |= {quoted, _lower_escapes(quoted)}
    return {form for form in forms if len(form) >= SHORTEST and "\n" not in form}


def _lower_escapes(quoted: str) -> str:
    first, *rest = quoted.split("%")
    return "%".join([first, *(part[:2].lower() + part[2:] for part in rest)])


def _base64_cores(text: str) -> set[str]:
    """What every base64 of something that contains the text contains, for each of the three ways it can lie."""
    data = text.encode("utf-8", "surrogatepass")
    cores = set()
    for before in range(3):
        first = (8 * before + 5) // 6  # characters that also hold bits of what comes before
        last = 8 * (before + len(data)) // 6  # whole characters
        padded = b"\0" * before + data + b"\0" * 3
        cores.add(base64.b64encode(padded).decode()[first:last])
        cores.add(base64.urlsafe_b64encode(padded).decode()[first:last])
    return cores


def _occurrences(text: str, form: str) -> Iterator[tuple[int, int]]:
    at = text.find(form)
    while at >= 0:
        yield at, at + len(form)
        at = text.find(form, at + 1)


def _widened(text: str, span: tuple[int, int]) -> tuple[int, int]:
    """With the characters on both sides that hold a few bits of it, and the padding."""
    start, end = span
    if start > 0 and text[start - 1] in _BASE64:
        start -= 1
    if end < len(text) and text[end] in _BASE64:
        end += 1
    while end < len(text) and text[end] == "=":
        end += 1
    return start, end


def _at_edges(text: str, core: str) -> Iterator[tuple[int, int]]:
    """Pieces of base64 at the ends of lines, or that are whole lines."""
    at = 0
    for line in text.split("\n"):
        body = line.rstrip("\r")
        if len(body.strip()) >= _EDGE and body.strip() in core:
            yield at, at + len(body)
        else:
            for length in _overlaps(body, core):
                yield at + len(body) - length, at + len(body)
            for length in _overlaps(core, body):
                yield at, at + length
        at += len(line) + 1


def _overlaps(left: str, right: str) -> Iterator[int]:
    """Lengths, of at least an edge, of what ends the one and begins the other."""
    head = right[:_EDGE]
    if len(head) < _EDGE:
        return
    at = left.rfind(head)
    while at >= 0 and len(left) - at < len(right):
        if right.startswith(left[at:]):
            yield len(left) - at
        at = left.rfind(head, 0, at + _EDGE - 1)


def _covered(text: str, spans: Iterable[tuple[int, int]]) -> str:
    pieces, at = [], 0
    for start, end in spans:
        pieces += [text[at:start], MASK]
        at = end
    return "".join([*pieces, text[at:]])
