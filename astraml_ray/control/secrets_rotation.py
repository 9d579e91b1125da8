"""A new master key: everything is encrypted again under it, and the old ones go. The service goes on meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from astraml_ray.access.secrets import MASTER_KEY_FILE, KeyRing, add_master_key, load_keys, write_keys
from astraml_ray.access.vault import rotate_secrets
from astraml_ray.control.secrets import keys_for
from astraml_ray.installation import Installation
from astraml_ray.store.engine import Store, open_store
from astraml_ray.store.secrets import keys_in_use

__all__ = ["rotate_master_key"]


def rotate_master_key(installation: Installation) -> dict[str, Any]:
    """Changes the master key of a service.

    Returns:
        `key_id` of the new key, `key_file`, how many versions were `moved`, and the ids of the keys `dropped`.

    Raises:
        SecretKeyError: A key that something needs is lost, or the file cannot be written. Nothing is dropped then.
        StoreError: The database failed. Nothing is dropped then.
    """
    path = installation.home / MASTER_KEY_FILE
    store = open_store(installation.database_url)
    try:
        with store.read() as conn:
            keys_for(conn, path)  # makes the file, where there was no secret yet
        ring = add_master_key(path)
        moved = rotate_secrets(store, ring)
        while _drop_old(store, path, ring):
            moved += rotate_secrets(store, ring)
    finally:
        store.close()
    return {"key_id": ring.primary_id, "key_file": str(path), "moved": moved, "dropped": list(ring.ids[1:])}


def _drop_old(store: Store, path: Path, ring: KeyRing) -> bool:
    """Leaves the first key only; puts the others back, and says so, if something was stored under them meanwhile.

    A process that stores a secret looks at the file again afterwards, so that one of the two sides notices.
    """
    write_keys(path, KeyRing(ring.keys[:1]))
    with store.read() as conn:
        late = load_keys(None, path, create=False).missing(keys_in_use(conn))
    if late:
        write_keys(path, ring)
    return bool(late)
