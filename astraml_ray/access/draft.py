"""A job's document as it is put together layer by layer, with the origin of each field. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from astraml_ray.access.fields import Field, assign, lookup

__all__ = ["BUILT_IN", "Draft", "Origin", "Source"]

Source = Literal[
    "built-in",
    "organisation default",
    "project default",
    "request",
    "sweep",
    "project force",
    "organisation force",
    "project limit",
    "organisation limit",
]

_PATH = ("dataset", "path")
_TRAIN = ("dataset", "train")
_SPLITS = (_TRAIN, ("dataset", "validation"), ("dataset", "test"))


@dataclass(frozen=True)
class Origin:
    """Where a field's value is from, and what it would have been (nothing, or that one value)."""

    source: Source
    version: int | None = None
    was: tuple[Any, ...] = ()
    was_source: Source | None = None


BUILT_IN = Origin("built-in")


@dataclass(frozen=True)
class _Covered:
    """What a value is laid over (nothing, or that one value), with its origins."""

    value: tuple[Any, ...]
    origins: Any

    def part(self, name: str) -> _Covered:
        value = self.value[0] if self.value else None
        inside = isinstance(value, Mapping) and name in value
        return _Covered(
            (value[name],) if inside and value is not None else (),
            self.origins.get(name) if isinstance(self.origins, dict) else None,
        )

    def source(self) -> Source:
        """Of an object, the request, if any of it is from there."""
        sources = [origin.source for _, origin in _leaves(self.origins, ())]
        return "request" if "request" in sources else sources[0] if sources else "built-in"


class Draft:
    """A document and, in the same shape, the origins of its fields; each layer is laid over those before it."""

    def __init__(self) -> None:
        self.document: dict[str, Any] = {}
        self._origins: dict[str, Any] = {}

    def origin(self, parts: tuple[str, ...]) -> Origin:
        """Of a field that is no object; what no layer set is built in."""
        found = lookup(self._origins, parts)[1]
        return found if isinstance(found, Origin) else BUILT_IN

    def is_given(self, parts: tuple[str, ...]) -> bool:
        """Whether a layer set the field, or something in it."""
        return any(_leaves(lookup(self._origins, parts)[1], ()))

    def origins(self) -> Iterator[tuple[tuple[str, ...], Origin]]:
        """Every field that a layer set."""
        return _leaves(self._origins, ())

    def merge(self, asked: Mapping[str, Any], source: Source) -> None:
        """Lays a whole document over, object by object."""
        self._make_room(asked)
        _merge(self.document, self._origins, asked, Origin(source))

    def set_default(self, field: Field, value: Any, origin: Origin, asked: Mapping[str, Any]) -> None:
        """Lays one value over the defaults so far, unless the request puts null in place of an object above it."""
        for depth in range(1, len(field.parts)):
            present, above = lookup(asked, field.parts[:depth])
            if present and not isinstance(above, Mapping):
                return
        if self._has_place(field, asked):
            self._set(field.parts, value, origin)

    def set_value(self, field: Field, value: Any, origin: Origin) -> None:
        """Lays one value over whatever is there; a policy's remembers what that was."""
        if not self._has_place(field):
            return
        present, before = lookup(self.document, field.parts)
        covered = _Covered((before,) if present else (), lookup(self._origins, field.parts)[1])
        self._set(field.parts, value, origin, covered if origin.version is not None else None)

    def _has_place(self, field: Field, *others: Mapping[str, Any]) -> bool:
        """An object that a job need not have is not made for the sake of one of its fields."""
        return all(
            any(isinstance(lookup(document, above)[1], Mapping) for document in (self.document, *others))
            for above in field.optional
        )

    def _set(self, parts: tuple[str, ...], value: Any, origin: Origin, covered: _Covered | None = None) -> None:
        coming: dict[str, Any] = {}
        assign(coming, parts, value)
        self._make_room(coming)
        if assign(self.document, parts, value):
            _plant(self._origins, parts, _tree(value, origin, covered))

    def _make_room(self, coming: Mapping[str, Any]) -> None:
        # A dataset is named in one of two ways, and the later layer chooses.
        if lookup(coming, _PATH)[1] is not None:
            self._remove(*_SPLITS)
        if lookup(coming, _TRAIN)[1] is not None:
            self._remove(_PATH)

    def _remove(self, *fields: tuple[str, ...]) -> None:
        for parts in fields:
            for tree in (self.document, self._origins):
                place = lookup(tree, parts[:-1])[1]
                if isinstance(place, dict):
                    place.pop(parts[-1], None)


def _merge(place: dict[str, Any], origins: dict[str, Any], asked: Mapping[str, Any], origin: Origin) -> None:
    for name, value in asked.items():
        if isinstance(value, Mapping) and isinstance(place.get(name), dict):
            if not isinstance(origins.get(name), dict):
                origins[name] = {}
            _merge(place[name], origins[name], value, origin)
        else:
            place[name] = value
            origins[name] = _tree(value, origin)


def _tree(value: Any, origin: Origin, covered: _Covered | None = None) -> Any:
    """The origins of a value and of everything in it."""
    if isinstance(value, Mapping) and value:
        return {name: _tree(item, origin, covered.part(name) if covered else None) for name, item in value.items()}
    if covered is None:
        return origin
    was, source = covered.value, covered.source()
    if isinstance(covered.origins, Origin) and covered.origins.was:
        # What was asked for, not what another policy made of it in between.
        was, source = covered.origins.was, covered.origins.was_source or source
    return replace(origin, was=was, was_source=source) if was and was[0] != value else origin


def _plant(tree: dict[str, Any], parts: tuple[str, ...], branch: Any) -> None:
    for name in parts[:-1]:
        if not isinstance(tree.get(name), dict):
            tree[name] = {}
        tree = tree[name]
    tree[parts[-1]] = branch


def _leaves(tree: Any, above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Origin]]:
    if isinstance(tree, Origin):
        yield above, tree
    elif isinstance(tree, dict):
        for name, branch in tree.items():
            yield from _leaves(branch, (*above, name))
