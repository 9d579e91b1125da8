"""Running out of memory, told by what did not fit."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch

from astraml_ray.errors import MemoryExhaustedError

__all__ = ["BATCH", "memory_errors"]

BATCH = "/hyperparams/batch_size"
"""The `param` of an error that a smaller micro-batch may mend."""

_WORDS = ("allocate memory", "STATUS_ALLOC_FAILED")

_HINTS = {
    BATCH: "halve batch_size and double gradient_accumulation_steps (same result), or lower max_length",
    "/model": "use a smaller model, or machines with more memory",
}


@contextlib.contextmanager
def memory_errors(message: Callable[[], str], *, param: str = BATCH) -> Iterator[None]:
    """Turns torch's and Python's ways to say that memory ran out into one error.

    Raises:
        MemoryExhaustedError: With the message, and a hint that suits `param` (BATCH or /model).
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # Only CUDA's allocator has a class of its own for it.
        exhausted = isinstance(error, (MemoryError, torch.OutOfMemoryError))
        if not exhausted and not any(words in str(error) for words in _WORDS):
            raise
        raise MemoryExhaustedError(message(), param=param, hint=_HINTS[param]) from error
