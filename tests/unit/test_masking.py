"""Log text: no value gets through, in no spelling; everything else does."""

from __future__ import annotations

import base64
import json
import textwrap
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from astraml_ray.data.masking import MASK, Masker, maskable_parts

VALUE = "p@ss w/rd+ü\"'=%:1"

_values = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0*"), min_size=8, max_size=40).filter(
    lambda value: len(value.strip()) >= 8
)


def forms(value: str) -> list[str]:
    return [
        value,
        quote(value),
        quote(value, safe=""),
        quote_plus(value),
        json.dumps(value)[1:-1],
        json.dumps(value, ensure_ascii=False)[1:-1],
        repr(value)[1:-1],
    ]


@given(_values, st.text(st.characters(codec="utf-8"), max_size=20), st.text(st.characters(codec="utf-8"), max_size=20))
def test_no_spelling_gets_through(value: str, before: str, after: str) -> None:
    masker = Masker({"s": value})
    for form in forms(value):
        masked = masker.mask(f"{before}{form}{after}")
        assert form not in masked
        assert MASK in masked


@given(_values, st.binary(max_size=7), st.binary(max_size=7), st.booleans())
def test_no_base64_gets_through_however_it_lies(value: str, before: bytes, after: bytes, urlsafe: bool) -> None:
    encode = base64.urlsafe_b64encode if urlsafe else base64.b64encode
    line = encode(before + value.encode() + after).decode()
    masked = Masker({"s": value}).mask(f"header: {line}.")
    assert masked.startswith("header: ")
    assert masked.endswith(".")
    # What is left holds nothing of the value: a few bits on both sides at most.
    left, _, right = masked[len("header: ") : -1].partition(MASK)
    assert MASK in masked
    assert len(left) <= len(before) * 8 // 6
    assert len(right) <= len(after) * 8 // 6 + 3


@given(st.text(st.characters(codec="utf-8", exclude_characters="#"), max_size=200))
def test_text_without_the_value_is_untouched(text: str) -> None:
    assert Masker({"s": "#" * 12}).mask(text) == text


def test_short_values_are_left_alone_and_warned_about() -> None:
    masker = Masker({"short": "LIVE", "long": "long enough"})
    assert masker.mask("DELIVERY of what is long enough, LIVE") == f"DELIVERY of what is {MASK}, LIVE"
    (warning,) = masker.warnings
    assert "secret short has 4 characters" in warning
    assert "LIVE" not in warning
    assert Masker({}).mask("anything") == "anything"


def test_overlapping_and_nested_values() -> None:
    masker = Masker({"a": "abcdefgh", "b": "efghijkl", "c": "xxabcdefghxx"})
    assert masker.mask("1 abcdefghijkl 2 xxabcdefghxx 3") == f"1 {MASK} 2 {MASK} 3"
    assert masker.mask("abcdefghabcdefgh") == MASK


def test_url_escapes_in_lower_case() -> None:
    value = "päss/wörd"
    assert Masker({"s": value}).mask(quote(value, safe="").lower()) == MASK


def test_lines_of_a_key_are_masked_one_by_one() -> None:
    body = [base64.b64encode(bytes([i]) * 48).decode() for i in range(3)]
    key = "\n".join(["-----BEGIN PRIVATE KEY-----", *body, "-----END PRIVATE KEY-----", ""])
    masker = Masker({"key": key})
    for line in body:
        assert line not in masker.mask(f"  {line}")
    assert masker.mask(key).splitlines() == [
        "-----BEGIN PRIVATE KEY-----",
        MASK,
        MASK,
        MASK,
        "-----END PRIVATE KEY-----",
    ]
    assert MASK in masker.mask(json.dumps({"key": key}))
    assert body[1] not in masker.mask(json.dumps({"key": key}))


def test_texts_in_a_json_secret_are_masked_and_its_region_is_not() -> None:
    value = json.dumps(
        {"aws_access_key_id": "AKIAxxxxxxxx", "aws_secret_access_key": "sssss/tttt", "region": "eu-west-1"}
    )
    masker = Masker({"s3": value})
    assert masker.mask("AKIAxxxxxxxx sssss/tttt sssss%2Ftttt eu-west-1") == f"{MASK} {MASK} {MASK} eu-west-1"
    assert masker.mask(value) == MASK


def test_values_in_an_environment_file_are_masked() -> None:
    masker = Masker({"env": "AWS_KEY=first-secret\nREGION=eu-west-1\nOTHER='second one'\n"})
    assert masker.mask("first-secret, eu-west-1, second one") == f"{MASK}, eu-west-1, {MASK}"


def test_base64_that_is_cut_into_lines() -> None:
    value = "".join(chr(33 + (i * 7) % 90) for i in range(300))
    encoded = base64.b64encode(f"user:{value}".encode()).decode()
    masker = Masker({"s": value})
    for width in (64, 76):
        masked = masker.mask("\n".join(textwrap.wrap(encoded, width)))
        for line in masked.splitlines():
            assert line.replace(MASK, "") in ("", encoded[:6])


@pytest.mark.parametrize("size", [8, 9, 10, 11, 60])
def test_a_mask_tells_nothing_of_the_length(size: int) -> None:
    assert Masker({"s": "x" * size}).mask(f"a {'x' * size} b") == f"a {MASK} b"


@given(_values, st.lists(st.sampled_from(["VALUE", "text ", "\n", "AB", "VAL", "-"]), max_size=30), st.data())
def test_a_stream_masks_the_same_however_it_is_cut(value: str, pieces: list[str], data: st.DataObject) -> None:
    text = "".join(value if piece == "VALUE" else value[:3] if piece == "VAL" else piece for piece in pieces)
    masker = Masker({"s": value})
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    stream = masker.stream()
    shown = [stream.feed(text[a:b]) for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert "".join([*shown, stream.flush()]) == masker.mask(text)


@given(_values, st.integers(0, 60), st.integers(7, 50))
def test_a_line_without_end_is_let_go_in_pieces_without_the_value(value: str, at: int, width: int) -> None:
    assume(value not in "." * 300)
    masker = Masker({"s": value})
    stream = masker.stream(longest_line=1)
    text = "." * at + value + "." * 1500
    shown = "".join(stream.feed(text[i : i + width]) for i in range(0, len(text), width))
    assert len(shown) > 500  # it is not held back for ever
    whole = shown + stream.flush()
    assert value not in whole
    assert whole.replace(MASK, "").strip(".") == ""


def test_parts_of_a_value() -> None:
    assert maskable_parts("short") == []
    assert maskable_parts("long enough") == ["long enough"]
    assert maskable_parts('"quoted text"') == ['"quoted text"', "quoted text"]
    assert maskable_parts("[" * 100_000) == ["[" * 100_000]
