"""Checkpoints on disk and in a bucket: whole or not there, pruned, and never trusted unseen."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from astraml_ray.cli.s3_server import S3Server
from astraml_ray.errors import StorageError
from astraml_ray.training.checkpoint import FolderCheckpoints, Progress
from astraml_ray.training.early_stopping import Patience
from astraml_ray.training.records import Recorder
from astraml_ray.training.run_folder import RunFolder


@pytest.fixture(params=["disk", "bucket"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, s3: S3Server) -> RunFolder:
    if request.param == "disk":
        return RunFolder(str(tmp_path / "run"))
    return RunFolder(f"s3://bucket/{tmp_path.name}/run")


def save(store: FolderCheckpoints, *steps: int, best: int | None = None) -> None:
    for step in steps:
        store.save(Progress(step, step, Patience(1.0, best, 0)), {"model.safetensors": bytes([step]) * 10})
    store.wait()


def test_latest_is_what_was_saved(folder: RunFolder) -> None:
    store = FolderCheckpoints(folder, keep=2)
    assert store.latest() is None
    save(store, 5, 10)
    latest = FolderCheckpoints(folder, keep=2).latest()
    assert latest is not None
    assert latest[0].step == 10
    assert latest[1] == {"model.safetensors": bytes([10]) * 10}


def test_the_newest_and_the_best_are_kept(folder: RunFolder) -> None:
    store = FolderCheckpoints(folder, keep=2)
    save(store, 1, 2, 3, 4, 5, best=2)
    assert store.steps() == [2, 4, 5]


def test_a_checkpoint_without_manifest_or_with_other_bytes_is_passed_over(folder: RunFolder) -> None:
    store = FolderCheckpoints(folder, keep=5)
    save(store, 1, 2, 3)
    folder.remove("checkpoints/step-000000003/manifest.json")
    assert store.complete_steps() == [1, 2]
    folder.write("checkpoints/step-000000002/model.safetensors", b"torn")
    latest = store.latest()
    assert latest is not None
    assert latest[0].step == 1
    folder.write("checkpoints/step-000000001/manifest.json", b"{")
    assert store.latest() is None


def test_a_failed_write_surfaces_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    """A file size limit makes the kernel refuse the write, as a full disk does."""
    code = (
        "import resource, signal, sys\n"
        "from astraml_ray.training.run_folder import RunFolder\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n    RunFolder(sys.argv[1]).write('big', b'x' * 5000)\n"
        "except Exception as error:\n    print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("StorageError")
    assert "the disk is full" in done.stdout
    assert "--resume" in done.stdout
    assert list(tmp_path.iterdir()) == []
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_a_folder_that_cannot_be_written_names_itself(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file/run/x"):
        RunFolder(str(tmp_path / "file" / "run")).write("x", b"")


def test_a_missing_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="does not exist"):
        RunFolder(str(tmp_path / "no")).read("inputs.json")


def test_records_after_the_checkpoint_are_dropped_on_resume(folder: RunFolder) -> None:
    first = Recorder(folder, step=0)
    for step in range(1, 8):
        first.add({"step": step, "train/loss": 1.0 / step})
    first.close()
    again = Recorder(folder, step=5)
    again.add({"step": 6, "train/loss": 0.5})
    again.close()
    lines = [json.loads(line) for line in folder.read("metrics.jsonl").splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert lines[-1]["train/loss"] == 0.5
    assert any(name.startswith("events.out") for name in folder.names("tensorboard"))


def test_weights_only_loading_refuses_code(tmp_path: Path) -> None:
    """The optimiser's file is the only one that torch unpickles; it must not run anything."""
    import io
    import pickle

    from astraml_ray.training.checkpoint import restore

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return print, ("run",)

    buffer = io.BytesIO()
    torch.save({"optimizer": Evil()}, buffer)
    model = torch.nn.Linear(1, 1)
    import safetensors.torch

    files = {"model.safetensors": safetensors.torch.save(dict(model.state_dict())), "optimizer.pt": buffer.getvalue()}
    with pytest.raises(pickle.UnpicklingError):
        restore(files, model, None, None, None)
