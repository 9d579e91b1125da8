"""`astraml run`: a spec, trained here or on the Ray cluster of RAY_ADDRESS, without any service."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from astraml_ray.cli.flags import collect_flags, spec_options
from astraml_ray.cli.outcome import conclude, stop_on_signals
from astraml_ray.cli.sweep_run import new_sweep, show_sweep, sweep_on
from astraml_ray.errors import Problem, RunStopped, SpecError
from astraml_ray.forkserver.start import fork_server
from astraml_ray.settings import Settings, apply_ray_environment, load_settings
from astraml_ray.spec.loading import build_spec, read_document
from astraml_ray.training.stop import Stop

if TYPE_CHECKING:
    from astraml_ray.spec import JobSpec
    from astraml_ray.training.preparation import RunInputs
    from astraml_ray.training.run_folder import RunFolder

__all__ = ["find_run", "resume_run", "run", "train_spec"]


@click.command()
@spec_options
@click.option("--storage", default=None, help="Where run folders go: a path or s3:// prefix. [ASTRAML_STORAGE, runs]")
@click.option("--resume", default=None, metavar="RUN", help="Go on with a run: its id under --storage, path or URI.")
@click.option("--output", type=click.Choice(["text", "json"]), default="text", help="json: one object, last on stdout.")
def run(
    file: str | None, settings: tuple[str, ...], storage: str | None, resume: str | None, output: str, **flags: Any
) -> None:
    """Train a model, and follow it.

    \b
    astraml run --model tiny-bert --dataset s3://bucket/dataset --epochs 5
    astraml run -f spec.yaml --set hyperparams.lr=1e-4
    astraml run --resume runs/tiny-bert-20260101-120000-ab12
    """
    process = load_settings()

    def work() -> dict[str, Any]:
        given = collect_flags(flags)
        if resume is not None:
            if given or settings or file:
                raise SpecError(
                    [Problem("", "--resume takes no spec: the run goes on as it was begun")], source="flags"
                )
            with fork_server(process) as warm:
                return resume_run(resume, storage or process.storage, warm)
        document = read_document(Path(file)) if file else {}
        spec = build_spec(document, settings=settings, flags=given, source=file or "flags")
        with fork_server(process) as warm:
            return train_spec(spec, storage or process.storage, warm)

    conclude(work, output=output, show=lambda result: show_sweep(result) if "sweep" in result else _show(result))


def train_spec(spec: JobSpec, storage: str, process: Settings) -> dict[str, Any]:
    """Trains a spec in a new run folder under `storage`; returns its result."""
    apply_ray_environment()
    stop = Stop()
    stop_on_signals(stop)
    from astraml_ray.data.storage.objects import join
    from astraml_ray.training.preparation import prepare
    from astraml_ray.training.run_folder import RunFolder
    from astraml_ray.training.runner import new_run_id

    if spec.schedule is not None:
        print("warning: /schedule is for the service: astraml submit; this runs the job once, now", file=sys.stderr)
    folder = RunFolder(join(storage, new_run_id(spec)))
    if spec.sweep is not None:
        return new_sweep(spec, folder, process, stop)
    inputs, warnings = prepare(spec, process)
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return _train(inputs, folder, process, stop)


def resume_run(name: str, storage: str, process: Settings) -> dict[str, Any]:
    """Goes on with a run from its last checkpoint; a finished one answers with its result."""
    apply_ray_environment()
    stop = Stop()
    stop_on_signals(stop)
    from astraml_ray.training.preparation import load_inputs

    folder = find_run(name, storage)
    if folder.exists("result.json"):
        print(f"run {folder.uri} is finished already", file=sys.stderr)
        result: dict[str, Any] = json.loads(folder.read("result.json"))
        return result
    inputs = load_inputs(folder)
    if inputs.spec.sweep is not None:
        from astraml_ray.tuning.fork import retry_failed

        retry_failed(folder)
        return sweep_on(inputs, folder, process, stop)
    return _train(inputs, folder, process, stop)


def find_run(name: str, storage: str) -> RunFolder:
    """A run's folder, by id, path or URI.

    Raises:
        StorageError: There is none.
    """
    from astraml_ray.data.storage.objects import join
    from astraml_ray.errors import StorageError
    from astraml_ray.training.run_folder import RunFolder

    places = [RunFolder(name)] if "/" in name else [RunFolder(join(storage, name)), RunFolder(name)]
    for folder in places:
        if folder.exists("inputs.json"):
            return folder
    raise StorageError(
        "there is no run of that name", param=places[0].uri, hint="check the id, and --storage if it is not the default"
    )


def _train(inputs: RunInputs, folder: RunFolder, process: Settings, stop: Stop) -> dict[str, Any]:
    from astraml_ray.cli.progress import ProgressView
    from astraml_ray.training.cluster import cluster
    from astraml_ray.training.progress import ProgressTracker
    from astraml_ray.training.runner import Watcher, run_attempts, start_run
    from astraml_ray.training.timetable import Timetable

    if stop.is_set():
        raise RunStopped("stopped before the training began", hint="nothing was trained; run it again")
    hyper = inputs.spec.hyperparams
    timetable = Timetable.of(hyper, inputs.train_rows)
    with cluster(process, inputs.spec.resources.workers or 1) as local_cores:
        stop_on_signals(stop)  # ray.init has put its own handlers there
        inputs, placement = start_run(inputs, folder, local_cores)
        print(f"run {folder.uri}", file=sys.stderr, flush=True)
        tracker = ProgressTracker(
            total_steps=timetable.total_steps,
            steps_per_epoch=timetable.steps_per_epoch,
            epochs=timetable.epochs,
            eval_steps=hyper.eval_interval().in_steps(timetable.steps_per_epoch),
            patience=hyper.early_stopping.patience if hyper.early_stopping else None,
        )
        view = ProgressView(tracker)
        # Whoever waits at the terminal has a second signal for leaving at once.
        watcher = Watcher(view.show, stop, grace_s=math.inf)
        try:
            return run_attempts(inputs, folder, placement, watcher)
        finally:
            view.close()


def _show(result: dict[str, Any]) -> None:
    print(f"{result['status']}: {result['reason']} after {result['steps']} steps")
    for name, value in sorted(result["metrics"].items()):
        print(f"  {name:24} {value:.4f}")
    print(f"model {result['model_path']}")
