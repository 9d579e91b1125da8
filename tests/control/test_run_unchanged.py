"""A run that is to train only on another dataset: in its runner, at a real bucket, up to where the training begins."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from astraml_ray.cli.s3_server import S3Server
from astraml_ray.control.outbox import Outbox
from astraml_ray.control.run_job import RunJob
from astraml_ray.control.run_secrets import RunSecrets
from astraml_ray.data.changes import listing_digest
from astraml_ray.spec.loading import parse_spec
from tests.conftest import write_dataset

BEFORE = "job-before"


class Runs:
    """Runs of one dataset. They are asked to stop before they train, which is as far as this goes."""

    def __init__(self, folder: Path, rows: Path, uri: str) -> None:
        self.rows, self.uri = rows, uri
        self._folder, self._count = folder, 0

    def run(self, digest: str | None, *, uri: str | None = None, begun: bool = False, **order: Any) -> dict[str, Any]:
        """How a run ends that is told what an earlier one has trained on."""
        self._count += 1
        path = self._folder / f"run-{self._count}"
        if begun:
            path.mkdir(parents=True)
            (path / "inputs.json").write_text("not finished")
        spec = parse_spec({"dataset": uri or self.uri, "model": "tiny-bert", "resources": {"gpus": 0}})
        given = {
            "spec": spec.canonical(),
            "run_path": str(path),
            "parent_run_path": None,
            "attempts": 0,
            "failures": [],
            "stop": "now",
            "trained_before": {"digest": digest, "job_id": BEFORE if digest else None},
            **order,
        }
        outbox, secrets = Outbox(), RunSecrets(spec, "runner", "namespace", lambda attempt, name: "")
        RunJob(given, local_cores=1, outbox=outbox, secrets=secrets).run()
        end: dict[str, Any] = outbox.next_report()["end"]
        return end

    def digest(self) -> str:
        return listing_digest(parse_spec({"dataset": self.uri, "model": "tiny-bert"}).dataset, None)


@pytest.fixture(params=["disk", "bucket"])
def runs(request: pytest.FixtureRequest, tmp_path: Path, s3: S3Server) -> Runs:
    if request.param == "disk":
        return Runs(tmp_path, write_dataset(tmp_path / "rows"), str(tmp_path / "rows"))
    rows = write_dataset(s3.folder / "bucket" / tmp_path.name)
    return Runs(tmp_path, rows, f"s3://bucket/{tmp_path.name}")


def test_the_same_dataset_ends_the_run_and_any_other_goes_on(runs: Runs) -> None:
    first = runs.run(None)
    assert (first["status"], first["message"]) == ("cancelled", "cancelled before the training began")
    assert first["dataset"] == runs.digest(), "what is read has the digest of its listing"
    same = runs.run(first["dataset"])
    assert (same["status"], same["reason"], same["result"]) == ("succeeded", "dataset_unchanged", None)
    assert BEFORE in same["message"]
    # Another object of the same size under the same name.
    data = bytearray((runs.rows / "test.parquet").read_bytes())
    shutil.copy(runs.rows / "test.parquet", runs.rows / "kept")
    data[10] ^= 1
    (runs.rows / "test.parquet").write_bytes(bytes(data))
    assert runs.digest() != first["dataset"]
    (runs.rows / "test.parquet").unlink()
    (runs.rows / "kept").unlink()
    fewer = runs.run(first["dataset"])
    assert (fewer["status"], fewer["dataset"]) == ("cancelled", runs.digest())
    assert fewer["dataset"] != first["dataset"]


def test_in_doubt_it_runs(runs: Runs) -> None:
    digest = runs.digest()
    gone = runs.run(digest, uri=f"{runs.uri}-gone")
    assert (gone["status"], gone["error"]["code"]) == ("failed", "data"), "with the error of the run itself"
    begun = runs.run(digest, begun=True)
    assert begun["status"] == "failed", "it went on with the run that was begun, and did not compare"
    plain = runs.run(digest, trained_before=None)
    assert (plain["status"], plain["dataset"]) == ("cancelled", None)


def test_another_place_with_the_same_rows_is_another_dataset(runs: Runs) -> None:
    digest = runs.digest()
    shutil.copytree(runs.rows, runs.rows.with_name(f"{runs.rows.name}-b"))
    other = runs.run(digest, uri=f"{runs.uri}-b")
    assert (other["status"], other["dataset"] != digest) == ("cancelled", True)
