"""What an attempt's failure means, and whether and how to try again. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from astraml_ray.errors import (
    AstraError,
    DataError,
    InfrastructureError,
    MemoryExhaustedError,
    ModelError,
    NumericError,
    RunStopped,
    SpecError,
    StorageError,
)

__all__ = ["AttemptFailure", "Decision", "classify", "decide", "divisor_after", "error_class"]

_INFRASTRUCTURE = (
    "died",
    "killed",
    "unavailable",
    "connection closed",
    "connection reset",
    "gloo",
    "nccl",
    "timed out",
    "timeout",
    "actor",
    "node",
    "worker group",
    "health check",
)
_CONNECTION = ("gloo", "nccl", "connection", "broken pipe")
_HEALTH = frozenset({"WorkerHealthCheckFailedError", "WorkerHealthCheckTimeoutError"})
_DEAD = _HEALTH | {"RayActorError", "ActorDiedError"}
_DEATHS = {
    "node has died": "the node of {} died",
    "owner has died": "{} died with its owner",
    "process has died": "{} was killed, or crashed",
}
_BATCH = "/hyperparams/batch_size"
_WRAPPED = ("controller_failure", "health_check_failure", "_base_exc", "cause", "__cause__")
_LONGEST_DELAY_S = 60.0
_CLASSES: tuple[tuple[tuple[type[AstraError], ...], str], ...] = (
    ((SpecError, ModelError), "request"),
    ((DataError,), "data"),
    ((MemoryExhaustedError,), "memory"),
    ((NumericError,), "numeric"),
    ((InfrastructureError,), "infrastructure"),
    ((StorageError,), "storage"),
    ((RunStopped,), "cancelled"),
)


@dataclass(frozen=True)
class AttemptFailure:
    """What is remembered of a failed attempt, over restarts of whoever watches.

    Attributes:
        code: Of the error.
        message: Of the error.
        step: The checkpoint from which the next attempt goes on.
        failed_step: The last step that the attempt reported; None if it reported none.
        rank: The worker that failed first, where that is known.
    """

    code: str
    message: str
    step: int
    failed_step: int | None = None
    rank: int | None = None


@dataclass(frozen=True)
class Decision:
    """What to do after a failure.

    Attributes:
        retry: Whether to try again, from the last checkpoint.
        delay_s: Seconds to wait before.
        divisor: Into how many parts the next attempt cuts a micro-batch.
        reason: A code: the error's, or `repeated_failure`.
        message: Why, for people.
    """

    retry: bool
    delay_s: float
    divisor: int
    reason: str
    message: str


def decide(
    error: AstraError,
    history: Sequence[AttemptFailure],
    *,
    max_retries: int,
    micro_rows: int,
    workers: int = 1,
    accumulation: int = 1,
    jitter: float = 0.5,
) -> Decision:
    """Whether a failed attempt is tried again.

    Infrastructure is, with a growing pause. Memory that ran out is answered by a smaller micro-batch, down to one row
    per worker. Anything else is the user's to mend.

    Args:
        error: Why the last attempt failed.
        history: All failures of the run, the last one included.
        max_retries: From the spec; only failures in a row without progress of the checkpoints count.
        micro_rows: Rows of a micro-batch over all workers.
        workers: Of the run.
        accumulation: The spec's gradient_accumulation_steps, for the message.
        jitter: From 0 to 1; varies the pause by a quarter, so that runs that failed together do not return together.
    """
    divisor = divisor_after(history[:-1])
    last = history[-1]
    if isinstance(error, MemoryExhaustedError) and error.param == _BATCH:
        if _part(micro_rows, workers, divisor) == 1:
            why = f"{error.message}; a single row at a time is the least there is"
            return Decision(False, 0.0, divisor, error.code, why)
        smaller = _smaller(micro_rows, divisor, workers, accumulation)
        return Decision(
            True, 0.0, 2 * divisor, error.code, f"{error.message}; {smaller}; going on from step {last.step}"
        )
    if not error.retryable:
        return Decision(False, 0.0, divisor, error.code, error.message)
    if _repeated(history):
        why = f"the same failure twice at step {last.failed_step}: {error.message}"
        return Decision(False, 0.0, divisor, "repeated_failure", why)
    in_a_row = _without_progress(history)
    if in_a_row > max_retries:
        again = f"{in_a_row} failures in a row without progress beyond step {last.step}: " if in_a_row > 1 else ""
        return Decision(False, 0.0, divisor, error.code, again + error.message)
    delay = min(_LONGEST_DELAY_S, 2.0 ** (in_a_row - 1)) * (0.75 + 0.5 * jitter)
    return Decision(
        True, delay, divisor, error.code, f"{error.message}; going on from step {last.step} in {delay:.0f} s"
    )


def divisor_after(history: Sequence[AttemptFailure]) -> int:
    """Into how many parts a micro-batch is cut after these failures."""
    exhausted: int = 2 ** sum(failure.code == MemoryExhaustedError.code for failure in history)
    return exhausted


def _part(rows: int, workers: int, divisor: int) -> int:
    """Rows that a worker has in memory at a time."""
    return max(1, math.ceil(rows / workers / divisor))


def _smaller(rows: int, divisor: int, workers: int, accumulation: int) -> str:
    before, after = (min(rows, _part(rows, workers, d) * workers) for d in (divisor, 2 * divisor))
    return (
        f"micro-batch {before} → {after} rows, accumulation {accumulation * divisor} → {accumulation * 2 * divisor}; "
        f"the effective batch stays {rows * accumulation}"
    )


def _without_progress(history: Sequence[AttemptFailure]) -> int:
    """Failures in a row after which the run stood where it stands now; a smaller micro-batch was an answer to some."""
    count = 0
    for failure in reversed(history):
        if failure.step != history[-1].step:
            break
        count += failure.code != MemoryExhaustedError.code
    return count


def _repeated(history: Sequence[AttemptFailure]) -> bool:
    """Whether the last two failures are one and the same, at a step that both attempts had to work to reach."""
    if len(history) < 2:
        return False
    before, last = history[-2:]
    return (
        last.failed_step is not None
        and last.failed_step == before.failed_step
        and last.failed_step > before.step
        and last.code == before.code
        and _essence(last.message) == _essence(before.message)
    )


def _essence(message: str) -> str:
    """A message without what differs from time to time: numbers, addresses, ids."""
    return re.sub(r"\b(?=\w*\d)[0-9a-fA-F]{6,}\b|\d+", "#", message)


def error_class(error: AstraError) -> str:
    """Whose fault an error is, roughly."""
    return next((name for kinds, name in _CLASSES if isinstance(error, kinds)), "internal")


def classify(error: BaseException, reports: Sequence[dict[str, Any]] = (), *, world_size: int = 1) -> AstraError:
    """The error behind a failed fit: the most telling one of all workers, with the `rank` that failed first.

    An error of ours says its class. Otherwise a dead process or a broken connection is infrastructure, since a
    worker that failed takes the others' connections down; anything else is a fault of this program.

    Args:
        error: What fit() raised.
        reports: What the workers themselves told before they failed, in that order: `{"rank", "at", "error"}`.
        world_size: Workers in all.
    """
    chain = list(_causes(error))
    failures: dict[int, BaseException] = {}
    for cause in chain:
        failures |= getattr(cause, "worker_failures", {})
    ours = [cause for cause in chain if isinstance(cause, AstraError)]
    if ours:
        chosen = min(ours, key=lambda e: (e.retryable, -e.exit_code))
        guilty = [rank for rank, failure in failures.items() if any(c is chosen for c in _causes(failure))]
        same = [report["rank"] for report in reports if report["error"].get("code") == chosen.code]
        chosen.rank = next(iter([*same, *guilty]), chosen.rank)
        return chosen
    found = _foreign(chain, error)
    found.rank = _first_rank(failures, reports, world_size)
    if type(found) is InfrastructureError:
        who = "a worker" if found.rank is None else f"worker {found.rank}"
        if type(error).__name__ in _DEAD:
            who = "the run's controller"
        found.message = f"{who} failed: {found.message}"
    return found


def _foreign(chain: Sequence[BaseException], error: BaseException) -> AstraError:
    """What an error that is not ours means."""
    text = " ".join(f"{type(cause).__name__} {cause}" for cause in chain).lower()
    # The message of every dead actor speculates about the OOM killer: only these say that memory ran out.
    memory = any(words in text for words in ("outofmemoryerror", "node running low on memory", "allocate memory"))
    if memory or any(isinstance(cause, MemoryError) for cause in chain):
        return MemoryExhaustedError(
            _first_line(chain),
            param=_BATCH,
            hint="halve batch_size and double gradient_accumulation_steps, or use machines with more memory",
        )
    if any(word in text for word in _INFRASTRUCTURE):
        itself = type(error).__name__ in _DEAD or any(type(cause).__name__ in _HEALTH for cause in chain)
        what = "its process" if itself else "a process that it needs"
        death = next((short.format(what) for long, short in _DEATHS.items() if long in text), None)
        return InfrastructureError(death or _first_line(chain), hint="see the Ray logs of the session")
    failure = AstraError(
        f"{type(chain[-1]).__name__}: {_first_line(chain)}", hint="this is a fault of astraml: report it"
    )
    failure.__cause__ = error
    return failure


def _first_rank(failures: dict[int, BaseException], reports: Sequence[dict[str, Any]], world_size: int) -> int | None:
    """The worker whose failure came first. One that was killed says nothing; the others then lose their connections."""
    spoke = [report["rank"] for report in reports]
    killed = [rank for rank, failure in failures.items() if rank not in spoke and _died(failure)]
    if killed:
        return min(killed)
    if not reports:
        return min(failures, default=None)
    message = str(reports[0]["error"].get("message", "")).lower()
    silent = set(range(world_size)).difference(spoke)
    if silent and any(word in message for word in _CONNECTION):
        return silent.pop() if len(silent) == 1 else None
    first: int = spoke[0]
    return first


def _died(failure: BaseException) -> bool:
    return any(type(cause).__name__ in _DEAD for cause in _causes(failure))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An exception and all it wraps, as Ray wraps them."""
    seen: set[int] = set()
    waiting: list[Any] = [error]
    while waiting:
        current = waiting.pop()
        if not isinstance(current, BaseException) or id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        waiting += getattr(current, "worker_failures", {}).values()
        waiting += [getattr(current, name, None) for name in _WRAPPED]


def _first_line(chain: Sequence[BaseException]) -> str:
    for cause in reversed(chain):
        lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
        if lines:
            return lines[-1][:300]
    return type(chain[-1]).__name__
