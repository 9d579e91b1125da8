"""A dry run as rich shows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from astraml_ray.cli.quantities import size

__all__ = ["plan_page"]


def plan_page(plan: Mapping[str, Any]) -> RenderableType:
    """The resolved spec, the dataset, the steps and the warnings."""
    spec = yaml.safe_dump(plan["spec"], sort_keys=False, allow_unicode=True).rstrip()
    parts: list[RenderableType] = [Text("spec", style="bold"), Padding(Text(spec), (0, 0, 0, 2))]
    parts += [Text("dataset", style="bold"), Padding(_dataset(plan["dataset"]), (0, 0, 0, 2))]
    steps = plan["steps"]
    words = f"{steps['total']} in all, {steps['per_epoch']} per epoch, {steps['evaluations']} evaluations"
    parts.append(Text.assemble(("steps", "bold"), f"  {words}"))
    for warning in plan["warnings"]:
        hint = f" → {warning['hint']}" if warning.get("hint") else ""
        parts.append(Text(f"warning: {warning.get('param') or '/'}: {warning['message']}{hint}", style="yellow"))
    if not plan["warnings"]:
        parts.append(Text("no warnings", style="green"))
    return Group(*parts)


def _dataset(dataset: Mapping[str, Any]) -> RenderableType:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for title in ("split", "rows", "bytes", "objects"):
        table.add_column(title, justify="left" if title == "split" else "right")
    for name, split in dataset["splits"].items():
        table.add_row(name, str(split["rows"]), size(split["bytes"]), str(split["objects"]))
    lines = [Text(f"{name} column: {column}") for name, column in (dataset.get("columns") or {}).items() if column]
    classes = dataset.get("classes")
    if classes:
        shown = ", ".join(str(name) for name in classes[:20]) + (" …" if len(classes) > 20 else "")
        lines.append(Text(f"{len(classes)} classes: {shown}"))
    for name, left in (dataset.get("left_out") or {}).items():
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in left["reasons"].items())
        bad = sum(left["reasons"].values())
        lines.append(Text(f"{bad:,} of {left['of']:,} rows of {name} left out: {reasons}", style="yellow"))
        lines += [Text(f"  {one}", style="dim") for one in left["first"]]
    return Group(table, *lines)
