"""Process settings: the only place that reads `ASTRAML_` variables.

AWS's own variables (`AWS_ENDPOINT_URL`, `AWS_PROFILE`, keys, region) are read by botocore itself.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from astraml_ray.errors import Problem, SpecError

__all__ = [
    "RAY_ENVIRONMENT",
    "TUNE_ENVIRONMENT",
    "WORKER_ENVIRONMENT",
    "Settings",
    "apply_ray_environment",
    "apply_tune_environment",
    "configs_folder",
    "load_settings",
]

RAY_ENVIRONMENT: Mapping[str, str] = {
    # The controller's poll; 2 s by default, and it is added to every finish.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": "120",
    # One actor fewer at each start.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_WARN_BLOCKING_GET_INSIDE_ASYNC": "0",
    "RAY_worker_niceness": "0",
    # A run that evaluates for long pauses its data for long.
    "RAY_DATA_EXECUTION_NO_PROGRESS_TIMEOUT_S": "86400",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # `ray job stop` kills after 3 s by default; a run that stops saves first.
    "RAY_JOB_STOP_WAIT_TIME_S": "30",
}
"""What this project changes of Ray's defaults, where the user has not."""


WORKER_ENVIRONMENT: Mapping[str, str] = {
    # libgomp's threads wait for each other by spinning; where cores are shared with data tasks and the service, they
    # so keep the one that they wait for from running.
    "OMP_WAIT_POLICY": "PASSIVE",
    # Ray Train trains in a thread, and glibc gives a thread's large blocks back to the kernel at every step, which
    # then has to clear them again: a fifth of the time of a small model on CPUs.
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(1 << 31),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 31),
}
"""The environment of the training workers' processes."""


TUNE_ENVIRONMENT: Mapping[str, str] = {
    # Trials have records, TensorBoard events and checkpoints of their own.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # Tune's own state is never read: a sweep's ledger is.
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",
    "TUNE_RESULT_BUFFER_LENGTH": "1",
    # Its tables are for a terminal of its own; this leaves the older output, which can be turned off.
    "RAY_AIR_NEW_OUTPUT": "0",
}
"""How Ray Tune is run."""


@dataclass(frozen=True)
class Settings:
    """Settings of this process."""

    storage: str
    cache: Path
    ray_address: str | None
    ray_token_path: str | None
    hub_offline: bool
    home: Path
    """Everything that belongs to one installation of the service on this machine."""
    database_url: str
    address: str | None
    """Of the service, for its clients."""
    token: str | None
    allowed_targets: str
    """Addresses that jobs may name besides public ones, with commas between them."""
    master_key: str | None
    """Keys that secrets are encrypted with, newest first, with commas between them."""
    storage_deadline_s: float
    """How long a request to S3 is tried again, without a good piece of what it asked for."""
    storage_stall_s: float
    """How long a connection to S3 may bring nothing, or next to nothing, before it is given up for another."""
    fork_server: str | None = None
    """The fork server that the processes of this process's own cluster come from; see forkserver/."""

    @property
    def token_path(self) -> Path:
        """The file of the first admin's token."""
        return self.home / "token"


def load_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """Reads the `ASTRAML_` variables, `RAY_ADDRESS` and `HF_HUB_OFFLINE`.

    Raises:
        SpecError: One of them is no number where one is needed.
    """
    cache_home = environment.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    home = Path(environment.get("ASTRAML_HOME") or Path.home() / ".astraml").expanduser().absolute()
    return Settings(
        home=home,
        database_url=environment.get("ASTRAML_DATABASE_URL") or f"sqlite:///{home / 'astraml.db'}",
        address=environment.get("ASTRAML_ADDRESS") or None,
        token=environment.get("ASTRAML_TOKEN") or None,
        allowed_targets=_allowed_targets(environment),
        master_key=environment.get("ASTRAML_MASTER_KEY") or None,
        storage=environment.get("ASTRAML_STORAGE", "runs"),
        cache=Path(environment.get("ASTRAML_CACHE") or Path(cache_home) / "astraml"),
        ray_address=environment.get("RAY_ADDRESS") or None,
        ray_token_path=environment.get("RAY_AUTH_TOKEN_PATH") or None,
        storage_deadline_s=_seconds(environment, "ASTRAML_STORAGE_DEADLINE_S", 120.0),
        storage_stall_s=_seconds(environment, "ASTRAML_STORAGE_STALL_S", 30.0),
        hub_offline=environment.get("HF_HUB_OFFLINE", "").lower() in {"1", "true", "yes", "on"},
    )


def _seconds(environment: Mapping[str, str], name: str, default: float) -> float:
    text = environment.get(name) or str(default)
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < 1e9:  # NaN is not either
        raise SpecError([Problem(name, f"{text!r} is no number of seconds above 0")], source="environment")
    return seconds


def _allowed_targets(environment: Mapping[str, str]) -> str:
    """What the operator allows, and the S3 endpoint that the operator's own environment names."""
    endpoints = (environment.get(name, "") for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"))
    own = [urlsplit(endpoint).netloc for endpoint in endpoints if endpoint]
    return ",".join(filter(None, [environment.get("ASTRAML_ALLOWED_TARGETS", ""), *own]))


def apply_ray_environment() -> None:
    """Sets RAY_ENVIRONMENT for this process and its children. Call before `ray` is imported."""
    for name, value in RAY_ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def apply_tune_environment(*, trials: int) -> None:
    """Sets TUNE_ENVIRONMENT for this process, for so many trials at a time. Call before a Tuner is made."""
    os.environ.update({**TUNE_ENVIRONMENT, "TUNE_MAX_PENDING_TRIALS_PG": str(trials)})


def configs_folder() -> Path:
    """`configs/`: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"
