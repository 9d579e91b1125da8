"""A run's secrets in its runner: fetched with a grant for each attempt, and handed to the run's own processes."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from dataclasses import replace

from astraml_ray.access.denials import SecretGrantError
from astraml_ray.access.targets import AllowedTargets, check_url
from astraml_ray.data.masking import Masker
from astraml_ray.data.storage.credentials import parse_credentials
from astraml_ray.errors import DataError
from astraml_ray.settings import load_settings
from astraml_ray.spec import JobSpec
from astraml_ray.training.preparation import RunInputs
from astraml_ray.training.secrets import SecretSource, dataset_secret, secret_names

__all__ = ["Fetch", "RunSecrets", "check_endpoint"]

Fetch = Callable[[int, str], str]
"""From an attempt's number and a secret's name to its value, by a grant."""


class RunSecrets:
    """The values, in the memory of the runner alone. Other processes of the run ask for one at a time, by a ticket.

    Attributes:
        masker: Takes them out of whatever the run tells.
    """

    def __init__(self, spec: JobSpec, runner: str, namespace: str, fetch: Fetch) -> None:
        """
        Args:
            spec: Of the job.
            runner: The name of the runner's actor.
            namespace: Ray's namespace of the service.
            fetch: Asks the service.
        """
        self.masker = Masker({})
        self._spec = spec
        self._fetch = fetch
        self._names = secret_names(spec)
        self._values: dict[str, str] = {}
        self._attempt: int | None = None
        # Two, so that the tasks that read rows have nothing but what reading takes.
        self._all = SecretSource(runner, namespace, secrets.token_urlsafe(32))
        self._rows = SecretSource(runner, namespace, secrets.token_urlsafe(32))

    def renew(self, attempt: int) -> None:
        """Fetches what an attempt needs; each attempt's use is noted.

        Raises:
            AstraError: A secret cannot be had, or is not what it should be.
        """
        if attempt == self._attempt or not self._names:
            return
        self._values = {name: self._fetch(attempt, name) for name in self._names}
        self._attempt = attempt
        self.masker = Masker(self._values)
        if self._spec.dataset.credentials is not None:
            check_endpoint(self._values[self._spec.dataset.credentials.secret])

    def value(self, ticket: str, name: str) -> str:
        """The value of a secret, for a process of the run.

        Raises:
            SecretGrantError: The ticket is none of this run's, or for other secrets.
        """
        credentials = self._spec.dataset.credentials
        of_rows = [credentials.secret] if credentials is not None else []
        for source, names in ((self._all, self._names), (self._rows, of_rows)):
            if hmac.compare_digest(source.ticket.encode(), ticket.encode()) and name in names:
                return self._values[name]
        raise SecretGrantError("this ticket does not open that secret of the run")

    @property
    def source(self) -> SecretSource | None:
        """What the run's inputs carry; None if the job names no secret."""
        return self._all if self._names else None

    def given_to(self, inputs: RunInputs) -> RunInputs:
        """The inputs with this job's own secrets and variables, whatever the folder says of an earlier one's."""
        spec = inputs.spec.model_copy(
            update={
                "env": self._spec.env,
                "dataset": inputs.spec.dataset.model_copy(update={"credentials": self._spec.dataset.credentials}),
            }
        )
        secret = dataset_secret(spec, self._rows)
        return replace(inputs, spec=spec, manifest=replace(inputs.manifest, secret=secret), secrets=self.source)


def check_endpoint(text: str) -> None:
    """Does nothing if the endpoint in a dataset's credentials may be called. Nobody could see it when the job came.

    Raises:
        DataError: They are no credentials.
        TargetNotAllowedError: It may not.
    """
    endpoint_url = parse_credentials(text).endpoint_url
    if endpoint_url is None:
        return
    try:
        allowed = AllowedTargets.parse(load_settings().allowed_targets)
    except ValueError as error:
        raise DataError(f"ASTRAML_ALLOWED_TARGETS cannot be read: {error}", param="/dataset/credentials") from None
    check_url(endpoint_url, allowed=allowed, param="/dataset/credentials")
