"""What may stand for each text of a chunk, from a translation there and back. Pure but for the translating."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa

__all__ = ["CANDIDATES", "Translate", "beside", "candidates_of", "text_roles", "translated"]

Translate = Callable[[list[str]], list[list[str]]]
"""From texts to what came back of each."""

CANDIDATES = pa.list_(pa.string())
"""The type of a column of candidates."""


def text_roles(columns: Sequence[str]) -> list[str]:
    """The roles among a table's columns that are translated."""
    return [role for role in ("text", "text_pair") if role in columns]


def translated(rows: pa.Table, translate: Translate) -> pa.Table:
    """The candidates of rows.

    Args:
        rows: By role.
        translate: Called once.

    Returns:
        As many rows; a column for each role that is a text, named as that.
    """
    roles = text_roles(rows.column_names)
    texts = [text for role in roles for text in rows[role].to_pylist()]
    found = candidates_of(texts, translate)
    count = rows.num_rows
    return pa.table({role: pa.array(found[i * count : (i + 1) * count], CANDIDATES) for i, role in enumerate(roles)})


def beside(rows: pa.Table, found: pa.Table) -> pa.Table:
    """Rows with the candidates of each text, as translated gives them, in a column `ROLE_candidates`."""
    for role in text_roles(rows.column_names):
        rows = rows.append_column(f"{role}_candidates", found[role])
    return rows


def candidates_of(texts: Sequence[str], translate: Translate) -> list[list[str]]:
    """The candidates of each text: none that is blank, the text itself, or there already.

    Equal texts are translated once, the longest first, so that batches hold texts of like length; blank ones are not.
    """
    wanted = sorted({text for text in texts if text.strip()}, key=lambda text: (-len(text), text))
    found = translate(wanted) if wanted else []
    by_text = {text: _others(text, made) for text, made in zip(wanted, found, strict=True)}
    return [by_text.get(text, []) for text in texts]


def _others(text: str, found: Sequence[str]) -> list[str]:
    """By words: how many spaces are between them makes no other text."""
    seen, kept = {_words(text), ()}, []
    for one in found:
        if (words := _words(one)) not in seen:
            seen.add(words)
            kept.append(one.strip())
    return kept


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())
