"""AstraML's blocks read in the process that consumes them, as the trials of a sweep do; nothing is read ahead."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

from astraml_ray.data.microbatches import local_blocks
from feeding.case import Case
from feeding.meter import Batches
from feeding.ours import fed, reader_of

__all__ = ["epochs", "runtime"]


def runtime(case: Case) -> AbstractContextManager[None]:
    """Nothing to start."""
    return nullcontext()


def epochs(case: Case) -> Iterator[Batches]:
    """The epochs of a run."""
    reader = reader_of(case)
    return fed(case, reader, local_blocks(reader, epochs=case.passes))
