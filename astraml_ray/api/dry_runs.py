"""Work of the cluster that a request waits for: few at once, and not for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from astraml_ray.api.errors import OverloadedError, ValidationTimeoutError
from astraml_ray.api.services import Services

__all__ = ["DRY_RUN_CODES", "dry_run"]

_T = TypeVar("_T")

DRY_RUN_CODES = ("data", "infrastructure", "secret_key", "storage", "validation_timeout")
"""What looking at a dataset may be answered with."""


async def dry_run(services: Services, work: Callable[[], _T]) -> _T:
    """Does the work in a thread, if there is a place.

    Raises:
        OverloadedError: All places are taken.
        ValidationTimeoutError: It took too long; it goes on, and holds its place until it ends.
    """
    if not services.validations.acquire(blocking=False):
        raise OverloadedError(f"{services.limits.max_validations} dry runs are under way in this process")

    def placed() -> _T:
        try:
            return work()
        finally:
            services.validations.release()

    running = asyncio.get_running_loop().run_in_executor(None, placed)
    try:
        return await asyncio.wait_for(asyncio.shield(running), services.limits.validation_timeout_s)
    except asyncio.TimeoutError:
        running.add_done_callback(lambda late: late.cancelled() or late.exception())
        raise ValidationTimeoutError(
            f"the dry run took longer than {services.limits.validation_timeout_s:g} s", param="/dataset"
        ) from None
