"""`astraml verify`: does a run repeat itself bit for bit?"""

from __future__ import annotations

import math
from typing import Any

import click

from astraml_ray.cli.outcome import conclude, stop_on_signals
from astraml_ray.cli.run import find_run
from astraml_ray.errors import NumericError
from astraml_ray.forkserver.start import fork_server
from astraml_ray.settings import apply_ray_environment, load_settings
from astraml_ray.training.stop import Stop

__all__ = ["verify"]


@click.command()
@click.argument("run_name", metavar="RUN")
@click.option("--storage", default=None, help="Where run folders are. [ASTRAML_STORAGE, runs]")
@click.option("--output", type=click.Choice(["text", "json"]), default="text")
def verify(run_name: str, storage: str | None, output: str) -> None:
    """Train a stretch of RUN again, from one checkpoint to the next, and compare the weights."""
    process = load_settings()

    def work() -> dict[str, Any]:
        apply_ray_environment()
        stop = Stop()
        stop_on_signals(stop)
        from astraml_ray.training.runner import Watcher
        from astraml_ray.training.verify import verify_run

        folder = find_run(run_name, storage or process.storage)
        with fork_server(process) as warm:
            report = verify_run(folder, warm, Watcher(lambda record: None, stop, grace_s=math.inf))
        if not report["identical"]:
            raise NumericError(
                f"steps {report['from_step']} to {report['to_step']} gave other weights than the run has",
                param=folder.uri,
                hint="compare receipt.json: another machine, version or number of threads changes sums",
            )
        return report

    def show(report: dict[str, Any]) -> None:
        print(f"identical: steps {report['from_step']} to {report['to_step']}, weights {report['found_sha256'][:16]}")

    conclude(work, output=output, show=show)
