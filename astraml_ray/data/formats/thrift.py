"""Thrift's compact protocol, in which Parquet writes its footer and its page headers: parsed, changed, written."""

from __future__ import annotations

import struct
from typing import Any

__all__ = ["FALSE", "I32", "I64", "LIST", "STRUCT", "Struct", "parsed", "varint", "written"]

TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT, UUID = range(1, 14)
Struct = dict[int, tuple[int, Any]]
"""The type and the value of each field, by its number. A list is the type of its elements, and they."""
_MOST_DEPTH = 32


def parsed(data: bytes, at: int = 0) -> tuple[Struct, int]:
    """A struct, and where it ends.

    Args:
        data: Begins with it, or has it somewhere.
        at: Where.

    Raises:
        ValueError: It is none, or is cut short.
    """
    reader = _Reader(data, at)
    try:
        return reader.struct(0), reader.at
    except (IndexError, struct.error) as error:
        raise ValueError("is cut short") from error


def written(value: Struct) -> bytes:
    """The bytes of a struct; fields in ascending order."""
    out = bytearray()
    _write(out, STRUCT, value)
    return bytes(out)


class _Reader:
    def __init__(self, data: bytes, at: int) -> None:
        self.data, self.at = data, at

    def struct(self, depth: int) -> Struct:
        if depth > _MOST_DEPTH:
            raise ValueError("is nested too deeply")
        fields: Struct = {}
        number = 0
        while head := self.byte():
            number = number + (head >> 4) if head >> 4 else _signed(self.varint())
            fields[number] = head & 15, self.value(head & 15, depth, field=True)
        return fields

    def value(self, kind: int, depth: int, *, field: bool = False) -> Any:
        if kind in (TRUE, FALSE):
            return kind == TRUE if field else self.byte() == TRUE
        if kind in (I16, I32, I64):
            return _signed(self.varint())
        if kind == BINARY:
            return self.take(self.varint())
        if kind == STRUCT:
            return self.struct(depth + 1)
        if kind in (LIST, SET):
            return self.elements(depth + 1)
        if kind == MAP:
            return self.pairs(depth + 1)
        return self.take({BYTE: 1, DOUBLE: 8, UUID: 16}.get(kind, -1))

    def elements(self, depth: int) -> tuple[int, list[Any]]:
        head = self.byte()
        count = head >> 4 if head >> 4 < 15 else self.varint()
        self.check(count)
        return head & 15, [self.value(head & 15, depth) for _ in range(count)]

    def pairs(self, depth: int) -> tuple[int, int, list[tuple[Any, Any]]]:
        count = self.varint()
        self.check(count)
        kinds = self.byte() if count else 0
        key, value = kinds >> 4, kinds & 15
        return key, value, [(self.value(key, depth), self.value(value, depth)) for _ in range(count)]

    def check(self, count: int) -> None:
        if count > len(self.data) - self.at:  # each takes a byte at least
            raise ValueError("is cut short")

    def byte(self) -> int:
        self.at += 1
        return self.data[self.at - 1]

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
            if shift > 63:
                raise ValueError("has a number of over 64 bits")

    def take(self, size: int) -> bytes:
        if not 0 <= size <= len(self.data) - self.at:
            raise ValueError("is cut short, or has a value of no known type")
        self.at += size
        return self.data[self.at - size : self.at]


def _write(out: bytearray, kind: int, value: Any) -> None:
    if kind in (TRUE, FALSE):
        out.append(TRUE if value else FALSE)
    elif kind in (I16, I32, I64):
        out += varint(value << 1 if value >= 0 else (-value << 1) - 1)
    elif kind == BINARY:
        out += varint(len(value))
        out += value
    elif kind == STRUCT:
        _write_fields(out, value)
    elif kind in (LIST, SET):
        element, values = value
        out.append(min(len(values), 15) << 4 | element)
        if len(values) >= 15:
            out += varint(len(values))
        for one in values:
            _write(out, element, one)
    elif kind == MAP:
        _write_map(out, *value)
    else:
        out += value


def _write_fields(out: bytearray, fields: Struct) -> None:
    last = 0
    for number, (kind, value) in fields.items():
        kind = (TRUE if value else FALSE) if kind in (TRUE, FALSE) else kind
        if 0 < number - last < 16:
            out.append((number - last) << 4 | kind)
        else:
            out.append(kind)
            out += varint(number << 1)
        last = number
        if kind not in (TRUE, FALSE):
            _write(out, kind, value)
    out.append(0)


def _write_map(out: bytearray, key: int, value: int, items: list[tuple[Any, Any]]) -> None:
    out += varint(len(items))
    if items:
        out.append(key << 4 | value)
    for name, one in items:
        _write(out, key, name)
        _write(out, value, one)


def varint(value: int) -> bytes:
    """A number of any length, seven bits a byte, the lowest first."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _signed(value: int) -> int:
    return value >> 1 ^ -(value & 1)
