"""Client: every verb of the HTTP API as a method."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from astraml_ray.client.audit import Audit
from astraml_ray.client.downloads import download
from astraml_ray.client.endpoint import find_endpoint
from astraml_ray.client.failures import ApiError
from astraml_ray.client.following import follow_stream, read_pages, turn_pages
from astraml_ray.client.policies import Policies
from astraml_ray.client.projects import Projects
from astraml_ray.client.schedules import Schedules
from astraml_ray.client.secrets import Secrets
from astraml_ray.client.sweeps import Sweeps
from astraml_ray.client.tokens import Tokens
from astraml_ray.client.transport import Transport
from astraml_ray.client.waiting import wait_for_end
from astraml_ray.client.webhooks import Webhooks
from astraml_ray.errors import RequestError
from astraml_ray.settings import load_settings

__all__ = ["Client"]

_JOBS = "/v2.1/jobs"
_PAGE = 200
_LINES = 5000
_EVENTS = 1000
_VALIDATION_S = 180.0
"""For the answer to a dry run: the service reads a bucket before it answers."""

Json = dict[str, Any]


class Client:
    """The service at an address. Jobs, events and log lines are the API's JSON objects.

    Requests that may be sent twice (all but those that cannot be told apart) are tried again while the service is
    away; what makes jobs or schedules carries an idempotency key for that. Use it in a `with` block, or close it.

    Args:
        address: Left out: ASTRAML_ADDRESS, the service of this machine, http://127.0.0.1:8700.
        token: Left out: ASTRAML_TOKEN, or the file `token` in ASTRAML_HOME.
        timeout_s: For one answer.
        retry_s: How long one request is tried again.
        patience_s: How long following, waiting and downloading bear with a service that is away.

    Raises:
        ApiError: From every method: the service refused, or failed. It has the HTTP `status` and the `problem`.
        InfrastructureError: From every method: the service does not answer.
    """

    def __init__(
        self,
        address: str | None = None,
        token: str | None = None,
        timeout_s: float = 30.0,
        *,
        retry_s: float = 15.0,
        patience_s: float = 300.0,
    ) -> None:
        endpoint = find_endpoint(load_settings(), address=address, token=token)
        self.address = endpoint.address
        self.is_local = endpoint.is_local
        self._patience_s = patience_s
        self._transport = Transport(endpoint, timeout_s=timeout_s, retry_s=retry_s)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._transport.close()

    @staticmethod
    def new_key() -> str:
        """An idempotency key that nobody else has."""
        return uuid.uuid4().hex

    # -- making jobs

    def submit(self, spec: Mapping[str, Any], *, idempotency_key: str | None = None) -> Json:
        """Makes a job of a spec: one job, however often it is sent with one key. A key is made if none is given.

        Of a spec with a `schedule` it makes that, and returns it.
        """
        return self._transport.request("POST", _JOBS, body=dict(spec), key=idempotency_key or self.new_key())

    def validate(self, spec: Mapping[str, Any]) -> Json:
        """What a job of this spec would do: full spec, dataset, steps, warnings. Reads the bucket, makes nothing."""
        path = f"{_JOBS}:validate"
        return self._transport.request("POST", path, body=dict(spec), repeatable=True, timeout_s=_VALIDATION_S)

    def inspect_dataset(self, path: str, *, project_id: str = "default", limit: int | None = None) -> Json:
        """What a dataset holds, read as a job of the project would read it; `limit` is rows of each split."""
        query = {"path": path, "project_id": project_id, **({} if limit is None else {"limit": limit})}
        return self._transport.request("GET", "/v2.1/datasets:inspect", params=query, timeout_s=_VALIDATION_S)

    def preview_dataset(
        self,
        path: str,
        *,
        project_id: str = "default",
        augmentation: str = "light",
        rows: int = 16,
        draws: int = 1,
        seed: int = 0,
        image_size: int = 224,
    ) -> Json:
        """Training rows before and after augmentation, read as a job of the project would read them."""
        query = {"path": path, "project_id": project_id, "augmentation": augmentation}
        numbers = {"rows": rows, "draws": draws, "seed": seed, "image_size": image_size}
        return self._transport.request(
            "GET", "/v2.1/datasets:preview", params={**query, **numbers}, timeout_s=_VALIDATION_S
        )

    def resume(self, job_id: str, *, idempotency_key: str | None = None) -> Json:
        """Makes a job that goes on from the last checkpoint of a failed or cancelled one."""
        return self._transport.request("POST", _job(job_id, "resume"), body={}, key=idempotency_key or self.new_key())

    def clone(
        self, job_id: str, changes: Mapping[str, Any] | None = None, *, idempotency_key: str | None = None
    ) -> Json:
        """Makes a job of another's spec; `changes` are fields by dotted path, such as "hyperparams.lr"."""
        body = {"set": dict(changes or {})}
        return self._transport.request("POST", _job(job_id, "clone"), body=body, key=idempotency_key or self.new_key())

    def cancel(self, job_id: str, *, mode: str = "now") -> Json:
        """Asks a job to stop; "keep_best" publishes the best model so far first. Returns the job as it is then."""
        try:
            return self._transport.request("POST", _job(job_id, "cancel"), body={"mode": mode}, repeatable=True)
        except ApiError as error:
            if error.code == "job_terminal" and error.repeated:
                # Perhaps the first try did it, and only its answer was lost.
                job = self.get_job(job_id)
                if job["status"] == "cancelled":
                    return job
            raise

    # -- looking at jobs

    def get_job(self, job_id: str) -> Json:
        """A job."""
        return self._transport.request("GET", _job(job_id))

    def list_jobs(
        self,
        *,
        project_id: str | None = None,
        status: str | Iterable[str] | None = None,
        labels: Mapping[str, str] | None = None,
        schedule_id: str | None = None,
        created_after: str | None = None,
        created_before: str | None = None,
        limit: int | None = None,
    ) -> Iterator[Json]:
        """Jobs without their specs, newest first, page by page as they are asked for. Times are ISO 8601."""
        params: Json = {
            "project_id": project_id,
            "status": [status] if isinstance(status, str) else list(status or []) or None,
            "label": [f"{key}={value}" for key, value in (labels or {}).items()] or None,
            "schedule_id": schedule_id,
            "created_after": created_after,
            "created_before": created_before,
        }
        return turn_pages(self._transport, _JOBS, params=params, limit=limit, size=_PAGE)

    def provenance(self, job_id: str) -> Json:
        """Where a job's fields are from: the request as it was sent, what moved in it, and who set which field."""
        return self._transport.request("GET", _job(job_id, "provenance"))

    def attempts(self, job_id: str) -> list[Json]:
        """The tries at a job, the first one first."""
        return list(self._transport.request("GET", _job(job_id, "attempts"))["data"])

    def wait(
        self,
        job_id: str,
        *,
        timeout_s: float | None = None,
        poll_s: float = 2.0,
        on_look: Callable[[Json], None] | None = None,
    ) -> Json:
        """The job, once it has ended.

        Args:
            timeout_s: Longest wait.
            poll_s: Between two looks; the first ones come sooner.
            on_look: Takes the job at every look.

        Raises:
            WaitTimeoutError: It has not ended by then. It goes on.
        """
        return wait_for_end(
            lambda patience_s: self._transport.request("GET", _job(job_id), patience_s=patience_s),
            timeout_s=timeout_s,
            poll_s=poll_s,
            patience_s=self._patience_s,
            on_look=on_look,
        )

    # -- what a job says

    def logs(
        self,
        job_id: str,
        *,
        follow: bool = False,
        after: int = 0,
        rank: int | None = None,
        attempt: int | None = None,
        level: str | None = None,
        tail: int | None = None,
    ) -> Iterator[Json]:
        """Log lines. Where lines were lost comes an object with their number as `dropped`, and no text.

        Args:
            follow: Go on until the job ends and all its lines are here, over broken connections.
            after: Id of the last line already seen.
            rank: Only this world rank's.
            attempt: Only this attempt's.
            level: The lowest level.
            tail: Only so many lines from the end.
        """
        params = {"rank": rank, "attempt": attempt, "level": level, "tail": tail}
        return self._numbered(_job(job_id, "logs"), follow, params, after, _LINES)

    def events(self, job_id: str, *, follow: bool = False, after: int = 0) -> Iterator[Json]:
        """Events; with `follow`, until the job has ended."""
        return self._numbered(_job(job_id, "events"), follow, {}, after, _EVENTS)

    def _numbered(self, path: str, follow: bool, params: Json, after: int, page: int) -> Iterator[Json]:
        if not follow:
            yield from read_pages(self._transport, path, params=params, after=after, limit=page)
            return
        tail = params.pop("tail", None)
        if tail is not None:
            # It counts from the end, which moves: a stream that breaks could not ask for the same lines again.
            after = yield from read_pages(
                self._transport, path, params={**params, "tail": tail}, after=after, limit=page
            )
        yield from follow_stream(self._transport, path, params=params, after=after, patience_s=self._patience_s)

    def metrics(
        self,
        job_id: str,
        *,
        names: Iterable[str] | None = None,
        resolution: str = "auto",
        start: str | None = None,
        end: str | None = None,
        from_step: int | None = None,
        to_step: int | None = None,
    ) -> Json:
        """Windows of metrics, by time or by step.

        Args:
            names: Left out, all.
            resolution: "30s", "5m", "1h" or "auto": the finest that the service still has for the range.
            start: ISO 8601.
            end: ISO 8601.
        """
        params = {
            "name": list(names or []) or None,
            "resolution": resolution,
            "from": start,
            "to": end,
            "from_step": from_step,
            "to_step": to_step,
        }
        return self._transport.request("GET", _job(job_id, "metrics"), params=params)

    # -- what a job leaves

    def artifacts(self, job_id: str) -> list[Json]:
        """The files of a job's run folder: path and size in bytes."""
        return list(self._transport.request("GET", _job(job_id, "artifacts"))["data"])

    def download(
        self,
        job_id: str,
        path: str = "model",
        target: str | Path | None = None,
        *,
        on_start: Callable[[int], None] | None = None,
        on_bytes: Callable[[int], None] | None = None,
    ) -> Json:
        """Brings a file or a folder of the run folder here, whole or not at all; a broken download is gone on with.

        Args:
            path: In the run folder; "" is all of it.
            target: The folder that the files go into. Left out: `JOB/PATH` here.
            on_start: Takes the number of bytes in all.
            on_bytes: Takes numbers of bytes as they come.

        Returns:
            `to`, the absolute folder; `files`, each with path and size; `bytes`.

        Raises:
            StorageError: There is no such file, or it cannot be written here.
        """
        told = download(
            self._transport,
            _job(job_id, "artifacts"),
            path.strip("/"),
            lambda folder: Path(target if target is not None else Path(job_id, folder)).expanduser().absolute(),
            patience_s=self._patience_s,
            on_start=on_start or (lambda _: None),
            on_bytes=on_bytes or (lambda _: None),
        )
        return {"job_id": job_id, "path": path, **told}

    # -- who may do what

    @property
    def projects(self) -> Projects:
        """Projects, their members and quotas."""
        return Projects(self._transport)

    @property
    def policies(self) -> Policies:
        """What projects and the organisation set and allow in jobs."""
        return Policies(self._transport)

    @property
    def tokens(self) -> Tokens:
        """Tokens, and what this client's may do."""
        return Tokens(self._transport)

    @property
    def schedules(self) -> Schedules:
        """Jobs that are made again and again."""
        return Schedules(self._transport)

    @property
    def sweeps(self) -> Sweeps:
        """How sweeps go, their trials, and jobs of a trial's parameters."""
        return Sweeps(self._transport)

    @property
    def secrets(self) -> Secrets:
        """Secrets, and who used them."""
        return Secrets(self._transport)

    @property
    def webhooks(self) -> Webhooks:
        """Who is told what happens in projects."""
        return Webhooks(self._transport)

    @property
    def audit(self) -> Audit:
        """Who changed what."""
        return Audit(self._transport)

    # -- reference

    def error_info(self, code: str) -> Json:
        """What an error code means, and what to do."""
        return self._transport.request("GET", f"/v2.1/errors/{quote(code, safe='')}")


def _job(job_id: str, *more: str) -> str:
    if not job_id.strip():
        raise RequestError("the id of a job is missing")
    return "/".join([_JOBS, quote(job_id, safe=""), *more])
