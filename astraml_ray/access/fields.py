"""The fields of a job spec by dotted path: what they are, and reading and writing them in plain documents. Pure."""

from __future__ import annotations

import difflib
import json
import types
import typing
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from astraml_ray.spec.base import Duration, SpecModel, seconds_of
from astraml_ray.spec.job import JobSpec

__all__ = ["Field", "assign", "field_of", "flatten", "known_paths", "lookup", "normalised", "size_of", "value_problem"]

Kind = Literal["number", "duration", "scalar", "object", "list", "mapping"]

_DEEPEST = 32
_SHORT_FORMS = {"dataset": "path", "model": "name"}


@dataclass(frozen=True)
class Field:
    """One field of a job spec.

    Attributes:
        path: Dotted, such as `hyperparams.lr` or `labels.team`.
        parts: The path's names; the key of a mapping is one name, dots and all.
        kind: Numbers and durations have bounds; objects have fields of their own.
        optional: The names of the objects above it that a job need not have: they are null by default.
        owner: The model that has the field, or the mapping that has the key.
        name: Its name there.
        key: The key, if it is one of a mapping.
    """

    path: str
    parts: tuple[str, ...]
    kind: Kind
    optional: tuple[tuple[str, ...], ...]
    owner: type[BaseModel]
    name: str
    key: str | None = None


@lru_cache(maxsize=4096)
def field_of(path: str) -> Field:
    """The field of a dotted path.

    Raises:
        ValueError: There is none; the message names the nearest.
    """
    names = path.split(".")
    owner: type[BaseModel] = JobSpec
    optional: list[tuple[str, ...]] = []
    for depth, name in enumerate(names):
        info = owner.model_fields.get(name)
        if info is None:
            raise ValueError(f"there is no field {path!r}{_nearest(path)}")
        kind = _kind_of(info.annotation)
        here = tuple(names[: depth + 1])
        if depth == len(names) - 1:
            return Field(path, here, kind, tuple(optional), owner, name)
        if kind == "mapping":
            tail = names[depth + 1 :]
            model = _model_of_values(info.annotation)
            if model is not None and len(tail) == 2 and tail[1] in model.model_fields:
                of_value = model.model_fields[tail[1]].annotation
                return Field(path, (*here, *tail), _kind_of(of_value), tuple(optional), model, tail[1])
            key = ".".join(tail)
            return Field(path, (*here, key), "scalar", tuple(optional), owner, name, key)
        child = _model_in(info.annotation)
        if child is None or kind == "list":
            raise ValueError(f"{'.'.join(here)!r} has no fields that a path can name")
        if info.default is None:
            optional.append(here)
        owner = child
    raise ValueError("an empty path")


@lru_cache(maxsize=1)
def known_paths() -> tuple[str, ...]:
    """Every path that is no key of a mapping, objects included."""
    return tuple(_paths(JobSpec, ""))


def value_problem(field: Field, value: Any) -> str | None:
    """Why a field cannot have a value; None if it can."""
    if field.key is not None:
        value = {field.key: value}
    try:
        text = json.dumps({field.name: value}, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return "is not plain data"
    try:
        field.owner.model_validate_json(text)
    except ValidationError as error:
        # Other fields are missing here, and rules about several fields are the job's to keep.
        details = [d for d in error.errors(include_url=False) if d["loc"] and d["loc"][0] == field.name]
        if details:
            return str(details[0]["msg"])
    return None


def size_of(field: Field, value: Any) -> float | None:
    """A number or a duration, as a number to compare; None if the value is neither."""
    if isinstance(value, bool) or value is None:
        return None
    if field.kind == "duration" and isinstance(value, str):
        try:
            return seconds_of(value)
        except ValueError:
            return None
    return float(value) if field.kind == "number" and isinstance(value, (int, float)) else None


def normalised(document: Mapping[str, Any]) -> dict[str, Any]:
    """A deep copy in which a dataset or model given as a string is an object.

    Raises:
        ValueError: It is no plain data, or deeper than any spec.
    """
    if _is_deep(document):
        raise ValueError(f"it has more than {_DEEPEST} levels")
    try:
        copy: dict[str, Any] = json.loads(json.dumps(document, default=str))
    except TypeError as error:
        raise ValueError(str(error)) from error
    for name, key in _SHORT_FORMS.items():
        if isinstance(copy.get(name), str):
            copy[name] = {key: copy[name]}
    return copy


def lookup(document: Any, parts: tuple[str, ...]) -> tuple[bool, Any]:
    """Whether a document has a field, and its value."""
    place = document
    for name in parts:
        if not isinstance(place, Mapping) or name not in place:
            return False, None
        place = place[name]
    return True, place


def assign(document: MutableMapping[str, Any], parts: tuple[str, ...], value: Any) -> bool:
    """Writes a field, making the objects above it; False if what is there is none, which the spec will refuse."""
    place: Any = document
    for name in parts[:-1]:
        if place.get(name) is None:
            place[name] = {}
        place = place[name]
        if not isinstance(place, MutableMapping):
            return False
    place[parts[-1]] = value
    return True


def flatten(document: Mapping[str, Any], above: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Everything in a document that is no object, by the names that lead to it; lists are whole."""
    leaves: dict[tuple[str, ...], Any] = {}
    for name, value in document.items():
        if isinstance(value, Mapping) and value:
            leaves.update(flatten(value, (*above, name)))
        else:
            leaves[(*above, name)] = value
    return leaves


def _is_deep(document: Any) -> bool:
    level: list[Any] = [document]
    for _ in range(_DEEPEST):
        level = [
            item
            for value in level
            if isinstance(value, (Mapping, list, tuple))
            for item in (value.values() if isinstance(value, Mapping) else value)
        ]
        if not level:
            return False
    return True


def _kind_of(annotation: Any) -> Kind:
    parts = list(_parts_of(annotation))
    if any(typing.get_origin(part) is dict or part is dict for part in parts):
        return "mapping"
    if any(typing.get_origin(part) in (tuple, list) or part in (tuple, list) for part in parts):
        return "list"
    if _model_in(annotation) is not None:
        return "object"
    if any(part == Duration for part in parts):
        return "duration"
    return "number" if int in parts or float in parts else "scalar"


def _parts_of(annotation: Any) -> Iterator[Any]:
    """The branches of a union, through Annotated."""
    yield annotation
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        for part in typing.get_args(annotation):
            yield from _parts_of(part)
    elif origin is typing.Annotated:
        yield from _parts_of(typing.get_args(annotation)[0])


def _model_in(annotation: Any) -> type[BaseModel] | None:
    for part in _parts_of(annotation):
        if isinstance(part, type) and issubclass(part, SpecModel):
            return part
    return None


def _model_of_values(annotation: Any) -> type[BaseModel] | None:
    """The object that a value of a mapping may be."""
    for part in _parts_of(annotation):
        if typing.get_origin(part) is dict:
            return _model_in(typing.get_args(part)[1])
    return None


def _paths(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, info in model.model_fields.items():
        yield f"{prefix}{name}"
        child = _model_in(info.annotation)
        if child is not None and _kind_of(info.annotation) == "object":
            yield from _paths(child, f"{prefix}{name}.")


def _nearest(path: str) -> str:
    known = known_paths()
    close = difflib.get_close_matches(path, known, n=1, cutoff=0.6)
    if not close:
        last = path.rpartition(".")[2]
        names = {name.rpartition(".")[2]: name for name in reversed(known)}
        close = [names[match] for match in difflib.get_close_matches(last, names, n=1, cutoff=0.75)]
    return f"; did you mean {close[0]!r}?" if close else ""
