"""Refusals: each has its own code and status, tells what is missing, and crosses processes whole."""

from __future__ import annotations

import pickle

import pytest

import astraml_ray.access.denials as denials
from astraml_ray.access.denials import AccessError, PermissionDeniedError, PolicyViolationError, ProblemsError
from astraml_ray.access.permissions import Permission
from astraml_ray.errors import AstraError, Problem

KINDS = [getattr(denials, name) for name in denials.__all__]
FINAL = [kind for kind in KINDS if kind not in (AccessError, ProblemsError)]


def test_codes_are_different_and_statuses_are_those_of_http() -> None:
    assert len({kind.code for kind in FINAL}) == len(FINAL)
    for kind in FINAL:
        assert kind.__doc__
        assert kind.__name__ in (denials.__doc__ or "")
        assert (400 <= kind.http_status < 500) == issubclass(kind, AccessError)
        assert kind.retryable == (kind.http_status == 429)


@pytest.mark.parametrize(
    "error",
    [
        PermissionDeniedError(Permission.JOB_SUBMIT, "p1", held="viewer", ask=("ana",)),
        PolicyViolationError([Problem("/a", "b", "c")], hint="d"),
        denials.TooManyFailuresError("x", retry_after=3.0),
        denials.ProjectNotFoundError("p1"),
    ],
)
def test_they_pickle_whole(error: AstraError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert copy.as_dict() == error.as_dict()
    assert copy.__dict__ == error.__dict__


def test_a_missing_permission_names_itself_the_roles_and_who_can_give_it() -> None:
    error = PermissionDeniedError(Permission.JOB_CANCEL_ANY, "p1", held="viewer", ask=("ana", "bo"))
    assert error.as_dict()["permission"] == "job.cancel.any"
    assert error.roles == ["editor", "project_admin", "org_admin"]
    assert "job.cancel.any" in str(error)
    assert "'p1'" in str(error)
    assert "editor, project_admin, org_admin; you are viewer; ask ana, bo" in str(error)
    in_the_organisation = PermissionDeniedError(Permission.POLICY_MANAGE, None)
    assert in_the_organisation.roles == ["org_admin"]


def test_problems_are_all_there() -> None:
    problems = [Problem("/a", "one"), Problem("/b", "two", "do this")]
    data = PolicyViolationError(problems).as_dict()
    assert [p["param"] for p in data["problems"]] == ["/a", "/b"]
    assert data["problems"][1]["hint"] == "do this"
