"""What policies make of a request: the order of the layers, limits, provenance."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astraml_ray.access.denials import PolicyUnreadableError, PolicyViolationError
from astraml_ray.access.effective import InForce, Outcome, apply_policies, explain, request_of
from astraml_ray.access.fields import flatten
from astraml_ray.access.policies import parse_policy
from astraml_ray.errors import SpecError
from astraml_ray.spec.loading import parse_spec
from astraml_ray.store.policies import PolicyRecord

MINIMAL = {"dataset": "s3://b/d", "model": "m"}


def org(version: int = 2, **rules: Any) -> InForce:
    return InForce("organisation", version, parse_policy({"rules": named(rules)}))


def project(version: int = 7, **rules: Any) -> InForce:
    return InForce("project", version, parse_policy({"rules": named(rules)}))


def named(rules: dict[str, Any]) -> dict[str, Any]:
    return {path.replace("__", "."): rule for path, rule in rules.items()}


def ask(**more: Any) -> dict[str, Any]:
    return {**MINIMAL, **more}


def messages(outcome: Outcome) -> dict[str, str]:
    return {problem.param: problem.message for problem in outcome.problems}


def test_without_policies_the_job_is_the_request() -> None:
    outcome = apply_policies(ask(hyperparams={"lr": 1e-4}))
    assert outcome.spec == parse_spec(ask(hyperparams={"lr": 1e-4}))
    assert outcome.document == outcome.spec.canonical()
    assert outcome.problems == []
    outcome.raise_for_violations()


def test_provenance_has_every_field_once() -> None:
    outcome = apply_policies(ask(labels={"a.b": "c"}), project=project(resources__gpus={"force": 1}))
    assert set(outcome.provenance) == {".".join(parts) for parts in flatten(outcome.document)}
    for parts, value in flatten(outcome.document).items():
        assert outcome.provenance[".".join(parts)]["value"] == value
    assert outcome.provenance["labels.a.b"]["source"] == "request"
    assert outcome.provenance["seed"] == {"value": 0, "source": "built-in", "policy_version": None}
    json.dumps(outcome.provenance)


LAYERS = ["organisation default", "project default", "request", "sweep", "project force", "organisation force"]


@given(st.sets(st.sampled_from(LAYERS)))
def test_the_highest_layer_wins_whichever_there_are(present: set[str]) -> None:
    """Each layer says a batch size of its own."""
    size = {layer: 100 + index for index, layer in enumerate(LAYERS)}
    rules: dict[str, dict[str, Any]] = {"organisation": {}, "project": {}}
    for layer in present & {"organisation default", "project default", "project force", "organisation force"}:
        scope, verb = layer.split()
        # One rule cannot have both; a second path to the same field can.
        rules[scope].setdefault(verb, size[layer])
    made = {
        scope: InForce(scope, 1, parse_policy({"rules": _both(given)}))  # type: ignore[arg-type]
        for scope, given in rules.items()
    }
    request = ask(hyperparams={"batch_size": size["request"]}) if "request" in present else ask()
    sweep = {"hyperparams.batch_size": size["sweep"]} if "sweep" in present else {}
    outcome = apply_policies(request, organisation=made["organisation"], project=made["project"], sweep=sweep)
    winner = max(present, key=LAYERS.index) if present else "built-in"
    entry = outcome.provenance["hyperparams.batch_size"]
    assert (entry["source"], entry["value"]) == (winner, size.get(winner, 32))
    assert outcome.spec.hyperparams.batch_size == size.get(winner, 32)
    if winner.endswith("force") and present & {"request", "sweep"}:
        asked = "sweep" if "sweep" in present else "request"
        assert (entry["was"], entry["was_source"]) == (size[asked], asked)


def _both(given: dict[str, int]) -> dict[str, Any]:
    rules: dict[str, Any] = {}
    if "default" in given:
        rules["hyperparams"] = {"default": {"batch_size": given["default"]}}
    if "force" in given:
        rules["hyperparams.batch_size"] = {"force": given["force"]}
    return rules


_PATHS: dict[str, list[Any]] = {
    "hyperparams.batch_size": [1, 32, 64, 500],
    "hyperparams.lr_scheduler": ["cosine", "linear", "constant"],
    "resources.gpus": [0, 1, 4, 16, "auto"],
    "limits.max_duration": ["30m", "2h", "3d", None],
    "labels.team": ["a", "b"],
}


@st.composite
def _policies(draw: st.DrawFn) -> dict[str, Any]:
    rules: dict[str, Any] = {}
    for path, values in _PATHS.items():
        verb = draw(st.sampled_from(["", "", "default", "force", "max", "min", "allow", "deny", "require"]))
        value = draw(st.sampled_from(values))
        if verb in ("max", "min") and path in ("hyperparams.lr_scheduler", "labels.team"):
            continue
        if verb in ("max", "min") and (value == "auto" or value is None):
            continue
        if verb in ("allow", "deny") and value is None:
            continue
        if verb:
            rules[path] = {verb: {"require": True}.get(verb, [value] if verb in ("allow", "deny") else value)}
            if verb in ("max", "min") and draw(st.booleans()):
                rules[path]["on_violation"] = "clamp"
    return rules


@given(_policies(), _policies(), st.fixed_dictionaries({}, optional={p: st.sampled_from(v) for p, v in _PATHS.items()}))
def test_what_is_accepted_keeps_every_limit_and_is_its_own_fixed_point(
    of_org: dict[str, Any], of_project: dict[str, Any], asked: dict[str, Any]
) -> None:
    request: dict[str, Any] = ask()
    for path, value in asked.items():
        block, name = path.split(".")
        request.setdefault(block, {})[name] = value
    given_policies = {
        "organisation": InForce("organisation", 1, parse_policy({"rules": of_org})),
        "project": InForce("project", 1, parse_policy({"rules": of_project})),
    }
    outcome = apply_policies(request, **given_policies)
    # Submitting what came out gives the same, or the same refusals.
    again = apply_policies(outcome.document, **given_policies)
    assert again.document == outcome.document
    # A requirement is met by whoever submits the canonical document, where every field is given.
    required = {p.param for p in outcome.problems if "is required" in p.message}
    assert {p.param for p in again.problems} | required == {p.param for p in outcome.problems} | required
    # And what was asked for can be asked again.
    replayed = apply_policies(request_of(outcome.provenance), **given_policies)
    assert replayed.document == outcome.document


def test_a_request_over_a_default_is_merged_field_by_field() -> None:
    given_policy = project(hyperparams__early_stopping={"default": {"patience": 3, "min_delta": 0.1}})
    outcome = apply_policies(ask(hyperparams={"early_stopping": {"patience": 9}}), project=given_policy)
    stopping = outcome.document["hyperparams"]["early_stopping"]
    assert (stopping["patience"], stopping["min_delta"]) == (9, 0.1)
    assert outcome.provenance["hyperparams.early_stopping.patience"]["source"] == "request"
    assert outcome.provenance["hyperparams.early_stopping.min_delta"]["source"] == "project default"


def test_null_is_a_value() -> None:
    default = project(hyperparams__early_stopping__patience={"default": 3})
    outcome = apply_policies(ask(hyperparams={"early_stopping": None}), project=default)
    assert outcome.spec.hyperparams.early_stopping is None
    forced = apply_policies(ask(), project=project(hyperparams__early_stopping={"force": None}))
    assert forced.spec.hyperparams.early_stopping is None
    child = apply_policies(
        ask(hyperparams={"early_stopping": None}), project=project(hyperparams__early_stopping__patience={"force": 3})
    )
    assert child.spec.hyperparams.early_stopping is not None
    assert child.spec.hyperparams.early_stopping.patience == 3


def test_a_part_of_what_a_job_need_not_have_is_set_only_where_that_is() -> None:
    for verb in ("default", "force"):
        given_policy = project(schedule__timezone={verb: "Europe/Paris"})
        assert apply_policies(ask(), project=given_policy).spec.schedule is None
        outcome = apply_policies(ask(schedule={"cron": "0 * * * *"}), project=given_policy)
        assert outcome.spec.schedule is not None
        assert outcome.spec.schedule.timezone == "Europe/Paris"


def test_a_policy_can_name_the_dataset_in_either_way() -> None:
    default = project(dataset__path={"default": "s3://b/d"}, model__name={"default": "bert-base"})
    assert apply_policies({}, project=default).spec.dataset.path == "s3://b/d"
    own = apply_policies({"dataset": {"train": "s3://x/t", "validation": "s3://x/v"}}, project=default).spec.dataset
    assert (own.path, own.train, own.validation) == (None, "s3://x/t", "s3://x/v")
    splits = org(dataset={"default": {"train": "s3://o/t", "test": "s3://o/e"}})
    both = apply_policies(ask(), organisation=splits).spec.dataset
    assert (both.path, both.train, both.test) == ("s3://b/d", None, None)
    forced = apply_policies(
        {"model": "m", "dataset": {"train": "s3://x/t"}}, project=project(dataset__path={"force": "s3://p/d"})
    )
    assert (forced.spec.dataset.path, forced.spec.dataset.train) == ("s3://p/d", None)


def test_both_ways_in_one_request_stay_an_error() -> None:
    with pytest.raises(SpecError, match="either"):
        apply_policies({"model": "m", "dataset": {"path": "a", "train": "b"}}, project=project(seed={"default": 1}))


def test_limits_reject_by_default_and_say_whose_they_are() -> None:
    given_policy = project(
        resources__gpus={"max": 4, "reason": "the cluster is small"}, hyperparams__batch_size={"min": 8}
    )
    outcome = apply_policies(ask(resources={"gpus": 8}, hyperparams={"batch_size": 4}), project=given_policy)
    found = messages(outcome)
    assert found["/resources/gpus"] == "is 8 (request); project policy v7 allows at most 4"
    assert found["/hyperparams/batch_size"] == "is 4 (request); project policy v7 allows at least 8"
    assert {p.hint for p in outcome.problems} == {"the cluster is small", "set it to at least 8"}
    assert outcome.document["resources"]["gpus"] == 8
    with pytest.raises(PolicyViolationError) as caught:
        outcome.raise_for_violations()
    assert len(caught.value.problems) == 2


def test_limits_clamp_where_the_policy_says_so() -> None:
    given_policy = project(resources__gpus={"max": 4, "on_violation": "clamp"})
    outcome = apply_policies(ask(resources={"gpus": 8}), project=given_policy)
    assert outcome.problems == []
    assert outcome.spec.resources.gpus == 4
    entry = outcome.provenance["resources.gpus"]
    assert entry == {
        "value": 4,
        "source": "project limit",
        "policy_version": 7,
        "was": 8,
        "was_source": "request",
    }
    assert explain("resources.gpus", entry) == "resources.gpus 4, capped from 8 by project policy v7"
    low = project(hyperparams__batch_size={"min": 64, "on_violation": "clamp"})
    raised = apply_policies(ask(), project=low).provenance["hyperparams.batch_size"]
    assert explain("hyperparams.batch_size", raised) == "hyperparams.batch_size 64, raised from 32 by project policy v7"


def test_of_two_clamps_the_narrower_counts_and_what_was_asked_is_kept() -> None:
    outcome = apply_policies(
        ask(resources={"gpus": 16}),
        project=project(resources__gpus={"max": 8, "on_violation": "clamp"}),
        organisation=org(resources__gpus={"max": 4, "on_violation": "clamp"}),
    )
    entry = outcome.provenance["resources.gpus"]
    assert (entry["value"], entry["source"], entry["was"], entry["was_source"]) == (
        4,
        "organisation limit",
        16,
        "request",
    )
    assert request_of(outcome.provenance)["resources"]["gpus"] == 16


def test_clamps_that_contradict_each_other_reject() -> None:
    outcome = apply_policies(
        ask(),
        project=project(hyperparams__batch_size={"min": 64, "on_violation": "clamp"}),
        organisation=org(hyperparams__batch_size={"max": 16, "on_violation": "clamp"}),
    )
    assert "project policy v7 allows at least 64" in messages(outcome)["/hyperparams/batch_size"]


def test_a_project_cannot_move_what_the_organisation_forces() -> None:
    outcome = apply_policies(
        ask(),
        organisation=org(hyperparams__batch_size={"force": 64}),
        project=project(hyperparams__batch_size={"max": 16, "on_violation": "clamp"}),
    )
    assert outcome.spec.hyperparams.batch_size == 64
    assert "organisation force" in messages(outcome)["/hyperparams/batch_size"]


@pytest.mark.parametrize(
    ("resources", "measured"),
    [({"gpus": "auto", "workers": 8}, "which is 8 here"), ({"gpus": 8}, "is 8"), ({"gpus": 8, "workers": 8}, "is 8")],
)
def test_no_way_of_asking_for_gpus_escapes_the_limit(resources: dict[str, Any], measured: str) -> None:
    rejected = apply_policies(ask(resources=resources), project=project(resources__gpus={"max": 4}))
    assert measured in messages(rejected)["/resources/gpus"]
    clamped = apply_policies(
        ask(resources=resources), project=project(resources__gpus={"max": 4, "on_violation": "clamp"})
    )
    assert clamped.problems == []
    assert (clamped.spec.resources.gpus, clamped.spec.resources.workers) == (4, None)
    workers = apply_policies(ask(resources=resources), project=project(resources__workers={"max": 4}))
    assert "/resources/workers" in messages(workers)


def test_workers_and_gpus_are_clamped_together() -> None:
    clamp = project(resources__workers={"max": 2, "on_violation": "clamp"})
    outcome = apply_policies(ask(resources={"gpus": 8}), project=clamp)
    assert (outcome.spec.resources.gpus, outcome.spec.resources.workers) == (2, 2)
    assert outcome.provenance["resources.gpus"]["was"] == 8
    on_cpus = apply_policies(ask(resources={"gpus": 0, "workers": 8}), project=clamp)
    assert (on_cpus.spec.resources.gpus, on_cpus.spec.resources.workers) == (0, 2)


def test_no_limit_is_more_than_any_limit() -> None:
    outcome = apply_policies(ask(), project=project(limits__max_duration={"max": "12h"}))
    assert "is not set, which is no limit" in messages(outcome)["/limits/max_duration"]
    clamp = project(limits__max_duration={"max": "12h", "on_violation": "clamp"})
    assert apply_policies(ask(), project=clamp).spec.limits.max_duration == "12h"
    longer = apply_policies(ask(limits={"max_duration": "1d"}), project=clamp)
    assert longer.spec.limits.max_duration == "12h"
    shorter = apply_policies(ask(limits={"max_duration": "700m"}), project=clamp)
    assert shorter.spec.limits.max_duration == "700m"


def test_allow_and_deny() -> None:
    given_policy = project(model__name={"allow": ["bert-base", "our/*"], "deny": ["our/old*"]})
    for name, refused in [("bert-base", False), ("our/new", False), ("our/old-1", True), ("gpt2", True)]:
        outcome = apply_policies({"dataset": "d", "model": name}, project=given_policy)
        assert bool(outcome.problems) == refused, name
    assert "allows bert-base, our/*" in messages(apply_policies(ask(), project=given_policy))["/model/name"]


@pytest.mark.parametrize(
    "dataset",
    [
        "s3://other/x",
        {"train": "s3://other/x"},
        {"train": "s3://team/x", "validation": "s3://other/v"},
        {"train": "s3://team/x", "test": "s3://team/../other/t"},
    ],
)
def test_what_is_allowed_as_a_dataset_holds_for_all_its_parts(dataset: Any) -> None:
    given_policy = project(dataset__path={"allow": ["s3://team/*"]})
    assert apply_policies({"model": "m", "dataset": dataset}, project=given_policy).problems
    fine = {"model": "m", "dataset": {"train": "s3://team/t", "test": "s3://team/e"}}
    assert not apply_policies(fine, project=given_policy).problems


def test_required_fields_are_given_by_someone() -> None:
    given_policy = project(labels__team={"require": True}, resources__gpus={"require": True})
    outcome = apply_policies(ask(), project=given_policy)
    assert set(messages(outcome)) == {"/labels/team", "/resources/gpus"}
    assert not apply_policies(ask(labels={"team": "a"}, resources={"gpus": 0}), project=given_policy).problems
    empty = apply_policies(ask(labels={"team": ""}, resources={"gpus": 0}), project=given_policy)
    assert set(messages(empty)) == {"/labels/team"}
    defaulted = org(labels__team={"default": "x"}, resources__gpus={"default": 1})
    assert not apply_policies(ask(), project=given_policy, organisation=defaulted).problems


def test_labels_with_dots_do_not_mix() -> None:
    outcome = apply_policies(
        ask(labels={"app": "a", "app.tier": "b"}), project=project(**{"labels.app.tier": {"force": "c"}})
    )
    assert outcome.document["labels"] == {"app": "a", "app.tier": "c"}
    assert outcome.provenance["labels.app"]["source"] == "request"
    assert outcome.provenance["labels.app.tier"]["was"] == "b"


def test_an_invalid_job_names_the_policy_that_has_a_hand_in_it() -> None:
    with pytest.raises(SpecError) as caught:
        apply_policies(ask(resources={"workers": 2}), project=project(resources__gpus={"force": 4}))
    (problem,) = caught.value.problems
    assert "resources.gpus is set by project policy v7" in str(problem.hint)


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"dataset": 5, "model": "m"},
        {"dataset": "d", "model": "m", "hyperparams": 5},
        {"dataset": "d", "model": "m", "hyperparams": {"lr": "high"}},
        {"dataset": "d", "model": "m", "resources": [1]},
        {"dataset": "d", "model": "m", "hyperparams.lr": 1},
        {"dataset": "d", "model": "m", "labels": {"a": {"b": "c"}}},
        {"dataset": "d", "model": "m", "nonsense": {"a": 1}},
    ],
)
def test_an_invalid_request_stays_invalid_whatever_is_forced(request_: dict[str, Any]) -> None:
    forced = project(hyperparams__lr={"force": 1e-3}, resources__gpus={"force": 1}, **{"labels.a": {"require": True}})
    with pytest.raises(SpecError):
        apply_policies(request_, project=forced, organisation=org(hyperparams__epochs={"default": 1}))


def test_deep_and_unknown_sweeps_are_spec_errors() -> None:
    deep: Any = {}
    for _ in range(10_000):
        deep = {"a": deep}
    with pytest.raises(SpecError, match="levels"):
        apply_policies({**MINIMAL, "x": deep})
    with pytest.raises(SpecError, match="did you mean"):
        apply_policies(MINIMAL, sweep={"hyperparams.lrr": 1})


def test_many_unknown_fields_take_no_longer_than_they_must() -> None:
    """Ten thousand fields are laid over one by one; were each looked for among all, this would take minutes."""
    from astraml_ray.access.draft import Draft

    draft = Draft()
    draft.merge({"hyperparams": {f"f{number}": number for number in range(200_000)}}, "request")
    assert draft.is_given(("hyperparams", "f199999"))


def test_a_stored_policy_of_another_release_is_not_ignored() -> None:
    record = PolicyRecord("p1", 3, {"rules": {"of.the.future": {"max": 1}}}, None, None, 0.0, "ana")
    with pytest.raises(PolicyUnreadableError, match="v3"):
        InForce.of(record)
    assert InForce.of(None) is None
    fine = InForce.of(PolicyRecord("*", 3, {"rules": {"seed": {"max": 1}}}, None, None, 0.0, "ana"))
    assert str(fine) == "organisation policy v3"


def test_every_origin_has_words() -> None:
    outcome = apply_policies(
        ask(hyperparams={"lr_scheduler": "linear", "epochs": 9}),
        organisation=org(hyperparams__warmup_steps={"default": 10}),
        project=project(hyperparams__lr_scheduler={"force": "cosine"}),
        sweep={"hyperparams.lr": 1e-3},
    )
    said = {path: explain(path, entry) for path, entry in outcome.provenance.items()}
    assert said["hyperparams.lr_scheduler"] == (
        "hyperparams.lr_scheduler cosine, set by project policy v7, in place of linear"
    )
    assert said["hyperparams.warmup_steps"] == "hyperparams.warmup_steps 10, default of organisation policy v2"
    assert said["hyperparams.epochs"] == "hyperparams.epochs 9, from the request"
    assert said["hyperparams.lr"] == "hyperparams.lr 0.001, from the sweep"
    assert said["seed"] == "seed 0, built-in default"
