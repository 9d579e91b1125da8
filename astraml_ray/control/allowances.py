"""What quotas still leave, as one job after the other starts. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from astraml_ray.access.quotas import Quota, Usage, Verdict, decide_all
from astraml_ray.store.access import GpuTime
from astraml_ray.store.access_tables import ORGANISATION

__all__ = ["Allowances", "Holder"]


@dataclass(frozen=True)
class Holder:
    """What a job that runs has: jobs on CPUs hold zero GPUs, and count as jobs."""

    project_id: str
    gpus: float


@dataclass(frozen=True)
class Allowances:
    """The quotas by scope, and what each scope has; a scope without a quota is not bounded.

    Attributes:
        quotas: Of projects, and of the organisation.
        usage: Of the same scopes.
    """

    quotas: Mapping[str, Quota] = field(default_factory=dict)
    usage: Mapping[str, Usage] = field(default_factory=dict)
    # Thousands may wait for the same thing, and to add up a week's GPU time takes a while.
    _known: dict[tuple[str, int], Verdict] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def of(
        cls, quotas: Mapping[str, Quota], holders: Iterable[Holder], times: Mapping[str, Sequence[GpuTime]]
    ) -> Allowances:
        """Before anything starts.

        Args:
            quotas: By scope.
            holders: What runs, of whatever project.
            times: GPU time of the last week, by scope, where a quota counts it.
        """
        allowances = cls(quotas, {scope: Usage(times=times.get(scope, ())) for scope in quotas})
        for holder in holders:
            allowances = allowances.less(holder.project_id, holder.gpus)
        return allowances

    def verdict(self, project_id: str, gpus: float, *, now: float) -> Verdict:
        """Whether a job of a project may start, as far as quotas go."""
        key = (project_id, round(gpus))
        if key not in self._known:
            scopes = [(self.quotas[s], self.usage[s]) for s in (project_id, ORGANISATION) if s in self.quotas]
            self._known[key] = decide_all(scopes, gpus=key[1], now=now)
        return self._known[key]

    def less(self, project_id: str, gpus: float) -> Allowances:
        """What is left when a job has started."""
        taken = {
            scope: replace(use, gpus=use.gpus + gpus, jobs=use.jobs + 1)
            for scope in (project_id, ORGANISATION)
            if (use := self.usage.get(scope)) is not None
        }
        return replace(self, usage={**self.usage, **taken}) if taken else self
