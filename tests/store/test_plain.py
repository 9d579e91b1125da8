"""Any data can be stored."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from astraml_ray.store.engine import Store
from astraml_ray.store.jobs import find_job, get_job, list_jobs, update_job
from astraml_ray.store.plain import plain_data, plain_text, to_json

ANY_TEXT = st.text(st.characters())
ANY_DATA = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4),
    max_leaves=10,
)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("é 😀 \u2028 \\u0000", "é 😀 \u2028 \\u0000"),
        ("a\0b", "a\ufffdb"),
        ("\ud83d\ude00", "😀"),
        ("x\ud800", "x\ufffd"),
    ],
)
def test_plain_text(text: str, plain: str) -> None:
    assert plain_text(text) == plain
    assert json.loads(to_json({"text": text})) == {"text": plain}


def test_what_is_not_finite_becomes_null() -> None:
    assert json.loads(to_json([math.nan, math.inf, {"x": -math.inf}, 1.5])) == [None, None, {"x": None}, 1.5]


@given(ANY_DATA)
def test_json_is_what_any_reader_takes(data: Any) -> None:
    text = to_json(data)
    assert "\\u0000" not in text.replace("\\\\", "")
    read = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    read_again = plain_data(read)
    assert read_again == read
    json.dumps(read, ensure_ascii=False).encode()


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.dictionaries(ANY_TEXT, ANY_DATA, max_size=4), text=ANY_TEXT)
def test_both_databases_take_it(store: Store, job_id: str, data: dict[str, Any], text: str) -> None:
    with store.write() as conn:
        update_job(conn, job_id, message=text, progress=data)
    with store.read() as conn:
        job = get_job(conn, job_id)
        assert job.message == plain_text(text)
        assert job.progress == plain_data(data)
        assert find_job(conn, text) is None
        assert list_jobs(conn, project_id=text, labels={text: text}, before_id=text, limit=1) == []
