"""The place in which trials train, one after the other: Ray Tune's trainable, whose imports are paid for once."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ray import tune

from astraml_ray.data.masking import mask_data
from astraml_ray.errors import AstraError
from astraml_ray.settings import load_settings
from astraml_ray.spec.placement import Placement
from astraml_ray.training.channel import line_shipper
from astraml_ray.training.failures import classify
from astraml_ray.training.preparation import RunInputs, store_inputs
from astraml_ray.training.run_folder import RunFolder
from astraml_ray.training.secrets import masker_of
from astraml_ray.tuning.director import trial_folder
from astraml_ray.tuning.inheritance import inherit
from astraml_ray.tuning.session import Session
from astraml_ray.tuning.team import TeamSession
from astraml_ray.tuning.trials import Course, Goal, course_of, trial_id, trial_inputs

__all__ = ["Shared", "TrialPlace"]

_STEP_S = 1.0
"""A stop is heard between two steps, so this bounds how late it is."""
_MALLOC = {-3: 1 << 30, -1: 1 << 30, -8: 1}
"""M_MMAP_THRESHOLD, M_TRIM_THRESHOLD and M_ARENA_MAX of glibc's malloc.h."""


@dataclass(frozen=True)
class Shared:
    """What all trials of a sweep have in common.

    Attributes:
        inputs: Of the sweep.
        document: The job as it was submitted.
        goal: Of the sweep.
        folder: Of the sweep.
        placement: Of each trial.
        channel: Takes log lines.
    """

    inputs: RunInputs
    document: Mapping[str, Any]
    goal: Goal
    folder: RunFolder
    placement: Placement
    channel: Any


class TrialPlace(tune.Trainable):  # type: ignore[misc]
    """One place. A step ends at an evaluation, or after a second."""

    def setup(self, config: dict[str, Any], shared: Shared | None = None) -> None:
        """The place's first trial begins."""
        assert shared is not None
        _keep_blocks()
        self._shared = shared
        self._session: Session | TeamSession | None = None
        self._course: Course | None = None
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Another trial begins; the one before has ended, or ends now where it is."""
        self.cleanup()
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """What the trial tells next."""
        if self._session is None:
            return self._failed
        told = self._session.next(_STEP_S)
        if told.kind == "evaluation":
            assert self._course is not None
            return _result(told.kind, {**told.record, "course": asdict(self._course)})
        return _result(told.kind, told.record)

    def cleanup(self) -> None:
        """The trial ends where it is, saved."""
        if self._session is not None:
            self._session.end()
            self._session = None

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        """Nothing: a trial's checkpoints are in its run folder."""
        return {}

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing, as there."""

    def _begin(self, config: dict[str, Any]) -> None:
        try:
            self._session = self._start(json.loads(config["plan"]))
        except Exception as error:
            found = error if isinstance(error, AstraError) else classify(error)
            masker = masker_of(self._shared.inputs.spec, self._shared.inputs.secrets)
            self._failed = _result("failed", mask_data(found.as_dict(), masker))

    def _start(self, plan: dict[str, Any]) -> Session | TeamSession:
        shared, settings = self._shared, load_settings()
        folder = trial_folder(shared.folder, plan["number"])
        inputs = trial_inputs(shared.inputs, shared.document, plan["parameters"], shared.goal, settings, folder=folder)
        self._course = course_of(inputs)
        if plan["copied"] or not folder.exists("inputs.json"):
            store_inputs(inputs, folder)
        if plan["copied"]:
            donor = trial_folder(shared.folder, plan["copied"]["donor"])
            inherit(donor, folder, inputs.spec.hyperparams, plan["copied"])
        ship = _named(trial_id(plan["number"]), line_shipper(shared.channel))
        metric = shared.goal.metric
        if shared.placement.workers > 1:
            return TeamSession(inputs, folder, metric, placement=shared.placement, ship=ship)
        threads = shared.placement.threads
        return Session(inputs, folder, metric, threads=threads, ship=ship)


def _keep_blocks() -> None:
    """What WORKER_ENVIRONMENT asks of malloc; the places' processes are Tune's to start, so it is asked from inside."""
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        for option, value in _MALLOC.items():
            library.mallopt(option, value)


def _result(kind: str, record: dict[str, Any]) -> dict[str, Any]:
    """Tune's result; what is told goes as text, or Tune would take it apart."""
    return {"kind": kind, "told": json.dumps(record), "done": kind in ("finished", "failed")}


def _named(name: str, ship: Any) -> Any:
    def shipped(lines: list[dict[str, Any]]) -> None:
        ship([{**line, "text": f"{name} | {line['text']}"} for line in lines])

    return shipped
