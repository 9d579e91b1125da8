"""What augmentation made of texts, before and after: for a terminal, and as a page of HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import yaml
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from astraml_ray.cli.quantities import printable
from astraml_ray.data.previews import Piece, mark_changes

__all__ = ["preview_html", "preview_page"]

Json = Mapping[str, Any]

_GONE, _COME = ("[-", "-]"), ("{+", "+}")
_HTML_WORDS = 5000
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title><style>
:root {{ color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }}
body {{ margin: 2rem auto; max-width: 80rem; padding: 0 1rem; }}
pre {{ overflow-x: auto; }}
table {{ border-collapse: collapse; table-layout: fixed; width: 100%; }}
th, td {{ border-bottom: 1px solid #8884; overflow-wrap: anywhere; padding: .4rem .6rem; text-align: left;
  vertical-align: top; }}
th:first-child, td:first-child {{ opacity: .6; text-align: right; width: 4rem; }}
del {{ background: #f003; }}
ins {{ background: #0a03; }}
</style></head><body>
<h1>{title}</h1>
<p>{summary}</p>
<pre>{settings}</pre>
<table><thead><tr><th>row</th><th>before</th><th>after</th></tr></thead><tbody>
{rows}
</tbody></table></body></html>
"""


def preview_page(found: Json, *, styled: bool) -> RenderableType:
    """Side by side, within the terminal's width.

    Args:
        found: What `astraml data preview --output json` prints.
        styled: Whether colours can be seen; without them what differs stands in brackets.
    """
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0), expand=True)
    table.add_column("row", justify="right", style="dim", no_wrap=True)
    table.add_column("before", ratio=1, overflow="fold")
    table.add_column("after", ratio=1, overflow="fold")
    for row in found["rows"]:
        gone, come = mark_changes(printable(row["before"]), printable(row["after"]))
        before = _text(gone, "red strike", None if styled else _GONE)
        after = _text(come, "bold green", None if styled else _COME)
        table.add_row(str(row["position"]), before, after)
    return Group(table, Text(""), Text(_summary(found), style="dim"), Text(_settings(found), style="dim"))


def preview_html(found: Json) -> str:
    """One page that needs no other file."""
    rows = []
    for row in found["rows"]:
        gone, come = mark_changes(row["before"], row["after"], most_words=_HTML_WORDS)
        rows.append(f"<tr><td>{row['position']}</td><td>{_html(gone, 'del')}</td><td>{_html(come, 'ins')}</td></tr>")
    return _PAGE.format(
        title="Training texts before and after augmentation",
        summary=escape(_summary(found)),
        settings=escape(_settings(found)),
        rows="\n".join(rows),
    )


def _text(pieces: Sequence[Piece], style: str, brackets: tuple[str, str] | None) -> Text:
    opening, closing = brackets or ("", "")
    parts = [(f"{opening}{words}{closing}", style) if changed else (words, "") for words, changed in pieces]
    return Text(" ").join([Text(words, style=kind) for words, kind in parts])


def _html(pieces: Sequence[Piece], tag: str) -> str:
    return " ".join(f"<{tag}>{escape(words)}</{tag}>" if changed else escape(words) for words, changed in pieces)


def _summary(found: Json) -> str:
    rows = found["rows"]
    changed = sum(row["before"] != row["after"] for row in rows)
    words = f"the first {len(rows)} rows of epoch {found['epoch']} with seed {found['seed']}, {changed} of them changed"
    if any(one["type"] == "random_mask" for one in found["augmentation"]):
        words += f"; the mask is {found['mask_token']}, or what the model's tokenizer has"
    return f"{words}; in a spec:"


def _settings(found: Json) -> str:
    text: str = yaml.safe_dump(
        {"augmentation": found["augmentation"]}, sort_keys=False, default_flow_style=None, width=100
    )
    return text.rstrip()
