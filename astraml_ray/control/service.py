"""The controller's actor, and what the API needs of the cluster: a nudge, dry runs, and looks at datasets."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import ray

from astraml_ray.access.secrets import MASTER_KEY_FILE
from astraml_ray.access.targets import AllowedTargets
from astraml_ray.control.controller import Reconciler
from astraml_ray.control.launcher import RayLauncher, on_this_node
from astraml_ray.control.runner import CONTROLLER, controller_handle
from astraml_ray.control.secrets import grant_to_runner, release_to_run
from astraml_ray.errors import AstraError, InfrastructureError, ResourcesError, StoreError
from astraml_ray.installation import Installation, load_installation
from astraml_ray.settings import load_settings
from astraml_ray.spec.placement import place
from astraml_ray.store.engine import open_store

__all__ = ["Controller", "RayValidator", "cluster_now", "end_actors", "nudger", "start_controller"]

_VALIDATION_S = 120.0
Answer = tuple[str | None, AstraError | None]
"""A text, or why there is none: raised, an error of ours would come through Ray as another one."""


class Controller:
    """The actor. Its loop begins with it, so that Ray's restart of a killed one goes on."""

    def __init__(self, home: str) -> None:
        installation = load_installation(Path(home))
        if installation is None:
            raise InfrastructureError("there is no installation", param=home, hint="astraml up")
        self._store = open_store(installation.database_url)
        self._key_file = installation.home / MASTER_KEY_FILE
        self._reconciler = Reconciler(
            self._store,
            RayLauncher(installation.namespace, local_cores=installation.local_cores),
            holder=str(installation.home),
            storage=installation.storage,
            targets=AllowedTargets.parse(load_settings().allowed_targets),
            keys=self._key_file,
        )
        threading.Thread(target=self._reconciler.run_forever, daemon=True, name="reconcile").start()

    def nudge(self) -> None:
        """Something has changed: look now."""
        self._reconciler.nudge()

    def begin(self, job_id: str, runner: str) -> dict[str, Any]:
        """A runner asks for its order."""
        return self._reconciler.begin(job_id, runner)

    def report(self, job_id: str, runner: str, report: dict[str, Any]) -> dict[str, Any]:
        """A runner reports."""
        return self._reconciler.report(job_id, runner, report)

    def grant(self, job_id: str, runner: str, attempt: int) -> Answer:
        """A runner asks for the job's secrets; see secrets.grant_to_runner."""
        return _answer(lambda: grant_to_runner(self._store, self._key_file, job_id, runner, attempt, now=time.time()))

    def release(self, job_id: str | None, runner: str, grant: str, name: str) -> Answer:
        """A runner, or a dry run, asks for a secret that its grant covers; see secrets.release_to_run."""
        now = time.time()
        return _answer(lambda: release_to_run(self._store, self._key_file, job_id, runner, grant, name, now=now))

    def close(self) -> None:
        """Stops deciding, and gives the lease back."""
        self._reconciler.close()


def _answer(work: Callable[[], str]) -> Answer:
    try:
        return work(), None
    except StoreError:
        raise  # the runner asks again
    except AstraError as error:
        return None, error


def start_controller(installation: Installation) -> Any:
    """Starts the controller, detached, on this node, whose files it needs; one that is there already stays."""
    # On a cluster that was there before, nothing else tells its processes.
    allowed = {"ASTRAML_ALLOWED_TARGETS": load_settings().allowed_targets}
    return (
        ray.remote(Controller)
        .options(
            runtime_env={"env_vars": allowed},
            name=CONTROLLER,
            namespace=installation.namespace,
            lifetime="detached",
            get_if_exists=True,
            num_cpus=0,
            max_restarts=-1,
            max_concurrency=32,
            scheduling_strategy=on_this_node(),
        )
        .remote(str(installation.home))
    )


def end_actors(namespace: str) -> None:
    """Ends the controller and the runners on a cluster that others use too."""
    for actor in ray.util.list_named_actors(all_namespaces=True):
        if actor["namespace"] == namespace and actor["name"].startswith("astraml-"):
            with contextlib.suppress(ValueError):
                ray.kill(ray.get_actor(actor["name"], namespace=namespace), no_restart=True)


def nudger(namespace: str) -> Callable[[], None]:
    """Wakes the controller, if there is one at the moment; without, it looks by itself half a second later."""

    def nudge() -> None:
        try:
            controller_handle(namespace).nudge.remote()
        except (ValueError, ray.exceptions.RayError):
            return

    return nudge


def cluster_now() -> dict[str, Any]:
    """CPUs and GPUs of the cluster, in all and free, as Ray sees them."""
    total, free = ray.cluster_resources(), ray.available_resources()
    return {
        name: {"total": total.get(key, 0.0), "free": free.get(key, 0.0)}
        for name, key in (("cpus", "CPU"), ("gpus", "GPU"))
    }


class RayValidator:
    """Dry runs, each in a worker process of its own: the API's process never imports torch."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace

    def validate(self, spec: dict[str, Any], *, grant: str | None = None) -> dict[str, Any]:
        """Reads the bucket and the model's files, and tells what a run would do.

        Args:
            spec: Of the job.
            grant: For the dataset's credentials, if the spec names some.

        Raises:
            AstraError: What is wrong with the spec, the dataset or the model.
        """
        hint = "submit the job without a dry run: its runner has all the time it needs"
        report = _in_a_process("dry_run", spec, self._namespace, grant, hint=hint)
        total = ray.cluster_resources()
        try:
            from astraml_ray.spec.loading import parse_spec

            place(parse_spec(spec).resources, cpus=total.get("CPU", 0.0), gpus=total.get("GPU", 0.0), local_cores=None)
        except ResourcesError as problem:
            warning = {"param": problem.param, "message": f"would wait: {problem.message}", "hint": problem.hint}
            report["warnings"].append(warning)
        return report

    def inspect(self, spec: dict[str, Any], *, limit: int, grant: str | None = None) -> dict[str, Any]:
        """Reads the dataset, and tells what it holds.

        Args:
            spec: Of a job; only its dataset counts.
            limit: Rows of each split.
            grant: For the dataset's credentials, if the spec names some.

        Raises:
            AstraError: The dataset cannot be read.
        """
        return _in_a_process(
            "inspect", spec, self._namespace, grant, limit=limit, hint="lower `limit`: it reads fewer rows"
        )

    def preview(self, spec: dict[str, Any], *, rows: int, draws: int, grant: str | None = None) -> dict[str, Any]:
        """Reads the first training rows, and tells what augmentation makes of them.

        Args:
            spec: Of a job; its model does not count.
            rows: How many, at most.
            draws: Of images: epochs to show of each row.
            grant: For the dataset's credentials, if the spec names some.

        Raises:
            AstraError: The dataset cannot be read, or its augmentation does not fit it.
        """
        hint = "ask for fewer `draws`, or do it where the data is: astraml data preview"
        return _in_a_process("preview", spec, self._namespace, grant, rows=rows, draws=draws, hint=hint)


class ValidationTimeoutError(AstraError):
    """A dry run took too long."""

    code = "validation_timeout"
    exit_code = 30


_Verb = Literal["dry_run", "inspect", "preview"]
Report = tuple[dict[str, Any] | None, AstraError | None]
"""What was found, or why nothing was."""


def _in_a_process(verb: _Verb, *arguments: Any, hint: str, **options: int) -> dict[str, Any]:
    """Does the work in a worker process of its own, and not for longer than it may take."""
    reference = ray.remote(_dry).options(num_cpus=0, max_retries=0).remote(verb, *arguments, options)
    try:
        report, error = ray.get(reference, timeout=_VALIDATION_S)
    except ray.exceptions.GetTimeoutError:
        ray.cancel(reference, force=True)
        took = f"the dry run took longer than {_VALIDATION_S:.0f} s"
        raise ValidationTimeoutError(took, param="/dataset", hint=hint) from None
    except ray.exceptions.RayError as failure:
        raise InfrastructureError("the dry run's process died", hint="try again") from failure
    if error is not None:
        raise error
    return dict(report)


def _dry(verb: _Verb, spec: dict[str, Any], namespace: str, grant: str | None, options: dict[str, int]) -> Report:
    # Here, and not above: this runs in a worker process, which may import the run wing.
    from astraml_ray.control import dry_run

    # What a tried job gives its workers is not asked for: there are none.
    values = lru_cache(lambda name: _ask(namespace, grant or "", name))
    try:
        return getattr(dry_run, verb)(spec, secrets=values, **options), None
    except AstraError as error:
        return None, error


def _ask(namespace: str, grant: str, name: str) -> str:
    """One secret of a dry run, of the controller."""
    try:
        value, error = ray.get(controller_handle(namespace).release.remote(None, "", grant, name))
    except (ValueError, ray.exceptions.RayError) as failure:
        raise InfrastructureError("the controller does not answer", hint="try again") from failure
    if error is not None:
        raise error
    return str(value)
