"""Translates chunks of training rows, one after the other, in an actor or here; the models are loaded once."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import pyarrow as pa
import ray
import torch
from transformers.utils import logging as transformers_logging

from astraml_ray.data.keep import to_bytes
from astraml_ray.data.manifest import Manifest, Split
from astraml_ray.data.masking import Masker
from astraml_ray.data.rows import read_rows
from astraml_ray.data.translation.candidates import text_roles, translated
from astraml_ray.data.translation.keep import Chunk, TranslationKeep
from astraml_ray.errors import AstraError
from astraml_ray.spec import JobSpec
from astraml_ray.spec.placement import Placement
from astraml_ray.spec.text_augmentation import BackTranslation
from astraml_ray.training.failures import classify
from astraml_ray.training.run_folder import RunFolder
from astraml_ray.training.secrets import ValueOf, masked_error, masker_of
from astraml_ray.training.translation.translator import Translator
from astraml_ray.training.worker import set_variables

__all__ = ["ChunkTranslator", "ChunkWorker", "Order"]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Order:
    """What is to be translated. Pickles.

    Attributes:
        manifest: Of the dataset.
        split: The training rows.
        keep: Where translations are kept.
        rule: From the spec.
        chunks: Those that are missing, in order, with the names of their files.
        spec: Of the run, for the environment of its workers.
        placement: What the run's workers get, and each actor in the place of one.
        channel: Takes progress: `rows` done, and texts that were `cut`; None is nobody.
        secrets: Gives the values of the secrets that the spec names.
    """

    manifest: Manifest
    split: Split
    keep: TranslationKeep
    rule: BackTranslation
    chunks: Mapping[Chunk, str]
    spec: JobSpec
    placement: Placement
    channel: Any = None
    secrets: ValueOf | None = field(default=None, repr=False)


class ChunkWorker:
    """Translates chunks of an order in this process."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._translator: Translator | None = None
        self._fragment: tuple[int, pa.Table] | None = None

    def translate(self, chunk: Chunk, name: str) -> None:
        """Translates a chunk, or takes it from what this machine has, and puts it into the run's folder.

        Raises:
            AstraError: It could not be done.
        """
        order = self._order
        found = order.keep.on_machine(name)
        progress = _Progress(order.channel, chunk.rows)
        if found is None or found.num_rows != chunk.rows:
            rows = self._rows(chunk.fragment).slice(chunk.start, chunk.rows)
            translator = self._loaded()
            before = translator.cut
            found = translated(rows, lambda texts: translator.candidates(texts, progress.of))
            progress.cut = translator.cut - before
            order.keep.keep_on_machine(name, found)
        RunFolder(order.keep.place).write(name, to_bytes(found))
        progress.end()

    def _rows(self, fragment: int) -> pa.Table:
        """The texts of a fragment; its chunks follow each other."""
        if self._fragment is None or self._fragment[0] != fragment:
            rows = read_rows(self._order.manifest, self._order.split, fragment)
            self._fragment = fragment, rows.select(text_roles(rows.column_names))
        return self._fragment[1]

    def _loaded(self) -> Translator:
        if self._translator is None:
            order = self._order
            set_variables(order.spec, order.secrets)
            torch.set_num_threads(order.placement.threads)
            transformers_logging.disable_progress_bar()
            device = torch.device("cuda", 0) if order.placement.gpus_per_worker else torch.device("cpu")
            self._translator = Translator(order.rule, device)
        return self._translator


class ChunkTranslator:
    """The actor. What fails is returned, since Ray would hide its class."""

    def __init__(self, order: Any) -> None:
        """Nothing that may fail: Ray has no good answer to an actor that cannot be made."""
        self._reference = order
        self._order: Order | None = None
        self._worker: ChunkWorker | None = None

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[Any]]:
        """Translates some chunks that follow each other, by their numbers."""
        masker = Masker({})
        try:
            if self._order is None:
                self._order = ray.get(self._reference)
            order = self._order
            masker = masker_of(order.spec, order.secrets)
            self._worker = self._worker or ChunkWorker(order)
            start, count = int(batch["start"][0]), int(batch["count"][0])
            for chunk, name in islice(order.chunks.items(), start, start + count):
                self._worker.translate(chunk, name)
        except Exception as error:
            told = classify(masked_error(error, masker))
            _LOG.error("rows were not translated: %s", told)
            return {"error": [pickle.dumps(told)]}
        return {"error": [b""]}

    @staticmethod
    def error_of(row: Mapping[str, Any]) -> AstraError:
        """The error that a call has returned."""
        error: AstraError = pickle.loads(row["error"])  # made by __call__
        return error


class _Progress:
    """Tells how many of a chunk's rows are done, if there is somebody to tell."""

    def __init__(self, channel: Any, rows: int) -> None:
        self.cut = 0
        self._channel = channel
        self._rows = rows
        self._told = 0

    def of(self, done: int, total: int) -> None:
        """So many of the texts that are translated are done."""
        rows = self._rows * done // total
        if done < total and rows > self._told:
            self._tell(rows - self._told, 0)

    def end(self) -> None:
        """The chunk is done."""
        self._tell(self._rows - self._told, self.cut)

    def _tell(self, rows: int, cut: int) -> None:
        self._told += rows
        if self._channel is not None:
            ray.get(self._channel.push.remote([{"rows": rows, "cut": cut}]))
