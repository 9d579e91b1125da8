"""What to do about a job: as sentences and as command lines. Pure."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from astraml_ray.cli.quantities import printable

__all__ = ["explain_job", "set_arguments"]

Json = Mapping[str, Any]


def explain_job(job: Json) -> dict[str, Any]:
    """Why a job is where it is.

    Returns:
        `job_id`, `status`, `summary`; `where` (a list of places) and `hint`, if known; `commands` that would help.
    """
    found: dict[str, Any] = {"job_id": job["id"], "status": job["status"], "where": [], "hint": None, "commands": []}
    describe = {"queued": _queued, "failed": _failed, "cancelled": _cancelled, "succeeded": _succeeded}
    found |= describe.get(job["status"], _active)(job)
    if job.get("kind") == "sweep" and job["status"] != "queued":
        found["commands"] = [f"astraml sweep show {job['id']}", *found["commands"]]
    found |= {name: printable(found[name]) for name in ("summary", "hint") if found[name]}
    return found


def set_arguments(patch: Any) -> str:
    """A change of fields as `--set` arguments. It comes as dotted paths, or as a JSON Patch."""
    if isinstance(patch, Mapping):
        changes = dict(patch)
    else:
        changes = {
            str(step["path"]).strip("/").replace("/", "."): step.get("value")
            for step in patch or []
            if isinstance(step, Mapping) and "path" in step
        }
    return " ".join(f"--set {shlex.quote(f'{path}={json.dumps(value)}')}" for path, value in changes.items())


def _queued(job: Json) -> dict[str, Any]:
    wait = job.get("wait") or {}
    patch = wait.get("would_start_with")
    summary = wait.get("message") or "it waits for the controller to look at it"
    if not patch:
        return {"summary": summary}
    change = set_arguments(patch)
    fields = ", ".join(f"{path}={json.dumps(value)}" for path, value in dict(patch).items())
    commands = [f"astraml clone {job['id']} {change} && astraml cancel {job['id']}"]
    return {"summary": summary, "hint": f"it would start now with {fields}", "commands": commands}


def _failed(job: Json) -> dict[str, Any]:
    error = job.get("error") or {}
    message = error.get("message") or job.get("message") or job.get("reason") or "no reason is known"
    where = [str(error["param"])] if error.get("param") else []
    rank = error.get("rank")
    if rank is not None:
        where.append(f"first on rank {rank}")
    change = set_arguments(error.get("suggested_patch")) or set_arguments(_own_patch(job))
    commands = []
    if error.get("retryable") and job.get("run_path"):
        commands.append(f"astraml resume {job['id']}")
    if change:
        commands.append(f"astraml clone {job['id']} {change}")
    commands.append(f"astraml logs {job['id']} --tail 50" + ("" if rank is None else f" --rank {rank}"))
    code = error.get("code") or job.get("reason")
    summary = f"{code}: {message}" if code else str(message)
    return {"summary": summary, "where": where, "hint": error.get("hint"), "commands": commands}


def _own_patch(job: Json) -> dict[str, Any]:
    """The usual remedy of a class of failures, where the service names none."""
    hyper = (job.get("spec") or {}).get("hyperparams") or {}
    code = (job.get("error") or {}).get("code") or job.get("reason")
    batch, rate = hyper.get("batch_size"), hyper.get("lr")
    if code == "numeric" and rate:
        return {"hyperparams.lr": float(f"{rate / 10:.3g}")}
    if code == "out_of_memory" and batch and batch > 1 and batch % 2 == 0:
        steps = hyper.get("gradient_accumulation_steps") or 1
        return {"hyperparams.batch_size": batch // 2, "hyperparams.gradient_accumulation_steps": steps * 2}
    return {}


def _cancelled(job: Json) -> dict[str, Any]:
    commands = [f"astraml resume {job['id']}"] if job.get("run_path") else [f"astraml clone {job['id']}"]
    return {"summary": job.get("message") or "somebody cancelled it", "commands": commands}


def _succeeded(job: Json) -> dict[str, Any]:
    steps = (job.get("result") or {}).get("steps")
    after = f" after {steps} steps" if steps is not None else ""
    commands = [] if job.get("reason") == "dataset_unchanged" else [f"astraml download {job['id']}"]
    return {"summary": f"it ended well: {job.get('reason')}{after}", "commands": commands}


def _active(job: Json) -> dict[str, Any]:
    progress = job.get("progress") or {}
    at = f" at step {progress['step']} of {progress.get('total_steps')}" if progress.get("step") is not None else ""
    doing = "it is being stopped" if job.get("cancel_requested") else job.get("message") or f"it is {job['status']}"
    return {"summary": f"{doing}{at}", "commands": [f"astraml logs {job['id']} -f"]}
