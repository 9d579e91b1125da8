"""Malformed bodies: never a 5xx, never a row."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from astraml_ray.access.inline_secrets import find_inline_secrets
from astraml_ray.access.targets import AllowedTargets, guard_document
from astraml_ray.api.bodies import MAX_VALUES, parse_body
from astraml_ray.api.errors import BodyTooLargeError, HttpError
from astraml_ray.spec.loading import field_paths, parse_spec
from astraml_ray.store.jobs import count_by_status
from tests.api.conftest import REFERENCE, Api

TEXT = json.dumps(REFERENCE)
JSON = "application/json"
YAML = "application/yaml"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ('{"dataset": 1, "dataset": 2}', "twice"),
        ('{"hyperparams": {"lr": 1, "lr": 2}}', "twice"),
        ('{"lr": NaN}', "NaN"),
        ('{"lr": -Infinity}', "Infinity"),
        ('{"lr": 1e999}', "too large"),
        ('{"seed": 9223372036854775808}', "64 bits"),
        ('{"seed": -9223372036854775809}', "64 bits"),
        ('{"seed": ' + "9" * 10_000 + "}", "64 bits"),
        ('{"a": ' * 65 + "1" + "}" * 65, "levels"),
        ("[" * 200_000, "levels"),
        ('{"name": "\\ud800"}', "surrogate"),
        ('{"\\udfff": 1}', "surrogate"),
        ('{"name": "a\\u0000b"}', "NUL"),
        ('{"a\\u0000b": 1}', "NUL"),
        (json.dumps({"labels": {str(i): "" for i in range(MAX_VALUES)}}), "values"),
        ("", "empty"),
        ("  \n", "empty"),
        ("{", "line 1"),
        ('{"a": 1} x', "extra data"),
        ("{'a': 1}", "line 1"),
        ('{"a": 01}', "line 1"),
        ('{"a": "tab\there"}', "control"),
        ("nul", "not JSON"),
    ],
)
def test_json_is_read_strictly(api: Api, body: str, says: str) -> None:
    answer = api.client.post("/v2.1/jobs", content=body, headers={"Content-Type": JSON})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_json"), answer.text
    assert says in answer.json()["detail"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("a: &x [1, 2]\nb: *x", "anchors"),
        ("a: &a [x]\nb: &b [*a, *a]\nc: &c [*b, *b]", "anchors"),
        ("a: 1\na: 2", "twice"),
        ("a: 089", "not YAML"),
        ('a: !!int ""', "tags"),
        ("a: !!python/object/apply:os.system [x]", "tags"),
        ('a: "\\0"', "NUL"),
        ("a: .nan", "finite"),
        ("a: -.inf", "finite"),
        ("1: 2", "not text"),
        ("? [a]\n: 1", "unhashable"),
        ("a: " + "9" * 400, "64 bits"),
        ("a: " + "[" * 100, "levels"),
        ("[1, 2]", "mapping"),
        ("a: 1\n---\nb: 2", "document"),
        ("- a\n" * 20_000, "values"),
        ("a: b: c", "not YAML"),
    ],
)
def test_yaml_is_read_strictly(api: Api, body: str, says: str) -> None:
    answer = api.client.post("/v2.1/jobs", content=body, headers={"Content-Type": YAML})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_json"), answer.text
    assert says in answer.json()["detail"]


def test_long_yaml_is_not_read() -> None:
    with pytest.raises(BodyTooLargeError):
        parse_body(b"a: " + b"x" * 200_000, YAML)


def test_what_is_no_utf8_is_refused(api: Api) -> None:
    for body in (TEXT.encode("utf-16"), b'{"name": "\xff"}', b"\xed\xa0\x80"):
        answer = api.client.post("/v2.1/jobs", content=body, headers={"Content-Type": JSON})
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_json")
    assert api.client.post(
        "/v2.1/jobs", content=b"\xef\xbb\xbf" + TEXT.encode(), headers={"Content-Type": JSON}
    ).is_success


def test_the_place_is_named() -> None:
    with pytest.raises(HttpError) as caught:
        parse_body(b'{"dataset": {"columns": ["a", "\\u0000"]}, "a/b": 1}', JSON)
    assert caught.value.param == "/dataset/columns/1"


def test_postgres_takes_what_the_api_takes(either_api: Api) -> None:
    """Text of every kind but NUL and lone surrogates comes back as it was."""
    odd = "".join(map(chr, [*range(0x20, 0x7F), 0x7F, 0x80, 0xA0, 0x2028, 0xFFFE, 0xFFFF, 0x1F600, 0x10FFFF]))
    answer = either_api.submit({**REFERENCE, "labels": {"odd": odd}})
    assert answer.status_code == 201
    found = either_api.client.get("/v2.1/jobs", params={"label": f"odd={odd}"}).json()["data"]
    assert [job["labels"] for job in found] == [{"odd": odd}]


# -- generated ------------------------------------------------------------------------------------------------------

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=()))
    | st.sampled_from(["s3://b/c", "auto", "0.25 epochs", "5 steps", "90s", "* * * * *", "UTC", "\0", "\ud800"])
)
NAMES = st.sampled_from(sorted({part for path in field_paths() for part in path})) | st.text(max_size=5)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=12
)
PATHS = st.sampled_from(sorted(field_paths()))


def _changed(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(TEXT)
    place = document
    for name in path[:-1]:
        child = place.get(name)
        place[name] = child if isinstance(child, dict) else {}
        place = place[name]
    place[path[-1]] = value
    return document


def _damaged(text: str, place: int, what: str) -> str:
    return text[: place % len(text)] + what + text[(place + 1) % len(text) :]


DOCUMENTS = st.builds(_changed, PATHS, VALUES) | VALUES | st.dictionaries(NAMES, VALUES, max_size=5)
BODIES = (
    DOCUMENTS.map(lambda document: json.dumps(document).encode())
    | st.builds(_damaged, st.just(TEXT), st.integers(0, 10_000), st.text(max_size=3)).map(
        lambda text: text.encode("utf-8", "surrogatepass")
    )
    | st.binary(max_size=60)
)
SETTINGS = settings(
    max_examples=1000,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


def _is_valid(body: bytes, content_type: str) -> bool:
    try:
        data = parse_body(body, content_type)
        assert not guard_document(parse_spec(data).canonical(), allowed=AllowedTargets())
        assert not find_inline_secrets(data)
    except Exception:
        return False
    return isinstance(data, dict)


@pytest.fixture
def send(api: Api) -> Callable[[str, bytes, str], httpx.Response]:
    def send(path: str, body: bytes, content_type: str) -> httpx.Response:
        answer = api.client.post(path, content=body, headers={"Content-Type": content_type})
        assert answer.status_code < 500, answer.text
        json.loads(answer.content, parse_constant=pytest.fail)
        return answer

    return send


def test_generated_bodies_are_answered_by_4xx_and_leave_nothing(
    api: Api, send: Callable[[str, bytes, str], httpx.Response]
) -> None:
    stored = 0

    @SETTINGS
    @given(body=BODIES, content_type=st.sampled_from([JSON, JSON, JSON, YAML]))
    def check(body: bytes, content_type: str) -> None:
        nonlocal stored
        answer = send("/v2.1/jobs", body, content_type)
        assert answer.is_success == (answer.status_code == 201) == _is_valid(body, content_type)
        stored += answer.is_success

    check()
    with api.store.read() as conn:
        assert sum(count_by_status(conn).values()) == stored


def test_generated_changes_of_clones_and_cancellations(
    api: Api, send: Callable[[str, bytes, str], httpx.Response]
) -> None:
    job_id = api.new_job()
    changes = st.dictionaries(PATHS.map(".".join) | st.text(max_size=8), VALUES, max_size=3)
    bodies = changes.map(lambda change: json.dumps({"set": change}).encode()) | BODIES

    @settings(SETTINGS, max_examples=300)
    @given(body=bodies)
    def check(body: bytes) -> None:
        send(f"/v2.1/jobs/{job_id}/clone", body, JSON)
        send("/v2.1/jobs/none/cancel", body, JSON)

    check()
