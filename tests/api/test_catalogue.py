"""The catalogue of errors: its page, its addresses, and that every code is provoked by a test."""

from __future__ import annotations

import re
from pathlib import Path

from astraml_ray.api.catalogue import CATALOGUE
from astraml_ray.api.troubleshooting import PAGE, render_page
from tests.api.test_errors import all_errors

TESTS = Path(__file__).parents[1]
BASES = {"access", "invalid_request"}  # what more precise errors derive from; no line raises them as they are

RELEASED = """
access already_exists artifact_not_found body_too_large data deadline_exceeded error_code_not_found
idempotency_key_in_flight idempotency_key_invalid idempotency_key_reused infrastructure inline_secret internal
invalid_json invalid_parameter invalid_request invalid_spec invalid_transition job_not_found job_not_resumable
job_terminal last_admin method_not_allowed model not_a_sweep not_found not_ready numeric out_of_memory overloaded
permission_denied policy_changed policy_invalid policy_unreadable policy_violation project_archived
project_not_found queue_timeout quota_exceeded quota_exhausted range_not_satisfiable repeated_failure
request_timeout resources route_not_found schedule_not_found secret_grant secret_invalid secret_key
secret_not_found stale_lease stopped storage store store_busy store_unavailable target_not_allowed
too_many_failures trial_not_found unauthenticated unsupported_media_type validation_timeout wait_timeout
"""
"""Programs and pages point to these: they stay."""


def test_the_page_is_written_from_the_catalogue() -> None:
    assert PAGE.read_text() == render_page(), "python -m astraml_ray.api.troubleshooting"
    assert all(f"### {code}\n" in render_page() for code in CATALOGUE)


def test_no_code_is_ever_taken_away() -> None:
    assert set(RELEASED.split()) <= set(CATALOGUE)
    assert all(re.fullmatch(r"[a-z][a-z_]{2,40}", code) for code in CATALOGUE)


def test_a_test_provokes_every_code() -> None:
    """Each is asserted somewhere by its name, or by its error's."""
    texts = "\n".join(file.read_text() for file in TESTS.rglob("*.py") if file.name != Path(__file__).name)
    names: dict[str, set[str]] = {code: {f'"{code}"'} for code in CATALOGUE}
    for kind in all_errors():
        names[kind.code].add(f"({kind.__name__}")
    assert {code for code, known in names.items() if not any(name in texts for name in known)} <= BASES
