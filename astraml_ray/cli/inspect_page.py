"""What `astraml data inspect` found, as rich shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from astraml_ray.cli.quantities import printable, size

__all__ = ["inspect_page"]

Json = Mapping[str, Any]

_STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}
_BLOCKS = " ▁▂▃▄▅▆▇█"
_MOST_CLASSES = 20
_BAR = 20
_SHARES = ("p50", "p95", "p99", "max")
_WHY = {
    "named": "as you named it",
    "usual_name": "by its name",
    "only_text": "the only column of texts",
}


def inspect_page(found: Json) -> RenderableType:
    """The findings first, then files and rows, columns, lengths and classes."""
    parts: list[RenderableType] = [_finding(finding) for finding in found["findings"]]
    if not parts:
        parts.append(Text("nothing to warn of", style="green"))
    sections = [("rows", _rows(found)), ("columns", _columns(found["columns"]))]
    if found["rows_are"] == "images":
        sections.append(("images", _images(found["splits"])))
    else:
        sections.append(("lengths", _lengths(found["splits"])))
    if any(split["label"] for split in found["splits"].values()):
        sections.append(("tags" if found["rows_are"] == "words" else "classes", _classes(found["splits"])))
    for title, section in sections:
        parts += [Text(""), Text(title, style="bold"), Padding(section, (0, 0, 0, 2))]
    return Group(*parts)


def _finding(finding: Json) -> RenderableType:
    message = Text.assemble((f"{finding['level']}: ", _STYLES[finding["level"]]), printable(finding["message"]))
    return Group(message, Padding(Text(f"→ {finding['hint']}", style="dim"), (0, 0, 0, 2)))


def _table(*titles: str, left: int = 1) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for place, title in enumerate(titles):
        table.add_column(title, justify="left" if place < left else "right")
    return table


def _rows(found: Json) -> RenderableType:
    table = _table("split", "rows", "files", "bytes", "null", "blank", "duplicates", "also in train")
    leaks = {overlap["split"]: overlap["rows"] for overlap in found["leakage"]}
    for name, split in found["splits"].items():
        rows = f"{split['rows_read']:,}" + ("+" if split["rows"] is None else "")
        text = split["text"]
        counts = (text["null"], text["blank"], split["duplicates"]["rows"])
        cells = (f"{split['files']:,}", size(split["bytes"]), *(f"{count:,}" for count in counts))
        table.add_row(name, rows, *cells, f"{leaks[name]:,}" if name in leaks else "")
    if found["split_off"] is None:
        return table
    return Group(table, Text(f"{100 * found['split_off']:.3g} % of train will be the validation set", style="dim"))


def _columns(columns: Sequence[Json]) -> RenderableType:
    table = _table("column", "type", "role", "why", left=4)
    for column in columns:
        cells = (column["name"], column["type"], column["role"] or "", _WHY.get(column["why"], ""))
        table.add_row(*(Text(printable(cell)) for cell in cells))
    return table


def _lengths(splits: Json) -> RenderableType:
    table = _table("split", "in", "p50", "p95", "p99", "max", left=2)
    table.add_column("from 0 to p99", justify="left", no_wrap=True)
    for name, split in splits.items():
        for unit in ("words", "characters"):
            lengths = split["text"][unit]
            numbers = (f"{lengths[key]:,}" for key in _SHARES)
            table.add_row(name if unit == "words" else "", unit, *numbers, _drawn(lengths["histogram"]))
    return table


def _images(splits: Json) -> RenderableType:
    table = _table("split", "formats", "in", "p50", "p95", "p99", "max", left=3)
    table.add_column("from 0 to p99", justify="left", no_wrap=True)
    for name, split in splits.items():
        image = split["image"]
        formats = ", ".join(f"{kind} {count:,}" for kind, count in image["formats"].items())
        for unit in ("width", "height", "bytes"):
            numbers = [size(image[unit][key]) if unit == "bytes" else f"{image[unit][key]:,}" for key in _SHARES]
            first = (name, formats) if unit == "width" else ("", "")
            table.add_row(*first, unit, *numbers, _drawn(image[unit]["histogram"]))
    return table


def _drawn(histogram: Sequence[Json]) -> str:
    """A histogram as a row of blocks; what is there at all can be seen."""
    tallest = max((part["rows"] for part in histogram), default=0)
    steps = len(_BLOCKS) - 1
    return "".join(_BLOCKS[-(-part["rows"] * steps // tallest)] for part in histogram)


def _classes(splits: Json) -> RenderableType:
    names = {name for split in splits.values() for name in split["label"]["classes"]}
    totals = {name: sum(split["label"]["classes"].get(name, 0) for split in splits.values()) for name in names}
    shown = sorted(totals, key=lambda name: (-totals[name], name))[:_MOST_CLASSES]
    table = _table("class", *splits)
    table.add_column("of train", justify="left", no_wrap=True)
    train = splits["train"]["label"]["classes"]
    rows = max(1, sum(train.values()))
    for name in shown:
        share = train.get(name, 0) / rows
        counts = (f"{split['label']['classes'].get(name, 0):,}" for split in splits.values())
        label = Text(printable(name) or "(empty)", overflow="ellipsis", no_wrap=True)
        table.add_row(label, *counts, f"{'█' * round(share * _BAR)} {share:.1%}".strip())
    more = len(totals) - len(shown)
    return Group(table, Text(f"and {more:,} more: --output json has all", style="dim")) if more else table
