"""Webhook: what a project's receiver is told, and when. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints, model_validator

from astraml_ray.spec.base import Duration, SpecModel, seconds_of
from astraml_ray.spec.hyperparams import lower_is_better
from astraml_ray.spec.job import LabelKey, LabelValue, Name
from astraml_ray.spec.schedule import DATASET_UNCHANGED

__all__ = ["EVENTS", "TEST_EVENT", "Condition", "NewWebhook", "Webhook", "WebhookChange", "event_of", "masked_url"]

TEST_EVENT = "webhook.test"
EVENTS: Mapping[str, str] = {
    "job.created": "a job was submitted, or made by a schedule",
    "job.queued": "a job went back to the queue",
    "job.starting": "a job was admitted",
    "job.running": "a job trains",
    "job.succeeded": "a job has succeeded",
    "job.skipped": "a job of a schedule has ended without training: the dataset is the same",
    "job.failed": "a job has failed",
    "job.cancelled": "a job was cancelled",
    "job.attempt_failed": "an attempt has failed; the job may go on",
    "sweep.created": "a sweep was submitted, or made by a schedule",
    "sweep.queued": "a sweep went back to the queue",
    "sweep.starting": "a sweep was admitted",
    "sweep.running": "a sweep's trials train",
    "sweep.succeeded": "a sweep has succeeded",
    "sweep.skipped": "a sweep of a schedule has ended without training: the dataset is the same",
    "sweep.failed": "a sweep has failed",
    "sweep.cancelled": "a sweep was cancelled",
    "sweep.attempt_failed": "an attempt has failed; the sweep may go on",
    "sweep.trial_started": "a trial has started",
    "sweep.trial_ended": "a trial has ended; `event.status` says how",
    "schedule.created": "a schedule was made",
    "schedule.started": "a schedule has made a job",
    "schedule.failed": "no job could be made of a schedule",
    "schedule.skipped": "a schedule left a time out: the job before had not ended, or the dataset is the same",
    "schedule.missed": "times of a schedule have passed while the service was away",
    "schedule.paused": "a schedule was paused, or has paused itself",
    "schedule.resumed": "a schedule was resumed",
    "schedule.deleted": "a schedule was deleted",
}
"""What can be told of, besides conditions."""
_FAMILIES = tuple(dict.fromkeys(event.partition(".")[0] for event in EVENTS))
_SHORTEST_S, _LONGEST_S = 600.0, 30 * 86400.0


def _known_event(pattern: str) -> str:
    family, _, rest = pattern.partition(".")
    if pattern == "*" or pattern in EVENTS or (family in _FAMILIES and rest == "*"):
        return pattern
    if family == "metric":
        raise ValueError("what is watched of metrics goes into `conditions`")
    known = [event for event in EVENTS if event.startswith(f"{family}.")]
    raise ValueError(f"no such event; known: {', '.join(known or [*(f'{one}.*' for one in _FAMILIES), '*'])}")


def _known_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        well = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        well = False
    if not well or not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("write it as https://host/path")
    if parts.fragment:
        raise ValueError("has a fragment (#), which no server gets to see")
    return url


def _long_enough(text: str) -> str:
    if not _SHORTEST_S <= seconds_of(text) <= _LONGEST_S:
        raise ValueError("must be from 10m to 30d")
    return text


EventPattern = Annotated[str, StringConstraints(max_length=64), AfterValidator(_known_event)]
MetricName = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f]*$")]
Stretch = Annotated[Duration, AfterValidator(_long_enough)]
Url = Annotated[
    str,
    StringConstraints(min_length=1, max_length=2048),
    AfterValidator(_known_url),
    Field(json_schema_extra={"writeOnly": True}),
]


class Condition(SpecModel):
    """Something to be told of a job that runs: once, and again only when it has come anew."""

    model_config = ConfigDict(validate_by_name=False, validate_by_alias=True)

    when: Literal["not_finite", "no_improvement", "deadline_will_be_missed"]
    """`not_finite`: a value of the metric is NaN or infinite, or the run fails for that. `no_improvement`: no better
    value for so long. `deadline_will_be_missed`: at its pace, the job will not end within `limits.max_duration`."""
    metric: MetricName | None = None
    """Such as validation/loss; of `not_finite`, left out, all. Of a sweep, `no_improvement` knows sweep/best only."""
    for_: Stretch = Field(default="2h", alias="for")
    """Of `no_improvement`: how long, from 10m to 30d."""
    mode: Literal["auto", "min", "max"] = "auto"
    """Of `no_improvement`: which values are better; `auto` is min for losses, errors and perplexity, else max. Of a
    sweep, its own direction counts."""

    @model_validator(mode="after")
    def _has_a_metric(self) -> Condition:
        if self.when == "no_improvement" and self.metric is None:
            raise ValueError("`no_improvement` needs a `metric`")
        if self.when == "deadline_will_be_missed" and self.metric is not None:
            raise ValueError("`deadline_will_be_missed` is of the job, not of a `metric`")
        return self

    @property
    def lower_is_better(self) -> bool:
        """The direction, `auto` resolved."""
        return lower_is_better(str(self.metric), self.mode)


class _Fields(SpecModel):
    """What of a webhook can be changed."""

    events: list[EventPattern] = Field(
        default=[
            "job.succeeded",
            "job.failed",
            "sweep.succeeded",
            "sweep.failed",
            "schedule.failed",
            "schedule.paused",
        ],
        max_length=64,
    )
    """Such as job.failed, schedule.* or *."""
    conditions: list[Condition] = Field(default=[], max_length=16)
    """What is watched of jobs that run."""
    format: Literal["standard", "slack"] = "standard"
    """`slack`: {"text": ...}, as Slack, Mattermost and others take it."""
    labels: dict[LabelKey, LabelValue] = Field(default={}, max_length=16)
    """Only jobs with all of these labels; schedules have none, and are told of all the same."""
    enabled: bool = True
    """Without, nothing is told or kept to be told later."""

    def canonical(self) -> dict[str, Any]:
        """Plain JSON data with every default written out."""
        return self.model_dump(mode="json", by_alias=True)


class Webhook(_Fields):
    """A webhook but for its address, which is a secret."""

    name: Name

    @model_validator(mode="after")
    def _has_something_to_tell(self) -> Webhook:
        if not self.events and not self.conditions:
            raise ValueError("needs `events` or `conditions`: it would never be told anything")
        return self

    def wants(self, event: str, labels: Mapping[str, str] | None = None) -> bool:
        """Whether it is to be told of an event; of a job's, with its labels."""
        family = event.partition(".")[0]
        named = any(pattern in ("*", event, f"{family}.*") for pattern in self.events)
        return named and self.covers(labels)

    def covers(self, labels: Mapping[str, str] | None) -> bool:
        """Whether a job with these labels is one of those that it is about."""
        return labels is None or all(labels.get(key) == value for key, value in self.labels.items())


class NewWebhook(Webhook):
    """A webhook to be made."""

    url: Url
    """Where messages go: public, or allowed by the operator. It is encrypted, and shown without its path."""


def _without_defaults(schema: dict[str, Any]) -> None:
    """Of a change, none is what is left out."""
    for field in schema["properties"].values():
        field.pop("default", None)


class WebhookChange(_Fields):
    """What is to be different; what is left out stays."""

    model_config = ConfigDict(json_schema_extra=_without_defaults)

    url: Url = ""
    """A new address, in place of the old one."""


def event_of(event_type: str, *, sweep: bool, reason: str | None = None) -> str | None:
    """The event that one of a job's own events is told as; None: it is not told.

    Args:
        event_type: Such as `job_failed`.
        sweep: The job is a sweep.
        reason: Of the state that the job is in.
    """
    if (event_type, reason) == ("job_succeeded", DATASET_UNCHANGED):
        event_type = "job_skipped"  # a success by its state, and nobody waits for its model
    if event_type.startswith("trial_"):
        event = f"sweep.{event_type}"
    else:
        event = f"{'sweep' if sweep else 'job'}.{event_type.removeprefix('job_')}"
    return event if event in EVENTS else None


def masked_url(url: str) -> str:
    """An address without what may be secret in it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/…"
