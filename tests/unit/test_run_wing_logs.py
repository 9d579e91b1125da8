"""Log capture: every line once, numbered, whatever writes it; and never in the way of training."""

from __future__ import annotations

import contextlib
import io
import logging
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from astraml_ray.training.logs import capture_logs

Lines = list[dict[str, Any]]
OURS = logging.getLogger("astraml_ray.test")


@contextlib.contextmanager
def capture(ship: Callable[[Lines], None], *, rank: int = 0) -> Iterator[tuple[io.StringIO, io.StringIO]]:
    """capture_logs over plain streams, in place of pytest's own; gives the streams."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        with capture_logs(ship, rank=rank):
            yield out, err
        assert (sys.stdout, sys.stderr) == (out, err)


def texts(lines: Lines) -> list[str]:
    return [line["text"] for line in lines]


def test_every_line_is_numbered_in_order_and_still_goes_where_it_went() -> None:
    lines: Lines = []
    with capture(lines.extend, rank=3) as (out, err):
        print("to stdout")
        print("to stderr", file=sys.stderr)
        OURS.info("ours")
        logging.getLogger("other.library").info("not captured")
        logging.getLogger("other.library").warning("theirs")
        warnings.warn("look out", UserWarning, stacklevel=1)
    assert [line["sequence"] for line in lines] == list(range(1, len(lines) + 1))
    assert {line["rank"] for line in lines} == {3}
    assert [(line["level"], line["text"]) for line in lines[:4]] == [
        ("INFO", "to stdout"),
        ("WARNING", "to stderr"),
        ("INFO", "ours"),
        ("WARNING", "other.library: theirs"),
    ]
    assert lines[4]["text"].startswith("UserWarning: look out (")
    assert len(lines) == 5
    assert all(line["at"] > 1.6e9 for line in lines)
    assert out.getvalue() == "to stdout\n"
    for text in ("to stderr", "ours", "theirs", "look out"):
        assert err.getvalue().count(text) == 1


def test_afterwards_everything_is_as_before() -> None:
    root, level = list(logging.root.handlers), logging.getLogger("astraml_ray").level
    show = warnings.showwarning
    lines: Lines = []
    with capture(lines.extend):
        pass
    print("later")
    OURS.warning("later")
    assert lines == []
    assert (logging.root.handlers, logging.getLogger("astraml_ray").level) == (root, level)
    assert warnings.showwarning is show


def test_parts_of_a_line_are_joined_for_each_thread() -> None:
    lines: Lines = []
    turns = [threading.Event() for _ in range(2)]

    def other() -> None:
        turns[0].wait(30)
        print("from ", end="")
        turns[1].set()

    with capture(lines.extend):
        thread = threading.Thread(target=other)
        thread.start()
        print("one ", end="")
        turns[0].set()
        turns[1].wait(30)
        print("line\nand", "two")
        print("the end", end="")
        thread.join()
    assert texts(lines)[:2] == ["one line", "and two"]
    assert sorted(texts(lines)[2:]) == ["from ", "the end"]


def test_a_progress_bar_is_its_last_state_and_no_warning() -> None:
    lines: Lines = []
    with capture(lines.extend):
        for percent in range(0, 101, 10):
            sys.stderr.write(f"\r{percent}%")
        sys.stderr.write("\n")
        for percent in range(3):
            sys.stderr.write(f"left {percent}\r")
        sys.stderr.write("\n")
        sys.stderr.write("windows\r\n")
    assert [(line["level"], line["text"]) for line in lines] == [
        ("INFO", "100%"),
        ("INFO", "left 2"),
        ("WARNING", "windows"),
    ]


def test_long_lines_are_cut_and_odd_bytes_can_be_stored() -> None:
    lines: Lines = []
    with capture(lines.extend):
        print("ä" * 20_000)
        print("x" * 100_000, end="")
        print("y" * 100)
        print("zero\0 surrogate \udc80")
    assert texts(lines)[0] == "ä" * 8192 + " … [cut]"
    assert texts(lines)[1] == "x" * 16384 + " … [cut]"
    assert texts(lines)[2] == "zero surrogate ?"


def test_a_traceback_is_lines_of_level_error() -> None:
    lines: Lines = []
    with capture(lines.extend, rank=1):
        try:
            raise ValueError("broken")
        except ValueError:
            OURS.exception("worker 1 failed")
    assert texts(lines)[0] == "worker 1 failed"
    assert texts(lines)[1] == "Traceback (most recent call last):"
    assert texts(lines)[-1] == "ValueError: broken"
    assert {line["level"] for line in lines} == {"ERROR"}


def test_a_library_with_its_own_console_handler_is_captured_once() -> None:
    """As transformers and Ray have: a handler on the real stream, and no propagation."""
    library, child = logging.getLogger("own.handler"), logging.getLogger("own.handler.child")
    lines: Lines = []
    err = io.StringIO()
    handlers = [logging.StreamHandler(err), logging.StreamHandler(err)]
    library.addHandler(handlers[0])
    child.addHandler(handlers[1])
    library.propagate = False
    try:
        with contextlib.redirect_stderr(err), capture_logs(lines.extend, rank=0):
            library.warning("once")
            child.warning("once more")
        assert texts(lines) == ["own.handler: once", "own.handler.child: once more"]
        assert err.getvalue().count("once\n") == 1
        assert (library.handlers, child.handlers) == ([handlers[0]], [handlers[1]])
    finally:
        library.removeHandler(handlers[0])
        child.removeHandler(handlers[1])


def test_a_shipment_that_fails_is_tried_again_and_disturbs_nothing() -> None:
    received: Lines = []
    failed = threading.Event()

    def ship(lines: Lines) -> None:
        print("shipping says something")  # which must not be shipped in turn
        if not failed.is_set():
            failed.set()
            raise ConnectionError("the channel is away")
        received.extend(lines)

    with capture(ship):
        print("first")
        assert failed.wait(30)
        print("second")
    assert texts(received) == ["first", "second"]
    assert [line["sequence"] for line in received] == [1, 2]


def test_what_cannot_be_shipped_is_bounded_and_leaves_a_hole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("astraml_ray.training.logs._MAX_LINES", 100)
    monkeypatch.setattr("astraml_ray.training.logs._LAST_TRIES_S", 30.0)
    received: Lines = []
    open_again = threading.Event()

    def ship(lines: Lines) -> None:
        if not open_again.is_set():
            raise ConnectionError
        received.extend(lines)

    with capture(ship):
        for number in range(1, 1001):
            print(f"line {number}")
        open_again.set()
    assert len(received) <= 100
    assert [line["sequence"] for line in received] == list(range(901, 1001))
    assert received[0]["text"] == "line 901"


def test_a_killed_process_has_shipped_all_but_its_last_moments() -> None:
    code = (
        "import os, signal, sys, time\n"
        "from astraml_ray.training.logs import capture_logs\n"
        "def ship(lines):\n"
        "    os.write(1, ''.join(f'{l[\"sequence\"]} {l[\"text\"]}\\n' for l in lines).encode())\n"
        "sys.stdout = open(os.devnull, 'w')\n"
        "with capture_logs(ship, rank=0):\n"
        "    print('long before')\n"
        "    time.sleep(2)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == -9
    assert done.stdout == "1 long before\n"
