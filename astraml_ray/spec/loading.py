"""From files, `--set` and flags to a JobSpec, with all errors at once."""

from __future__ import annotations

import difflib
import json
import re
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from astraml_ray.errors import Problem, SpecError
from astraml_ray.spec.augmentation import misfits
from astraml_ray.spec.documents import changed
from astraml_ray.spec.job import JobSpec
from astraml_ray.spec.sweep_checks import sweep_problems

__all__ = ["build_spec", "dump_spec", "merge_document", "parse_document", "parse_spec", "read_document"]

MAX_SPEC_BYTES = 1_000_000
_MAX_PROBLEMS = 100


class _Loader(yaml.SafeLoader):
    """YAML 1.2's scalars (3e-5 is a number, `on` and dates are text), and no duplicate keys."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in [
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("int", r"^[-+]?[0-9]+$", "-+0123456789"),
    (
        "float",
        r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$|^[-+]?\.(?:inf|Inf|INF)$"
        r"|^\.(?:nan|NaN|NAN)$",
        "-+.0123456789",
    ),
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("merge", r"^(?:<<)$", "<"),
]:
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))


def _mapping(loader: _Loader, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
    seen: set[str] = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode) and key.value != "<<":
            if key.value in seen:
                message = f"the key {key.value!r} is there twice"
                raise yaml.constructor.ConstructorError(None, None, message, node.start_mark)
            seen.add(key.value)
    return dict(yaml.SafeLoader.construct_mapping(loader, node, deep=True))


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def _load_yaml(text: str) -> Any:
    """Reads YAML or JSON.

    Raises:
        yaml.YAMLError: It does not parse.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # a subclass of SafeLoader
    except (ValueError, IndexError, RecursionError) as error:
        # What PyYAML's constructors let through: `089` is no octal number, `!!int ""` no number at all.
        raise yaml.YAMLError(f"a value cannot be read: {error}") from error


def parse_document(text: str, *, source: str) -> dict[str, Any]:
    """Parses YAML or JSON into a mapping.

    Raises:
        SpecError: It does not parse, or is no mapping.
    """
    try:
        document = _load_yaml(text)
    except yaml.YAMLError as error:
        raise SpecError([Problem("", f"not YAML or JSON: {error}")], source=source) from error
    if not isinstance(document, dict):
        found = "nothing" if document is None else type(document).__name__
        raise SpecError([Problem("", f"a spec is a mapping of fields; found {found}")], source=source)
    return document


def read_document(path: Path) -> dict[str, Any]:
    """Reads a YAML or JSON file.

    Raises:
        SpecError: It cannot be read or parsed, or is over 1 MB.
    """
    try:
        data = path.read_bytes()
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise SpecError([Problem("", f"cannot be read: {error.strerror}")], source=str(path)) from error
    except UnicodeDecodeError as error:
        raise SpecError([Problem("", "is not UTF-8 text")], source=str(path)) from error
    if len(data) > MAX_SPEC_BYTES:
        raise SpecError([Problem("", f"is over {MAX_SPEC_BYTES} bytes; a spec is small")], source=str(path))
    return parse_document(text, source=str(path))


def build_spec(
    document: Mapping[str, Any],
    *,
    settings: Iterable[str] = (),
    flags: Mapping[str, Any] | None = None,
    source: str = "spec",
) -> JobSpec:
    """Lays `--set path=value` and then flags over a document, and validates the whole.

    Args:
        document: The file's fields.
        settings: `hyperparams.lr=1e-4` and the like; values are YAML.
        flags: Dotted path -> value.
        source: For errors.
    """
    return parse_spec(merge_document(document, settings=settings, flags=flags), source=source)


def merge_document(
    document: Mapping[str, Any], *, settings: Iterable[str] = (), flags: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """As `build_spec`, not validated.

    Raises:
        SpecError: A setting is malformed.
    """
    merged: dict[str, Any] = json.loads(json.dumps(document, default=str))
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals or not path:
            raise SpecError([Problem("", f"{setting!r} is not of the form field.path=value")], source="--set")
        try:
            value = _load_yaml(text)
        except yaml.YAMLError as error:
            raise SpecError([Problem(_pointer(path.split(".")), f"{text!r} does not parse")], source="--set") from error
        merged = changed(merged, {path: value})
    return changed(merged, flags or {})


def parse_spec(data: Mapping[str, Any], *, source: str = "spec") -> JobSpec:
    """Validates plain data.

    Raises:
        SpecError: With every problem found, each under its JSON pointer.
    """
    try:
        spec = JobSpec.model_validate_json(json.dumps(data, default=str))
    except ValidationError as error:
        details = error.errors(include_url=False)
        problems = [_problem(detail, data) for detail in details[:_MAX_PROBLEMS]]
        unique = list(dict.fromkeys(problems))
        if len(details) > _MAX_PROBLEMS:
            unique.append(Problem("", f"and {len(details) - _MAX_PROBLEMS} more"))
        raise SpecError(unique, source=source) from None
    except (TypeError, ValueError, RecursionError) as error:
        raise SpecError([Problem("", f"is not plain data: {error}")], source=source) from error
    problems = misfits(spec.augmentation, spec.task) if spec.task != "auto" else []
    if spec.sweep is not None:
        known = [".".join(path) for path in field_paths()]
        problems += sweep_problems(spec.sweep, data, parse_spec, known)
    if problems:
        raise SpecError(problems[:_MAX_PROBLEMS], source=source)
    return spec


def dump_spec(spec: JobSpec) -> str:
    """The spec as YAML, every default written out."""
    return yaml.safe_dump(spec.canonical(), sort_keys=False, allow_unicode=True)


def _problem(detail: ErrorDetails, data: Any) -> Problem:
    path = _walk(detail["loc"], data)
    pointer = _pointer(path)
    match detail["type"]:
        case "extra_forbidden":
            return Problem(pointer, "unknown field", _suggest(path))
        case "missing":
            return Problem(pointer, "is required")
        case "union_tag_invalid":
            expected = detail["ctx"]["expected_tags"]
            return Problem(pointer, f"unknown type {detail['ctx']['tag']!r}; known: {expected}")
        case "union_tag_not_found":
            return Problem(pointer, "needs a `type`")
        case "model_type" | "model_attributes_type":
            return Problem(pointer, f"must be a mapping of fields, not {_kind(detail['input'])}")
        case "value_error":
            return Problem(pointer, str(detail["ctx"]["error"]))
    message = detail["msg"][0].lower() + detail["msg"][1:]
    return Problem(pointer, f"{message}; got {_short(detail['input'])}")


def _walk(loc: tuple[int | str, ...], data: Any) -> list[str]:
    """pydantic's location without the branches of unions and its mark of a key, which are no part of the document."""
    path: list[str] = []
    place: Any = data
    for depth, part in enumerate(loc):
        last = depth == len(loc) - 1
        if isinstance(place, Mapping) and (part in place or (last and part != "[key]")):
            place = place.get(part)
        elif isinstance(place, list) and isinstance(part, int) and part < len(place):
            place = place[part]
        else:
            continue
        path.append(str(part))
    return path


def _pointer(path: Iterable[str]) -> str:
    return "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in path)


def _kind(value: Any) -> str:
    return {dict: "a mapping", list: "a list", str: "text", type(None): "null"}.get(type(value), _short(value))


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 80 else text[:77] + "..."


def field_paths(model: type[BaseModel] = JobSpec, prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every field of a spec, at every depth."""
    paths: list[tuple[str, ...]] = []
    for name, field in model.model_fields.items():
        path = (*prefix, name)
        paths.append(path)
        for child in _models_in(field.annotation):
            paths += field_paths(child, path)
    return list(dict.fromkeys(paths))


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, tuple, typing.Annotated):
        return [model for part in typing.get_args(annotation) for model in _models_in(part)]
    return []


def _suggest(path: list[str]) -> str | None:
    """The field that an unknown one was probably meant to be."""
    *parents, name = path
    place = tuple(part for part in parents if not part.isdigit())
    known = field_paths()
    here = [p[-1] for p in known if p[:-1] == place]
    close = difflib.get_close_matches(name, here, n=1, cutoff=0.6)
    if close:
        return f"did you mean {'.'.join((*place, close[0]))}?"
    elsewhere = [".".join(p) for p in known if p[-1] == name]
    if not elsewhere:
        names = {p[-1]: ".".join(p) for p in reversed(known)}
        elsewhere = [names[match] for match in difflib.get_close_matches(name, names, n=1, cutoff=0.75)]
    if elsewhere:
        return f"did you mean {elsewhere[0]}?"
    return f"known here: {', '.join(here)}" if here else None
