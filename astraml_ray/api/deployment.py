"""The API as a Ray Serve application."""

from __future__ import annotations

import logging
from typing import Any

import ray
from fastapi import FastAPI
from ray import serve

from astraml_ray.access.secrets import MASTER_KEY_FILE
from astraml_ray.access.targets import AllowedTargets
from astraml_ray.api.app import Services, build_app
from astraml_ray.control.service import RayValidator, cluster_now, nudger
from astraml_ray.errors import InfrastructureError
from astraml_ray.installation import Installation, load_installation
from astraml_ray.settings import load_settings
from astraml_ray.store.engine import open_store

__all__ = ["APPLICATION", "deploy", "served_app"]

APPLICATION = "astraml"
_CONCURRENT = 1_000  # above the app's own limits, which answer what is too much; Serve would let it wait


def served_app() -> FastAPI:
    """Builds the app in a replica; ASTRAML_HOME says of which installation."""
    settings = load_settings()
    installation = load_installation(settings.home)
    if installation is None:
        raise InfrastructureError("there is no installation", param=str(settings.home), hint="astraml up")
    return build_app(
        Services(
            store=open_store(installation.database_url),
            validator=RayValidator(installation.namespace),
            nudge=nudger(installation.namespace),
            keys=installation.home / MASTER_KEY_FILE,
            cluster=cluster_now,
            targets=AllowedTargets.parse(settings.allowed_targets),
            sends_request_id=False,  # Serve's proxy does
        )
    )


def deploy(installation: Installation, *, host: str, port: int, replicas: int) -> None:
    """Serves the API on the Ray cluster of this process; replaces what is served there, without a gap.

    Raises:
        InfrastructureError: It does not come up.
    """
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    options: Any = {"host": host, "port": port, "request_timeout_s": None, "keep_alive_timeout_s": 65}
    serve.start(proxy_location="HeadOnly", http_options=options)
    application = serve.deployment(serve.ingress(served_app)(_Api)).options(
        name="api",
        num_replicas=replicas,
        max_ongoing_requests=_CONCURRENT,
        graceful_shutdown_timeout_s=5,
        health_check_period_s=2,
        ray_actor_options={
            "num_cpus": 0,
            "resources": {f"node:{ray.util.get_node_ip_address()}": 0.001},  # this node, whose files it needs
            "runtime_env": {
                "env_vars": {
                    "ASTRAML_HOME": str(installation.home),
                    "ASTRAML_ALLOWED_TARGETS": load_settings().allowed_targets,
                }
            },
        },
    )
    try:
        serve.run(application.bind(), name=APPLICATION, route_prefix="/")
    except RuntimeError as error:
        folder = installation.head["ray_temp_dir"] if installation.head else "Ray's session folder"
        raise InfrastructureError(f"the API does not come up: {error}", hint=f"see the logs under {folder}") from error


class _Api:
    """The app answers; a replica needs a class."""
