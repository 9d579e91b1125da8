"""Where a job's fields are from, and what became of an older spec, as text for people. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from astraml_ray.cli.quantities import printable
from astraml_ray.spec.moves import Move

__all__ = ["moves_lines", "provenance_lines"]

Json = Mapping[str, Any]

_LONGEST = 200
_MOVE = ("from_path", "to_path", "value", "kind", "note")


def provenance_lines(found: Json, *, every_field: bool) -> list[str]:
    """What policies and migration have a hand in, or where each field is from."""
    sent = f", as {found['api_version']}" if found["api_version"] else ""
    lines = [f"{found['job_id']} of {found['submitted_by'] or 'nobody that is known'}{sent}"]
    lines += ["policies", *(f"  {printable(text)}" for text in found["explained"] or ["have no hand in it"])]
    if found["migration"]:
        moves = [Move(**{name: move[name] for name in _MOVE}) for move in found["migration"]]
        lines += ["migration", *(f"  {line}" for line in moves_lines(moves))]
    if every_field:
        return [*lines, "fields", *(f"  {line}" for line in _field_lines(found["fields"]))]
    return lines


def moves_lines(moves: Sequence[Move]) -> list[str]:
    """Field by field, what is to be verified last, where it is seen."""
    ordered = sorted(moves, key=lambda move: move.kind == "verify")
    return [_cut(str(move)) for move in ordered]


def _field_lines(fields: Mapping[str, Json]) -> Iterable[str]:
    width = max((len(path) for path in fields), default=0)
    for path, entry in fields.items():
        version = f" v{entry['policy_version']}" if entry["policy_version"] is not None else ""
        was = f", was {json.dumps(entry['was'], ensure_ascii=False)}" if "was" in entry else ""
        value = json.dumps(entry["value"], ensure_ascii=False)
        yield _cut(f"{path.ljust(width)}  {value}  ({entry['source'] or 'not known'}{version}{was})")


def _cut(text: str) -> str:
    clean = printable(text).replace("\n", " ")
    return clean if len(clean) <= _LONGEST else clean[: _LONGEST - 1] + "…"
