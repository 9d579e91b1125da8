"""Downloads of real run folders: whole or not at all, gone on with after a cut, and never mixed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from astraml_ray.client import ApiError, Client
from astraml_ray.errors import InfrastructureError, StorageError
from tests.client.conftest import LiveService
from tests.client.proxy import cutting

BIG = 3_000_000
FILES = {
    "model/config.json": b"{}",
    "model/deep/tökenizer #1?.json": b"[1, 2]",
    "model/empty": b"",
    "model/weights.safetensors": os.urandom(BIG),
    "result.json": b'{"steps": 3}',
}


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    for name, data in FILES.items():
        file = tmp_path / "run" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return tmp_path / "run"


@pytest.fixture
def job(service: LiveService, job_id: str, run_folder: Path) -> str:
    """A job that has run."""
    service.move(job_id, "starting", "running", "succeeded", run_path=str(run_folder))
    return job_id


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too."""
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


MODEL = {name.removeprefix("model/"): data for name, data in FILES.items() if name.startswith("model/")}


def test_a_folder(client: Client, job: str, tmp_path: Path) -> None:
    sizes: list[int] = []
    told = client.download(job, "model", tmp_path / "to" / "here", on_start=sizes.append, on_bytes=sizes.append)
    assert content(tmp_path / "to") == {f"here/{name}": data for name, data in MODEL.items()}
    assert told["to"] == str(tmp_path / "to" / "here")
    assert told["bytes"] == sizes[0] == sum(sizes[1:]) == sum(map(len, MODEL.values()))
    assert {file["path"] for file in told["files"]} == {str(tmp_path / "to" / "here" / name) for name in MODEL}


def test_everything_and_one_file_and_where_they_go_by_default(
    client: Client, job: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    client.download(job, "/")
    assert content(tmp_path / job) == FILES
    client.download(job, "model/deep/", "there")
    client.download(job, "result.json", "there")
    assert content(tmp_path / "there") == {"tökenizer #1?.json": b"[1, 2]", "result.json": FILES["result.json"]}


def test_files_that_are_there_are_replaced_and_others_stay(client: Client, job: str, tmp_path: Path) -> None:
    target = tmp_path / "to" / "model"
    target.mkdir(parents=True)
    (target / "config.json").write_text("old")
    (target / "mine").write_text("stays")
    client.download(job, "model", target)
    assert content(tmp_path / "to") == {f"model/{name}": data for name, data in {**MODEL, "mine": b"stays"}.items()}


def test_cut_in_the_middle_it_goes_on_with_the_rest(service: LiveService, job: str, tmp_path: Path) -> None:
    with cutting(service.address) as proxy, Client(proxy.address) as over:
        proxy.cuts = [1_000_000, 700_000, 100, 0, 500_000]
        counted: list[int] = []
        over.download(job, "model", tmp_path / "to" / "model", on_bytes=counted.append)
        assert not proxy.cuts
        assert proxy.sent < BIG + 200_000, "what had come was sent again"
    assert sum(counted) == sum(map(len, MODEL.values()))
    assert content(tmp_path / "to" / "model") == MODEL


@pytest.mark.parametrize("cut", range(200, 2800, 433))
def test_cut_anywhere_in_small_files(service: LiveService, job: str, tmp_path: Path, cut: int) -> None:
    with cutting(service.address) as proxy, Client(proxy.address) as over:
        proxy.cuts = [cut, cut]
        over.download(job, "model", tmp_path / "to" / "model")
    assert content(tmp_path / "to" / "model") == MODEL


def test_what_an_earlier_process_got_is_used(service: LiveService, job: str, tmp_path: Path) -> None:
    target = tmp_path / "to" / "model"
    with cutting(service.address) as proxy:
        with Client(proxy.address, patience_s=0.1, retry_s=0.1) as first:
            proxy.cuts = [2_000_000, *[0] * 100]
            with pytest.raises(InfrastructureError):
                first.download(job, "model", target)
        assert not target.exists()
        proxy.cuts = []
        before = proxy.sent
        with Client(proxy.address) as second:
            second.download(job, "model", target)
        assert proxy.sent - before < BIG - 1_500_000
    assert content(tmp_path / "to") == {f"model/{name}": data for name, data in MODEL.items()}


def test_a_file_that_changes_meanwhile_is_never_mixed(
    service: LiveService, job: str, run_folder: Path, tmp_path: Path
) -> None:
    other = os.urandom(BIG)
    counted = 0

    def change(count: int) -> None:
        nonlocal counted
        counted += count
        if counted > 500_000 and (run_folder / "model/weights.safetensors").read_bytes() != other:
            (run_folder / "new").write_bytes(other)
            (run_folder / "new").replace(run_folder / "model/weights.safetensors")

    with cutting(service.address) as proxy, Client(proxy.address) as over:
        proxy.cuts = [1_000_000]
        over.download(job, "model", tmp_path / "model", on_bytes=change)
    assert (tmp_path / "model/weights.safetensors").read_bytes() == other


def test_a_file_that_becomes_longer_is_an_error(
    service: LiveService, job: str, run_folder: Path, tmp_path: Path
) -> None:
    def lengthen(count: int) -> None:
        with (run_folder / "model/weights.safetensors").open("ab") as file:
            file.write(b"more")

    with cutting(service.address) as proxy, Client(proxy.address) as over:
        proxy.cuts = [1_000_000]
        with pytest.raises(InfrastructureError, match="changed"):
            over.download(job, "model", tmp_path / "model", on_bytes=lengthen)
    assert not (tmp_path / "model").exists()


def test_nothing_there(client: Client, service: LiveService, job: str, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"there is model, result\.json"):
        client.download(job, "modle", tmp_path / "to")
    with pytest.raises(ApiError, match="no job"):
        client.download("job-unknown")
    queued = client.submit({"dataset": "x", "model": "y"})["id"]
    with pytest.raises(StorageError, match="left nothing yet"):
        client.download(queued, "model", tmp_path / "to")
    assert not (tmp_path / "to").exists()


def test_a_target_that_cannot_be_written(client: Client, job: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        client.download(job, "model", tmp_path / "file" / "below")
