"""Every error code of the service: what it means, whose fault it is, and what to do."""

from __future__ import annotations

from astraml_ray.api.catalogue_access import ACCESS_ERRORS
from astraml_ray.api.catalogue_entry import CatalogueEntry, job_failure, service_error
from astraml_ray.api.catalogue_requests import REQUEST_ERRORS

__all__ = ["CATALOGUE", "entry_of"]

_OTHERS = (
    service_error(
        "overloaded",
        503,
        "The service is overloaded",
        "As many requests are under way as this process takes.",
        "Repeat the request after Retry-After seconds; a submission with an Idempotency-Key is safe to repeat.",
        retry_after_s=1,
    ),
    service_error(
        "store_busy",
        503,
        "The database is busy",
        "Other writers held it for longer than a request waits.",
        "Repeat the request after Retry-After seconds.",
        retry_after_s=1,
    ),
    service_error(
        "store_unavailable",
        503,
        "The database cannot be used",
        "It cannot be reached, is full, read-only, or not migrated.",
        "Repeat the request later; whoever runs the service sees the cause in its log.",
        retry_after_s=5,
    ),
    service_error(
        "store",
        503,
        "The database failed",
        "An error of the database that is not known more closely.",
        "Repeat the request later; whoever runs the service sees the cause in its log.",
        retry_after_s=5,
    ),
    service_error(
        "stale_lease",
        503,
        "Another process has taken over",
        "The process that answered is no longer the one in charge.",
        "Repeat the request.",
        retry_after_s=1,
    ),
    service_error(
        "not_ready",
        503,
        "The service is not ready",
        "The database or the controller does not answer.",
        "Wait; jobs that were accepted are kept.",
        retry_after_s=2,
    ),
    service_error(
        "validation_timeout",
        504,
        "Looking at the dataset took too long",
        "The storage is slow, or the prefix has very many objects.",
        "Name a narrower prefix, or submit the job without a dry run.",
    ),
    service_error(
        "internal",
        500,
        "A fault of the service",
        "A defect of AstraML.",
        "Report it with the request's id, which is in the service's log.",
    ),
    job_failure(
        "data",
        "data",
        "start",
        "The dataset cannot be used",
        "It is missing, damaged, changed under the run, does not suit the task, or access is denied.",
        "Correct what `param` names, then clone the job.",
        status=422,
    ),
    job_failure(
        "model",
        "request",
        "start",
        "The model cannot be used",
        "It cannot be loaded, or does not suit the task.",
        "Choose another model or task.",
        status=422,
    ),
    job_failure(
        "resources",
        "infrastructure",
        "start",
        "The cluster cannot hold the run",
        "The run asks for more CPUs or GPUs than the cluster has.",
        "Ask for less, or make the cluster larger.",
        status=422,
    ),
    job_failure(
        "infrastructure",
        "infrastructure",
        "train",
        "A worker, the cluster or the network failed",
        "A process died, a node was lost, or the storage's endpoint does not answer.",
        "Jobs are tried again by themselves, limits.max_retries times; resume the job afterwards.",
        status=503,
        retryable=True,
    ),
    job_failure(
        "storage",
        "storage",
        "train",
        "The run's folder cannot be read or written",
        "The disk is full, or access is denied.",
        "Free some space or correct the rights, then resume the job.",
        status=503,
        retryable=True,
    ),
    job_failure(
        "out_of_memory",
        "memory",
        "train",
        "A worker ran out of memory",
        "The micro-batch is too large, even after it was halved as often as it can be.",
        "Lower hyperparams.batch_size and raise gradient_accumulation_steps, or lower max_length.",
    ),
    job_failure(
        "numeric",
        "numeric",
        "train",
        "A loss or a gradient is not finite",
        "The learning rate is too high, or the data holds extreme values.",
        "Lower hyperparams.lr, add warmup_steps, or use precision fp32; then clone the job.",
    ),
    job_failure(
        "repeated_failure",
        "infrastructure",
        "train",
        "The same failure happened twice at the same step",
        "Trying again does not help: something fails there every time.",
        "Read the logs of the first failing rank.",
    ),
    job_failure(
        "deadline_exceeded",
        "limit",
        "train",
        "The job ran for longer than limits.max_duration",
        "The limit is shorter than the run.",
        "Resume or clone the job with a longer limit.",
    ),
    job_failure(
        "queue_timeout",
        "limit",
        "queue",
        "The job did not start within limits.queue_timeout",
        "The cluster had no room for it in that time.",
        "Submit it again with a longer limit, or with smaller resources.",
    ),
    job_failure(
        "wait_timeout",
        "limit",
        "train",
        "The wait was over before the job",
        "`astraml wait --timeout`, or `Client.wait`, was given less time than the job takes; the job goes on.",
        "Wait again, with more time.",
    ),
    job_failure(
        "stopped",
        "cancelled",
        "train",
        "The run was stopped and saved",
        "Somebody asked for it.",
        "Resume the job.",
    ),
)

CATALOGUE = {
    entry.code: entry for entry in sorted((*REQUEST_ERRORS, *ACCESS_ERRORS, *_OTHERS), key=lambda entry: entry.code)
}
"""Entries by code."""


def entry_of(code: str) -> CatalogueEntry:
    """The entry of a code; an unknown one is a fault of the service."""
    return CATALOGUE.get(code) or CATALOGUE["internal"]
