"""Where the translations of training texts are: by chunks of rows in a run's folder, and on the machines that use it.

A chunk's file is addressed by all that it follows from: the object's ETag, the rows, the models, the search.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa

from astraml_ray.data.formats import sources_of, unplaced
from astraml_ray.data.keep import Keep, from_bytes
from astraml_ray.data.manifest import Manifest, Split
from astraml_ray.data.storage.objects import join, reading, resolve
from astraml_ray.data.translation.candidates import CANDIDATES, beside, text_roles
from astraml_ray.errors import InfrastructureError
from astraml_ray.spec.text_augmentation import BackTranslation

__all__ = ["CHUNK_ROWS", "Chunk", "TranslationKeep", "chunks_of", "recipe_of"]

CHUNK_ROWS = 256
_READERS = 8
_SUFFIX = ".texts"
_VERSION = 1
_UNSEEN = frozenset({"type", "probability", "batch_size", "forward", "backward"})
"""Fields that a translation does not follow from; models count by what they are, not by where they lie."""


@dataclass(frozen=True)
class Chunk:
    """Rows that are translated together, of one fragment.

    Attributes:
        fragment: Its index in the split.
        start: The first row, as read_rows counts them.
        rows: How many.
    """

    fragment: int
    start: int
    rows: int


def chunks_of(split: Split, fragments: Collection[int] | None = None) -> Iterator[Chunk]:
    """The chunks of a split, or of some of its fragments, in the order of their rows."""
    for index, rows in enumerate(split.rows):
        if fragments is None or index in fragments:
            for start in range(0, rows, CHUNK_ROWS):
                yield Chunk(index, start, min(CHUNK_ROWS, rows - start))


def recipe_of(rule: BackTranslation, forward: str, backward: str) -> str:
    """A digest of how texts are translated.

    Args:
        rule: From the spec.
        forward: What the forward model is; see translator.identity_of.
        backward: The same of the other.
    """
    settings = rule.model_dump(mode="json", exclude=set(_UNSEEN))
    document = [_VERSION, CHUNK_ROWS, forward, backward, settings]
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class TranslationKeep:
    """The translations of a run; plain data.

    Attributes:
        place: URI of the folder that all processes of the run read.
        cache: Of this machine, for all its runs.
        recipe: See recipe_of.
    """

    place: str
    cache: Path
    recipe: str

    def named(self, manifest: Manifest, split: Split, fragments: Collection[int] | None = None) -> dict[Chunk, str]:
        """The chunks of a split, or of some of its fragments, in order, each with the name of its file."""
        digests: dict[int, str] = {}
        found = {}
        for chunk in chunks_of(split, fragments):
            if chunk.fragment not in digests:
                digests = {chunk.fragment: self._digest(manifest, split, chunk.fragment)}
            key = f"{digests[chunk.fragment]} {chunk.start} {chunk.rows}"
            found[chunk] = f"{hashlib.sha256(key.encode()).hexdigest()}{_SUFFIX}"
        return found

    def _digest(self, manifest: Manifest, split: Split, index: int) -> str:
        """Of all that a fragment's translations follow from."""
        fragment = split.fragments[index]
        kind = manifest.formats[fragment.source]
        left_out = split.left_out[index] if split.left_out else ()
        key = {
            "recipe": self.recipe,
            "objects": [asdict(info) for info in sources_of(manifest.objects, fragment, kind)],
            "fragment": asdict(unplaced(fragment, kind)),
            "read_as": [kind, [(role, manifest.columns[role]) for role in text_roles(list(manifest.columns))]],
            "rows": [split.side, manifest.threshold if split.side != "all" else 0, split.rows[index], list(left_out)],
        }
        return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()

    def on_machine(self, name: str) -> pa.Table | None:
        """A chunk's candidates, if this machine has them whole."""
        return self._machine.get(name.removesuffix(_SUFFIX))

    def keep_on_machine(self, name: str, table: pa.Table) -> None:
        """Keeps a chunk's candidates on this machine, if there is room."""
        self._machine.put(name.removesuffix(_SUFFIX), table)

    def with_candidates(self, manifest: Manifest, split: Split, index: int, rows: pa.Table) -> pa.Table:
        """The rows of a fragment with a column `ROLE_candidates` beside each text.

        Args:
            manifest: Of the dataset.
            split: The training rows.
            index: Of the fragment.
            rows: All that read_rows gives of it.

        Raises:
            InfrastructureError: A chunk is not there, or damaged; it is made anew before the next attempt.
        """
        names = self.named(manifest, split, {index})
        with ThreadPoolExecutor(_READERS) as pool:
            parts = list(pool.map(lambda item: self._chunk(item[1], item[0].rows), names.items()))
        empty = pa.schema([(role, CANDIDATES) for role in text_roles(rows.column_names)]).empty_table()
        return beside(rows, pa.concat_tables([empty, *parts]))

    @property
    def _machine(self) -> Keep:
        return Keep(self.cache, _SUFFIX.removeprefix("."))

    def _chunk(self, name: str, rows: int) -> pa.Table:
        found = self.on_machine(name)
        if found is None or found.num_rows != rows:
            found = self._fetched(name, rows)
            self.keep_on_machine(name, found)
        return found

    def _fetched(self, name: str, rows: int) -> pa.Table:
        """From the run's folder; what is damaged there is removed, so that it is found missing."""
        uri = join(self.place, name)
        hint = "it is made anew when the run goes on"
        with reading(uri):
            filesystem, path = resolve(uri)
            try:
                data = filesystem.cat_file(path)
            except FileNotFoundError as error:
                raise InfrastructureError("the translated texts are not there", param=uri, hint=hint) from error
            table = from_bytes(pa.py_buffer(data))
            if table is None or table.num_rows != rows:
                filesystem.rm_file(path)
                raise InfrastructureError("the translated texts were damaged", param=uri, hint=hint)
        return table
