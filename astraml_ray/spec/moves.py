"""What became of the fields of an old spec, while it is migrated and afterwards. Pure."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from astraml_ray.errors import Problem
from astraml_ray.spec.v1_fields import Kind, Rule

__all__ = ["Migration", "MigrationDraft", "Move", "Path", "dotted", "pointer"]

Path = tuple[str, ...]
_MOST_PROBLEMS = 200


@dataclass(frozen=True)
class Move:
    """What became of one field.

    Attributes:
        from_path: Dotted, as it was written; None for a default.
        to_path: Dotted, in v2.1; None if it was dropped.
        value: What it is now.
        kind: "moved", "default" (it was left out, and is now written out), "verify" (it may have meant something
            else), or "dropped".
        note: Why, or what to look at.
    """

    from_path: str | None
    to_path: str | None
    value: Any
    kind: Kind
    note: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        return asdict(self)

    def __str__(self) -> str:
        where = f"{self.from_path} → {self.to_path}" if self.from_path and self.to_path else None
        where = where or self.to_path or self.from_path or ""
        value = "" if self.kind == "dropped" else f" = {json.dumps(self.value, ensure_ascii=False)}"
        return f"{self.kind:<7} {where}{value}" + (f"  ({self.note})" if self.note else "")


@dataclass(frozen=True)
class Migration:
    """A v2.1 document, and what became of each field. A spec that was v2.1 already comes out as it was."""

    document: dict[str, Any]
    report: tuple[Move, ...] = ()


@dataclass
class MigrationDraft:
    """What is known so far. `sources` tells where each v2.1 field was written."""

    values: dict[Path, Any] = field(default_factory=dict)
    sources: dict[Path, Path] = field(default_factory=dict)
    moves: list[Move] = field(default_factory=list)
    later: list[tuple[Path, str, Any]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def put(self, source: Path, target: Path, value: Any, rule: Rule | None = None) -> None:
        """Sets one field, unless another spelling of it said something else."""
        for known, before in self.values.items():
            shorter = min(len(known), len(target))
            if known[:shorter] == target[:shorter] and not _agree(known, before, target, value):
                self.problem(source, f"conflicts with {dotted(self.sources[known])}: both are {dotted(target)}")
                return
        self.values[target] = value
        self.sources[target] = source
        kind: Kind = rule.kind if rule else "moved"
        if source != target or kind != "moved":
            self.moves.append(Move(dotted(source), dotted(target), value, kind, rule.note if rule else None))

    def problem(self, source: Path, message: str, hint: str | None = None) -> None:
        """Notes what is wrong; after many, nobody reads on."""
        if len(self.problems) < _MOST_PROBLEMS:
            self.problems.append(Problem(pointer(source), message, hint))


def dotted(path: Path) -> str:
    """`hyperparams.lr`."""
    return ".".join(path)


def pointer(path: Path) -> str:
    """`/hyperparams/lr`."""
    return "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in path)


def _agree(known: Path, before: Any, target: Path, value: Any) -> bool:
    """Whether two fields, the same or one inside the other, can both be so."""
    if known == target:
        return isinstance(before, bool) is isinstance(value, bool) and bool(before == value)
    return (before if len(known) < len(target) else value) is not None
