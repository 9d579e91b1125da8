"""Secrets in the processes of a run: asked of the runner when they are needed, and kept out of what is told.

What is sent to workers and tasks is a SecretSource, which holds no value: values come as answers to calls, and stay
in the memory of the process that asked.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import ray

from astraml_ray.data.masking import Masker
from astraml_ray.errors import AstraError, InfrastructureError, Problem, SpecError
from astraml_ray.spec import JobSpec
from astraml_ray.spec.secrets import SecretReference

__all__ = [
    "SecretSource",
    "ValueOf",
    "dataset_secret",
    "masked_error",
    "masker_of",
    "require_source",
    "secret_names",
    "variables_of",
]

ValueOf = Callable[[str], str]
"""From a secret's name to its value."""


@dataclass(frozen=True)
class SecretSource:
    """Asks a run's runner for secrets, from any process of the run.

    Attributes:
        runner: The name of its actor.
        namespace: Ray's namespace of the service.
        ticket: What opens the door, to some of the run's secrets.
    """

    runner: str
    namespace: str
    ticket: str = field(repr=False)

    def __call__(self, name: str) -> str:
        """The value of a secret; asked for once in each process.

        Raises:
            InfrastructureError: The runner does not answer.
            AstraError: It refuses.
        """
        key = (self.runner, self.ticket, name)
        if key not in _known:
            value = self._ask(name)
            # Processes of Ray Data outlive runs: they remember the secrets of one at a time.
            for other in [other for other in _known if other[0] != self.runner]:
                del _known[other]
            _known[key] = value
        return _known[key]

    def _ask(self, name: str) -> str:
        try:
            runner = ray.get_actor(self.runner, namespace=self.namespace)
            # One at a time: an answer this short never goes through the object store.
            value, error = ray.get(runner.secret.remote(self.ticket, name))
        except (ValueError, ray.exceptions.RayError) as failure:
            raise InfrastructureError("the run's runner does not answer", hint="it is being restarted") from failure
        if error is not None:
            raise error
        return str(value)


_known: dict[tuple[str, str, str], str] = {}


def secret_names(spec: JobSpec) -> list[str]:
    """The secrets that a spec names."""
    references = [spec.dataset.credentials, *spec.env.values()]
    return sorted({found.secret for found in references if isinstance(found, SecretReference)})


def require_source(spec: JobSpec, values: ValueOf | None) -> None:
    """Does nothing for a spec whose secrets can be had.

    Raises:
        SpecError: There is nobody to ask for them.
    """
    if values is not None:
        return
    named: dict[str, Any] = {"/dataset/credentials": spec.dataset.credentials}
    named |= {f"/env/{name}": value for name, value in spec.env.items()}
    hint = "submit the job to a service; or use the variables of this machine"
    problems = [
        Problem(pointer, f"names secret {value.secret!r}, and without a service there are no secrets", hint)
        for pointer, value in named.items()
        if isinstance(value, SecretReference)
    ]
    if problems:
        raise SpecError(problems)


def dataset_secret(spec: JobSpec, values: ValueOf | None) -> Callable[[], str] | None:
    """What gives the text of the dataset's credentials; None if it is read with the machine's own."""
    if spec.dataset.credentials is None or values is None:
        return None
    return partial(values, spec.dataset.credentials.secret)


def masker_of(spec: JobSpec, values: ValueOf | None) -> Masker:
    """Masks all secrets that a spec names.

    Raises:
        AstraError: One cannot be had.
    """
    return Masker({name: values(name) for name in secret_names(spec)} if values else {})


def variables_of(spec: JobSpec, values: ValueOf | None) -> dict[str, str]:
    """The environment that a spec gives its workers.

    Raises:
        AstraError: A secret cannot be had.
    """
    require_source(spec, values)
    return {
        name: values(value.secret) if isinstance(value, SecretReference) and values else str(value)
        for name, value in spec.env.items()
    }


def masked_error(error: BaseException, masker: Masker) -> BaseException:
    """The error, or one that says the same without the secrets: errors go through files, and to other processes."""
    lines = "".join(traceback.format_exception(error))
    if masker.mask(lines) == lines and masker.mask(str(error)) == str(error):
        return error
    if isinstance(error, AstraError):
        fields: Mapping[str, Any] = error.__dict__
        told = type(error).__new__(type(error))
        told.__dict__.update({k: masker.mask(v) if isinstance(v, str) else v for k, v in fields.items()})
        return told
    return RuntimeError(f"{type(error).__name__}: {masker.mask(str(error))}")
