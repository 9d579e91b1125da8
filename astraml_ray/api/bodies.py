"""From a request's bytes to plain data, or to an error that says what is wrong with them. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from email.message import Message
from typing import Any

import yaml

from astraml_ray.api.errors import BodyTooLargeError, MalformedBodyError, MediaTypeError
from astraml_ray.errors import SpecError
from astraml_ray.spec.loading import parse_document

__all__ = ["MAX_DEPTH", "MAX_VALUES", "parse_body"]

MAX_DEPTH = 64
MAX_VALUES = 1_000
"""Values of a body, at all depths. Every wrong one is explained, which takes a while."""
_MAX_YAML = 100_000
_INTEGERS = range(-(2**63), 2**63)
_JSON = ("application/json",)
_YAML = ("application/yaml", "application/x-yaml", "text/yaml")
_Loader: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def parse_body(body: bytes, content_type: str | None, content_encoding: str | None = None) -> Any:
    """Reads JSON or YAML strictly: plain data, every key once, nothing that cannot be stored.

    Args:
        body: Not empty.
        content_type: The header.
        content_encoding: The header.

    Raises:
        MediaTypeError: The type, charset or encoding is not supported.
        MalformedBodyError: The body does not parse, or holds what no spec can.
        BodyTooLargeError: It is YAML of a length that would take long.
    """
    if content_encoding not in (None, "", "identity"):
        raise MediaTypeError(
            f"bodies in the encoding {content_encoding[:40]!r} are not supported",
            param="Content-Encoding",
            hint="send the body as it is",
        )
    parse = _parser_of(content_type)
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise MalformedBodyError(f"is not UTF-8: byte {error.start} is {body[error.start]:#04x}") from None
    data = parse(text)
    _check(data)
    return data


def _parser_of(content_type: str | None) -> Callable[[str], Any]:
    header = Message()
    header["content-type"] = content_type or "none/none"
    kind = header.get_content_type()
    charset = header.get_param("charset", "utf-8")
    parser = _parse_json if kind in _JSON else _parse_yaml if kind in _YAML else None
    if parser is None:
        found = f"{kind} is not supported" if content_type else "the header Content-Type is missing"
        raise MediaTypeError(
            found, param="Content-Type", hint="send Content-Type: application/json, or application/yaml"
        )
    if str(charset).lower() not in ("utf-8", "utf8", "us-ascii"):
        raise MediaTypeError(
            f"the charset {str(charset)[:40]!r} is not supported", param="Content-Type", hint="use UTF-8"
        )
    return parser


def _parse_json(text: str) -> Any:
    try:
        return json.loads(
            text,
            object_pairs_hook=_no_key_twice,
            parse_constant=_no_constant,
            parse_float=_finite,
            parse_int=_integer,
        )
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise MalformedBodyError(f"is not JSON: {error.msg[0].lower()}{error.msg[1:]}, {where}") from None
    except RecursionError:
        raise _too_deep() from None


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for index, name in enumerate(names) if name in names[:index])
        raise MalformedBodyError(f"the key {_shown(twice)} is there twice")
    return members


def _no_constant(name: str) -> Any:
    raise MalformedBodyError(f"{name} is no JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise MalformedBodyError(f"the number {text[:40]} is too large")
    return value


def _integer(text: str) -> int:
    if len(text) > 20 or int(text) not in _INTEGERS:
        raise MalformedBodyError(f"the number {text[:40]} is longer than 64 bits")
    return int(text)


def _parse_yaml(text: str) -> Any:
    if len(text) > _MAX_YAML:
        raise BodyTooLargeError(f"YAML is read up to {_MAX_YAML} characters", hint="send JSON")
    try:
        depth = 0
        for count, event in enumerate(yaml.parse(text, Loader=_Loader)):
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                raise MalformedBodyError("anchors and aliases are not supported", hint="write the value out")
            if tag := getattr(event, "tag", None):
                raise MalformedBodyError(f"tags such as {_shown(tag)} are not supported", hint="leave them out")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise _too_deep()
            if count > 3 * MAX_VALUES:
                raise _too_many()
        return parse_document(text, source="body")
    except SpecError as error:
        raise MalformedBodyError(error.problems[0].message[:500]) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # the second of numbers such as 089
        raise MalformedBodyError(f"is not YAML: {str(error)[:300]}") from None


def _check(data: Any) -> None:
    """Depth, number and kind of all values."""
    pending: list[tuple[str, Any, int]] = [("", data, 1)]
    count = 0
    while pending:
        pointer, value, depth = pending.pop()
        count += 1
        if depth > MAX_DEPTH:
            raise _too_deep()
        if isinstance(value, dict):
            for name in value:
                _check_scalar(pointer, name, of_key=True)
            children = [(f"{pointer}/{_escaped(name)}", child, depth + 1) for name, child in value.items()]
        elif isinstance(value, list):
            children = [(f"{pointer}/{index}", child, depth + 1) for index, child in enumerate(value)]
        else:
            _check_scalar(pointer, value)
            children = []
        if count + len(pending) + len(children) > MAX_VALUES:
            raise _too_many()
        pending += children


def _check_scalar(pointer: str, value: Any, *, of_key: bool = False) -> None:
    if isinstance(value, str):
        if "\0" in value:
            raise MalformedBodyError("text may not hold NUL characters", param=pointer)
        try:
            value.encode()
        except UnicodeEncodeError:
            raise MalformedBodyError("text may not hold half of a surrogate pair", param=pointer) from None
    elif of_key:
        raise MalformedBodyError(f"the key {_shown(value)} is not text", param=pointer)
    elif isinstance(value, bool) or value is None:
        return
    elif isinstance(value, int):
        if value not in _INTEGERS:
            raise MalformedBodyError("the number is longer than 64 bits", param=pointer)
    elif not isinstance(value, float):
        raise MalformedBodyError(f"{type(value).__name__} is no plain data", param=pointer)
    elif not math.isfinite(value):
        raise MalformedBodyError("the number is not finite", param=pointer)


def _escaped(name: str) -> str:
    return name[:200].replace("~", "~0").replace("/", "~1")


def _shown(value: Any) -> str:
    return ascii(value)[:80]


def _too_deep() -> MalformedBodyError:
    return MalformedBodyError(f"is nested more than {MAX_DEPTH} levels deep")


def _too_many() -> MalformedBodyError:
    return MalformedBodyError(f"holds more than {MAX_VALUES} values; a spec is small")
