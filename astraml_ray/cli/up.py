"""`astraml up`, `down` and `status`: the service on this machine, or on the Ray cluster of RAY_ADDRESS."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from astraml_ray.cli.outcome import conclude
from astraml_ray.settings import Settings, load_settings

if TYPE_CHECKING:
    from astraml_ray.installation import Installation

__all__ = ["down", "start_service", "status", "stop_service", "up"]

_DEFAULT_PORT = 8700
_OUTPUT = click.option("--output", type=click.Choice(["text", "json"]), default="text")


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Where the API listens.")
@click.option("--port", type=int, default=None, help=f"[{_DEFAULT_PORT}, or the next free one]")
@click.option("--replicas", type=click.IntRange(1, 64), default=1, show_default=True, help="Processes of the API.")
@click.option("--storage", default=None, help="Where run folders go: a path or s3:// prefix. [ASTRAML_HOME/runs]")
@click.option(
    "--s3", "s3_folder", default=None, metavar="FOLDER", help="Serve FOLDER over S3; its folders are buckets."
)
@click.option("--num-cpus", type=click.IntRange(1), default=None, help="Logical CPUs of the Ray head. [cores + 2]")
@click.option("--dashboard-port", type=int, default=None, help="Start Ray's dashboard, for `ray job submit`.")
@_OUTPUT
def up(output: str, **options: Any) -> None:
    """Start the service on this machine.

    Ray if there is none, the API, the controller. Safe to repeat. Everything of it lives under ASTRAML_HOME
    (~/.astraml). With RAY_ADDRESS it starts on that cluster.
    """
    conclude(lambda: start_service(load_settings(), **options), output=output, show=_show_up)


@click.command()
@_OUTPUT
def down(output: str) -> None:
    """Stop the service of this machine.

    Jobs stay: `astraml up` goes on with them, from their last checkpoints.
    """
    conclude(lambda: stop_service(load_settings()), output=output, show=_show_down)


@click.command()
@_OUTPUT
def status(output: str) -> None:
    """Show how the service is."""
    conclude(lambda: service_status(load_settings()), output=output, show=_show_status)


def start_service(
    settings: Settings,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    replicas: int = 1,
    storage: str | None = None,
    s3_folder: str | None = None,
    num_cpus: int | None = None,
    dashboard_port: int | None = None,
) -> dict[str, Any]:
    """Starts what is not there yet; see `astraml up`.

    Raises:
        InfrastructureError: Ray, the S3 server or the API does not come up.
        StoreError: The database cannot be used.
    """
    from astraml_ray.api.startup import bring_up, reaches
    from astraml_ray.control.head import is_alive
    from astraml_ray.installation import exclusive, load_installation

    if host not in ("127.0.0.1", "localhost", "::1"):
        _say(f"warning: tokens and data cross the network as they are: put TLS in front of {host}")
    with exclusive(settings.home):
        found = load_installation(settings.home)
        if found is not None and (found.head is None or is_alive(found.head)) and reaches(found.address):
            return {**_described(found), "already_up": True}
        installation = bring_up(
            settings,
            found,
            host=host,
            port=_choose_port(host, port, found),
            replicas=replicas,
            storage=_absolute(storage) or (found.storage if found else str(settings.home / "runs")),
            s3=_s3(settings, found, Path(s3_folder) if s3_folder else None),
            num_cpus=num_cpus,
            dashboard_port=dashboard_port,
            say=_say,
        )
        return {**_described(installation), "already_up": False}


def stop_service(settings: Settings) -> dict[str, Any]:
    """Ends the processes of the installation, and only those."""
    from astraml_ray.api.startup import take_down
    from astraml_ray.installation import exclusive, load_installation, remove_installation

    with exclusive(settings.home):
        found = load_installation(settings.home)
        if found is not None:
            take_down(found)
            remove_installation(settings.home)
        return {"status": "down", "home": str(settings.home), "was_up": found is not None}


def service_status(settings: Settings) -> dict[str, Any]:
    """What the service says of itself.

    Raises:
        InfrastructureError: It does not answer.
    """
    import httpx

    from astraml_ray.client.endpoint import find_endpoint
    from astraml_ray.errors import InfrastructureError

    endpoint = find_endpoint(settings)
    try:
        answer = httpx.get(f"{endpoint.address}/readyz", timeout=10.0)
        said = answer.json()
    except (httpx.HTTPError, ValueError) as error:
        raise InfrastructureError(
            f"the service does not answer: {error}", param=endpoint.address, hint="astraml up, or set ASTRAML_ADDRESS"
        ) from error
    return {**said, "status": "up" if answer.status_code == 200 else "not ready", "address": endpoint.address}


def _absolute(storage: str | None) -> str | None:
    return storage if storage is None or "://" in storage else str(Path(storage).expanduser().absolute())


def _s3(settings: Settings, found: Installation | None, folder: Path | None) -> dict[str, Any] | None:
    """The embedded S3 server: the one that runs, or one that outlives this process."""
    from astraml_ray.cli.s3_server import start_server
    from astraml_ray.control.head import end_process, is_alive

    if found is not None and found.s3 is not None:
        if is_alive(found.s3) and folder in (None, Path(found.s3["folder"])):
            return found.s3
        end_process(found.s3)
        folder = folder or Path(found.s3["folder"])
    return start_server(folder.resolve(), log=settings.home / "s3.log") if folder else None


def _choose_port(host: str, port: int | None, found: Installation | None) -> int:
    """The one asked for; else the one it had, or the next free one."""
    from astraml_ray.control.head import port_is_free
    from astraml_ray.errors import InfrastructureError

    if port is not None:
        if not port_is_free(host, port):
            raise InfrastructureError(f"port {port} of {host} is taken", param="--port", hint="choose another --port")
        return port
    had = int(found.address.rsplit(":", 1)[1]) if found else _DEFAULT_PORT
    return next(candidate for candidate in range(had, had + 1000) if port_is_free(host, candidate))


def _described(installation: Installation) -> dict[str, Any]:
    return {
        "status": "up",
        "address": installation.address,
        "home": str(installation.home),
        "storage": installation.storage,
        "token_path": str(installation.home / "token"),
        "ray_address": installation.ray_address,
        "s3": installation.s3["endpoint_url"] if installation.s3 else None,
    }


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _show_up(found: dict[str, Any]) -> None:
    print(f"{'already up' if found['already_up'] else 'up'}: {found['address']}")
    if found["s3"]:
        print(f"S3: {found['s3']}")
    print(f"runs: {found['storage']}")
    print(f"admin token: {found['token_path']} (your verbs find it; others get theirs from `astraml token create`)")
    print("next: astraml submit --model tiny-bert --dataset s3://bucket/dataset --gpus 0 --follow")


def _show_down(found: dict[str, Any]) -> None:
    print("down; the jobs are kept" if found["was_up"] else "it was not up")


def _show_status(found: dict[str, Any]) -> None:
    print(f"{found['status']}: {found['address']}")
    for name, value in found.items():
        if name not in ("status", "address"):
            print(f"  {name}: {value}")
