"""Leases with fencing tokens: of several processes one acts, and a late write of a former one changes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Update, select, update

from astraml_ray.errors import StaleLeaseError
from astraml_ray.store.statements import upsert
from astraml_ray.store.tables import leases

if TYPE_CHECKING:
    from astraml_ray.store.engine import Store

__all__ = ["Lease", "LeaseRecord", "acquire_lease", "check_lease", "find_lease", "release_lease", "renew_lease"]

_NOBODY = ""


@dataclass(frozen=True)
class Lease:
    """What a holder shows to prove that it is the newest one."""

    name: str
    holder: str
    token: int


@dataclass(frozen=True)
class LeaseRecord:
    """A lease as anyone sees it.

    Attributes:
        name: Its name.
        holder: Who has it.
        token: Grows with every acquisition.
        expires_at: Seconds since the epoch; another may take it afterwards.
    """

    name: str
    holder: str
    token: int
    expires_at: float


def acquire_lease(store: Store, name: str, holder: str, *, ttl_s: float, now: float) -> Lease | None:
    """Takes the lease if it is free, expired, or this holder's own, always with a new token.

    Returns:
        The lease, or None while another holds it.
    """
    with store.write() as conn:
        row = {"name": name, "holder": _NOBODY, "token": 0, "expires_at": 0.0}
        conn.execute(upsert(conn, leases).values(row).on_conflict_do_nothing())
        known = conn.execute(select(leases).where(leases.c.name == name).with_for_update()).one()
        if known.holder not in (_NOBODY, holder) and known.expires_at > now:
            return None
        lease = Lease(name, holder, known.token + 1)
        values = {"holder": holder, "token": lease.token, "expires_at": now + ttl_s}
        conn.execute(update(leases).where(leases.c.name == name).values(values))
        return lease


def renew_lease(store: Store, lease: Lease, *, ttl_s: float, now: float) -> bool:
    """Puts the expiry off. False: another has taken over."""
    with store.write() as conn:
        return conn.execute(_of(lease).values(expires_at=now + ttl_s)).rowcount == 1


def release_lease(store: Store, lease: Lease) -> None:
    """Gives the lease back, if it is still held; the token stays, so that it goes on growing."""
    with store.write() as conn:
        conn.execute(_of(lease).values(holder=_NOBODY, expires_at=0.0))


def find_lease(conn: Connection, name: str) -> LeaseRecord | None:
    """The lease as it stands, expired or not; None if nobody has it."""
    row = conn.execute(select(leases).where(leases.c.name == name, leases.c.holder != _NOBODY)).one_or_none()
    return LeaseRecord(**row._mapping) if row else None


def check_lease(conn: Connection, lease: Lease) -> None:
    """Makes sure that the lease is held until the transaction ends.

    Raises:
        StaleLeaseError: Another holds it.
    """
    query = select(leases.c.holder, leases.c.token).where(leases.c.name == lease.name).with_for_update(read=True)
    row = conn.execute(query).one_or_none()
    if row is None or (row.holder, row.token) != (lease.holder, lease.token):
        raise StaleLeaseError(f"{lease.holder} no longer holds the lease {lease.name!r}", param=lease.name)


def _of(lease: Lease) -> Update:
    return update(leases).where(
        leases.c.name == lease.name, leases.c.holder == lease.holder, leases.c.token == lease.token
    )
