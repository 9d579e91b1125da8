"""Addresses that a request may make the service call: public ones, and those that the operator allowed.

An address counts by what it leads to, however it is spelt: decimal, octal or hexadecimal IPv4, IPv4 inside IPv6, names
that resolve to a private address. The check is made at submission and again in the process that connects, which should
connect to one of the addresses that were checked: a name may lead elsewhere a moment later.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from astraml_ray.access.denials import TargetNotAllowedError
from astraml_ray.errors import Problem

__all__ = ["AllowedTargets", "Target", "address_of", "check_url", "guard_document", "remembering", "resolve_name"]

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str], list[str]]

_LOOKUP_S = 3.0
_ALL_LOOKUPS_S = 15.0
_PORTS = {"http": 80, "https": 443}
# Of these the rest is no host: a path, or a bucket at the endpoint that is checked by itself.
_LOCAL = re.compile(r"\s*(?:file|s3)://", re.IGNORECASE)
_METADATA_NAMES = ("metadata", "metadata.google.internal", "instance-data", "instance-data.ec2.internal")
# Where clouds answer with credentials; some of these addresses look public.
_METADATA = frozenset(
    ipaddress.ip_address(text)
    for text in ("169.254.169.254", "169.254.170.2", "168.63.129.16", "100.100.100.200", "192.0.0.192", "fd00:ec2::254")
)
_NUMBER = re.compile(r"0[xX][0-9a-fA-F]*|[0-9]+")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_HOST = re.compile(r"(?:[a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}")
_CHAIN = re.compile(r"::(?=[a-z0-9+._-]+://)", re.IGNORECASE)
_SKIPPED = ("labels", "name", "project_id")


@dataclass(frozen=True)
class AllowedTargets:
    """What the operator allows besides public addresses.

    Attributes:
        hosts: Names and addresses, with a port or without, `*.` for everything below; they are not resolved.
        networks: Such as 10.0.0.0/8. A cloud's metadata address is allowed only by itself, as a host.
        folders: Of this machine, for whoever may submit.
    """

    hosts: frozenset[str] = frozenset()
    networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = ()
    folders: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> AllowedTargets:
        """Reads "minio.corp:9000, *.storage.corp, 10.0.0.0/8, /mnt/datasets".

        Raises:
            ValueError: A network is malformed.
        """
        given = [entry.strip() for entry in text.split(",") if entry.strip()]
        entries = [entry.lower() for entry in given if not entry.startswith("/")]
        networks = tuple(ipaddress.ip_network(entry, strict=False) for entry in entries if "/" in entry)
        hosts = frozenset(entry for entry in entries if "/" not in entry)
        return cls(hosts, networks, tuple(entry for entry in given if entry.startswith("/")))

    def has_host(self, host: str, port: int) -> bool:
        """Whether a name or address is allowed by itself."""
        shown = f"[{host}]" if ":" in host else host
        names = {host, shown, f"{shown}:{port}"}
        parents = host.split(".")
        for depth in range(1, len(parents)):
            wide = "*." + ".".join(parents[depth:])
            names |= {wide, f"{wide}:{port}"}
        return bool(names & self.hosts)

    def has_address(self, address: IpAddress) -> bool:
        """Whether an address is in an allowed network."""
        return any(address.version == network.version and address in network for network in self.networks)


@dataclass(frozen=True)
class Target:
    """An address that may be called: connect to one of `addresses`, which is empty if the operator allowed the name."""

    url: str
    host: str
    port: int
    addresses: tuple[str, ...]


def check_url(
    url: str, *, allowed: AllowedTargets, resolve: Resolve | None = None, param: str = "/endpoint_url"
) -> Target:
    """An address of http or https, if it may be called.

    Args:
        url: With a scheme, or just a host and a port.
        allowed: By the operator.
        resolve: From a name to its addresses; left out, the system's.
        param: The field, for the error.

    Raises:
        TargetNotAllowedError: It may not be called; the error says why.
    """
    reason = _malformed(url)
    if reason is not None:
        raise _refusal(param, reason)
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host, port = (parts.hostname or "").rstrip("."), parts.port or _PORTS[parts.scheme]
    except (ValueError, KeyError):
        raise _refusal(param, "is no address of http or https; data is read from s3, files, http and https") from None
    address = address_of(host)
    if allowed.has_host(str(address) if address else host, port):
        return Target(url, host, port, (str(address),) if address else ())
    if address is not None:
        _check_address(address, allowed, param, host)
        return Target(url, host, port, (str(address),))
    return Target(url, host, port, _resolved(host, allowed, resolve or resolve_name, param))


def guard_document(
    document: Mapping[str, Any], *, allowed: AllowedTargets, resolve: Resolve | None = None
) -> list[Problem]:
    """Every address in a job that must not be called, whichever field it is in. Names are looked up.

    Args:
        document: A valid spec; one that was not checked could have any number of names.
        allowed: By the operator.
        resolve: From a name to its addresses; left out, the system's.
    """
    problems: list[Problem] = []
    for pointer, name, text in _texts(document):
        if name.endswith(("endpoint_url", "endpoint")):
            urls = [text]
        else:
            # fsspec opens one address through another: "simplecache::http://host/file".
            urls = [url for url in _CHAIN.split(text) if "://" in url and not _LOCAL.match(url)]
        for url in urls:
            try:
                check_url(url.strip(), allowed=allowed, resolve=resolve, param=pointer)
            except TargetNotAllowedError as error:
                problems += error.problems
    return problems


def address_of(host: str) -> IpAddress | None:
    """The address that a host is, however it is spelt; None for a name. An IPv4 address inside an IPv6 one is IPv4."""
    try:
        address: IpAddress = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return _loose_ipv4(host)
    if isinstance(address, ipaddress.IPv6Address):
        return _inner(address) or address
    return address


def resolve_name(host: str) -> list[str]:
    """The addresses of a name, by the system; none if it has none, or if that takes long: others wait meanwhile."""
    found: list[str] = []
    lookup = threading.Thread(target=lambda: found.extend(_look_up(host)), daemon=True)
    lookup.start()
    lookup.join(_LOOKUP_S)
    return list(found)


def remembering(resolve: Resolve) -> Resolve:
    """As a resolver, for one request: it is asked once for each name, and for no more of them once that took long."""
    known: dict[str, list[str]] = {}
    until = time.monotonic() + _ALL_LOOKUPS_S

    def resolved(host: str) -> list[str]:
        if host not in known:
            known[host] = resolve(host) if time.monotonic() < until else []
        return known[host]

    return resolved


def _look_up(host: str) -> list[str]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def _malformed(url: str) -> str | None:
    if not url or not url.isascii() or any(c in "\\\"'<>^`{|}" or c.isspace() or not c.isprintable() for c in url):
        return "has characters that no address has"
    if "@" in url.split("://", 1)[-1].split("/", 1)[0]:
        return "has a user in it"
    return None


def _resolved(host: str, allowed: AllowedTargets, resolve: Resolve, param: str) -> tuple[str, ...]:
    if len(host) > 253 or not _HOST.fullmatch(host):
        raise _refusal(param, "has no host in it")
    if host in _METADATA_NAMES:
        raise _refusal(param, f"{host} is a cloud's metadata service")
    # By definition, whatever the resolver says.
    local = host == "localhost" or host.endswith(".localhost")
    addresses = ["127.0.0.1"] if local else resolve(host)
    if not addresses:
        raise _refusal(param, f"{host} is not known to the resolver")
    for text in addresses:
        address = address_of(text)
        if address is None:
            raise _refusal(param, f"{host} leads nowhere")
        _check_address(address, allowed, param, host)
    return tuple(addresses)


def _check_address(address: IpAddress, allowed: AllowedTargets, param: str, host: str) -> None:
    leads = "" if host == str(address) else f" ({host})"
    if address in _METADATA:
        raise _refusal(param, f"{address}{leads} is a cloud's metadata service")
    if allowed.has_address(address):
        return
    if not address.is_global or address.is_multicast:
        kind = (
            "this machine"
            if address.is_loopback or address.is_unspecified
            else "link-local"
            if address.is_link_local
            else "private or reserved"
        )
        raise _refusal(param, f"{address}{leads} is {kind}")


def _refusal(param: str, reason: str) -> TargetNotAllowedError:
    hint = "the operator can allow it: ASTRAML_ALLOWED_TARGETS"
    return TargetNotAllowedError([Problem(param, reason, hint)])


def _inner(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 one leads to."""
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    low = int(address) & 0xFFFFFFFF
    if address in _NAT64 or (int(address) >> 32 == 0 and low > 1):
        return ipaddress.IPv4Address(low)
    return None


def _loose_ipv4(host: str) -> ipaddress.IPv4Address | None:
    """As inet_aton reads it: one to four numbers, the last of which fills what is left, each also octal or hex."""
    parts = host.split(".")
    if not 1 <= len(parts) <= 4 or not all(_NUMBER.fullmatch(part) for part in parts):
        return None
    numbers = []
    for part in parts:
        try:
            numbers.append(_number(part))
        except ValueError:
            return None
    *heads, last = numbers
    if any(head > 255 for head in heads) or last >= 256 ** (4 - len(heads)):
        return None
    value = last
    for index, head in enumerate(heads):
        value += head << (24 - 8 * index)
    return ipaddress.IPv4Address(value)


def _number(text: str) -> int:
    if len(text) > 20:
        raise ValueError("too long")
    if text[:2] in ("0x", "0X"):
        return int(text[2:] or "0", 16)
    return int(text, 8) if text.startswith("0") and len(text) > 1 else int(text)


def _texts(document: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Pointer, nearest name and text of every text that may be an address."""
    stack: list[tuple[str, str, Any]] = [(f"/{key}", str(key), v) for key, v in document.items() if key not in _SKIPPED]
    while stack:
        pointer, name, value = stack.pop()
        if isinstance(value, Mapping):
            stack.extend((f"{pointer}/{key}", str(key), item) for key, item in value.items())
        elif isinstance(value, (list, tuple)):
            stack.extend((f"{pointer}/{index}", name, item) for index, item in enumerate(value))
        elif isinstance(value, str):
            yield pointer, name, value
