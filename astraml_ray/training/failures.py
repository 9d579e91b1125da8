"""What an attempt's failure means, and whether to try again. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from astraml_ray.errors import AstraError, InfrastructureError, MemoryExhaustedError

__all__ = ["classify", "retry_delay_s"]

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


def classify(error: BaseException) -> AstraError:
    """The error behind a failed fit: the most telling one of all workers.

    An error of ours says its class. Otherwise a dead process or a broken connection is infrastructure, since a
    worker that failed takes the others' connections down; anything else is a fault of this program.
    """
    chain = list(_causes(error))
    ours = [cause for cause in chain if isinstance(cause, AstraError)]
    if ours:
        return min(ours, key=lambda e: (e.retryable, -e.exit_code))
    text = " ".join(f"{type(cause).__name__} {cause}" for cause in chain).lower()
    # The message of every dead actor speculates about the OOM killer: only these say that memory ran out.
    if "outofmemoryerror" in text or "node running low on memory" in text:
        return MemoryExhaustedError(
            _first_line(chain),
            param="/hyperparams/batch_size",
            hint="halve batch_size and double gradient_accumulation_steps, or use machines with more memory",
        )
    if any(word in text for word in _INFRASTRUCTURE):
        return InfrastructureError(f"a worker failed: {_first_line(chain)}", hint="see the Ray logs of the session")
    failure = AstraError(
        f"{type(chain[-1]).__name__}: {_first_line(chain)}", hint="this is a fault of astraml: report it"
    )
    failure.__cause__ = error
    return failure


def retry_delay_s(error: AstraError, failures: list[int], *, max_retries: int) -> float | None:
    """Seconds to wait before the next attempt; None to give up.

    Args:
        error: Why the last attempt failed.
        failures: The checkpointed step at each failure so far, the last one included.
        max_retries: From the spec; only failures in a row without progress count.
    """
    if not error.retryable:
        return None
    in_a_row = sum(1 for step in failures if step == failures[-1])
    return None if in_a_row > max_retries else min(60.0, 2.0 ** (in_a_row - 1))


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
        waiting += [getattr(current, name, None) for name in ("controller_failure", "_base_exc", "cause", "__cause__")]


def _first_line(chain: list[BaseException]) -> str:
    for cause in reversed(chain):
        lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
        if lines:
            return lines[-1][:300]
    return type(chain[-1]).__name__
