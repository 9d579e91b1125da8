"""Secrets written into a request are found and never repeated; ordinary jobs are left alone."""

from __future__ import annotations

from typing import Any

import pytest

from astraml_ray.access.inline_secrets import find_inline_secrets, is_sensitive_name, secret_references
from astraml_ray.settings import configs_folder
from astraml_ray.spec.loading import read_document

AWS = "AKIAIOSFODNN7" + "EXAMPLE"
HF = "hf_" + "abcdefghijKLMNOPqrstuv0123456789wxyz"


def found(document: dict[str, Any]) -> list[str]:
    return [problem.param for problem in find_inline_secrets(document)]


@pytest.mark.parametrize(
    ("document", "pointer"),
    [
        ({"env": {"HF_TOKEN": "x"}}, "/env/HF_TOKEN"),
        ({"env": {"AWS_SECRET_ACCESS_KEY": "x"}}, "/env/AWS_SECRET_ACCESS_KEY"),
        ({"env": {"WANDB_API_KEY": "x"}}, "/env/WANDB_API_KEY"),
        ({"env": {"PLAIN": HF}}, "/env/PLAIN"),
        ({"env": {"PLAIN": f"prefix {AWS} suffix"}}, "/env/PLAIN"),
        ({"dataset": {"credentials": "x"}}, "/dataset/credentials"),
        ({"dataset": {"credentials": {"user": "bob", "key": "x"}}}, "/dataset/credentials/user"),
        ({"dataset": {"credentials": {"secret": "a b"}}}, "/dataset/credentials/secret"),
        ({"dataset": {"credentials": {"secret": AWS}}}, "/dataset/credentials/secret"),
        ({"dataset": {"credentials": {"secret": "s3", "extra": "x"}}}, "/dataset/credentials/secret"),
        ({"password": 12345678}, "/password"),
        ({"secretKey": "x"}, "/secretKey"),
        ({"api-key": "x"}, "/api-key"),
        ({"APIKey": "x"}, "/APIKey"),
        ({"connection_string": "x"}, "/connection_string"),
        ({"a": [{"b": {"passwd": ["x"]}}]}, "/a/0/b/passwd/0"),
        ({"dataset": "s3://user:pass@bucket/x"}, "/dataset"),
        ({"dataset": "https://user:p/a#s?s@host/x"}, "/dataset"),
        ({"dataset": "https://0a1b2c3d4e5f6a7b8c9d@host/x"}, "/dataset"),
        ({"dataset": "https://h/x?X-Amz-Signature=abc&X-Amz-Date=1"}, "/dataset"),
        ({"dataset": "https://h/x?X-Amz-Credential=abc"}, "/dataset"),
        ({"dataset": "https://acc.blob.core.windows.net/c?sv=2024&sig=abc"}, "/dataset"),
        ({"dataset": "https://h/x?access_token=abc"}, "/dataset"),
        ({"dataset": "https://h/x#token=abc"}, "/dataset"),
        ({"model": {"name": "see https://ok.example then https://u:p@h/m"}}, "/model/name"),
        ({"x": "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=abc=="}, "/x"),
        ({"x": "-----BEGIN RSA PRIVATE KEY-----\nabc"}, "/x"),
        ({"x": "astr_0123456789ab_" + "a" * 43}, "/x"),
        ({"x": "ghp_" + "a1" * 18}, "/x"),
        ({"key": "f3A9c2e1B7d64088aE5c"}, "/key"),
        ({"labels": {"token": "x"}}, "/labels/token"),
        ({"labels": {"secret": "x"}}, "/labels/secret"),
    ],
)
def test_a_literal_is_found(document: dict[str, Any], pointer: str) -> None:
    assert pointer in found(document)


@pytest.mark.parametrize(
    "document",
    [
        {"env": {"HF_TOKEN": {"secret": "hf"}}},
        {"dataset": {"credentials": {"secret": "s3-prod"}}},
        {"dataset": "s3://bucket/very/long/prefix-0123456789abcdef0123456789abcdef"},
        {"dataset": "https://host:8080/path@v2?version=3&sort=sig"},
        {"dataset": "file:///data/key"},
        {"model": {"name": "org/model@0123456789abcdef0123456789abcdef01234567"}},
        {"model": {"revision": "0123456789abcdef0123456789abcdef01234567"}},
        {"env": {"TOKENIZERS_PARALLELISM": "false", "MAX_TOKENS": "5", "MONKEY": "f3A9c2e1B7d64088aE5c"}},
        {"pad_token": "[PAD]", "token_type": "bert", "use_auth_token": False, "max_tokens": 12},
        {"key": "name", "sort_key": "created", "auth": "basic", "session": "morning run of tuesday"},
        {"password": None, "token": "", "secret": "  "},
        {"labels": {"team": "vision", "ticket": "ABC-1234"}},
        {"hyperparams": {"lr": 3e-5, "early_stopping": {"monitor": "validation/token_accuracy"}}},
        {"schedule": {"cron": "0 * * * *"}},
        {},
    ],
)
def test_what_is_no_secret_is_left_alone(document: dict[str, Any]) -> None:
    assert found(document) == []


def test_every_shipped_job_is_left_alone() -> None:
    for file in (configs_folder() / "jobs").glob("*.yaml"):
        assert found(read_document(file)) == []


def test_the_hint_has_the_command_and_nothing_has_the_value() -> None:
    document = {
        "project_id": "p-demo",
        "env": {"HF_TOKEN": "open sesame"},
        HF: 1,
        "nested": {AWS: {"password": "open sesame"}},
        "dataset": "https://bob:open-sesame@h/x",
    }
    problems = find_inline_secrets(document)
    assert len(problems) == 4
    assert "`astraml secret set hf-token --project p-demo`" in str(problems[-1].hint) + str(problems[0].hint) + str(
        next(p for p in problems if p.param == "/env/HF_TOKEN").hint
    )
    text = "\n".join(str(problem) for problem in problems)
    for value in ("sesame", HF, AWS):
        assert value not in text


def test_a_project_that_is_no_name_is_not_repeated() -> None:
    problems = find_inline_secrets({"project_id": "x; rm -rf /", "password": "y"})
    assert all("rm -rf" not in str(problem) for problem in problems)


def test_references() -> None:
    document = {
        "dataset": {"credentials": {"secret": "s3"}},
        "env": {"A/B": {"secret": "hf"}, "C": "x"},
        "list": [{"secret": "third"}],
        "labels": {"secret": "label"},
        "other": {"secret": "x", "more": 1},
    }
    assert sorted(secret_references(document)) == [
        ("/dataset/credentials", "s3"),
        ("/env/A~1B", "hf"),
        ("/list/0", "third"),
    ]


def test_names() -> None:
    yes = ["password", "HF_TOKEN", "s3_secret_access_key", "privateKey", "AUTHORIZATION", "sas", "clientSecret"]
    no = ["tokenizer", "key", "secretary", "monkey", "mask_token", "passage", "keys", "author"]
    assert [is_sensitive_name(name) for name in yes] == [True] * len(yes)
    assert [is_sensitive_name(name) for name in no] == [False] * len(no)


def test_documents_made_to_be_slow_or_deep() -> None:
    deep: Any = "x"
    for _ in range(200_000):
        deep = [deep]
    assert [p.message for p in find_inline_secrets({"a": deep})] == ["is more than 64 levels deep; no job is"]
    assert secret_references({"a": deep}) == []
    wide = {f"field{number}": "a://" * 50 for number in range(2_000)}
    assert find_inline_secrets(wide) == []
    assert find_inline_secrets({"x": "-" * 500_000, "y": "BEGIN " * 100_000, "a" * 500_000: "z"}) == []
