"""Server-sent events, cut everywhere."""

from __future__ import annotations

import pytest

from astraml_ray.client.sse import Message, SseParser

STREAM = (
    "\ufeffretry: 1000\n\n"
    ": heartbeat\n\n"
    'id: 1\ndata: {"text": "först → 日本"}\n\n'
    "event: gap\r\nid: 2\r\ndata: {}\r\n\r\n"
    "data: a\rdata: b\rid:3\r\r"
    "id: 4\nevent: nothing\n\n"  # without data there is no message, and the next one inherits nothing
    "data\n\n"
    "unknown: x\nevent:end\ndata:  two spaces\n\n"
    'id: 9\ndata: {"unfinished"'
).encode()
EXPECTED = [
    Message("message", '{"text": "först → 日本"}', "1"),
    Message("gap", "{}", "2"),
    Message("message", "a\nb", "3"),
    Message("message", "", None),
    Message("end", " two spaces", None),
]


@pytest.mark.parametrize("position", range(len(STREAM) + 1))
def test_cut_in_two_anywhere(position: int) -> None:
    parser = SseParser()
    assert parser.feed(STREAM[:position]) + parser.feed(STREAM[position:]) == EXPECTED


@pytest.mark.parametrize("width", [1, 2, 3, 7])
def test_cut_into_small_pieces(width: int) -> None:
    parser = SseParser()
    found = [m for at in range(0, len(STREAM), width) for m in parser.feed(STREAM[at : at + width])]
    assert found == EXPECTED


def test_empty_chunks_change_nothing() -> None:
    parser = SseParser()
    found = []
    for byte in STREAM:
        found += parser.feed(b"") + parser.feed(bytes([byte])) + parser.feed(b"")
    assert found == EXPECTED


def test_an_id_with_a_null_is_none() -> None:
    assert SseParser().feed(b"id: 1\x002\ndata: x\n\n") == [Message("message", "x", None)]


def test_a_byte_order_mark_belongs_to_no_field() -> None:
    assert SseParser().feed("\ufeffid: 1\ndata: x\n\n".encode()) == [Message("message", "x", "1")]
