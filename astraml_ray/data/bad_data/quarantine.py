"""The rows that a run leaves out, as JSON Lines to look at; read again from the dataset, in bounded memory."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

from astraml_ray.data.bad_data.rows import UNREADABLE, BadRow
from astraml_ray.data.formats import Fragment
from astraml_ray.data.images.faults import decode_fault
from astraml_ray.data.manifest import LeftOut, Manifest, Split
from astraml_ray.data.rows import Checked, read_checked

__all__ = ["MOST_BYTES", "quarantined"]

MOST_BYTES = 16 << 20
_MOST_VALUE = 2048


def quarantined(manifest: Manifest, *, most_bytes: int = MOST_BYTES) -> bytes:
    """A line per bad row, or per part that cannot be read: where it is, what is wrong, and what it holds, clipped.

    Returns:
        Objects with `split`, `object`, `row_group` or `byte`, `row` (in there, from 0), `reason`, `message` and
        `values` (by column) or `line`; `rows` instead of `row` where a part cannot be read. Where there are more than
        fit, the last line has `more` alone: how many rows it leaves out.
    """
    lines: list[bytes] = []
    held = told = 0
    for rows, record in _records(manifest):
        line = json.dumps(record, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        if held + len(line) > most_bytes:
            more = sum(left.count for left in manifest.left_out.values()) - told
            lines.append(json.dumps({"more": more}).encode() + b"\n")
            break
        lines.append(line)
        held, told = held + len(line), told + rows
    return b"".join(lines)


def _records(manifest: Manifest) -> Iterator[tuple[int, dict[str, Any]]]:
    """Records, and how many rows each stands for."""
    for name, left in manifest.left_out.items():
        yield from _unreadable(manifest, name, left)
        yield from _bad_rows(manifest, name, manifest.splits[name])


def _unreadable(manifest: Manifest, name: str, left: LeftOut) -> Iterator[tuple[int, dict[str, Any]]]:
    for fragment in left.unreadable:
        where = _place(manifest, name, fragment)
        yield fragment.rows, {**where, "rows": fragment.rows, "reason": UNREADABLE, "message": "cannot be read"}


def _bad_rows(manifest: Manifest, name: str, split: Split) -> Iterator[tuple[int, dict[str, Any]]]:
    for fragment, numbers in zip(split.fragments, split.left_out or ((),) * len(split.fragments), strict=True):
        if not numbers:
            continue
        checked = read_checked(manifest, fragment, decode_fault)
        places = {int(number): place for place, number in enumerate(checked.raw.origins)}
        for one in checked.bad:
            content = _content(checked, one, places)
            where = _place(manifest, name, fragment, one.source)
            message = manifest.access.hidden(one.message)
            first = fragment.start if "row_group" in where else 0
            yield 1, {**where, "row": first + one.row - one.before, "reason": one.reason, "message": message, **content}


def _place(manifest: Manifest, name: str, fragment: Fragment, source: int = 0) -> dict[str, Any]:
    parquet = manifest.formats[fragment.source] == "parquet"
    part = {"row_group": fragment.group} if parquet else {"byte": fragment.start}
    return {"split": name, "object": manifest.objects[fragment.source + source].uri, **part}


def _content(checked: Checked, one: BadRow, places: dict[int, int]) -> dict[str, Any]:
    """What a row holds: its values, or its line where it does not parse."""
    if one.row not in places:
        return {"line": _plain(checked.raw.written.get(one.row, b""))}
    row = checked.raw.table.slice(places[one.row], 1)
    return {"values": {column: _value(row[column][0]) for column in row.column_names}}


def _value(value: Any) -> Any:
    try:
        return _plain(value.as_py())
    except UnicodeDecodeError:
        return _plain(value.as_buffer().to_pybytes())


def _plain(value: Any) -> Any:
    """JSON data, clipped; bytes that are no text as base64."""
    if isinstance(value, bytes):
        try:
            value = value[:_MOST_VALUE].decode()
        except UnicodeDecodeError:
            return {"base64": base64.b64encode(value[:_MOST_VALUE]).decode(), "bytes": len(value)}
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    if value is None or isinstance(value, (bool, int)):
        return value
    text = value if isinstance(value, str) else str(value)
    return text if len(text) <= _MOST_VALUE else f"{text[:_MOST_VALUE]}…"
