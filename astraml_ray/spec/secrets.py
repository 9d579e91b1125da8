"""References to secrets of the project, and the environment that a job gives its workers."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Discriminator, Field, StringConstraints, Tag

from astraml_ray.spec.base import SpecModel

__all__ = ["MAX_VARIABLES", "Environment", "SecretReference", "reserved_reason"]

MAX_VARIABLES = 64
_NAMES = {
    "BASH_ENV": "it makes programs run code",
    "CC": "it makes programs run code",
    "CURL_CA_BUNDLE": "it decides whom the service trusts",
    "CXX": "it makes programs run code",
    "ENV": "it makes programs run code",
    "HF_ENDPOINT": "it redirects what the service reads",
    "HOME": "it is the machine's",
    "IFS": "it is the machine's",
    "LOCAL_RANK": "the workers' group is set up by the service",
    "MASTER_ADDR": "the workers' group is set up by the service",
    "MASTER_PORT": "the workers' group is set up by the service",
    "PATH": "it makes programs run code",
    "RANK": "the workers' group is set up by the service",
    "REQUESTS_CA_BUNDLE": "it decides whom the service trusts",
    "SHELL": "it is the machine's",
    "SSL_CERT_DIR": "it decides whom the service trusts",
    "SSL_CERT_FILE": "it decides whom the service trusts",
    "TMPDIR": "it is the machine's",
    "USER": "it is the machine's",
    "WORLD_SIZE": "the workers' group is set up by the service",
    "secret": "it would read like a reference to a secret",
}
_PREFIXES = {
    "ASTRAML_": "it is this program's",
    "AWS_": "it is the service's own; the dataset's credentials go into dataset.credentials",
    "CUDA_": "the GPUs are given by the service",
    "DYLD_": "it makes programs run code",
    "GLIBC_": "it is this program's",
    "LD_": "it makes programs run code",
    "MALLOC_": "it is this program's",
    "PYTHON": "it makes programs run code",
    "RAY_": "it is Ray's",
    "TORCH": "it makes programs run code",
    "TRITON": "it makes programs run code",
}


class SecretReference(SpecModel):
    """A secret of the job's project, by its name. The value is in no spec."""

    secret: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
    """Stored with `astraml secret set NAME --project PROJECT`."""


def reserved_reason(name: str) -> str | None:
    """Why a job cannot set a variable; None if it can."""
    if name in _NAMES:
        return _NAMES[name]
    if name.upper().endswith("_PROXY"):
        return "it redirects what the service reads"
    return next((reason for prefix, reason in _PREFIXES.items() if name.startswith(prefix)), None)


def _check_name(name: str) -> str:
    reason = reserved_reason(name)
    if reason is not None:
        raise ValueError(f"a job cannot set {name}: {reason}")
    return name


_VariableName = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$"), AfterValidator(_check_name)
]
_VariableText = Annotated[str, StringConstraints(max_length=32_768, pattern=r"^[^\x00]*$"), Tag("text")]


def _kind_of(value: Any) -> str:
    return "text" if isinstance(value, str) else "reference"


_Variable = Annotated[_VariableText | Annotated[SecretReference, Tag("reference")], Discriminator(_kind_of)]

Environment = Annotated[dict[_VariableName, _Variable], Field(max_length=MAX_VARIABLES)]
"""Names of variables, each with its text, or with the secret whose value it gets."""
