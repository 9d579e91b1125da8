"""Interrupted storage: a faulty proxy in front of a real S3 server, and rows that are exact all the same."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from astraml_ray.cli.s3_server import S3Server
from astraml_ray.data import formats
from astraml_ray.data.formats import formats_of, fragments_of, read_fragment, schema_of
from astraml_ray.data.manifest import Manifest
from astraml_ray.data.parcels import unpacked
from astraml_ray.data.plan import Block
from astraml_ray.data.prepare import build_manifest
from astraml_ray.data.rows import read_rows
from astraml_ray.data.storage.credentials import Access
from astraml_ray.data.storage.objects import (
    ObjectInfo,
    describe,
    list_objects,
    open_object,
    read_range,
    reading,
    resolve,
)
from astraml_ray.data.storage.s3 import RetryingS3
from astraml_ray.data.stream import _parcels
from astraml_ray.errors import AstraError, DataError, InfrastructureError, StorageOutageError
from astraml_ray.spec.loading import parse_spec
from astraml_ray.training.run_folder import RunFolder
from tests.conftest import word_rows
from tests.unit.faulty_proxy import FAULTS, FaultyProxy, faulty, seeded

SIZE = 3_000_000
IN_BODY = {"reset_in_body", "truncated", "stall_in_body", "slow_bytes"}


@pytest.fixture(autouse=True)
def _impatient(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing stalls, a busy machine must not look as if something did."""
    stalls = any(word in request.node.name for word in ("stall", "slow_bytes", "through_faults"))
    monkeypatch.setenv("ASTRAML_STORAGE_STALL_S", "0.5" if stalls else "10")
    monkeypatch.setenv("ASTRAML_STORAGE_DEADLINE_S", "60")


@pytest.fixture(scope="module")
def shared(s3: S3Server) -> Iterator[FaultyProxy]:
    with faulty(s3.endpoint_url) as made:
        yield made


@pytest.fixture
def proxy(shared: FaultyProxy) -> FaultyProxy:
    """One for all tests, since a client of each takes its time to be made."""
    shared.plan = lambda *_: None
    shared.requests.clear()
    shared.connections = 0
    return shared


@pytest.fixture
def blob(s3: S3Server, proxy: FaultyProxy) -> tuple[ObjectInfo, Access, bytes]:
    """An object, the way to it through the proxy, and its bytes."""
    content = os.urandom(SIZE)
    (s3.folder / "bucket" / "blobs").mkdir(exist_ok=True)
    (s3.folder / "bucket" / "blobs" / "blob").write_bytes(content)
    access = Access(proxy.address)
    info = describe("s3://bucket/blobs/blob", access)
    proxy.requests.clear()
    return info, access, content


def at_first(count: int, fault: str) -> Callable[[int, str, str], str | None]:
    return lambda number, *_: fault if number < count else None


def read(info: ObjectInfo, access: Access, start: int = 0, count: int = -1) -> bytes:
    with open_object(info, access) as file:
        file.seek(start)
        return file.read(count)


def rows_of(manifest: Manifest, split: str = "train") -> list[dict[str, object]]:
    part = manifest.splits[split]
    return [row for i in range(len(part.fragments)) for row in read_rows(manifest, part, i).to_pylist()]


# -- rows


def write_all(folder: Path) -> None:
    folder.mkdir(parents=True)
    pq.write_table(word_rows(30_000, seed=1), folder / "train-0.parquet", row_group_size=10_000)
    for n in range(3):
        pq.write_table(word_rows(50, seed=10 + n), folder / f"train-small-{n}.parquet")
    lines = "".join(json.dumps(row) + "\n" for row in word_rows(10_000, seed=2).to_pylist())
    (folder / "train-1.jsonl").write_text(lines)
    pa_csv.write_csv(word_rows(10_000, seed=3), folder / "train-2.csv")
    pq.write_table(word_rows(300, seed=4), folder / "validation.parquet")


@pytest.mark.parametrize("seed", [1])
def test_rows_through_faults_are_the_rows_without(
    seed: int, s3: S3Server, proxy: FaultyProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats.Bounds, "fragment", 200_000)
    folder = s3.folder / "bucket" / f"faults-{seed}"
    write_all(folder)
    sound = build_manifest(
        parse_spec({"dataset": f"s3://bucket/faults-{seed}", "model": "m"}).dataset,
        task="text-classification",
        cache=tmp_path / "sound",
    )
    proxy.plan = seeded(seed, 0.3)
    spec = {"path": f"s3://bucket/faults-{seed}", "endpoint_url": proxy.address}
    spoilt = build_manifest(
        parse_spec({"dataset": spec, "model": "m"}).dataset, task="text-classification", cache=tmp_path / "spoilt"
    )
    assert (spoilt.objects, spoilt.splits, spoilt.labels) == (sound.objects, sound.splits, sound.labels)
    rows = rows_of(spoilt)
    assert len(rows) == 50_150
    assert rows == rows_of(sound)
    assert proxy.faults().total() > 5


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_got_over(fault: str, blob: tuple[ObjectInfo, Access, bytes], proxy: FaultyProxy) -> None:
    info, access, content = blob
    proxy.plan = at_first(2, fault)
    assert read(info, access, 1_000, 2_000_000) == content[1_000:2_001_000]
    assert [request.fault for request in proxy.requests] == [fault, fault, None]
    ranges = [request.range for request in proxy.requests]
    assert all(asked is not None and asked.endswith("-2000999") for asked in ranges)
    begins = [int(str(asked).removeprefix("bytes=").split("-")[0]) for asked in ranges]
    # What came is kept: the next request begins behind it.
    assert begins[0] == 1_000
    assert (begins[0] < begins[1] < begins[2]) if fault in IN_BODY else (begins == [1_000] * 3)


def test_long_ranges_are_read_in_parts_at_once(s3: S3Server, proxy: FaultyProxy) -> None:
    content = os.urandom(20_000_001)
    (s3.folder / "bucket" / "long").write_bytes(content)
    access = Access(proxy.address)
    info = describe("s3://bucket/long", access)
    proxy.requests.clear()
    proxy.plan = seeded(4, 0.6, ("slow_down", "reset_before", "reset_in_body", "truncated", "short_length"))
    assert read(info, access, 5) == content[5:]
    sound = [request for request in proxy.requests if request.fault is None]
    assert len(sound) == 2
    assert proxy.faults().total() > 0


# -- what does not pass


@pytest.mark.parametrize("fault", ["slow_down", "error_500", "reset_before", "stall_before", "truncated", "slow_bytes"])
def test_what_stays_ends_at_the_deadline(
    fault: str, blob: tuple[ObjectInfo, Access, bytes], proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    info, access, _ = blob
    monkeypatch.setenv("ASTRAML_STORAGE_DEADLINE_S", "1.5")
    resolve(info.uri, access)[0].connect()  # a client of its own takes its time to be made
    proxy.plan = lambda *_: fault
    with pytest.raises(StorageOutageError) as caught:
        read(info, access, 0, 200_000)
    error = caught.value
    assert error.retryable
    assert error.param == info.uri
    tries = int(error.message.split(" failed ")[1].split()[0])
    # aiohttp repeats a GET once by itself when its connection breaks before an answer.
    assert len(proxy.requests) in ((tries, 2 * tries) if fault == "reset_before" else (tries,))
    assert tries > 1
    assert "ASTRAML_STORAGE_DEADLINE_S" in str(error.hint)
    if fault in ("slow_down", "error_500"):
        assert {"slow_down": "SlowDown", "error_500": "InternalError"}[fault] in error.message


def test_what_the_deadline_ended_is_not_tried_again_by_the_stream(
    blob: tuple[ObjectInfo, Access, bytes], proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    info, access, _ = blob
    monkeypatch.setenv("ASTRAML_STORAGE_DEADLINE_S", "0.5")
    proxy.plan = lambda *_: "error_500"
    tries = []

    class Reader:
        batch_size, world_size = 8, 2

        def read(self, *_: object, **__: object) -> Iterator[pa.Table]:
            tries.append(1)
            yield pa.table({"data": [read(info, access, 0, 10)]})

    parcels = list(_parcels(Reader(), Block(0, 0, (0,), 0, 10), 0, growing=True))  # type: ignore[arg-type]
    assert len(tries) == 1
    assert len(parcels) == 2
    for parcel in parcels:
        with pytest.raises(StorageOutageError):
            next(unpacked([parcel]))


@pytest.mark.parametrize(("status", "kind"), [("403", DataError), ("400", AstraError)])
def test_a_refusal_is_not_tried_again(
    status: str, kind: type[AstraError], blob: tuple[ObjectInfo, Access, bytes], proxy: FaultyProxy
) -> None:
    info, access, _ = blob
    proxy.plan = lambda *_: status
    with pytest.raises(kind) as caught:
        read(info, access)
    assert len(proxy.requests) == 1
    assert not isinstance(caught.value, StorageOutageError)
    if status == "403":
        assert "denied" in caught.value.message


def test_a_wrong_endpoint_is_told_at_once(s3: S3Server) -> None:
    with faulty(s3.endpoint_url) as gone:
        address = gone.address
    access = Access(address)
    with pytest.raises(InfrastructureError, match="the storage endpoint does not answer") as caught:
        list_objects("s3://bucket/x", access)
    assert not isinstance(caught.value, StorageOutageError)
    assert "AWS_ENDPOINT_URL" in str(caught.value.hint)
    assert resolve("s3://bucket/x", access)[0].tried_again == 2


def test_a_server_that_is_away_for_a_while_is_waited_for(s3: S3Server, blob: tuple[ObjectInfo, Access, bytes]) -> None:
    info, _, content = blob
    with faulty(s3.endpoint_url) as first:
        address, port = first.address, int(first.address.rsplit(":", 1)[1])
    back = threading.Event()
    done = threading.Event()

    def serve() -> None:
        back.wait(1.0)
        with faulty(s3.endpoint_url, port=port):
            done.wait(30)

    server = threading.Thread(target=serve)
    server.start()
    try:
        # Whoever has a manifest knows that the endpoint is right.
        assert read(info, Access(address), 7, 100) == content[7:107]
    finally:
        done.set()
        server.join()


# -- changes


def test_an_object_that_changes_between_two_reads(blob: tuple[ObjectInfo, Access, bytes], s3: S3Server) -> None:
    info, access, content = blob
    with open_object(info, access) as file:
        assert file.read(200_000) == content[:200_000]
        (s3.folder / "bucket" / "blobs" / "blob").write_bytes(content[::-1])
        with pytest.raises(DataError, match="changed under the run") as caught:
            file.read(200_000)
    assert caught.value.param == info.uri
    assert info.etag in caught.value.message


def test_a_server_that_knows_if_match(blob: tuple[ObjectInfo, Access, bytes], s3: S3Server, proxy: FaultyProxy) -> None:
    info, access, content = blob
    (s3.folder / "bucket" / "blobs" / "blob").write_bytes(content + b"more")
    proxy.plan = lambda number, method, path: "412" if method == "GET" else None
    with pytest.raises(DataError, match=rf"changed under the run.*{SIZE + 4} bytes"):
        read(info, access)
    assert [request.method for request in proxy.requests] == ["GET", "HEAD"]


@pytest.mark.parametrize("name", ["train.jsonl", "train.arrow", "train.tar", "train.parquet"])
def test_a_file_that_changes_between_plan_and_reading(name: str, s3: S3Server, proxy: FaultyProxy) -> None:
    """Whatever reads first (a head, a line's end, a header): no rows of another version, and an error that says so."""
    file = s3.folder / "bucket" / "changing" / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"\0" * 1000)
    access = Access(proxy.address)
    info = describe(f"s3://bucket/changing/{name}", access)
    file.write_bytes(b"\0" * 1001)
    for look in (
        lambda: formats_of([info], "auto", access),
        lambda: schema_of(info, name.split(".")[1].replace("tar", "webdataset"), access),
        lambda: read_range(info, 0, 10, access),
    ):
        with pytest.raises(DataError, match="changed under the run") as caught:
            look()
        assert caught.value.param == info.uri
        assert "new run" in str(caught.value.hint)


def test_arrow_hands_on_why_a_row_group_cannot_be_read(s3: S3Server, proxy: FaultyProxy) -> None:
    """It reads in threads of its own; the footer is known from before."""
    file = s3.folder / "bucket" / "rewritten.parquet"
    noise = pa.array([os.urandom(60) for _ in range(30_000)])
    pq.write_table(word_rows(30_000).append_column("noise", noise), file, row_group_size=10_000)
    access = Access(proxy.address)
    info = describe("s3://bucket/rewritten.parquet", access)
    fragments = list(fragments_of([info], ["parquet"], range(1), access))
    proxy.plan = lambda *_: "403"
    with pytest.raises(DataError, match="denied"):
        read_fragment([info], fragments[0], "parquet", ["text"], access)
    proxy.plan = lambda *_: None
    file.write_bytes(bytes(info.size))
    with pytest.raises(DataError, match="changed under the run"):
        read_fragment([info], fragments[0], "parquet", ["text"], access)


def test_an_object_that_vanishes(blob: tuple[ObjectInfo, Access, bytes], s3: S3Server) -> None:
    info, access, _ = blob
    (s3.folder / "bucket" / "blobs" / "blob").unlink()
    with pytest.raises(DataError, match="vanished under the run"):
        read(info, access)


# -- what it costs


def test_requests_per_fragment(s3: S3Server, proxy: FaultyProxy) -> None:
    """One for a footer, one for each row group; a small file of lines is read in one, and not opened before."""
    folder = s3.folder / "bucket" / "counted"
    folder.mkdir()
    table = word_rows(60_000).append_column("noise", pa.array([os.urandom(60) for _ in range(60_000)]))
    pq.write_table(table, folder / "large.parquet", row_group_size=10_000)
    pq.write_table(word_rows(100), folder / "small.parquet")
    (folder / "lines.jsonl").write_text("".join(json.dumps(row) + "\n" for row in word_rows(100).to_pylist()))
    access = Access(proxy.address)
    large, lines, small = list_objects("s3://bucket/counted", access)
    assert large.size > 3 << 20
    counts = {}
    for info, kind in ((large, "parquet"), (small, "parquet"), (lines, "jsonl")):
        proxy.requests.clear()
        fragments = list(fragments_of([info], [kind], range(1), access))
        found = [len(proxy.requests)]
        for fragment in fragments:
            proxy.requests.clear()
            read_fragment([info], fragment, kind, ["text", "label"], access)
            found.append(len(proxy.requests))
        counts[info.uri.rsplit("/", 1)[1]] = found
    assert counts == {"large.parquet": [1] * 7, "small.parquet": [1, 1], "lines.jsonl": [0, 1]}
    assert proxy.connections < 6  # 10 requests: connections are used again


# -- listing


def test_a_long_listing_through_faults(s3: S3Server, proxy: FaultyProxy) -> None:
    folder = s3.folder / "bucket" / "many"
    expected = []
    for n in range(1_300):
        name = f"part-{n % 13:02}/{n:05}.jsonl" if n % 2 else f"part-00/deep/{n:05}.jsonl"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
        expected.append(f"s3://bucket/many/{name}")
    (folder / "_SUCCESS").write_bytes(b"x")
    (folder / "part-01" / "empty.jsonl").touch()
    (folder / "part-01" / ".hidden").write_bytes(b"x")
    proxy.plan = seeded(3, 0.3, ("slow_down", "error_500", "reset_before", "truncated", "stall_before"))
    found = list_objects("s3://bucket/many", Access(proxy.address))
    assert [info.uri for info in found] == sorted(expected)
    assert proxy.faults().total() > 0


@pytest.mark.parametrize("uri", ["s3://no-such-bucket/x", "s3://no-such-bucket"])
def test_a_bucket_that_is_not_there(uri: str, proxy: FaultyProxy) -> None:
    with pytest.raises(DataError, match="the bucket does not exist"):
        list_objects(uri, Access(proxy.address))


def test_one_object_by_its_name_and_names_that_are_not_there(s3: S3Server, proxy: FaultyProxy) -> None:
    (s3.folder / "bucket" / "alone.csv").write_bytes(b"text\n1\n")
    proxy.plan = seeded(8, 0.4, ("slow_down", "error_500", "reset_before"))
    access = Access(proxy.address)
    assert list_objects("s3://bucket/alone.csv", access) == [describe("s3://bucket/alone.csv", access)]
    with pytest.raises(DataError, match="no objects with data"):
        list_objects("s3://bucket/alone.cs", access)


# -- the run's folder


@pytest.fixture
def _everything_through_the_proxy(proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.setenv(name, proxy.address)
    RetryingS3.clear_instance_cache()  # a client reads the environment when it is made
    yield
    RetryingS3.clear_instance_cache()


@pytest.mark.usefixtures("_everything_through_the_proxy")
def test_a_runs_files_are_written_and_read_through_faults(s3: S3Server, proxy: FaultyProxy, tmp_path: Path) -> None:
    folder = RunFolder("s3://bucket/run")
    proxy.plan = seeded(5, 0.4)
    weights = os.urandom(9_000_000)
    for name, data in (("weights", weights), ("progress.json", b"{}"), ("empty", b"")):
        folder.write(name, data)
        assert folder.read(name) == data
        assert (s3.folder / "bucket" / "run" / name).read_bytes() == data
    assert b"".join(folder.pieces("weights")) == weights
    filesystem, path = resolve(folder.path("weights"))
    filesystem.get_file(path, str(tmp_path / "weights"))
    assert (tmp_path / "weights").read_bytes() == weights
    assert filesystem.cat_file(path, start=5, end=-7) == weights[5:-7]
    with pytest.raises(FileNotFoundError):
        filesystem.open("bucket/run")
    assert folder.exists("weights")
    assert folder.names("") == ["empty", "progress.json", "weights"]
    assert proxy.faults().total() > 3


@pytest.mark.usefixtures("_everything_through_the_proxy")
def test_a_file_that_changes_while_it_is_read(s3: S3Server, proxy: FaultyProxy, tmp_path: Path) -> None:
    """Of a model, or of a run: the version that is there at first is asked for to the end."""
    file = s3.folder / "bucket" / "model" / "weights"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(bytes(SIZE))
    uri = "s3://bucket/model/weights"
    filesystem, path = resolve(uri)

    def plan(number: int, method: str, where: str) -> None:
        if method == "GET":
            file.write_bytes(bytes(SIZE + 1))

    proxy.plan = plan
    with pytest.raises(DataError, match="changed while it was read") as caught, reading(uri):
        filesystem.get_file(path, str(tmp_path / "weights"))
    assert (caught.value.param, caught.value.code) == (uri, "data")
    assert "read it again" in str(caught.value.hint)
    file.write_bytes(bytes(SIZE))
    with pytest.raises(InfrastructureError) as failed:
        list(RunFolder("s3://bucket/model").pieces("weights"))
    assert failed.value.param == uri


@pytest.mark.usefixtures("_everything_through_the_proxy")
def test_a_write_that_fails_leaves_what_was_there(proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASTRAML_STORAGE_DEADLINE_S", "0.6")
    folder = RunFolder("s3://bucket/kept")
    folder.write("progress.json", b"old")
    proxy.plan = lambda number, method, path: "reset_before" if method == "PUT" else None
    with pytest.raises(StorageOutageError, match="the storage failed"):
        folder.write("progress.json", b"new")
    assert folder.read("progress.json") == b"old"
