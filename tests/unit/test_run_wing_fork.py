"""Going on in a new run: what is copied, from disk or bucket, whatever was damaged or killed before."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from astraml_ray.cli.s3_server import S3Server
from astraml_ray.errors import StorageError
from astraml_ray.training.checkpoint import FolderCheckpoints, Progress
from astraml_ray.training.early_stopping import Patience
from astraml_ray.training.fork import continue_from
from astraml_ray.training.run_folder import RunFolder

FILES = {
    "manifest.json": b"{}",
    "spec.yaml": b"model: m\n",
    "metrics.jsonl": b'{"step": 1}\n{"step": 40',
    "inputs/config.json": b"config",
    "inputs/tokenizer.json": b"tokenizer" * 1000,
    "translations/0a.texts": b"candidates",
    "inputs.json": b'{"encoder": 1}',
}


@pytest.fixture(params=["disk to disk", "disk to bucket", "bucket to bucket", "bucket to disk"])
def folders(request: pytest.FixtureRequest, tmp_path: Path, s3: S3Server) -> tuple[RunFolder, RunFolder]:
    """A run of three checkpoints, the first of them the best; and a folder that is not there yet."""
    where = {"disk": str(tmp_path), "bucket": f"s3://bucket/{tmp_path.name}"}
    source, target = request.param.split(" to ")
    return make_parent(f"{where[source]}/parent", size=9_000_000), RunFolder(f"{where[target]}/child")


def make_parent(uri: str, *, size: int = 1000) -> RunFolder:
    parent = RunFolder(uri)
    for name, data in FILES.items():
        parent.write(name, data)
    parent.write("result.json", b"{}")
    store = FolderCheckpoints(parent, keep=9)
    for step in (20, 30, 40):
        store.save(Progress(step, step, Patience(1.0, 20, 0)), {"model.safetensors": bytes([step]) * size})
    store.wait()
    return parent


def test_the_child_has_what_it_needs_and_no_more(folders: tuple[RunFolder, RunFolder]) -> None:
    parent, child = folders
    continue_from(parent, child)
    for name, data in FILES.items():
        assert child.read(name) == data
    assert not child.exists("result.json")
    store = FolderCheckpoints(child, keep=9)
    assert store.complete_steps() == [20, 40]
    assert all(store.is_whole(step) for step in (20, 40))
    latest = store.latest()
    assert latest is not None
    assert (latest[0].step, latest[0].patience.best_step) == (40, 20)
    assert FolderCheckpoints(parent, keep=9).complete_steps() == [20, 30, 40]
    assert not [name for name in child.names("") if name.startswith(".")]


def test_a_complete_child_is_left_alone(tmp_path: Path) -> None:
    parent, child = make_parent(str(tmp_path / "p")), RunFolder(str(tmp_path / "c"))
    continue_from(parent, child)
    child.write("metrics.jsonl", b"trained on")
    child.remove("checkpoints/step-000000020")
    continue_from(parent, child)
    assert child.read("metrics.jsonl") == b"trained on"
    assert FolderCheckpoints(child, keep=9).steps() == [40]


@pytest.mark.parametrize("writes", range(1, 10))
def test_killed_after_any_file_and_called_again(tmp_path: Path, writes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    parent, child = make_parent(str(tmp_path / "p")), RunFolder(str(tmp_path / "c"))
    done = 0
    copy = RunFolder.copy_from

    def dying(self: RunFolder, source: RunFolder, name: str) -> str:
        nonlocal done
        if done == writes:
            raise KeyboardInterrupt
        done += 1
        return copy(self, source, name)

    monkeypatch.setattr(RunFolder, "copy_from", dying)
    with pytest.raises(KeyboardInterrupt):
        continue_from(parent, child)
    assert not child.exists("inputs.json")
    monkeypatch.undo()
    continue_from(parent, child)
    assert json.loads(child.read("inputs.json")) == {"encoder": 1}
    assert FolderCheckpoints(child, keep=9).complete_steps() == [20, 40]


def test_a_damaged_newest_checkpoint_is_passed_over(tmp_path: Path) -> None:
    parent, child = make_parent(str(tmp_path / "p")), RunFolder(str(tmp_path / "c"))
    parent.write("checkpoints/step-000000040/model.safetensors", b"torn")
    continue_from(parent, child)
    assert FolderCheckpoints(child, keep=9).steps() == [20, 30]


def test_damaged_throughout_is_said_and_leaves_no_run(tmp_path: Path) -> None:
    parent, child = make_parent(str(tmp_path / "p")), RunFolder(str(tmp_path / "c"))
    (tmp_path / "p" / "checkpoints" / "step-000000020" / "model.safetensors").unlink()
    with pytest.raises(StorageError, match="damaged"):
        continue_from(parent, child)
    assert not child.exists("inputs.json")


def test_without_checkpoints_it_starts_at_the_beginning(tmp_path: Path) -> None:
    parent, child = make_parent(str(tmp_path / "p")), RunFolder(str(tmp_path / "c"))
    parent.remove("checkpoints")
    parent.remove("metrics.jsonl")
    continue_from(parent, child)
    assert FolderCheckpoints(child, keep=9).latest_progress() == Progress()
    assert not child.exists("metrics.jsonl")


def test_no_parent_is_said(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no run to go on from"):
        continue_from(RunFolder(str(tmp_path / "none")), RunFolder(str(tmp_path / "c")))
