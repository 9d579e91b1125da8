"""What a process writes and logs, line by line, shipped by a thread while the training goes on."""

from __future__ import annotations

import contextlib
import itertools
import logging
import sys
import threading
import time
import traceback
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from astraml_ray.data.masking import Masker
from astraml_ray.training.streams import Console, Tee

__all__ = ["LogCapture", "capture_logs"]

_PERIOD_S = 0.1
_LAST_TRIES_S = 2.0
_PATIENCE_S = 5.0
_MAX_LINES = 10_000
_BATCH_LINES = 1_000
_MAX_BYTES = 16 << 10
_OURS = "astraml_ray"


class LogCapture:
    """Numbers lines from 1 and ships them, a tenth of a second later; beyond its bound the oldest are dropped.

    Attributes:
        hides: Whether there are secrets to leave out.
    """

    def __init__(self, ship: Callable[[list[dict[str, Any]]], None], *, rank: int | None) -> None:
        self._ship = ship
        self._rank = rank
        self._consoles: list[Console] = []
        self._masker = Masker({})
        self.hides = False
        self._lines: deque[dict[str, Any]] = deque(maxlen=_MAX_LINES)
        self._numbers = itertools.count(1)
        self._lock = threading.RLock()
        self._shipping = threading.local()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="logs")
        self._thread.start()

    def hide(self, masker: Masker) -> None:
        """Leaves these secrets out of what is captured, and of what goes on to the consoles, from now on."""
        self._masker, self.hides = masker, masker.reach > 0
        for console in self._consoles if self.hides else ():
            console.hide(masker)

    def hidden(self, text: str) -> str:
        """A text of whole lines as it may be shown."""
        return self._masker.mask(text)

    def console(self) -> Console:
        """For a stream that is passed on."""
        self._consoles.append(Console())
        return self._consoles[-1]

    def add(self, level: str, text: str, at: float | None = None) -> None:
        """Takes a text of one or more lines."""
        if getattr(self._shipping, "now", False):
            return  # what shipping itself says would have to be shipped, and so on
        text = self.hidden(text)
        at = time.time() if at is None else at
        with self._lock:
            for line in text.splitlines() or [""]:
                number = next(self._numbers)
                self._lines.append(
                    {"rank": self._rank, "sequence": number, "level": level, "at": at, "text": _cut(line)}
                )

    def close(self) -> None:
        """Ships the rest; gives up on it after a few seconds."""
        self._closed.set()
        self._thread.join(_PATIENCE_S)

    def _run(self) -> None:
        self._shipping.now = True
        pause = _PERIOD_S
        while not self._closed.wait(pause):
            pause = _PERIOD_S if self._flush() else min(2.0, 2 * pause)
        end = time.monotonic() + _LAST_TRIES_S
        while not self._flush() and time.monotonic() < end:
            time.sleep(_PERIOD_S)

    def _flush(self) -> bool:
        while True:
            with self._lock:
                batch = [self._lines.popleft() for _ in range(min(_BATCH_LINES, len(self._lines)))]
            if not batch:
                return True
            try:
                self._ship(batch)
            except Exception:
                # Lines are never worth a training run: they wait for better times, up to the bound.
                with self._lock:
                    self._lines = deque([*batch, *self._lines], maxlen=_MAX_LINES)
                return False


@contextlib.contextmanager
def capture_logs(ship: Callable[[list[dict[str, Any]]], None], *, rank: int | None) -> Iterator[LogCapture]:
    """Captures standard output, standard error, logging and warnings of this process; all still go where they went.

    Logging is taken from INFO on of this project and from WARNING on of others. Of text that is not logged, what is
    on standard error counts as a WARNING, unless it is a progress bar.

    Args:
        ship: Takes lines, `{"rank", "sequence", "level", "at", "text"}`; called by a thread, again if it raises.
        rank: World rank of this process; None if it is no worker.
    """
    capture = LogCapture(ship, rank=rank)
    tees = [
        Tee(stream, capture.add, level=level, console=capture.console())
        for stream, level in ((sys.stdout, "INFO"), (sys.stderr, "WARNING"))
    ]
    console = tees[1].original
    consoles = [*(tee.original for tee in tees), sys.__stdout__, sys.__stderr__]
    try:
        handler = _Handler(capture, console)
        with _streams(*tees), _logging(handler, consoles), _warnings(capture, console), _records(capture):
            yield capture
    finally:
        for tee in tees:
            tee.finish()
        capture.close()


@contextlib.contextmanager
def _streams(out: Tee, err: Tee) -> Iterator[None]:
    sys.stdout, sys.stderr = out, err
    try:
        yield
    finally:
        if sys.stdout is out:
            sys.stdout = out.original
        if sys.stderr is err:
            sys.stderr = err.original


class _Handler(logging.Handler):
    """Takes records, and writes them to the console in place of the console's own handlers."""

    def __init__(self, capture: LogCapture, console: Any) -> None:
        super().__init__()
        self._capture = capture
        self._console = console
        self._last = threading.local()

    def emit(self, record: logging.LogRecord) -> None:
        last = getattr(self._last, "record", None)
        if last is not None and last() is record:
            return  # a logger and one above it both have this handler
        self._last.record = weakref.ref(record)
        ours = record.name.split(".")[0] == _OURS
        try:
            text = self._capture.hidden(self.format(record))
            if record.levelno >= (logging.INFO if ours else logging.WARNING):
                self._capture.add(record.levelname, text if ours else f"{record.name}: {text}", record.created)
            self._console.write(f"{record.levelname} {record.name}: {text}\n")
        except Exception:
            self.handleError(record)


@contextlib.contextmanager
def _records(capture: LogCapture) -> Iterator[None]:
    """Masks records as they are made: Ray Train has handlers of its own, which write all that is logged to files."""
    before = logging.getLogRecordFactory()

    def make(*arguments: Any, **named: Any) -> logging.LogRecord:
        record: logging.LogRecord = before(*arguments, **named)
        if not capture.hides:
            return record
        with contextlib.suppress(Exception):  # a message that does not fit its arguments is the handlers' to report
            text = record.getMessage()
            if (hidden := capture.hidden(text)) != text:
                record.msg, record.args = hidden, ()
        if record.exc_info and record.exc_info[1] is not None:
            text = "".join(traceback.format_exception(record.exc_info[1])).rstrip("\n")
            if (hidden := capture.hidden(text)) != text:
                record.exc_info, record.exc_text = None, hidden
        return record

    logging.setLogRecordFactory(make)
    try:
        yield
    finally:
        if logging.getLogRecordFactory() is make:
            logging.setLogRecordFactory(before)


@contextlib.contextmanager
def _logging(handler: _Handler, consoles: Sequence[Any]) -> Iterator[None]:
    """Puts the handler in place of every handler that writes to the console, where it would be seen twice."""
    known = [logger for logger in logging.root.manager.loggerDict.values() if isinstance(logger, logging.Logger)]
    taken: list[tuple[logging.Logger, logging.Handler]] = []
    added: list[logging.Logger] = [logging.root]
    for logger in [logging.root, *known]:
        mine = [h for h in logger.handlers if _writes_to(h, consoles)]
        taken += [(logger, h) for h in mine]
        if mine and logger is not logging.root and not _reaches_root(logger):
            added.append(logger)
    ours = logging.getLogger(_OURS)
    level = ours.level
    for logger, old in taken:
        logger.removeHandler(old)
    for logger in added:
        logger.addHandler(handler)
    if ours.getEffectiveLevel() > logging.INFO:
        ours.setLevel(logging.INFO)
    try:
        yield
    finally:
        ours.setLevel(level)
        for logger in added:
            logger.removeHandler(handler)
        for logger, old in taken:
            logger.addHandler(old)


def _writes_to(handler: logging.Handler, consoles: Sequence[Any]) -> bool:
    return (
        isinstance(handler, logging.StreamHandler)
        and not isinstance(handler, logging.FileHandler)
        and any(handler.stream is console for console in consoles)
    )


def _reaches_root(logger: logging.Logger) -> bool:
    current: logging.Logger | None = logger
    while current is not None and current is not logging.root:
        if not current.propagate:
            return False
        current = current.parent
    return True


@contextlib.contextmanager
def _warnings(capture: LogCapture, console: Any) -> Iterator[None]:
    before = warnings.showwarning

    def show(message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: Any = None) -> None:
        if file is not None:
            before(message, category, filename, lineno, file, line)
            return
        text = capture.hidden(f"{category.__name__}: {message} ({filename}:{lineno})")
        console.write(text + "\n")
        capture.add("WARNING", text)

    warnings.showwarning = show
    try:
        yield
    finally:
        if warnings.showwarning is show:
            warnings.showwarning = before


def _cut(line: str) -> str:
    """A line that can be stored: valid UTF-8, no zero bytes, 16 KiB at most."""
    data = line.replace("\0", "").encode("utf-8", "replace")
    if len(data) <= _MAX_BYTES:
        return data.decode()
    return data[:_MAX_BYTES].decode("utf-8", "ignore") + " … [cut]"
