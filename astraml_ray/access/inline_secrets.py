"""Finds secrets that were written into a request, and names of secrets that it uses. Pure.

A request is looked at as it came, before anything of it is stored, logged or quoted in an error. Nothing found is ever
repeated. Whether text looks random is asked only where the field's name says it may be a secret.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice, pairwise
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from astraml_ray.errors import Problem

__all__ = ["SECRET_NAME", "find_inline_secrets", "is_sensitive_name", "secret_references"]

SECRET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
# Whatever is in a field of such a name is a secret, be it a number.
_CERTAIN = {"password", "passwd", "passphrase", "pwd", "secret", "credential", "credentials", "authorization", "bearer"}
_LIKELY = {"token", "apikey", "accesskey", "secretkey", "privatekey", "authtoken", "accesstoken", "sas", "sharedkey"}
_PAIRS = {
    ("api", "key"),
    ("access", "key"),
    ("account", "key"),
    ("private", "key"),
    ("secret", "key"),
    ("shared", "key"),
    ("signing", "key"),
    ("encryption", "key"),
    ("connection", "string"),
}
_OF_TOKENIZERS = {"pad", "mask", "eos", "bos", "sep", "cls", "unk", "special", "type", "classification"}
# Names that may mean a secret: there the text decides.
_POSSIBLE = {"key", "auth", "signature", "sig", "cookie", "session", "cert", "pin", "dsn", "jwt"}

_SIGNED = {
    "x-amz-signature",
    "x-amz-credential",
    "x-amz-security-token",
    "awsaccesskeyid",
    "x-goog-signature",
    "x-goog-credential",
    "googleaccessid",
    "signature",
    "sig",
    "sharedaccesssignature",
}
_KNOWN = re.compile(
    r"\bastr_[0-9a-z]{12}_[A-Za-z0-9_-]{40,}"
    r"|\bhf_[A-Za-z0-9]{30,}"
    r"|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"
    r"|\bgh[pousr]_[A-Za-z0-9]{30,}|\bgithub_pat_[A-Za-z0-9_]{30,}|\bglpat-[A-Za-z0-9_-]{20,}"
    r"|\bxox[abprs]-[A-Za-z0-9-]{10,}|\bAIza[A-Za-z0-9_-]{35}"
    r"|\bsk-[A-Za-z0-9_-]{32,}"
    r"|-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----"
    r"|\b(?:AccountKey|SharedAccessSignature|SharedAccessKey)="
)
_URL = re.compile(r"[a-z][a-z0-9+.-]{0,30}://", re.IGNORECASE)
_USER = re.compile(r"[^:]+://[^/?#\s@:]*:([^\s@]*)@")
_PORT = re.compile(r"[0-9]{1,5}(?:/|$)")
_LONGEST = 20_000
_DEEPEST = 64


def find_inline_secrets(document: Mapping[str, Any]) -> list[Problem]:
    """Every literal that looks like a secret, by JSON pointer, with the command that stores it."""
    project = document.get("project_id") if isinstance(document.get("project_id"), str) else None
    problems = []
    for path, name, value in _nodes(document):
        if _is_reference(path, value):
            continue
        if isinstance(value, (Mapping, list, tuple)):
            problems.append(Problem(_pointer(path), f"is more than {_DEEPEST} levels deep; no job is"))
            continue
        why = _why(path, name, value)
        if why is not None:
            problems.append(Problem(_pointer(path), f"holds a secret as a literal: {why}", _hint(name, project)))
    return problems


def secret_references(document: Any) -> list[tuple[str, str]]:
    """JSON pointer and name of every `{secret: name}`."""
    return [(_pointer(path), value["secret"]) for path, _, value in _nodes(document) if _is_reference(path, value)]


def is_sensitive_name(name: str) -> bool:
    """Whether a field of that name holds a secret."""
    words = _words(name)
    pairs = set(pairwise(words))
    if _CERTAIN & set(words) or _PAIRS & pairs:
        return True
    # The tokens that a tokenizer knows are no secrets.
    return bool(_LIKELY & set(words)) and not _OF_TOKENIZERS & set(words)


def _why(path: tuple[str, ...], name: str, value: Any) -> str | None:
    if any(_KNOWN.search(part) for part in path):
        return "a field's name has the form of a key or token"
    certain = any(_CERTAIN & set(_words(part)) for part in path)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return f"its name is {name[:60]!r}" if certain else None
    if not isinstance(value, str) or not value.strip():
        return None
    text = value[:_LONGEST]
    if _KNOWN.search(text):
        return "it has the form of a key or token"
    if certain or is_sensitive_name(name):
        return f"its name is {name[:60]!r}"
    if _POSSIBLE & set(_words(name)) and _looks_random(text):
        return f"its name is {name[:60]!r}, and it looks random"
    return _why_url(text)


def _why_url(text: str) -> str | None:
    for match in islice(_URL.finditer(text), 100):
        address = re.split(r"[\s\"'<>]", text[match.start() :], maxsplit=1)[0]
        if not any(mark in address for mark in "@?#"):
            continue
        if (found := _USER.match(address)) and not _PORT.match(found[1]):
            return "the address has a password in it"
        try:
            parts = urlsplit(address)
            query = parse_qsl(parts.query or parts.fragment, keep_blank_values=True, max_num_fields=200)
        except ValueError:
            continue
        user, separator, _ = parts.netloc.rpartition("@")
        if separator and _looks_random(user):
            return "the address has a token in it"
        for key, value in query:
            if value and (key.lower() in _SIGNED or is_sensitive_name(key)):
                return f"the address has a signature or key in it ({key[:60]!r})"
    return None


def _looks_random(text: str) -> bool:
    """Long, of several kinds of characters, and no words: at least 3.3 bits a character."""
    if len(text) < 16 or any(character.isspace() for character in text):
        return False
    counts = Counter(text)
    bits = -sum(n / len(text) * math.log2(n / len(text)) for n in counts.values())
    return bits >= 3.3 and any(character.isdigit() for character in text)


def _words(name: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(name[:200])]


def _nodes(document: Any) -> Iterator[tuple[tuple[str, ...], str, Any]]:
    """Path, nearest field name and value of every leaf, every reference, and of what is too deep to look into."""
    stack: list[tuple[tuple[str, ...], str, Any]] = [((), "", document)]
    while stack:
        path, name, value = stack.pop()
        if not isinstance(value, (Mapping, list, tuple)) or _is_reference(path, value) or len(path) >= _DEEPEST:
            yield path, name, value
        elif isinstance(value, Mapping):
            stack.extend(((*path, str(key)), str(key), item) for key, item in value.items())
        else:
            stack.extend(((*path, str(index)), name, item) for index, item in enumerate(value))


def _is_reference(path: tuple[str, ...], value: Any) -> bool:
    """`{secret: name}`, where the name cannot be a secret itself. Labels are text, whatever they are called."""
    if not isinstance(value, Mapping) or list(value) != ["secret"] or path[:1] == ("labels",):
        return False
    name = value["secret"]
    return isinstance(name, str) and SECRET_NAME.fullmatch(name) is not None and not _KNOWN.search(name)


def _hint(name: str, project: str | None) -> str:
    stored = "-".join(_words(name)) if SECRET_NAME.fullmatch(name) and not _KNOWN.search(name) else ""
    stored = stored or "my-secret"
    where = project if project and SECRET_NAME.fullmatch(project) else "PROJECT"
    return f"store it with `astraml secret set {stored} --project {where}`, and write {{secret: {stored}}} here"


def _pointer(path: tuple[str, ...]) -> str:
    # A name that is a secret is not repeated either.
    shown = ("…" if _KNOWN.search(part) else part[:200] for part in path)
    return "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in shown)
