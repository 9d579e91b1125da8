"""Bearer tokens: how they are made, and whom one stands for. Pure but for the randomness.

A token is `astr_`, twelve characters that name it, `_`, and 256 random bits. It is shown once; only its SHA-256 is
kept, which suffices because nobody can guess 256 bits. A personal token has the roles of its subject; a service token
has one role of its own, in one project or in the organisation. Either may be narrowed to some permissions.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from astraml_ray.access.denials import PermissionDeniedError, ProjectNotFoundError, UnauthenticatedError
from astraml_ray.access.permissions import ANYWHERE, Permission, Role, permissions_of, stronger
from astraml_ray.store.access_tables import ORGANISATION
from astraml_ray.store.audit import Actor
from astraml_ray.store.projects import MemberRecord
from astraml_ray.store.tokens import TokenRecord

__all__ = ["Principal", "bearer_of", "check_token", "digest_of", "id_of", "make_token", "principal_of"]

_TOKEN = re.compile(r"astr_([0-9a-hjkmnp-tv-z]{12})_[A-Za-z0-9_-]{43}")
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_NOBODY = "0" * 64
_HINT = "send `Authorization: Bearer TOKEN`; `astraml token create` makes one"


@dataclass(frozen=True)
class Principal:
    """Whom a token stands for, and what that may do.

    Attributes:
        token_id: The token's public part.
        subject: The person or service.
        org_role: Held in every project; None for most.
        roles: Project -> role.
        singly: Project -> permissions given one by one, besides the role.
        scopes: The only permissions of this token; None is all of its roles'.
        expires_at: When the token ends by itself; None never.
        bound: The only project where the token counts; None is everywhere.
    """

    token_id: str
    subject: str
    org_role: Role | None = None
    roles: Mapping[str, Role] = field(default_factory=dict)
    singly: Mapping[str, frozenset[Permission]] = field(default_factory=dict)
    scopes: frozenset[Permission] | None = None
    expires_at: float | None = None
    bound: str | None = None

    @property
    def actor(self) -> Actor:
        """As the audit trail names it."""
        return Actor(self.subject, self.token_id)

    def role_in(self, project_id: str | None) -> Role | None:
        """The role in a project, or in the organisation."""
        return self.org_role if project_id is None else stronger(self.org_role, self.roles.get(project_id))

    def permissions_in(self, project_id: str | None) -> frozenset[Permission]:
        """Everything that may be done in a project, or in the organisation."""
        held = self._held(project_id)
        return held if self.scopes is None else held & self.scopes

    def may(self, permission: Permission, project_id: str | None) -> bool:
        """Whether something may be done in a project, or in the organisation."""
        return permission in self.permissions_in(project_id)

    def knows(self, project_id: str) -> bool:
        """Whether it may know that a project exists."""
        return bool(self._held(project_id))

    def projects_with(self, permission: Permission) -> frozenset[str] | None:
        """The projects where something may be done; None is all of them."""
        if self.may(permission, None):
            return None
        return frozenset(project for project in {*self.roles, *self.singly} if self.may(permission, project))

    def require(self, permission: Permission, project_id: str | None, *, ask: Iterable[str] = ()) -> None:
        """Does nothing if it may be done.

        Raises:
            ProjectNotFoundError: It is no member of the project.
            PermissionDeniedError: The role lacks the permission, or the token was made without it.
        """
        if self.may(permission, project_id):
            return
        if project_id is not None and not self.knows(project_id):
            raise ProjectNotFoundError(project_id)
        role = self.role_in(project_id)
        narrowed = permission in self._held(project_id)
        held = role.value if role else None
        raise PermissionDeniedError(permission, project_id, held=held, ask=tuple(ask), narrowed=narrowed)

    def _held(self, project_id: str | None) -> frozenset[Permission]:
        held = permissions_of(self.role_in(project_id))
        if project_id is not None:
            return held | self.singly.get(project_id, frozenset())
        return held.union(*(permissions_of(role) & ANYWHERE for role in self.roles.values()))


def make_token() -> str:
    """A new token, to be shown once and kept by its digest."""
    name = "".join(secrets.choice(_ALPHABET) for _ in range(12))
    return f"astr_{name}_{secrets.token_urlsafe(32)}"


def digest_of(token: str) -> str:
    """What is kept of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def id_of(token: str) -> str | None:
    """The part of a token that is no secret; None if it is no token."""
    match = _TOKEN.fullmatch(token)
    return match[1] if match else None


def bearer_of(header: str | None) -> str:
    """The token in an Authorization header.

    Raises:
        UnauthenticatedError: There is none.
    """
    if header is None or not header.strip():
        raise UnauthenticatedError("a token is needed", hint=_HINT)
    scheme, _, token = header.strip().partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or id_of(token) is None:
        raise UnauthenticatedError("this is no token of this service", hint=_HINT)
    return token


def check_token(token: str, record: TokenRecord | None, *, now: float) -> TokenRecord:
    """The record, if the token is that one and counts.

    Raises:
        UnauthenticatedError: It is unknown, revoked or expired. Only who has the whole token learns which.
    """
    digest = record.digest if record is not None else _NOBODY
    same = hmac.compare_digest(digest_of(token), digest)
    if record is None or not same:
        raise UnauthenticatedError("the token is not known", hint=_HINT)
    if record.revoked_at is not None:
        raise UnauthenticatedError("the token was revoked", hint="ask for a new one")
    if record.expires_at is not None and record.expires_at <= now:
        raise UnauthenticatedError("the token has expired", hint="ask for a new one")
    return record


def principal_of(record: TokenRecord, memberships: Iterable[MemberRecord]) -> Principal:
    """Whom a token stands for. Names of roles and permissions that this release does not know give nothing."""
    org_role: Role | None = None
    roles: dict[str, Role] = {}
    singly: dict[str, frozenset[Permission]] = {}
    if record.kind == "service":
        role = _role(record.role)
        if record.scope is None or role is None:
            org_role = role
        else:
            roles[record.scope] = role
    else:
        for member in memberships:
            role = _role(member.role)
            if member.scope == ORGANISATION:
                org_role = role
                continue
            if role is not None:
                roles[member.scope] = role
            singly[member.scope] = _permissions(member.permissions)
        if record.scope is not None:
            # Bound to one project, whatever its subject may do elsewhere.
            bound = stronger(org_role, roles.get(record.scope))
            org_role, roles = None, {record.scope: bound} if bound else {}
            singly = {record.scope: singly.get(record.scope, frozenset())}
    scopes = None if record.permissions is None else _permissions(record.permissions)
    return Principal(record.id, record.subject, org_role, roles, singly, scopes, record.expires_at, bound=record.scope)


def _role(name: str | None) -> Role | None:
    return Role(name) if name in {role.value for role in Role} else None


def _permissions(names: Iterable[str]) -> frozenset[Permission]:
    known = {permission.value: permission for permission in Permission}
    return frozenset(known[name] for name in names if name in known)
