"""What quotas still leave, as one job after the other starts. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from astraml_ray.access.quotas import Quota, Usage, Verdict, decide
from astraml_ray.store.access import GpuTime
from astraml_ray.store.access_tables import ORGANISATION

__all__ = ["Allowances", "Holder"]

_HARDNESS = {"admit": 0, "wait": 1, "never": 2}


@dataclass(frozen=True)
class Holder:
    """What a job that runs has: jobs on CPUs hold zero GPUs, and count as jobs."""

    project_id: str
    gpus: float


@dataclass(frozen=True)
class Allowances:
    """The quotas by scope, and what each scope has; a scope without a quota is not bounded.

    Attributes:
        quotas: Of projects, and of the organisation: their bounds at once.
        usage: Of the same scopes, now.
        weeks: Of those whose GPU-hours are used up, why and until when.
    """

    quotas: Mapping[str, Quota] = field(default_factory=dict)
    usage: Mapping[str, Usage] = field(default_factory=dict)
    weeks: Mapping[str, Verdict] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        quotas: Mapping[str, Quota],
        holders: Iterable[Holder],
        times: Mapping[str, Sequence[GpuTime]],
        *,
        now: float,
    ) -> Allowances:
        """Before anything starts.

        Args:
            quotas: By scope.
            holders: What runs, of whatever project.
            times: GPU time of the last week, by scope, where a quota counts it.
            now: Seconds since the epoch.
        """
        # To add up a week takes a while, and what starts now has used no hours yet: once is enough.
        weekly = {
            scope: decide(
                Quota(scope, gpu_hours_per_week=quota.gpu_hours_per_week),
                Usage(times=times.get(scope, ())),
                gpus=1,
                now=now,
            )
            for scope, quota in quotas.items()
        }
        allowances = cls(
            {scope: replace(quota, gpu_hours_per_week=None) for scope, quota in quotas.items()},
            {scope: Usage() for scope in quotas},
            {scope: verdict for scope, verdict in weekly.items() if verdict.decision != "admit"},
        )
        for holder in holders:
            allowances = allowances.less(holder.project_id, holder.gpus)
        return allowances

    def verdict(self, project_id: str, gpus: float) -> Verdict:
        """Whether a job of a project may start, as far as quotas go: the hardest verdict counts."""
        scopes = [scope for scope in (project_id, ORGANISATION) if scope in self.quotas]
        found = [decide(self.quotas[scope], self.usage[scope], gpus=round(gpus), now=0.0) for scope in scopes]
        if gpus:
            found += [self.weeks[scope] for scope in scopes if scope in self.weeks]
        # To wait for others to end is harder than to wait for a time.
        return max(
            found,
            key=lambda one: (_HARDNESS[one.decision], one.retry_at is None, one.retry_at or 0.0),
            default=Verdict("admit"),
        )

    def less(self, project_id: str, gpus: float, *, jobs: int = 1) -> Allowances:
        """What is left when a job has started; of less than nothing, what is left when it had not."""
        taken = {
            scope: replace(use, gpus=use.gpus + gpus, jobs=use.jobs + jobs)
            for scope in (project_id, ORGANISATION)
            if (use := self.usage.get(scope)) is not None
        }
        return replace(self, usage={**self.usage, **taken}) if taken else self
