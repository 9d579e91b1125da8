"""One installation of the service: what `astraml up` writes under ASTRAML_HOME, and everyone else reads."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from astraml_ray.errors import StorageError

__all__ = [
    "Installation",
    "exclusive",
    "load_installation",
    "remove_installation",
    "save_installation",
    "write_private",
]

_FILE = "service.json"


@dataclass(frozen=True)
class Installation:
    """How the service was started.

    Attributes:
        home: Its folder.
        address: Of the HTTP API.
        ray_address: Of the cluster, HOST:PORT.
        ray_token_path: The file of the cluster's token, or None if the cluster was there before.
        head: Process id, start time, temporary folder and fork server of the Ray head, if `astraml up` started one.
        s3: The embedded S3 server, if one was asked for: process id, start time, the user's folder that it serves,
            and its clients' environment.
        storage: Where the runs' folders go.
        database_url: Of the store.
        local_cores: Cores of this machine if the cluster is this machine alone, else None.
    """

    home: Path
    address: str
    ray_address: str
    ray_token_path: str | None
    head: dict[str, Any] | None
    s3: dict[str, Any] | None
    storage: str
    database_url: str
    local_cores: int | None

    @property
    def namespace(self) -> str:
        """Ray's namespace of the service's actors."""
        return "astraml"


def load_installation(home: Path) -> Installation | None:
    """The installation of a home; None if nothing was started there, or it was taken down."""
    try:
        document = json.loads((home / _FILE).read_text())
        return Installation(**{**document, "home": home})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise StorageError(
            f"cannot be read: {error}", param=str(home / _FILE), hint="astraml down removes it; then astraml up again"
        ) from error


def save_installation(installation: Installation) -> None:
    """Writes it, for this user only: the database's address may hold a password."""
    document = {**asdict(installation), "home": str(installation.home)}
    write_private(installation.home / _FILE, json.dumps(document, indent=1))


def remove_installation(home: Path) -> None:
    """Forgets it; the jobs stay."""
    with suppress(FileNotFoundError):
        (home / _FILE).unlink()


def write_private(path: Path, text: str) -> None:
    """Writes a file whole or not at all, readable by this user alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with suppress(FileNotFoundError):
        temporary.unlink()
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


@contextmanager
def exclusive(home: Path) -> Iterator[None]:
    """One `up` or `down` of a home at a time; others wait."""
    import fcntl

    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
