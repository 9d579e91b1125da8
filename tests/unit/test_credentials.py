"""Credentials of datasets, the environment of workers, and that neither is told."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import logging
import pickle
import sys
import traceback
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from astraml_ray.access.fields import field_of
from astraml_ray.access.inline_secrets import SECRET_NAME
from astraml_ray.cli.s3_server import serve_s3
from astraml_ray.data.manifest import Manifest
from astraml_ray.data.masking import Masker, mask_data, maskable_parts
from astraml_ray.data.prepare import build_manifest
from astraml_ray.data.rows import read_rows
from astraml_ray.data.storage.credentials import Access, parse_credentials
from astraml_ray.errors import AstraError, DataError, SpecError
from astraml_ray.settings import load_settings
from astraml_ray.spec.dataset import DatasetSpec
from astraml_ray.spec.loading import dump_spec, parse_document, parse_spec
from astraml_ray.spec.secrets import SecretReference, reserved_reason
from astraml_ray.training.logs import capture_logs
from astraml_ray.training.preparation import prepare
from astraml_ray.training.secrets import masked_error, secret_names, variables_of
from tests.conftest import write_dataset

JOB: dict[str, Any] = {"dataset": {"path": "s3://b/d"}, "model": "tiny-bert"}
SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCY"


def given(text: str) -> str:
    return text


def problems_of(**fields: Any) -> list[tuple[str, str]]:
    with pytest.raises(SpecError) as caught:
        parse_spec({**JOB, **fields})
    return [(problem.param, problem.message) for problem in caught.value.problems]


# -- the spec


def test_a_spec_names_secrets_and_keeps_the_names() -> None:
    spec = parse_spec(
        {
            **JOB,
            "dataset": {"path": "s3://b/d", "credentials": {"secret": "s3-prod"}},
            "env": {"HF_TOKEN": {"secret": "hf"}, "PLAIN": "value", "AGAIN": {"secret": "hf"}},
        }
    )
    assert spec.env == {
        "HF_TOKEN": SecretReference(secret="hf"),
        "PLAIN": "value",
        "AGAIN": SecretReference(secret="hf"),
    }
    assert secret_names(spec) == ["hf", "s3-prod"]
    assert parse_spec(parse_document(dump_spec(spec), source="spec")) == spec


@pytest.mark.parametrize(
    ("env", "where", "what"),
    [
        ({"1X": "v"}, "/env/1X", "pattern"),
        ({"A-B": "v"}, "/env/A-B", "pattern"),
        ({"X": 5}, "/env/X", "mapping"),
        ({"X": "a\0b"}, "/env/X", "pattern"),
        ({"X": {"secret": "hf", "more": "x"}}, "/env/X/more", "unknown"),
        ({"X": {"secret": "-no-"}}, "/env/X/secret", "pattern"),
        ({f"X{n}": "v" for n in range(65)}, "/env", "at most 64"),
        ({"secret": "v"}, "/env/secret", "reference"),
    ],
)
def test_what_no_environment_can_be(env: dict[str, Any], where: str, what: str) -> None:
    (found,) = problems_of(env=env)
    assert found[0] == where
    assert what in found[1]


@pytest.mark.parametrize(
    "name",
    [
        *("PATH", "LD_PRELOAD", "DYLD_INSERT_LIBRARIES", "PYTHONPATH", "CC", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"),
        *("RAY_ADDRESS", "ASTRAML_HOME", "MALLOC_ARENA_MAX", "CUDA_VISIBLE_DEVICES", "MASTER_ADDR"),
        *("AWS_ENDPOINT_URL", "https_proxy", "HTTP_PROXY", "SSL_CERT_FILE"),
    ],
)
def test_reserved_variables_are_refused_with_a_reason(name: str) -> None:
    ((where, message),) = problems_of(env={name: {"secret": "s"}})
    assert where == f"/env/{name}"
    assert message == f"a job cannot set {name}: {reserved_reason(name)}"


@pytest.mark.parametrize("name", ["HF_TOKEN", "WANDB_API_KEY", "MY_PATH", "_X", "RAYON_NUM_THREADS", "Path"])
def test_other_variables_are_not(name: str) -> None:
    assert parse_spec({**JOB, "env": {name: "v"}}).env == {name: "v"}


def test_names_of_secrets_are_the_same_everywhere() -> None:
    pattern = SecretReference.model_json_schema()["properties"]["secret"]["pattern"]
    assert pattern == f"^{SECRET_NAME.pattern}$"


def test_policies_and_clones_find_a_reference_in_the_environment() -> None:
    assert field_of("env.HF_TOKEN.secret").parts == ("env", "HF_TOKEN", "secret")
    assert field_of("env.HF_TOKEN").parts == ("env", "HF_TOKEN")
    assert field_of("labels.a.b.secret").parts == ("labels", "a.b.secret")


def test_a_run_without_a_service_has_no_secrets(dataset: Path) -> None:
    spec = parse_spec(
        {**JOB, "dataset": {"path": str(dataset), "credentials": {"secret": "s3"}}, "env": {"X": {"secret": "y"}}}
    )
    with pytest.raises(SpecError) as caught:
        prepare(spec, load_settings())
    assert [problem.param for problem in caught.value.problems] == ["/dataset/credentials", "/env/X"]
    assert "without a service" in str(caught.value)


def test_a_workers_variables() -> None:
    spec = parse_spec({**JOB, "env": {"A": {"secret": "hf"}, "B": "text"}})
    assert variables_of(spec, {"hf": SECRET}.__getitem__) == {"A": SECRET, "B": "text"}
    assert variables_of(parse_spec({**JOB, "env": {"B": "text"}}), None) == {"B": "text"}


# -- credentials


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"access_key_id": "AK", "secret_access_key": SECRET, "region": "eu-1", "endpoint_url": "http://e"}),
        json.dumps(
            {
                "AWS_ACCESS_KEY_ID": "AK",
                "AWS_SECRET_ACCESS_KEY": SECRET,
                "AWS_REGION": "eu-1",
                "AWS_ENDPOINT_URL": "http://e",
            }
        ),
        f"AWS_ACCESS_KEY_ID=AK\nAWS_SECRET_ACCESS_KEY='{SECRET}'\nAWS_REGION=eu-1\nAWS_ENDPOINT_URL=http://e\n",
        f"[default]\naws_access_key_id = AK\naws_secret_access_key = {SECRET}\nregion = eu-1\nendpoint_url = http://e\n",
        f'export AWS_ACCESS_KEY_ID=AK\r\nexport AWS_SECRET_ACCESS_KEY="{SECRET}"\nAWS_DEFAULT_REGION=eu-1\nAWS_ENDPOINT_URL_S3=http://e',
    ],
)
def test_every_notation_of_credentials(text: str) -> None:
    found = parse_credentials(text)
    assert (found.access_key_id, found.secret_access_key, found.session_token) == ("AK", SECRET, None)
    assert (found.endpoint_url, found.region) == ("http://e", "eu-1")
    assert SECRET not in repr(found)
    # Whatever can be read from a text is masked where that text is a secret.
    assert SECRET in maskable_parts(text)
    options = Access(None, partial(given, text)).options()
    assert (options["key"], options["secret"], options["endpoint_url"]) == ("AK", SECRET, "http://e")
    assert options["client_kwargs"] == {"region_name": "eu-1"}
    assert Access("http://spec", partial(given, text)).options()["endpoint_url"] == "http://spec"


@pytest.mark.parametrize(
    "text",
    [
        SECRET,
        "{",
        f'{{"secret_access_key": "{SECRET}"}}',
        f'{{"access_key_id": 5, "secret_access_key": "{SECRET}"}}',
        f"AWS_SECRET_ACCESS_KEY={SECRET}",
        f"AWS_ACCESS_KEY_ID=\nAWS_SECRET_ACCESS_KEY={SECRET}",
    ],
)
def test_what_is_no_credentials_is_said_without_it(text: str) -> None:
    with pytest.raises(DataError) as caught:
        parse_credentials(text)
    assert caught.value.param == "/dataset/credentials"
    assert "access_key_id" in str(caught.value.hint)
    assert SECRET not in str(caught.value)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_a_dataset_is_read_with_its_own_credentials_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And its manifest, which goes into files and to other processes, does not have them."""
    write_dataset(tmp_path / "s3" / "bucket" / "d")
    with serve_s3(tmp_path / "s3") as server:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "of-another-account")
        monkeypatch.setenv("AWS_RESPONSE_CHECKSUM_VALIDATION", "when_required")
        keys = {"access_key_id": server.access_key, "secret_access_key": server.secret_key}
        text = json.dumps({**keys, "endpoint_url": server.endpoint_url, "region": "us-east-1"})
        wrong = json.dumps({**json.loads(text), "secret_access_key": SECRET})
        spec = DatasetSpec(path="s3://bucket/d")
        manifest = build_manifest(spec, task="text-classification", cache=tmp_path / "c", secret=partial(given, text))
        assert read_rows(manifest, manifest.splits["train"], 0).num_rows == 40
        told = manifest.to_json()
        assert (server.secret_key in told, server.access_key in told, "secret" in json.loads(told)) == (False,) * 3
        again = Manifest.from_json(told)
        assert (again, again.digest()) == (manifest, manifest.digest())
        with pytest.raises(AstraError) as caught:
            build_manifest(spec, task="text-classification", cache=tmp_path / "c", secret=partial(given, wrong))
        assert SECRET not in str(caught.value)


# -- what is told


def test_errors_of_storage_do_not_repeat_credentials() -> None:
    access = Access(None, partial(given, json.dumps({"access_key_id": "AKIAIOSFODNN7", "secret_access_key": SECRET})))
    assert access.hidden(f"denied for AKIAIOSFODNN7 with {SECRET}") == "denied for *** with ***"


@pytest.mark.parametrize(
    "cause", [ValueError(f"bad token {SECRET}"), DataError(f"bad token {SECRET}", param=SECRET, hint="h")]
)
def test_an_error_with_a_secret_is_replaced(cause: Exception) -> None:
    masker = Masker({"s": SECRET})
    try:
        try:
            raise KeyError(SECRET)
        except KeyError:
            raise cause  # noqa: B904 - the one behind it is what this is about
    except Exception as error:
        told = masked_error(error, masker)
    sent = pickle.loads(pickle.dumps(told))  # our own object
    assert SECRET not in "".join(traceback.format_exception(sent)) + str(sent.__dict__)
    assert "bad token ***" in str(sent)
    assert isinstance(cause, ValueError) or type(sent) is DataError
    clean = ValueError("nothing of it")
    assert masked_error(clean, masker) is clean


def test_reports_are_masked_at_every_depth() -> None:
    data = {"a": [f"x {SECRET}", {"b": (SECRET, 1, None, True)}]}
    assert mask_data(data, Masker({"s": SECRET})) == {"a": ["x ***", {"b": ["***", 1, None, True]}]}


def test_everything_that_a_process_says_is_masked() -> None:
    """Its lines, its consoles, and what others' handlers write; also what comes in pieces."""
    lines: list[dict[str, Any]] = []
    out, err, file = io.StringIO(), io.StringIO(), io.StringIO()
    other = logging.StreamHandler(file)
    logging.root.addHandler(other)
    factory = logging.getLogRecordFactory()
    try:
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            capture_logs(lines.extend, rank=0) as capture,
        ):
            print("before")
            capture.hide(Masker({"s": SECRET}))
            for letter in f"in pieces {SECRET}!\n":
                sys.stdout.write(letter)
            print(base64.b64encode(SECRET.encode()).decode(), file=sys.stderr)
            logging.getLogger("other").warning("with %s", SECRET)
            try:
                raise ValueError(SECRET)
            except ValueError:
                logging.getLogger("astraml_ray.test").exception("failed")
            sys.stdout.write(f"no end: {SECRET}")
    finally:
        logging.root.removeHandler(other)
    told = "\n".join(line["text"] for line in lines)
    for text in (told, out.getvalue(), err.getvalue(), file.getvalue()):
        assert SECRET not in text
        assert base64.b64encode(SECRET.encode()).decode()[:-4] not in text
    assert "in pieces ***!" in told
    assert out.getvalue() == "before\nin pieces ***!\nno end: ***"
    assert "with ***" in file.getvalue()
    assert "ValueError: ***" in file.getvalue()
    assert "ValueError: ***" in told
    assert logging.getLogRecordFactory() is factory
