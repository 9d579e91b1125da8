"""Patterns with `*`, for the names and addresses that a policy allows or denies. Pure.

No regular expressions: a pattern takes time in proportion to its length times the text's, whoever wrote it.
"""

from __future__ import annotations

import posixpath

__all__ = ["matches_allowed", "matches_denied"]


def matches_allowed(text: str, pattern: str) -> bool:
    """Whether a pattern lets a text through. A text that climbs (`..`) matches nothing but itself."""
    if text == pattern:
        return True
    return ".." not in text.split("/") and _matches(_plain(text), _plain(pattern))


def matches_denied(text: str, pattern: str) -> bool:
    """Whether a pattern keeps a text out, however the text spells its path."""
    return any(_matches(form, _plain(pattern)) for form in {_plain(text), _settled(_plain(text))})


def _matches(text: str, pattern: str) -> bool:
    """`*` is any run of characters, also none and also slashes; everything else is itself."""
    at, star, mark, i = 0, -1, 0, 0
    while i < len(text):
        if at < len(pattern) and pattern[at] == "*":
            star, mark = at, i
            at += 1
        elif at < len(pattern) and pattern[at] == text[i]:
            at += 1
            i += 1
        elif star >= 0:
            mark += 1
            at, i = star + 1, mark
        else:
            return False
    return pattern[at:].strip("*") == ""


def _plain(text: str) -> str:
    """`file:///x` is `/x`."""
    return text.removeprefix("file://") if text.startswith("file:///") else text


def _settled(text: str) -> str:
    """Without `.`, `..` and doubled slashes."""
    scheme, separator, path = text.partition("://")
    if not separator:
        # POSIX gives two slashes at the beginning a meaning of their own; nothing here does.
        return posixpath.normpath("/" + text.lstrip("/")) if text.startswith("/") else posixpath.normpath(text)
    return f"{scheme}://{posixpath.normpath('/' + path).lstrip('/')}"
