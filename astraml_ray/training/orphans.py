"""What a Ray Train controller leaves behind when it is killed, and how to be rid of it. Needs no dashboard.

Ray's own cleaner asks the dashboard, and where there is none it stays for ever, as does the placement group.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import ray
from ray.core.generated.gcs_pb2 import ActorTableData, PlacementGroupTableData
from ray.util.placement_group import PlacementGroup

__all__ = [
    "CONTROLLER_CLASS",
    "groups_of",
    "is_alive",
    "owned_by",
    "remove_groups",
    "remove_orphans",
    "remove_own_groups",
    "wait_until",
    "worker_of",
]

CONTROLLER_CLASS = "RunController"
"""The class of our runs' controllers; see fit.py. What others left is not ours to remove."""

_OURS = frozenset({CONTROLLER_CLASS, "Runner"})
"""Runners have the places of a sweep's trials."""

_GLANCE_S = 0.05
_TIMEOUT_S = 10.0


def remove_orphans() -> int:
    """Removes the placement groups of controllers of ours that died, whoever started them; tells how many.

    The workers in them end with them. To be called before a run, and after killing whoever ran one.
    """
    orphans = [
        group.placement_group_id
        for group in _groups()
        if group.creator_actor_dead and getattr(_actor(group.creator_actor_id), "class_name", "") in _OURS
    ]
    remove_groups(orphans)
    return len(orphans)


def remove_own_groups() -> None:
    """Removes the placement groups that this actor made before it was restarted; does nothing in a driver."""
    me = ray.get_runtime_context().get_actor_id()
    if me:
        remove_groups(groups_of(bytes.fromhex(me)))


def remove_groups(groups: Iterable[bytes]) -> None:
    """Removes placement groups by id, and waits until they are gone."""
    unwanted = set(groups)
    for group in unwanted:
        ray.util.remove_placement_group(PlacementGroup(ray.PlacementGroupID(group)))
    wait_until(lambda: unwanted.isdisjoint(group.placement_group_id for group in _groups()))


def groups_of(actor: bytes) -> list[bytes]:
    """Ids of the placement groups that an actor has made, without those that are removed."""
    return [group.placement_group_id for group in _groups() if group.creator_actor_id == actor]


def is_alive(actor: bytes) -> bool:
    """Whether an actor lives, or is being started."""
    found = _actor(actor)
    return found is not None and found.state != ActorTableData.DEAD


def worker_of(actor: bytes) -> bytes:
    """The id of an actor's process; empty if it has none yet."""
    found = _actor(actor)
    return b"" if found is None else bytes(found.address.worker_id)


def owned_by(worker: bytes) -> int:
    """How many actors live, or are being started, that a process owns; detached ones outlive it."""
    tables = (
        ActorTableData.FromString(data)
        for state in ("ALIVE", "PENDING_CREATION")
        for data in _state().get_actor_table(None, state)
    )
    return sum(table.owner_address.worker_id == worker and not table.is_detached for table in tables) if worker else 0


def wait_until(condition: Callable[[], bool], *, timeout_s: float = _TIMEOUT_S) -> bool:
    """Waits for a condition, `timeout_s` at most; tells whether it holds."""
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(_GLANCE_S)
    return True


def _groups() -> list[Any]:
    """The placement groups that are not removed."""
    tables = (PlacementGroupTableData.FromString(data) for data in _state().get_placement_group_table())
    return [table for table in tables if table.state != PlacementGroupTableData.REMOVED]


def _actor(actor: bytes) -> Any:
    """An actor's row in Ray's table; None if it is not there, or no longer."""
    data = _state().get_actor_info(ray.ActorID(actor)) if actor else None
    return None if data is None else ActorTableData.FromString(data)


def _state() -> Any:
    # The one way to ask Ray's own tables without the dashboard.
    return ray._private.state.state._connect_and_get_accessor()
