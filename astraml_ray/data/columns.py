"""Which columns hold what: texts, pairs of texts, words, images, labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from astraml_ray.errors import DataError
from astraml_ray.spec.dataset import Columns
from astraml_ray.spec.job import Task

__all__ = ["LABEL_NAMES", "TEXT_NAMES", "Roles", "Target", "classification_of", "find_columns"]

Target = Literal["class", "number", "tags"]
"""What a label column holds: one class, one number, or one tag for each word."""

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
PAIR_NAMES = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("text1", "text2"),
    ("text_a", "text_b"),
    ("query", "passage"),
    ("question", "sentence"),
    ("question", "answer"),
)
NUMBER_NAMES = ("score", "similarity_score", "similarity", "rating", "value")
TOKEN_NAMES = ("tokens", "words")
TAG_NAMES = ("ner_tags", "tags", "pos_tags", "labels", "label")
IMAGE_NAMES = ("image", "img", "images", "picture", "photo", "jpg", "jpeg", "png", "pixels")
_CLASSIFICATIONS: dict[str, Task] = {
    "image": "image-classification",
    "tokens": "token-classification",
    "text": "text-classification",
}
_TARGETS: dict[str, Target | None] = {
    "text-classification": "class",
    "text-regression": "number",
    "token-classification": "tags",
    "image-classification": "class",
    "causal-lm": None,
    "masked-lm": None,
}


@dataclass(frozen=True)
class Roles:
    """What was found.

    Attributes:
        columns: By role: `text`, with `text_pair` or without; or `tokens`; or `image`; and `label`, if there is one.
        target: What the label column holds.
    """

    columns: dict[str, str]
    target: Target | None = None


def classification_of(columns: Mapping[str, str]) -> Task:
    """The classification task that `auto` means with these roles."""
    return next(task for role, task in _CLASSIFICATIONS.items() if role in columns)


def find_columns(schema: pa.Schema, wanted: Columns, *, task: Task, source: str, needs_label: bool = True) -> Roles:
    """The columns that a task reads, by the spec or by the usual names (any case).

    Args:
        schema: The schema of the first training object.
        wanted: The spec's names.
        task: From the spec; `auto` goes by what is there, and may do without a label.
        source: What to name in an error.
        needs_label: Whether a task that has labels is refused without them.

    Raises:
        DataError: A named column is not there, or none has a usual name; the error lists what is there.
    """
    content = _content(schema, wanted, task, source)
    target: Target | None = "tags" if "tokens" in content else "class"
    target = target if task == "auto" else _TARGETS[task]
    if target is None:
        return Roles(content)
    names = {"class": LABEL_NAMES, "number": (*NUMBER_NAMES, *LABEL_NAMES), "tags": TAG_NAMES}[target]
    others = pa.schema([field for field in schema if field.name not in content.values()])
    label = _pick(others, wanted.label, names, "label", source)
    if label is not None:
        return Roles({**content, "label": label}, target)
    if task == "auto" and "text" in content and wanted.text_pair is None:
        return Roles({"text": content["text"]})
    if not needs_label:
        return Roles(content)
    raise DataError(
        f"no label column is recognised; the columns are {_listing(schema)}",
        param=source,
        hint="name it: dataset.columns.label=NAME, or choose task causal-lm or masked-lm",
    )


def _content(schema: pa.Schema, wanted: Columns, task: Task, source: str) -> dict[str, str]:
    """The columns that are no labels."""
    if task == "image-classification" or (task == "auto" and _has_images(schema, wanted)):
        return {"image": _required(schema, wanted.image, IMAGE_NAMES, "image", source)}
    if task == "token-classification" or (task == "auto" and _has_words(schema, wanted)):
        return {"tokens": _required(schema, wanted.tokens, TOKEN_NAMES, "tokens", source)}
    pair = _usual_pair(schema) if wanted.text is None and _TARGETS.get(task, "class") else None
    if pair is not None and wanted.text_pair in (None, pair[1]):
        return {"text": pair[0], "text_pair": pair[1]}
    text = {"text": _text(schema, wanted, source)}
    if wanted.text_pair is None:
        return text
    return {**text, "text_pair": _required(schema, wanted.text_pair, (), "text_pair", source)}


def _text(schema: pa.Schema, wanted: Columns, source: str) -> str:
    text = _pick(schema, wanted.text, TEXT_NAMES, "text", source)
    if text is None:
        strings = [field.name for field in schema if _is_text(field.type) and field.name != wanted.label]
        text = strings[0] if len(strings) == 1 else None
    if text is None:
        raise _unrecognised(schema, "text", source)
    return text


def _has_images(schema: pa.Schema, wanted: Columns) -> bool:
    if wanted.image is not None:
        return True
    if wanted.text is not None or wanted.tokens is not None:
        return False
    name = _pick(schema, None, IMAGE_NAMES, "image", "")
    return name is not None and _is_image(schema.field(name).type)


def _has_words(schema: pa.Schema, wanted: Columns) -> bool:
    if wanted.tokens is not None:
        return True
    name = _pick(schema, None, TOKEN_NAMES, "tokens", "") if wanted.text is None else None
    return name is not None and _is_list(schema.field(name).type)


def _usual_pair(schema: pa.Schema) -> tuple[str, str] | None:
    for first, second in PAIR_NAMES:
        found = _pick(schema, None, (first,), "text", ""), _pick(schema, None, (second,), "text_pair", "")
        if found[0] is not None and found[1] is not None:
            return found[0], found[1]
    return None


def _required(schema: pa.Schema, wanted: str | None, usual: Sequence[str], role: str, source: str) -> str:
    found = _pick(schema, wanted, usual, role, source)
    if found is None:
        raise _unrecognised(schema, role, source)
    return found


def _unrecognised(schema: pa.Schema, role: str, source: str) -> DataError:
    return DataError(
        f"no {role} column is recognised; the columns are {_listing(schema)}",
        param=source,
        hint=_hint_for(schema, role, source),
    )


def _hint_for(schema: pa.Schema, role: str, source: str) -> str:
    for field in schema:
        if _is_list(field.type) and pa.types.is_struct(field.type.value_type):
            inner = {one.name for one in field.type.value_type}
            if inner >= {"role", "content"} or inner >= {"from", "value"}:
                return f"chats are not read as they are: write each {field.name!r} as one text, as the model expects it"
            if len(schema) == 1 and source.lower().endswith((".json", ".jsonl")):
                return f"if the rows are those within {field.name!r}, write them alone: jq -c '.{field.name}[]'"
    named = f"name it: dataset.columns.{role}=NAME"
    table = source.lower().removesuffix(".gz").removesuffix(".zst").endswith((".csv", ".tsv"))
    return f"{named}; the first line of a table has the columns' names" if table else named


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


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _is_image(kind: pa.DataType) -> bool:
    """Bytes, or Hugging Face's struct of `bytes` and `path`."""
    if pa.types.is_struct(kind):
        return bool(kind.get_field_index("bytes") >= 0)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _listing(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in schema) or "none"
