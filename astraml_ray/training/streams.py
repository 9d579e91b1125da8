"""A text stream that is passed on and read along, line by line."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

from astraml_ray.data.masking import MaskedStream, Masker

__all__ = ["Console", "Tee"]

_MAX_CHARACTERS = 20_000


class Console:
    """What the stream behind gets to see: everything, or from some moment on everything but secrets, in whole lines."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._masked: MaskedStream | None = None

    def hide(self, masker: Masker) -> None:
        """From now on, without these."""
        self._masked = masker.stream()

    def shown(self, text: str) -> str:
        """What to write in place of a text."""
        if self._masked is None:
            return text
        with self._lock:
            return self._masked.feed(text)

    def rest(self) -> str:
        """What is held back, at the end."""
        return self._masked.flush() if self._masked is not None else ""


class Tee:
    """Stands for a stream: what is written still goes there, and its lines to `take(level, text)`.

    Parts of a line are joined, for each thread by itself. Of a line that overwrites itself (a progress bar) only the
    last state is taken, as INFO.
    """

    def __init__(
        self, original: Any, take: Callable[[str, str], None], *, level: str, console: Console | None = None
    ) -> None:
        self.original = original
        self._console = console or Console()
        self._take = take
        self._level = level
        self._parts: dict[int, str] = {}

    def write(self, text: str) -> int:
        """Passes text on, and takes the lines that it completes."""
        with contextlib.suppress(OSError, ValueError):  # a console that is gone must not end a training run
            self.original.write(self._console.shown(text))
        thread = threading.get_ident()
        *lines, rest = (self._parts.pop(thread, "") + text).split("\n")
        for line in lines:
            self._take_line(line)
        if rest:
            self._parts[thread] = _last_state(rest)[:_MAX_CHARACTERS]
        return len(text)

    def finish(self) -> None:
        """Takes the lines that were never ended."""
        with contextlib.suppress(OSError, ValueError):
            self.original.write(self._console.rest())
        while self._parts:
            _, rest = self._parts.popitem()
            self._take_line(rest)

    def flush(self) -> None:
        """Flushes the stream behind."""
        with contextlib.suppress(OSError, ValueError):
            self.original.flush()

    def writelines(self, lines: Any) -> None:
        """As of any stream."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.original, name)

    def _take_line(self, line: str) -> None:
        overwritten = "\r" in line.rstrip("\r")
        self._take("INFO" if overwritten else self._level, _last_state(line).strip("\r"))


def _last_state(line: str) -> str:
    """What a carriage return leaves to be seen; a trailing one stays, since the next text overwrites it."""
    if "\r" not in line:
        return line
    body = line.rstrip("\r")
    last = body.rpartition("\r")[2]
    return f"\r{last}" if body == line else f"\r{last}\r"
