"""Where the rows are, and what their columns mean."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from astraml_ray.spec.base import SpecModel
from astraml_ray.spec.secrets import SecretReference

__all__ = ["BadRowPolicy", "Columns", "DatasetFormat", "DatasetSpec", "dataset_from_input"]

DatasetFormat = Literal["auto", "parquet", "jsonl", "csv", "text", "arrow", "image-folder", "webdataset"]
BadRowPolicy = Literal["fail", "skip", "quarantine"]
Uri = Annotated[str, StringConstraints(min_length=1, max_length=2048, strip_whitespace=True)]
ColumnName = Annotated[str, StringConstraints(min_length=1, max_length=256)]


class Columns(SpecModel):
    """Names of the columns; a name left out is found by the usual names, or the error lists what is there."""

    text: ColumnName | None = None
    """The column of texts (usual names: text, sentence, content, document, review, question ...)."""
    text_pair: ColumnName | None = None
    """The second text of each row, where rows are pairs (usual names: sentence1 and sentence2, premise and hypothesis,
    question1 and question2, text_a and text_b ...)."""
    tokens: ColumnName | None = None
    """The column of lists of words, in token-classification (usual names: tokens, words)."""
    image: ColumnName | None = None
    """The column of encoded images: JPEG, PNG, WebP ... (usual names: image, img, picture ...)."""
    label: ColumnName | None = None
    """The column of classes (strings or numbers), of numbers in text-regression, of lists of tags in
    token-classification (usual names: label, labels, class, category ...; score; ner_tags ...)."""


class DatasetSpec(SpecModel):
    """A dataset: a prefix read by convention (`path`), or one URI per split.

    URIs are `s3://bucket/key`, `file:///path` or plain paths; folders are read recursively.
    """

    path: Uri | None = None
    """A prefix whose files or folders named train*, validation*|dev*|val*|eval* and test* are the splits."""
    train: Uri | None = None
    """Training rows: a file, a folder or a prefix."""
    validation: Uri | None = None
    """Validation rows; without them a fraction of the training rows is split off."""
    test: Uri | None = None
    """Test rows; scored once, with the best model."""
    format: DatasetFormat = "auto"
    """The file format; `auto` goes by the files' first bytes, and by their names where those leave it open. Lines
    may be compressed with gzip or zstd. An image folder's rows are its images, of the class that their folder names; or
    those of its `metadata.jsonl`, `metadata.csv` or `metadata.parquet`, in which `file_name` names the image; one above
    the folders of several splits tells of all."""
    columns: Columns = Columns()
    validation_fraction: float = Field(default=0.05, gt=0, lt=1)
    """Share of the training rows that becomes the validation set when there is none. A row's side
    follows from a hash of its content, so it is the same at every run, and equal rows stay together."""
    on_bad_row: BadRowPolicy = "fail"
    """What happens to rows that cannot be trained on: nulls, lines that do not parse, broken UTF-8, what is no number,
    unknown classes, damaged or missing images. `fail` refuses the dataset and names the first of them; `skip` leaves
    them out and counts them; `quarantine` also writes them into the run's `quarantine.jsonl`. An empty text is no bad
    row. Where nothing needs the rows before the first step (Parquet with a validation set, no classes), and with
    images, `fail` meets some of them only when they are trained on; the others look at all rows, and decode all images,
    first."""
    max_bad_fraction: float = Field(default=0.01, gt=0, le=0.5)
    """Share of the rows of a split that `skip` and `quarantine` leave out at most; beyond it the dataset is refused."""
    endpoint_url: Uri | None = None
    """The S3 endpoint, when it is not the one of AWS_ENDPOINT_URL or of the profile."""
    credentials: SecretReference | None = None
    """The secret that holds the dataset's S3 credentials, when they are not the service's own: `{secret: NAME}`. Its
    value is a JSON object with `access_key_id`, `secret_access_key`, and if need be `session_token`, `endpoint_url` and
    `region`."""

    @model_validator(mode="after")
    def _one_way_to_name_the_rows(self) -> DatasetSpec:
        if (self.path is None) == (self.train is None):
            raise ValueError("give either `path` (a prefix read by convention) or `train`")
        if self.path is not None and (self.validation or self.test):
            raise ValueError("`validation` and `test` go with `train`; with `path` they are found by name")
        return self


def dataset_from_input(value: Any) -> Any:
    """A dataset given as a string is a prefix."""
    return {"path": value} if isinstance(value, str) else value
