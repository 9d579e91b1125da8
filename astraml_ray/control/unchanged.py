"""Schedules that train only on a dataset that has changed (`only_if_changed: dataset`).

The occurrence's job is made and admitted as any other, and its runner compares: it lists the dataset before it reads
anything of it, and ends the job there if the listing is that of the last job of the schedule that has trained. Only
the runner can: it has the dataset's credentials, by a grant that is audited, it may wait for a slow bucket without
holding anybody up, and killed in the middle it is started again by what starts all runners. The controller's pass,
which has none of these, reads two columns. An occurrence that is left out so has a job, which shows when it looked and
what with; it has cost a start, and no training.

Nothing is left out when in doubt: a listing that fails, an earlier job whose dataset is not known or not noted yet, a
run that was begun. Made by hand, a job always trains.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from astraml_ray.spec.schedule import DATASET_UNCHANGED
from astraml_ray.spec.states import JobStatus
from astraml_ray.store.occurrences import has_unnoted_end, occurrence_of, set_occurrence
from astraml_ray.store.schedules import find_schedule

__all__ = ["note_dataset", "trained_before"]


def trained_before(conn: Connection, job_id: str) -> dict[str, Any] | None:
    """What a runner needs to compare with.

    Returns:
        `digest` and `job_id` of the last job that has trained, both None if the dataset is only to be told; or None
        if it does not matter.
    """
    occurrence = occurrence_of(conn, job_id)
    schedule = find_schedule(conn, occurrence.schedule_id) if occurrence else None
    if occurrence is None or schedule is None or schedule.timing.get("only_if_changed") != "dataset":
        return None
    if occurrence.kind == "manual" or has_unnoted_end(conn, schedule.id):
        return {"digest": None, "job_id": None}
    return {"digest": schedule.dataset, "job_id": schedule.dataset_job_id}


def note_dataset(conn: Connection, job_id: str, end: Mapping[str, Any]) -> None:
    """Keeps what dataset a job has trained on, as its end tells."""
    if end.get("dataset") is None or end["status"] != JobStatus.SUCCEEDED.value or end["reason"] == DATASET_UNCHANGED:
        return
    if (occurrence := occurrence_of(conn, job_id)) is not None:
        set_occurrence(conn, occurrence.schedule_id, occurrence.instant, dataset=end["dataset"])
