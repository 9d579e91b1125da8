"""The one way in: from an Authorization header to a Principal that may do what a route asks for."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

from sqlalchemy import Connection

from astraml_ray.access.denials import ProjectNotFoundError, TooManyFailuresError, UnauthenticatedError
from astraml_ray.access.limiter import FailureLimiter
from astraml_ray.access.permissions import Permission, Role, allows
from astraml_ray.access.tokens import Principal, bearer_of, check_token, digest_of, id_of, principal_of
from astraml_ray.errors import StoreError
from astraml_ray.store.access import load_access
from astraml_ray.store.access_tables import ORGANISATION
from astraml_ray.store.engine import Store
from astraml_ray.store.projects import find_project, list_members
from astraml_ray.store.tokens import TokenRecord, touch_token

__all__ = ["Gate", "TokenCache", "require_cancel"]

_TOUCH_S = 60.0
_REMEMBERED = 4096


@dataclass(frozen=True)
class _Entry:
    record: TokenRecord
    principal: Principal
    read_at: float


class TokenCache:
    """Tokens as they were read a moment ago, and the ones known to be good. Any thread may use it.

    What it holds counts for less than a second, so that a revocation does too.
    """

    def __init__(self, *, keep_s: float = 0.5, size: int = _REMEMBERED) -> None:
        self._keep_s = min(keep_s, 0.9)
        self._size = size
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._lock = threading.Lock()

    def fresh(self, digest: str, *, now: float) -> _Entry | None:
        """What was read of a token within the last moment."""
        with self._lock:
            entry = self._entries.get(digest)
        return entry if entry is not None and 0 <= now - entry.read_at < self._keep_s else None

    def knows(self, digest: str) -> bool:
        """Whether the token was good when it was last seen."""
        with self._lock:
            return digest in self._entries

    def put(self, digest: str, record: TokenRecord, principal: Principal, *, now: float) -> None:
        """Remembers a token that is good."""
        with self._lock:
            self._entries.pop(digest, None)
            self._entries[digest] = _Entry(record, principal, now)
            while len(self._entries) > self._size:
                self._entries.popitem(last=False)

    def forget(self, digest: str | None = None) -> None:
        """Drops one token, or all: after a change, so that this process sees it at once."""
        with self._lock:
            if digest is None:
                self._entries.clear()
            else:
                self._entries.pop(digest, None)


class Gate:
    """Decides about requests. One per process; any thread may use it."""

    def __init__(self, store: Store, *, cache: TokenCache | None = None, limiter: FailureLimiter | None = None) -> None:
        self._store = store
        self._limiter = limiter or FailureLimiter()
        self._touched: OrderedDict[str, float] = OrderedDict()
        self._lock = threading.Lock()
        self.cache = cache or TokenCache()

    def authenticate(self, header: str | None, *, now: float, source: str) -> Principal:
        """Whom a request comes from.

        Args:
            header: Authorization, as it came; a token is taken from nowhere else.
            now: Seconds since the epoch.
            source: The address of the caller.

        Raises:
            UnauthenticatedError: There is no token, or none that counts.
            TooManyFailuresError: Too many failed ones came from this address.
            StoreError: The database failed.
        """
        try:
            token = bearer_of(header)
            self._admit(source, digest_of(token), now)
            entry = self._entry(token, now)
        except UnauthenticatedError:
            if header:
                with self._lock:
                    self._limiter.failed(source, now=now)
            raise
        if self._touch_is_due(entry.record, now):
            self._touch(entry.record.id, now)
        return entry.principal

    def remembered(self, header: str | None, *, now: float) -> Principal | None:
        """Whom a request comes from, if that is known without asking the database; None leaves it to `authenticate`."""
        try:
            token = bearer_of(header)
            entry = self.cache.fresh(digest_of(token), now=now)
            if entry is None or self._touch_is_near(entry.record, now):
                return None
            check_token(token, entry.record, now=now)
        except UnauthenticatedError:
            return None
        return entry.principal

    def authorize(
        self, header: str | None, permission: Permission, project_id: str | None, *, now: float, source: str
    ) -> Principal:
        """Whom a request comes from, if that may do what it asks for.

        Args:
            header: Authorization, as it came.
            permission: What the route asks for.
            project_id: Where; None is the organisation.
            now: Seconds since the epoch.
            source: The address of the caller.

        Raises:
            UnauthenticatedError: There is no token, or none that counts.
            TooManyFailuresError: Too many failed ones came from this address.
            ProjectNotFoundError: There is no such project, or the caller is no member.
            PermissionDeniedError: The role lacks the permission.
            StoreError: The database failed.
        """
        principal = self.authenticate(header, now=now, source=source)
        self.require(principal, permission, project_id)
        return principal

    def require(self, principal: Principal, permission: Permission, project_id: str | None) -> None:
        """As `authorize`, for whom is known already."""
        if project_id is None:
            principal.require(permission, None)
            return
        if not principal.knows(project_id):
            raise ProjectNotFoundError(project_id)
        allowed = principal.may(permission, project_id)
        if allowed and principal.role_in(None) is None:
            return
        # A role in the organisation holds in any project, and so in none that is there.
        with self._store.read() as conn:
            if find_project(conn, project_id) is None:
                raise ProjectNotFoundError(project_id)
            ask = () if allowed else _who_can(conn, permission, project_id)
        principal.require(permission, project_id, ask=ask)

    def _admit(self, source: str, digest: str, now: float) -> None:
        with self._lock:
            wait_s = self._limiter.wait_s(source, now=now)
        # Behind one address there may be many, and those that come with a good token are none of the guessers.
        if wait_s and not self.cache.knows(digest):
            raise TooManyFailuresError(
                "too many failed tokens came from this address", hint=f"wait {wait_s:.0f} s", retry_after=wait_s
            )

    def _entry(self, token: str, now: float) -> _Entry:
        digest = digest_of(token)
        entry = self.cache.fresh(digest, now=now)
        try:
            if entry is None:
                with self._store.read() as conn:
                    record, memberships = load_access(conn, id_of(token) or "", now=now)
                checked = check_token(token, record, now=now)
                entry = _Entry(checked, principal_of(checked, memberships), now)
                self.cache.put(digest, entry.record, entry.principal, now=now)
            else:
                check_token(token, entry.record, now=now)
        except UnauthenticatedError:
            self.cache.forget(digest)
            raise
        return entry

    def _touch_is_near(self, record: TokenRecord, now: float) -> bool:
        with self._lock:
            return now - max(record.last_used_at or 0.0, self._touched.get(record.id, 0.0)) >= _TOUCH_S

    def _touch_is_due(self, record: TokenRecord, now: float) -> bool:
        with self._lock:
            used = max(record.last_used_at or 0.0, self._touched.get(record.id, 0.0))
            if now - used < _TOUCH_S:
                return False
            # Noted before it is written: many requests of one token come at once, and one write is enough.
            self._touched[record.id] = now
            self._touched.move_to_end(record.id)
            if len(self._touched) > _REMEMBERED:
                self._touched.popitem(last=False)
            return True

    def _touch(self, token_id: str, now: float) -> None:
        try:
            with self._store.write() as conn:
                touch_token(conn, token_id, now=now, every_s=_TOUCH_S)
        except StoreError:
            # A request is not refused for a note that can be made at the next one.
            return


def require_cancel(principal: Principal, project_id: str, submitted_by: str | None) -> None:
    """Does nothing if the principal may cancel a job.

    Args:
        principal: Who asks.
        project_id: The job's.
        submitted_by: Who submitted the job, if that is known.

    Raises:
        ProjectNotFoundError: It is no member of the project.
        PermissionDeniedError: The job is another's, and the role lacks the permission for those.
    """
    own = submitted_by == principal.subject and principal.may(Permission.JOB_CANCEL_OWN, project_id)
    if own or principal.may(Permission.JOB_CANCEL_ANY, project_id):
        return
    if submitted_by == principal.subject:
        principal.require(Permission.JOB_CANCEL_OWN, project_id)
    principal.require(Permission.JOB_CANCEL_ANY, project_id)


def _who_can(conn: Connection, permission: Permission, project_id: str) -> tuple[str, ...]:
    """Those in the project who have the permission and can give it."""
    if not allows(Role.PROJECT_ADMIN, permission):
        project_id = ORGANISATION
    admins = {Role.PROJECT_ADMIN.value, Role.ORG_ADMIN.value}
    return tuple(member.subject for member in list_members(conn, project_id) if member.role in admins)[:5]
