"""Tokens: their digests, never the tokens themselves. Every change leaves its audit row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, insert, or_, select, update

from astraml_ray.store.access_tables import ORGANISATION, tokens
from astraml_ray.store.audit import Actor, append_audit

__all__ = ["TokenRecord", "add_token", "find_token", "list_tokens", "revoke_token", "touch_token"]

_SHOWN = ("subject", "kind", "scope", "role", "permissions", "note", "expires_at")


@dataclass(frozen=True)
class TokenRecord:
    """A token's row.

    Attributes:
        id: The part of the token that is no secret.
        digest: SHA-256 of the whole token, as hexadecimal digits.
        subject: Whose it is.
        kind: "personal" has the subject's roles; "service" has a role of its own.
        scope: The only project where it counts; None is everywhere.
        role: Of a service token.
        permissions: The only ones it has of its role's; None is all of them.
        note: For people.
        created_at: Seconds since the epoch, as the times below.
        created_by: Who made it.
        expires_at: When it ends by itself.
        last_used_at: To the minute.
        revoked_at: When it was taken back.
    """

    id: str
    digest: str
    subject: str
    kind: str
    scope: str | None
    role: str | None
    permissions: tuple[str, ...] | None
    note: str | None
    created_at: float
    created_by: str
    expires_at: float | None
    last_used_at: float | None = None
    revoked_at: float | None = None


def add_token(conn: Connection, token: TokenRecord, *, actor: Actor, now: float) -> None:
    """Writes a new token."""
    permissions = None if token.permissions is None else list(token.permissions)
    conn.execute(insert(tokens).values({**asdict(token), "permissions": permissions}))
    shown = {**asdict(token), "permissions": permissions}
    append_audit(
        conn,
        "token.created",
        actor=actor,
        scope=token.scope or ORGANISATION,
        target=token.id,
        after={name: shown[name] for name in _SHOWN},
        now=now,
    )


def find_token(conn: Connection, token_id: str) -> TokenRecord | None:
    """The token, also if it has expired or is revoked."""
    row = conn.execute(select(tokens).where(tokens.c.id == token_id)).mappings().one_or_none()
    return _record(row) if row else None


def list_tokens(conn: Connection, *, scope: str | None = None, subject: str | None = None) -> list[TokenRecord]:
    """Tokens, newest first: of one project, of one subject, or all."""
    query = select(tokens)
    if scope is not None:
        query = query.where(tokens.c.scope == scope)
    if subject is not None:
        query = query.where(tokens.c.subject == subject)
    rows = conn.execute(query.order_by(tokens.c.created_at.desc(), tokens.c.id)).mappings()
    return [_record(row) for row in rows]


def revoke_token(conn: Connection, token_id: str, *, actor: Actor, now: float) -> bool:
    """Takes a token back for ever; False if there is none, or it is revoked already."""
    query = update(tokens).where(tokens.c.id == token_id, tokens.c.revoked_at.is_(None)).values(revoked_at=now)
    scope = conn.execute(query.returning(tokens.c.scope)).one_or_none()
    if scope is None:
        return False
    append_audit(conn, "token.revoked", actor=actor, scope=scope[0] or ORGANISATION, target=token_id, now=now)
    return True


def touch_token(conn: Connection, token_id: str, *, now: float, every_s: float = 60.0) -> bool:
    """Notes that a token was used, unless that was noted less than `every_s` ago; True if it wrote."""
    old = or_(tokens.c.last_used_at.is_(None), tokens.c.last_used_at <= now - every_s)
    query = update(tokens).where(tokens.c.id == token_id, old).values(last_used_at=now)
    return conn.execute(query).rowcount > 0


def _record(row: Mapping[Any, Any]) -> TokenRecord:
    permissions = row["permissions"]
    return TokenRecord(**{**row, "permissions": None if permissions is None else tuple(permissions)})
