"""What augmentation made of texts, before and after: for a terminal, and as a page of HTML."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

import yaml
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from astraml_ray.cli.quantities import printable
from astraml_ray.data.inspection.previews import Piece, mark_changes

__all__ = ["preview_html", "preview_page"]

Json = Mapping[str, Any]

_GONE, _COME = ("[-", "-]"), ("{+", "+}")
_HTML_WORDS = 5000
_NO_TAGS = ("O", "0")
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
hr {{ border: 0; border-top: 1px dotted #8888; }}
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
        marked = _marked(row, printable, most_words=400)
        before = [_text(gone, "red strike", None if styled else _GONE) for gone, _ in marked]
        after = [_text(come, "bold green", None if styled else _COME) for _, come in marked]
        table.add_row(str(row["position"]), Text("\n").join(before), Text("\n").join(after))
    return Group(table, Text(""), Text(_summary(found), style="dim"), Text(_settings(found), style="dim"))


def preview_html(found: Json) -> str:
    """One page that needs no other file."""
    rows = []
    for row in found["rows"]:
        marked = _marked(row, str, most_words=_HTML_WORDS)
        before = "<hr>".join(_html(gone, "del") for gone, _ in marked)
        after = "<hr>".join(_html(come, "ins") for _, come in marked)
        rows.append(f"<tr><td>{row['position']}</td><td>{before}</td><td>{after}</td></tr>")
    return _PAGE.format(
        title="Training texts before and after augmentation",
        summary=escape(_summary(found)),
        settings=escape(_settings(found)),
        rows="\n".join(rows),
    )


def _marked(row: Json, clean: Callable[[str], str], *, most_words: int) -> list[tuple[list[Piece], list[Piece]]]:
    """The pieces of each text of a row; a word's tag stands behind it."""
    if "tags" in row:
        words = [[clean(word) for word in row[side][:most_words]] for side in ("before", "after")]
        tags = [f"/{clean(tag)}" if tag not in _NO_TAGS else "" for tag in row["tags"]]
        pieces = [
            [(f"{one}{tag}", old != new) for one, old, new, tag in zip(side, *words, tags, strict=False)]
            for side in words
        ]
        more: list[Piece] = [("…", False)] if len(tags) > most_words else []
        return [(pieces[0] + more, pieces[1] + more)]
    sides = [("before", "after"), *([("before_pair", "after_pair")] if "before_pair" in row else [])]
    return [mark_changes(clean(row[old]), clean(row[new]), most_words=most_words) for old, new in sides]


def _text(pieces: Sequence[Piece], style: str, brackets: tuple[str, str] | None) -> Text:
    opening, closing = brackets or ("", "")
    parts = [(f"{opening}{words}{closing}", style) if changed else (words, "") for words, changed in pieces]
    return Text(" ").join([Text(words, style=kind) for words, kind in parts])


def _html(pieces: Sequence[Piece], tag: str) -> str:
    return " ".join(f"<{tag}>{escape(words)}</{tag}>" if changed else escape(words) for words, changed in pieces)


def _summary(found: Json) -> str:
    rows = found["rows"]
    changed = sum(any(row[f"before{one}"] != row[f"after{one}"] for one in _sides(row)) for row in rows)
    words = f"the first {len(rows)} rows of epoch {found['epoch']} with seed {found['seed']}, {changed} of them changed"
    if any(one["type"] == "random_mask" for one in found["augmentation"]):
        words += f"; the mask is {found['mask_token']}, or what the model's tokenizer has"
    return f"{words}; in a spec:"


def _sides(row: Json) -> tuple[str, ...]:
    return ("", "_pair") if "before_pair" in row else ("",)


def _settings(found: Json) -> str:
    text: str = yaml.safe_dump(
        {"augmentation": found["augmentation"]}, sort_keys=False, default_flow_style=None, width=100
    )
    return text.rstrip()
