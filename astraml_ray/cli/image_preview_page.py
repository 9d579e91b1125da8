"""What augmentation made of images: a page of HTML with the images in it, and a short table for a terminal. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from html import escape
from importlib.resources import files
from typing import Any, get_args

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from astraml_ray.cli.quantities import printable
from astraml_ray.spec.image_augmentation import ImageAugmentation, Mixing

__all__ = ["augmentation_words", "image_preview_html", "image_preview_table"]

Json = Mapping[str, Any]

_KINDS = {
    get_args(kind.model_fields["type"].annotation)[0]: kind
    for kind in (*get_args(ImageAugmentation), *get_args(Mixing))
}
_PLACE = re.compile("@[A-Z]+@")
_PIXELS_SEEN = 96
_MEDIA = ("image/png", "image/jpeg")


def image_preview_html(found: Json) -> str:
    """One page that needs no other file: each row before, and beside it in epoch after epoch.

    Args:
        found: What data.inspection.preview.preview_dataset gives of images.
    """
    page = (files("astraml_ray.cli") / "plots" / "preview.html").read_text(encoding="utf-8")
    parts = {
        "@SUMMARY@": escape(_summary(found)),
        "@STEPS@": "\n".join(_step(one) for one in found["augmentation"]),
        "@ROWS@": "\n".join(_row(row, found) for row in found["rows"]),
        "@COLUMNS@": str(1 + max((len(row["after"]) for row in found["rows"]), default=1)),
        "@SCALING@": "pixelated" if found["size"] <= _PIXELS_SEEN else "auto",
    }
    # In one go: what is put in may look like a place itself.
    return _PLACE.sub(lambda match: parts[match[0]], page)


def image_preview_table(found: Json) -> RenderableType:
    """Position and class of each row, and what was mixed in."""
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("row", justify="right", style="dim")
    table.add_column("class", overflow="ellipsis", no_wrap=True)
    table.add_column("mixed with")
    for row in found["rows"]:
        mixed = (f"epoch {one['epoch']}: {_partner(one)}" for one in row["after"] if one["partner_label"] is not None)
        table.add_row(str(row["position"]), Text(printable(row["label"])), Text(printable(", ".join(mixed))))
    steps = Text(", then ".join(augmentation_words(one) for one in found["augmentation"]), style="dim")
    return Group(table, Text(""), Text(_summary(found), style="dim"), steps)


def augmentation_words(one: Json) -> str:
    """An augmentation as its name, its settings and how often it is applied."""
    settings = [f"{name} {_setting(value)}" for name, value in one.items() if name not in ("type", "probability")]
    words = one["type"].replace("_", " ") + (f" ({', '.join(settings)})" if settings else "")
    return words if one.get("probability", 1) >= 1 else f"{words} on {one['probability']:.0%} of the images"


def _setting(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return " to ".join(_setting(one) for one in value)
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _summary(found: Json) -> str:
    rows, classes = found["rows"], Counter(row["label"] for row in found["rows"])
    side = found["size"]
    words = f"The first {len(rows)} rows of epoch 0 with seed {found['seed']}, of {len(classes)} classes"
    words = words if len(classes) != 1 else words.removesuffix("es")
    words += f", brought to {side} × {side} pixels as a model from scratch takes them"
    return (
        f"{words}; beside each, what epochs 0 to {found['draws'] - 1} train on." if found["draws"] > 1 else words + "."
    )


def _step(one: Json) -> str:
    kind = _KINDS.get(one["type"])
    about = (kind.__doc__ or "").strip().split("\n")[0] if kind else ""
    settings = [(name, _setting(value)) for name, value in one.items() if name not in ("type", "probability")]
    marks = "".join(f"<span>{escape(name)} <b>{escape(value)}</b></span>" for name, value in settings)
    share = one.get("probability", 1)
    often = "every image" if share >= 1 else f"{share:.0%} of images"
    return (
        f"<li><h2>{escape(one['type'].replace('_', ' '))} <small>{often}</small></h2>"
        f"<p>{escape(about)}</p><p class=settings>{marks}</p></li>"
    )


def _row(row: Json, found: Json) -> str:
    label = escape(row["label"])
    pictures = [_picture(row["before"], f"{label} before", "before", found["size"])]
    for one in row["after"]:
        caption = f"epoch {one['epoch']}"
        mixed = "" if one["partner_label"] is None else f"<br><em>{escape(_partner(one))}</em>"
        pictures.append(_picture(one, f"{label} in {caption}", caption + mixed, found["size"]))
    return (
        f"<article><h3>{label or '(empty)'} <small>row {int(row['position'])}</small></h3>"
        f"<div>{''.join(pictures)}</div></article>"
    )


def _picture(file: Json, title: str, caption: str, side: int) -> str:
    assert file["media_type"] in _MEDIA
    source = f"data:{file['media_type']};base64,{escape(file['data'])}"
    image = f'<img src="{source}" alt="{title}" width={side} height={side} loading=lazy>'
    return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"


def _partner(one: Json) -> str:
    weight = one["partner_weight"]
    return f"{f'{weight:.0%}' if weight >= 0.01 else 'under 1%'} {one['partner_label']}"
