"""The files of a run: listed and downloaded, on disk and from a bucket, and nothing else."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from astraml_ray.api.artifacts import byte_range, disposition
from astraml_ray.api.errors import RangeNotSatisfiableError
from astraml_ray.cli.s3_server import S3Server
from astraml_ray.data.storage.s3 import RetryingS3
from tests.api.conftest import Api, serving

DATA = bytes(range(256)) * 10_000  # more than one chunk


def fill(folder: Path) -> None:
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "weights.bin").write_bytes(DATA)
    (folder / "naïve name;.txt").write_text("<script>alert(1)</script>")
    (folder / "empty").write_bytes(b"")
    (folder / ".result.json.1a2b").write_text("half")


@pytest.fixture(params=["disk", "s3"])
def job_id(request: pytest.FixtureRequest, tmp_path: Path, api: Api) -> str:
    """A job whose run has files."""
    if request.param == "disk":
        fill(tmp_path / "runs" / "run-1")
        return api.ended_job(run_path=str(tmp_path / "runs" / "run-1"))
    server: S3Server = request.getfixturevalue("s3")
    name = tmp_path.name
    folder = request.getfixturevalue("s3_folder") / name
    fill(folder / "run-1")
    assert server
    return api.ended_job(run_path=f"s3://bucket/{name}/run-1")


@pytest.fixture
def s3_folder(s3: S3Server) -> Path:
    return Path(s3.folder) / "bucket"


def path_of(job_id: str, name: str = "") -> str:
    return f"/v2.1/jobs/{job_id}/artifacts{name}"


def test_files_are_listed_without_half_written_ones(api: Api, job_id: str) -> None:
    answer = api.client.get(path_of(job_id)).json()
    found = {entry["path"]: entry["size"] for entry in answer["data"]}
    assert found == {"empty": 0, "model/weights.bin": len(DATA), "naïve name;.txt": 25}
    assert answer["truncated"] is False
    assert all(entry["modified_at"].endswith("Z") for entry in answer["data"])


def test_files_are_downloaded_whole(api: Api, job_id: str) -> None:
    answer = api.client.get(path_of(job_id, "/model/weights.bin"))
    assert (answer.status_code, answer.content) == (200, DATA)
    assert answer.headers["content-length"] == str(len(DATA))
    assert answer.headers["accept-ranges"] == "bytes"
    assert api.client.get(path_of(job_id, "/empty")).content == b""
    head = api.client.head(path_of(job_id, "/model/weights.bin"))
    assert (head.content, head.headers["content-length"]) == (b"", str(len(DATA)))
    assert api.services.admission.streams == 0


def test_no_browser_shows_a_file(api: Api, job_id: str) -> None:
    answer = api.client.get(path_of(job_id, "/naïve name;.txt"))
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-disposition"].startswith('attachment; filename="na_ve_name_.txt"')


def test_a_cut_download_goes_on(api: Api, job_id: str) -> None:
    path = path_of(job_id, "/model/weights.bin")
    first = api.client.get(path, headers={"Range": "bytes=0-999999"})
    assert (first.status_code, first.headers["content-range"]) == (206, f"bytes 0-999999/{len(DATA)}")
    etag = first.headers["etag"]
    rest = api.client.get(path, headers={"Range": "bytes=1000000-", "If-Range": etag})
    assert first.content + rest.content == DATA
    assert api.client.get(path, headers={"Range": "bytes=-7"}).content == DATA[-7:]
    changed = api.client.get(path, headers={"Range": "bytes=1000000-", "If-Range": '"other"'})
    assert (changed.status_code, changed.content) == (200, DATA)
    beyond = api.client.get(path, headers={"Range": f"bytes={len(DATA)}-"})
    assert (beyond.status_code, beyond.json()["code"]) == (416, "range_not_satisfiable")
    assert beyond.headers["content-range"] == f"bytes */{len(DATA)}"


def test_paths_that_lead_elsewhere_are_not_found(api: Api, job_id: str, tmp_path: Path) -> None:
    """Asked for as they are: clients tidy paths up."""
    (tmp_path / "runs").mkdir(exist_ok=True)
    (tmp_path / "runs" / "secret.txt").write_text("secret")
    names = [
        "/nothing",
        "/model",
        "/model/",
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/model/..%2f..%2fsecret.txt",
        "//etc/passwd",
        "/%2fetc/passwd",
        "/..%5csecret.txt",
        "/model/weights.bin%00.txt",
        "/./empty",
        "/model/../empty",
        "/" + "x" * 256,
        "/" + "x/" * 2000,
        "/empty/x",
    ]
    with serving(api.app) as address:
        connection = http.client.HTTPConnection(urlsplit(address).netloc)
        for name in names:
            connection.request("GET", path_of(job_id, name), headers=api.auth)
            answer = connection.getresponse()
            body = answer.read()
            assert answer.status == 404, name
            assert json.loads(body)["code"] == "artifact_not_found", name
        connection.close()


def test_links_out_of_the_folder_are_not_followed(api: Api, tmp_path: Path) -> None:
    run = tmp_path / "run"
    fill(run)
    (tmp_path / "secret.txt").write_text("secret")
    (run / "link.txt").symlink_to(tmp_path / "secret.txt")
    (run / "folder").symlink_to(tmp_path)
    (run / "loop").symlink_to(run)
    job_id = api.ended_job(run_path=str(run))
    for name in ("/link.txt", "/folder/secret.txt"):
        assert api.client.get(path_of(job_id, name)).status_code == 404
    assert "secret" not in api.client.get(path_of(job_id)).text


def test_a_run_that_has_not_begun_has_no_files(api: Api, tmp_path: Path) -> None:
    for job_id in (api.new_job(), api.ended_job(run_path=str(tmp_path / "not-there"))):
        assert api.client.get(path_of(job_id)).json() == {"data": [], "truncated": False}
        assert api.client.get(path_of(job_id, "/x")).status_code == 404


@pytest.fixture
def unreachable_s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    RetryingS3.clear_instance_cache()
    yield
    RetryingS3.clear_instance_cache()


@pytest.mark.usefixtures("unreachable_s3")
def test_a_storage_that_fails_is_the_services_fault(api: Api) -> None:
    job_id = api.ended_job(run_path="s3://bucket/run")
    for name in ("", "/model/weights.bin"):
        answer = api.client.get(path_of(job_id, name))
        assert (answer.status_code, answer.json()["code"]) == (503, "infrastructure")
        assert "retry-after" in answer.headers


def test_a_bucket_that_is_gone_is_told(api: Api, s3: S3Server) -> None:
    assert s3
    answer = api.client.get(path_of(api.ended_job(run_path="s3://no-such-bucket/run")))
    assert (answer.status_code, answer.json()["code"]) == (422, "data")


def test_a_real_server_sends_every_byte(api: Api, tmp_path: Path) -> None:
    fill(tmp_path / "run")
    job_id = api.ended_job(run_path=str(tmp_path / "run"))
    with serving(api.app) as address:
        assert httpx.get(address + path_of(job_id, "/model/weights.bin"), headers=api.auth).content == DATA


@pytest.mark.parametrize(
    ("header", "size", "part"),
    [
        (None, 10, None),
        ("bytes=0-0", 10, (0, 1)),
        ("bytes=2-4", 10, (2, 5)),
        ("bytes=2-", 10, (2, 10)),
        ("bytes=2-99", 10, (2, 10)),
        ("bytes=-3", 10, (7, 10)),
        ("bytes=-99", 10, (0, 10)),
        ("bytes=4-2", 10, None),
        ("bytes=0-1,3-4", 10, None),
        ("bytes=-", 10, None),
        ("lines=1-2", 10, None),
        ("bytes=a-b", 10, None),
    ],
)
def test_ranges(header: str | None, size: int, part: tuple[int, int] | None) -> None:
    assert byte_range(header, size) == part


def test_ranges_beyond_the_end() -> None:
    for header, size in (("bytes=10-", 10), ("bytes=0-0", 0), ("bytes=-0", 10)):
        with pytest.raises(RangeNotSatisfiableError):
            byte_range(header, size)


def test_names_cannot_break_out_of_their_header() -> None:
    assert disposition('a"\r\nX: b') == "attachment; filename=\"a___X__b\"; filename*=UTF-8''a%22%0D%0AX%3A%20b"
