"""Which columns hold the text and the label."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from astraml_ray.errors import DataError
from astraml_ray.spec.dataset import Columns

__all__ = ["LABEL_NAMES", "TEXT_NAMES", "find_columns"]

TEXT_NAMES = (
    "text",
    "sentence",
    "content",
    "document",
    "review",
    "question",
    "body",
    "message",
    "utterance",
    "comment",
    "tweet",
    "title",
    "description",
    "query",
    "input",
    "prompt",
)
LABEL_NAMES = (
    "label",
    "labels",
    "class",
    "category",
    "target",
    "intent",
    "topic",
    "sentiment",
    "label_text",
    "coarse_label",
    "y",
)


def find_columns(
    schema: pa.Schema, wanted: Columns, *, needs_label: bool | None, source: str
) -> tuple[str, str | None]:
    """The text column and the label column, by the spec or by the usual names (any case).

    Args:
        schema: The schema of the first training object.
        wanted: The spec's names.
        needs_label: True if the task needs a label, False if it has none, None if that is open.
        source: What to name in an error.

    Raises:
        DataError: A named column is not there, or none has a usual name; the error lists what is there.
    """
    if wanted.image is not None:
        raise DataError(
            "image datasets are not supported by this version",
            param="/dataset/columns/image",
            hint="leave the field out, and name a text column",
        )
    text = _pick(schema, wanted.text, TEXT_NAMES, "text", source)
    if text is None:
        strings = [field.name for field in schema if _is_text(field.type) and field.name != wanted.label]
        text = strings[0] if len(strings) == 1 else None
    if text is None:
        raise DataError(
            f"no text column is recognised; the columns are {_listing(schema)}",
            param=source,
            hint="name it: dataset.columns.text=NAME",
        )
    if needs_label is False:
        return text, None
    others = pa.schema([field for field in schema if field.name != text])
    label = _pick(others, wanted.label, LABEL_NAMES, "label", source)
    if label is None and needs_label:
        raise DataError(
            f"no label column is recognised; the columns are {_listing(schema)}",
            param=source,
            hint="name it: dataset.columns.label=NAME, or choose task causal-lm or masked-lm",
        )
    return text, label


def _pick(schema: pa.Schema, wanted: str | None, usual: Sequence[str], role: str, source: str) -> str | None:
    if wanted is not None:
        if wanted not in schema.names:
            raise DataError(
                f"{source} has no column {wanted!r}; the columns are {_listing(schema)}",
                param=f"/dataset/columns/{role}",
                hint="name one of them",
            )
        return wanted
    by_lower = {name.lower(): name for name in reversed(schema.names)}
    for name in usual:
        if name in by_lower:
            return str(by_lower[name])
    return None


def _is_text(kind: pa.DataType) -> bool:
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(value) or pa.types.is_large_string(value))


def _listing(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in schema) or "none"
