"""Translates a run's training texts before its first step: a Ray Data execution, whose actors hold the models."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import ray
import ray.data
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from astraml_ray.data.keep import to_bytes
from astraml_ray.data.translation.keep import Chunk, TranslationKeep
from astraml_ray.errors import AstraError, InfrastructureError, MemoryExhaustedError
from astraml_ray.spec.placement import Placement
from astraml_ray.spec.text_augmentation import BackTranslation
from astraml_ray.training.attempt import Watcher, run_channel
from astraml_ray.training.failures import classify
from astraml_ray.training.orphans import is_alive, owned_by, wait_until, worker_of
from astraml_ray.training.preparation import RunInputs
from astraml_ray.training.run_folder import RunFolder
from astraml_ray.training.stop import Stop
from astraml_ray.training.translation.chunks import ChunkTranslator, ChunkWorker, Order
from astraml_ray.training.translation.place import TRANSLATIONS, rule_of, translation_keep, unchanged
from astraml_ray.training.translation.translator import FIELD

__all__ = ["translate_here", "translate_rows"]

_WRITERS = 8
_MOST_TASKS = 2000
_POLL_S = 0.2
_FIRST_LINE_S = 5.0
_RAREST_LINE_S = 60.0


def translate_rows(inputs: RunInputs, placement: Placement, watcher: Watcher) -> bool:
    """Translates what is not translated yet, if an augmentation asks for it; nothing of it is left running.

    Args:
        inputs: Of the run; they say where translations are.
        placement: What the workers will get: an actor in the place of each.
        watcher: Who follows. It gets the events `translating` and `translated`.

    Returns:
        Whether all is there; False if the watcher wants the run to stop.

    Raises:
        ModelError: A model cannot be loaded, or is another one than when the run began.
        MemoryExhaustedError: The models do not fit into memory.
        InfrastructureError: An actor died; what is done is kept.
    """
    rule = rule_of(inputs)
    if rule is None:
        return True
    order = _order(inputs, rule, placement, watcher.stop)
    if not order.chunks:
        return True
    if watcher.stop.is_set():
        return False
    total = order.split.total_rows
    told = _Told(watcher, total=total, done=total - sum(chunk.rows for chunk in order.chunks))
    told.begin(rule, placement, len(order.chunks))
    with run_channel() as channel:
        return _Stage(replace(order, channel=channel)).follow(told)


def translate_here(inputs: RunInputs, placement: Placement) -> None:
    """The same in this process: what a sweep's trial has that no other one has."""
    rule = rule_of(inputs)
    if rule is None:
        return
    order = _order(inputs, rule, placement, Stop())
    worker = ChunkWorker(order)
    for chunk, name in order.chunks.items():
        worker.translate(chunk, name)


def _order(inputs: RunInputs, rule: BackTranslation, placement: Placement, stop: Stop) -> Order:
    """What is neither in the run's folder nor on this machine; what is on this machine is put into the folder.

    Raises:
        ModelError: Some is missing, and the models have changed.
    """
    keep, split = translation_keep(inputs), inputs.manifest.splits["train"]
    assert keep is not None
    assert inputs.translations is not None
    there = set(RunFolder(inputs.translations).names(TRANSLATIONS))
    names = keep.named(inputs.manifest, split)
    missing = _not_on_machine({chunk: name for chunk, name in names.items() if name not in there}, keep, stop)
    if missing:
        unchanged(rule, inputs.translations)
    return Order(inputs.manifest, split, keep, rule, missing, inputs.spec, placement, secrets=inputs.secrets)


def _not_on_machine(wanted: Mapping[Chunk, str], keep: TranslationKeep, stop: Stop) -> dict[Chunk, str]:
    """Puts what this machine has into the run's folder; returns the chunks that it has not."""
    folder = RunFolder(keep.place)

    def there(item: tuple[Chunk, str]) -> bool:
        chunk, name = item
        found = None if stop.is_set() else keep.on_machine(name)
        if found is None or found.num_rows != chunk.rows:
            return False
        folder.write(name, to_bytes(found))
        return True

    with ThreadPoolExecutor(_WRITERS) as pool:
        taken = pool.map(there, wanted.items())
        return {chunk: name for (chunk, name), found in zip(wanted.items(), taken, strict=True) if not found}


class _Told:
    """What is told of the progress: often at first, then once a minute."""

    def __init__(self, watcher: Watcher, *, total: int, done: int) -> None:
        self.stop = watcher.stop
        self._watcher = watcher
        self._total = total
        self._done = self._said = done
        self._pause = _FIRST_LINE_S
        self._next = time.monotonic() + self._pause
        self._cut = 0

    def begin(self, rule: BackTranslation, placement: Placement, chunks: int) -> None:
        actors = min(placement.workers, chunks)
        where = "GPU" if placement.gpus_per_worker else "CPU"
        message = (
            f"translating {self._total - self._done:,} of {self._total:,} rows by {rule.forward} and {rule.backward}, "
            f"on {actors} {where}{'s' if actors > 1 else ''}"
        )
        self._tell("translating", message)

    def add(self, records: Sequence[dict[str, Any]]) -> None:
        self._done += sum(record["rows"] for record in records)
        self._cut += sum(record["cut"] for record in records)
        if time.monotonic() >= self._next and self._said < self._done < self._total:
            self._said = self._done
            self._pause = min(_RAREST_LINE_S, 2 * self._pause)
            self._next = time.monotonic() + self._pause
            self._tell("translating", f"translated {self._done:,} of {self._total:,} rows")

    def end(self) -> None:
        cut = f"; {self._cut:,} texts were too long, and were cut" if self._cut else ""
        self._tell("translated", f"translated all {self._total:,} rows{cut}")

    def _tell(self, event: str, message: str) -> None:
        self._watcher.on_event({"event": event, "message": message, "rows": self._done, "of": self._total})


class _Stage:
    """The execution, in an actor of its own: killed, it takes along all that it has started."""

    def __init__(self, order: Order) -> None:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        kind = ray.remote(TranslationRun).options(num_cpus=0, scheduling_strategy=here)
        self._channel = order.channel
        self._actor = kind.remote()
        self._result = self._actor.run.remote(order)

    def follow(self, told: _Told) -> bool:
        try:
            while not ray.wait([self._result], timeout=_POLL_S)[0]:
                told.add(self._records())
                if told.stop.is_set():
                    return False
            error = ray.get(self._result)
            told.add(self._records())
        except ray.exceptions.RayError as failure:
            error = classify(failure)
        finally:
            self._end()
        if error is not None:
            raise _of_the_translation(error)
        told.end()
        return True

    def _records(self) -> list[dict[str, Any]]:
        records: list[dict[str, Any]] = ray.get(self._channel.drain.remote())[0]
        return records

    def _end(self) -> None:
        """Returns when the places of the actors are free."""
        actor = self._actor._actor_id.binary()
        worker = worker_of(actor)
        ray.kill(self._actor)
        wait_until(lambda: not is_alive(actor) and not owned_by(worker))


class TranslationRun:
    """Runs the execution."""

    def run(self, order: Order) -> AstraError | None:
        """Translates every chunk of an order; returns what failed first."""
        shared, count, placement = ray.put(order), len(order.chunks), order.placement
        several = -(-count // _MOST_TASKS)
        starts = range(0, count, several)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        tasks = ray.data.from_items(
            [{"start": start, "count": several} for start in starts], override_num_blocks=len(starts)
        )
        gpus = {"num_gpus": placement.gpus_per_worker} if placement.gpus_per_worker else {}
        done = tasks.map_batches(
            ChunkTranslator,
            fn_constructor_args=(shared,),
            batch_size=1,
            batch_format="numpy",
            compute=ray.data.ActorPoolStrategy(size=min(placement.workers, count)),
            num_cpus=placement.cpus_per_worker,
            # Who follows tries again, and counts how often.
            max_restarts=0,
            max_task_retries=0,
            **gpus,
        )
        try:
            for row in done.iter_rows():
                if row["error"]:
                    return ChunkTranslator.error_of(row)
        except Exception as error:
            return classify(error)
        return None


def _of_the_translation(error: AstraError) -> AstraError:
    if isinstance(error, MemoryExhaustedError) and not str(error.param).startswith(FIELD):
        error.message = f"the translation: {error.message}"
        error.param, error.hint = f"{FIELD}/batch_size", "lower it, or use smaller models"
    elif isinstance(error, InfrastructureError):
        error.message = f"the translation: {error.message}"
    return error
