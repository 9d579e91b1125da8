"""A group of verbs in sections, each imported only when it is used."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click
from click.shell_completion import CompletionItem

__all__ = ["Verb", "VerbGroup"]


@dataclass(frozen=True)
class Verb:
    """A verb that is not imported yet.

    Attributes:
        place: "module:attribute" of its command.
        help: Its line in the group's help, the same as the first of its own.
    """

    place: str
    help: str

    def load(self) -> click.Command:
        """Imports the command."""
        module, _, attribute = self.place.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command


class VerbGroup(click.Group):
    """Verbs by section and name."""

    def __init__(self, *args: Any, sections: Mapping[str, Mapping[str, Verb]] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sections = sections or {}
        self.verbs = {name: verb for section in self.sections.values() for name, verb in section.items()}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the sections."""
        return list(self.verbs)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports a verb; None if there is none of that name."""
        verb = self.verbs.get(cmd_name)
        return verb.load() if verb else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Finds the verb of a command line.

        Raises:
            click.UsageError: There is none; it names the one that was probably meant.
        """
        name = args[0]
        close = difflib.get_close_matches(name, self.verbs, n=1)
        if name not in self.verbs and close and not name.startswith("-"):
            ctx.fail(f"there is no command {name!r}; did you mean {close[0]!r}?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the sections, without importing a verb."""
        width = max(map(len, self.verbs), default=0)
        for title, verbs in self.sections.items():
            with formatter.section(title):
                rows: Sequence[tuple[str, str]] = [(name.ljust(width), verb.help) for name, verb in verbs.items()]
                formatter.write_dl(rows)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
        """Completes names of verbs, without importing them."""
        found = [CompletionItem(name, help=v.help) for name, v in self.verbs.items() if name.startswith(incomplete)]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]
