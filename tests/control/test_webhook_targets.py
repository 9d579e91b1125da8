"""One try: only to where it may go, never for longer than it may take, and with no more read than is needed."""

from __future__ import annotations

import datetime
import logging
import ssl
import threading
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from astraml_ray.access.denials import TargetNotAllowedError
from astraml_ray.access.targets import AllowedTargets
from astraml_ray.control.courier import Courier
from tests.control.webhook_site import LOOPBACK, Site
from tests.receiver import Receiver, serve


def test_what_must_not_be_called_is_not(tmp_path: Path, site: Site, receiver: Receiver) -> None:
    """Made while it was allowed; what counts is what is allowed when it is sent."""
    site.add(receiver.url())
    site.add(f"https://hooks.example:{receiver.port}/x", "named")
    closed = Site(site.store, tmp_path, targets=AllowedTargets())
    closed.resolve = lambda host: ["10.1.2.3"]
    closed.restart()
    closed.job()
    (by_address,), (by_name,) = closed.settle(), closed.settle(name="named")
    assert "this machine" in str(by_address.last_error)
    assert "private" in str(by_name.last_error)
    assert "10.1.2.3" in str(by_name.last_error)
    assert {by_address.status, by_name.status} == {"pending"}
    assert receiver.got == []


@pytest.fixture(autouse=True)
def _names(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the system's resolver would say; nothing here leaves this machine."""
    known = {"hooks.example": ["93.184.216.34"], "inside.example": ["192.168.1.9"], "rebound.example": ["127.0.0.1"]}
    monkeypatch.setattr("astraml_ray.access.targets.resolve_name", lambda host: known.get(host, []))


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/x",
        "http://localhost/x",
        "http://0x7f000001/x",
        "http://[::ffff:127.0.0.1]/x",
        "http://169.254.169.254/latest",
        "http://10.0.0.1/x",
        "https://inside.example/x",
        "https://nowhere.example/x",
        "http://user@93.184.216.34/x",
    ],
)
def test_an_address_that_must_not_be_called_cannot_be_stored(tmp_path: Path, site: Site, url: str) -> None:
    closed = Site(site.store, tmp_path, targets=AllowedTargets())
    with pytest.raises(TargetNotAllowedError) as caught:
        closed.add(url)
    assert caught.value.code == "target_not_allowed"


def test_a_name_that_leads_elsewhere_a_moment_later_is_not_followed(site: Site, receiver: Receiver) -> None:
    """The connection goes to the address that was checked: the resolver is asked once."""
    asked: list[str] = []

    def resolve(host: str) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["127.0.0.2"]

    courier = Courier(LOOPBACK, resolve=resolve)
    reply = courier.send(f"http://rebound.example:{receiver.port}/x?y=1", {"content-type": "a/b"}, b"{}")
    assert (reply.status, reply.text, asked) == (200, "ok", ["rebound.example"])
    assert receiver.got[0].headers["host"] == f"rebound.example:{receiver.port}"
    assert receiver.got[0].path == "/x?y=1"


def test_redirects_are_not_followed(site: Site, receiver: Receiver) -> None:
    site.add(receiver.url("/first"))
    receiver.answer = lambda got, number: (307, {"Location": receiver.url("/second")}, b"")
    site.job()
    (delivery,) = site.settle()
    assert [got.path for got in receiver.got] == ["/first"]
    assert (delivery.status, delivery.last_error) == ("pending", "answered 307: redirects are not followed")


def test_a_receiver_that_says_nothing_is_given_up(receiver: Receiver) -> None:
    over = threading.Event()
    receiver.slow = lambda got: over.wait(20) and None
    reply = Courier(LOOPBACK, whole_s=0.2).send(receiver.url(), {}, b"{}")
    over.set()
    assert (reply.status, reply.error) == (None, "no whole answer within 0.2 s")


def test_a_receiver_that_drips_is_given_up(receiver: Receiver) -> None:
    """Each read succeeds; the whole does not."""
    over = threading.Event()
    receiver.piece, receiver.between = 1, lambda: over.wait(0.05) and None
    receiver.answer = lambda got, number: (200, {}, b"x" * 200)
    reply = Courier(LOOPBACK, whole_s=0.5).send(receiver.url(), {}, b"{}")
    dripped = receiver.written
    over.set()
    assert (reply.status, reply.error) == (None, "no whole answer within 0.5 s")
    assert dripped > 1


def test_no_more_than_a_few_kilobytes_of_an_answer_are_read(receiver: Receiver) -> None:
    receiver.answer = lambda got, number: (200, {}, b"x" * 50_000_000)
    reply = Courier(LOOPBACK).send(receiver.url(), {}, b"{}")
    assert (reply.status, reply.text) == (200, "x" * 500)
    # Besides what is read, the buffers of both ends take some.
    assert receiver.over.wait(20)
    assert receiver.written < 20_000_000


def test_an_address_is_not_in_the_log(receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.NOTSET)
    with caplog.at_level(logging.DEBUG):
        reply = Courier(LOOPBACK).send(receiver.url("/services/T000/sEcReT"), {}, b"{}")
        gone = Courier(LOOPBACK).send("http://127.0.0.1:9/services/T000/sEcReT", {}, b"{}")
    assert (reply.status, gone.status, receiver.got[0].path) == (200, None, "/services/T000/sEcReT")
    assert "sEcReT" not in caplog.text


def test_nobody_there_is_a_failure_like_another(site: Site) -> None:
    site.add("http://127.0.0.1:9/x")
    site.job()
    (delivery,) = site.settle()
    assert delivery.status == "pending"
    assert "no connection to 127.0.0.1" in str(delivery.last_error)


def test_tls_is_checked_against_the_name_and_not_the_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority, certificate = certified(tmp_path, "hooks.example")
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(certificate)
    monkeypatch.setattr("astraml_ray.control.courier._tls", lambda: ssl.create_default_context(cafile=str(authority)))
    courier = Courier(LOOPBACK, resolve=lambda host: ["127.0.0.1"])
    with serve(tls=server) as receiver:
        right = courier.send(f"https://hooks.example:{receiver.port}/x", {}, b"{}")
        wrong = courier.send(f"https://other.example:{receiver.port}/x", {}, b"{}")
    assert (right.status, len(receiver.got)) == (200, 1)
    assert (wrong.status, "certificate" in str(wrong.error).lower()) == (None, True)


def certified(folder: Path, host: str) -> tuple[Path, Path]:
    """A certificate of a name, made here, and the file that a server needs."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
    day = datetime.timedelta(days=1)
    today = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), today - day, today + day)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "ca.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "server.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM) + key.private_bytes(*form))
    return folder / "ca.pem", folder / "server.pem"
