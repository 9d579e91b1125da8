"""Patterns with `*`."""

from __future__ import annotations

import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astraml_ray.access.globs import matches_allowed, matches_denied


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("bert", "bert"),
        ("our-org/x", "our-org/*"),
        ("s3://team/a/b", "s3://team/*"),
        ("file:///data/x", "/data/*"),
        ("/data/x", "file:///data/*"),
        ("anything", "*"),
        ("abcabd", "*abd"),
        ("a?[b]", "a?[*"),
    ],
)
def test_matches(text: str, pattern: str) -> None:
    assert matches_allowed(text, pattern)
    assert matches_denied(text, pattern)


@pytest.mark.parametrize(
    ("text", "pattern"),
    [("our-orgs/x", "our-org/*"), ("bert", "ber"), ("bert", "ber?"), ("s3://team2/x", "s3://team/*"), ("b", "[b]")],
)
def test_does_not_match(text: str, pattern: str) -> None:
    assert not matches_allowed(text, pattern)
    assert not matches_denied(text, pattern)


@pytest.mark.parametrize("text", ["s3://team/../other/x", "/data/team/../../etc/passwd", "file:///data/../etc/passwd"])
def test_a_path_that_climbs_is_not_allowed_by_where_it_starts(text: str) -> None:
    assert not matches_allowed(text, "s3://team/*")
    assert not matches_allowed(text, "/data/*")
    assert not matches_allowed(text, "*")
    assert matches_allowed(text, text)


@pytest.mark.parametrize("text", ["/etc/passwd", "file:///etc/x", "/data/../etc/x", "//etc/x", "/./etc/x"])
def test_a_path_cannot_hide_from_what_is_denied(text: str) -> None:
    assert matches_denied(text, "/etc/*")


@given(st.text("ab*/", max_size=12), st.text("ab*/", max_size=8))
def test_the_same_as_the_shell_where_nothing_climbs(text: str, pattern: str) -> None:
    assert matches_allowed(text, pattern) == (text == pattern or fnmatch.fnmatchcase(text, pattern))


def test_patterns_made_to_be_slow_are_not() -> None:
    assert not matches_allowed("a" * 2000, "*a" * 50 + "b")
    assert not matches_denied("a" * 2000, "*a" * 50 + "b")
