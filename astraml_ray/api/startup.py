"""Bringing the service up on a Ray cluster, and taking it down again."""

from __future__ import annotations

import getpass
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx

from astraml_ray.api.proxy import CALLBACK
from astraml_ray.control.head import end_head, end_process, start_head, token_environment
from astraml_ray.errors import InfrastructureError
from astraml_ray.forkserver.start import runtime_env
from astraml_ray.installation import Installation, save_installation
from astraml_ray.settings import Settings, apply_ray_environment

if TYPE_CHECKING:
    from astraml_ray.store.engine import Store

__all__ = ["bring_up", "reaches", "take_down"]

_READY_S = 60.0


def bring_up(
    settings: Settings,
    found: Installation | None,
    *,
    host: str,
    port: int,
    replicas: int,
    storage: str,
    s3: dict[str, Any] | None,
    num_cpus: int | None,
    dashboard_port: int | None,
    say: Callable[[str], None],
) -> Installation:
    """Starts what is missing of an installation, and waits until it is ready.

    Args:
        settings: Of this process.
        found: What an earlier `up` has left, if anything.
        host: Where the API listens.
        port: The same.
        replicas: Processes of the API.
        storage: Where the runs' folders go.
        s3: The embedded S3 server, if there is one: see Installation.
        num_cpus: Logical CPUs of the Ray head; left out, two more than there are cores.
        dashboard_port: Of Ray's dashboard; left out, there is none.
        say: Takes a line on what is going on.

    Raises:
        InfrastructureError: A part does not come up.
        StoreError: The database cannot be used.
    """
    settings.home.mkdir(parents=True, exist_ok=True)
    say("store: " + settings.database_url.split("@")[-1])
    _prepare_store(settings)
    if found is not None and found.head is not None:
        end_head(found.head)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    head: dict[str, Any] | None = None
    token_path = settings.ray_token_path
    if settings.ray_address is None:
        say("starting Ray")
        # More logical CPUs than cores, so that the data tasks always find one.
        head, address, token_path = start_head(
            settings.home,
            num_cpus=num_cpus or cores + 2,
            dashboard_port=dashboard_port,
            environment={**(s3["environment"] if s3 else {}), "ASTRAML_HOME": str(settings.home), **CALLBACK},
        )
    else:
        address = settings.ray_address
    installation = Installation(
        home=settings.home,
        address=f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}",
        ray_address=address,
        ray_token_path=token_path,
        head=head,
        s3=s3,
        storage=storage,
        database_url=settings.database_url,
        local_cores=cores if head else None,
    )
    save_installation(installation)
    say("starting the controller and the API")
    with _connected(installation):
        from astraml_ray.api.deployment import deploy
        from astraml_ray.control.service import start_controller

        start_controller(installation)
        deploy(installation, host=host, port=port, replicas=replicas)
    _wait_until_ready(installation.address)
    return installation


def take_down(installation: Installation) -> None:
    """Ends what `bring_up` started. On a cluster that was there before, the service's own actors."""
    if installation.head is not None:
        end_head(installation.head)
    else:
        with _connected(installation):
            from ray import serve

            from astraml_ray.api.deployment import APPLICATION
            from astraml_ray.control.service import end_actors

            serve.delete(APPLICATION)
            end_actors(installation.namespace)
    if installation.s3 is not None:
        end_process(installation.s3)


def reaches(address: str) -> bool:
    """Whether the API answers, and is ready."""
    try:
        return httpx.get(f"{address}/readyz", timeout=5.0).status_code == 200
    except httpx.HTTPError:
        return False


def _prepare_store(settings: Settings) -> None:
    """The tables, and the token of whoever starts the service."""
    from astraml_ray.access.issuing import ensure_admin_token
    from astraml_ray.store.engine import migrate, open_store

    migrate(settings.database_url)
    store = open_store(settings.database_url)
    try:
        ensure_admin_token(store, settings.token_path, subject=_user(), now=time.time())
        _keep_master_key(settings, store)
    finally:
        store.close()


def _keep_master_key(settings: Settings, store: Store) -> None:
    """Writes what ASTRAML_MASTER_KEY says where the service's processes read it: their environment does not carry it.

    Keys that something is still encrypted with stay behind it.
    """
    from astraml_ray.access.secrets import MASTER_KEY_FILE, KeyRing, load_keys, write_keys
    from astraml_ray.store.secrets import keys_in_use

    if settings.master_key is None:
        return
    path = settings.home / MASTER_KEY_FILE
    keys = load_keys(settings.master_key, path).keys
    if path.exists():
        with store.read() as conn:
            in_use = keys_in_use(conn)
        before = load_keys(None, path, create=False)
        pairs = zip(before.ids, before.keys, strict=True)
        keys += tuple(key for key_id, key in pairs if key_id in in_use and key not in keys)
    write_keys(path, KeyRing(keys))


def _user() -> str:
    """This user's name, as far as it can name a member."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        return "admin"
    return re.sub(r"[^A-Za-z0-9._-]", "-", name).lstrip("._-")[:100] or "admin"


@contextmanager
def _connected(installation: Installation) -> Iterator[None]:
    """This process as a driver of the cluster."""
    apply_ray_environment()
    os.environ.update(token_environment(installation.ray_token_path))
    import ray

    quiet = {"log_to_driver": False, "logging_level": "error"}
    forks = installation.head.get("fork_server") if installation.head else None
    try:
        ray.init(
            address=installation.ray_address,
            namespace=installation.namespace,
            runtime_env=runtime_env(forks),
            **quiet,
        )
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise InfrastructureError(
            f"the Ray cluster {installation.ray_address} does not answer: {str(error).splitlines()[0]}",
            hint="check RAY_ADDRESS, and that the cluster's Ray version and token are this machine's",
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _wait_until_ready(address: str) -> None:
    deadline = time.monotonic() + _READY_S
    last = "no answer"
    while time.monotonic() < deadline:
        try:
            answer = httpx.get(f"{address}/readyz", timeout=5.0)
            if answer.status_code == 200:
                return
            last = answer.text[:300]
        except httpx.HTTPError as error:
            last = str(error) or type(error).__name__
        time.sleep(0.1)
    raise InfrastructureError(f"the service is not ready after {_READY_S:.0f} s: {last}", param=address)
