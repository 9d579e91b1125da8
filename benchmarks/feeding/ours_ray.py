"""AstraML's stream of one Ray Data execution over all epochs, taken as a worker takes it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from astraml_ray.data.microbatches import Position
from astraml_ray.data.parcels import unpacked
from astraml_ray.data.stream import ray_stream
from astraml_ray.forkserver.start import fork_server
from astraml_ray.settings import apply_ray_environment, load_settings
from astraml_ray.training.cluster import cluster
from feeding.case import Case
from feeding.meter import Batches
from feeding.ours import fed, reader_of

__all__ = ["epochs", "runtime"]


@contextmanager
def runtime(case: Case) -> Iterator[None]:
    """The cluster of `astraml run`, whose processes are forked."""
    apply_ray_environment()
    with fork_server(load_settings()) as settings, cluster(settings, 1):
        yield


def epochs(case: Case) -> Iterator[Batches]:
    """The epochs of a run."""
    reader = reader_of(case)
    stream = ray_stream(reader, epochs=case.passes, position=Position())
    (part,) = stream.streaming_split(1, equal=False)
    return fed(case, reader, unpacked(part.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=2)))
