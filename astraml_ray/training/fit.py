"""One TorchTrainer.fit(), in a thread, that can be ended at any moment and leaves nothing behind."""

from __future__ import annotations

import contextlib
import threading
from typing import Any

import ray
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.constants import get_env_vars_to_propagate
from ray.train.v2._internal.execution.controller import TrainController

from astraml_ray.training.orphans import groups_of, is_alive, owned_by, remove_groups, wait_until, worker_of

__all__ = ["Fit", "RunController", "RunTrainer"]

_END_S = 10.0


class RunController(TrainController):  # type: ignore[misc]
    """Ray Train's controller under a name of ours, by which its placement group is known when it was killed."""


class RunTrainer(TorchTrainer):  # type: ignore[misc]
    """A TorchTrainer whose controller can be killed. Ray Train has no way to end a run from outside.

    Attributes:
        controller: Once it is started.
    """

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.controller: Any = None
        self._lock = threading.Lock()
        self._unwanted = False

    def _create_default_callbacks(self) -> list[Any]:
        # Fit.end does the cleaner's work, without the dashboard that it needs, and one process fewer is started.
        callbacks = super()._create_default_callbacks()
        return [callback for callback in callbacks if not isinstance(callback, PlacementGroupCleanerCallback)]

    def _initialize_and_run_controller(self, **settings: Any) -> Any:
        """As in Ray's own, but the controller is kept, to be killed; it is on this node, as there."""
        node = {ray._raylet.RAY_NODE_ID_KEY: ray.get_runtime_context().get_node_id()}
        environment = {"RAY_WARN_BLOCKING_GET_INSIDE_ASYNC": "0", **get_env_vars_to_propagate()}
        kind = ray.remote(num_cpus=0, label_selector=node, runtime_env={"env_vars": environment})(RunController)
        with self._lock:
            if self._unwanted:
                raise RuntimeError("the run was ended before it began")
            self.controller = kind.remote(**settings)
        ray.get(self.controller.run.remote())
        return ray.get(self.controller.get_result.remote())

    def refuse(self) -> Any:
        """Starts no controller any more; returns the one that there is."""
        with self._lock:
            self._unwanted = True
            return self.controller


class Fit:
    """A running fit().

    Attributes:
        error: What fit() raised.
    """

    def __init__(self, trainer: RunTrainer) -> None:
        self.error: BaseException | None = None
        self._trainer = trainer
        self._thread = threading.Thread(target=self._run, daemon=True, name="fit")
        self._thread.start()

    def _run(self) -> None:
        try:
            self._trainer.fit()
        except BaseException as error:
            self.error = error

    def join(self, timeout_s: float) -> bool:
        """Waits for its end; tells whether it has ended."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def end(self) -> bool:
        """Ends it now, if it has not ended, and all that it started: controller, workers, placement group.

        Returns:
            Whether everything is gone; if not, Ray is still at it.
        """
        controller = self._trainer.refuse()
        if controller is None:
            return self.join(_END_S)
        actor = controller._actor_id.binary()
        worker = worker_of(actor)
        with contextlib.suppress(ray.exceptions.RayError):
            ray.kill(controller)
        gone = wait_until(lambda: not is_alive(actor) and not owned_by(worker))
        remove_groups(groups_of(actor))
        return self.join(_END_S) and gone
