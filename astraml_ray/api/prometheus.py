"""The service's own metrics, in Prometheus's text format. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from astraml_ray.api.admission import Admission
from astraml_ray.spec.states import JobStatus
from astraml_ray.store.leases import LeaseRecord

__all__ = ["CONTENT_TYPE", "exposition"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def exposition(counts: Mapping[JobStatus, int], lease: LeaseRecord | None, admission: Admission, *, now: float) -> str:
    """Gauges of the jobs, the controller and this process."""
    lines = ["# HELP astraml_jobs Jobs by status.", "# TYPE astraml_jobs gauge"]
    lines += [f'astraml_jobs{{status="{status.value}"}} {count}' for status, count in counts.items()]
    fresh = lease is not None and lease.expires_at > now
    lines += _gauge("astraml_controller_up", "Whether a controller holds the lease.", int(fresh))
    token = lease.token if lease else 0
    lines += _gauge("astraml_controller_token", "Grows whenever a controller takes over.", token)
    lines += _gauge("astraml_api_requests", "Requests under way in this process.", admission.requests)
    lines += _gauge("astraml_api_streams", "Streams under way in this process.", admission.streams)
    return "\n".join(lines) + "\n"


def _gauge(name: str, text: str, value: int) -> list[str]:
    return [f"# HELP {name} {text}", f"# TYPE {name} gauge", f"{name} {value}"]
