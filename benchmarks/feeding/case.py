"""What one process is asked to measure, and the words that its report uses; the standard library alone."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

__all__ = ["MODULES", "Case"]

MODULES = {
    "astraml, ray": "ours_ray",
    "astraml, local": "ours_local",
    "mosaicml": "mosaic",
    "mosaicml, tokenised": "mosaic_tokenised",
    "webdataset": "web_tars",
    "hugging face": "hugging",
    "torch over parquet": "torch_parquet",
    "plain ray data": "plain_ray",
    "limits": "limits",
}
"""The module of each arm."""


@dataclass(frozen=True)
class Case:
    """A process's task.

    Attributes:
        arm: Of MODULES.
        convert: Write the rows in the arm's own format, instead of feeding.
        bucket: Name of the bucket; the rows lie under `rows/train` and `rows/validation` as Parquet.
        endpoint_url: Of the S3 server; the keys are in the environment.
        scratch: A folder of this case alone.
        tokenizer: File of the tokenizer's JSON.
        classes: The labels, in the order of their ids.
        rows: Training rows.
        max_length: Tokens of a row at most.
        batch_size: Rows of a batch.
        epochs: Epochs at full speed; a slower one follows if there is a step.
        step_s: Length of the consumer's step in that last epoch, seconds; 0 leaves the epoch out.
        steps: Batches of that last epoch.
        workers: Processes that read; the arms of Ray have Ray's own.
    """

    arm: str
    convert: bool
    bucket: str
    endpoint_url: str
    scratch: str
    tokenizer: str
    classes: tuple[str, ...]
    rows: int
    max_length: int
    batch_size: int
    epochs: int
    step_s: float
    steps: int
    workers: int

    @property
    def passes(self) -> int:
        """All epochs, the slower one included."""
        return self.epochs + (self.step_s > 0)

    def write(self, file: Path) -> None:
        """Writes it for the process that runs it."""
        file.write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, file: Path) -> Case:
        """The reverse of write."""
        plain = json.loads(file.read_text())
        return cls(**{**plain, "classes": tuple(plain["classes"])})
