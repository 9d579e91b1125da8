"""`astraml migrate`: a spec of v1.x, written as v2.1."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from astraml_ray.errors import AstraError, RequestError

if TYPE_CHECKING:
    from astraml_ray.spec.migration import Migration

__all__ = ["migrate"]

_STALE = RequestError.exit_code


@click.command()
@click.argument("spec", metavar="SPEC")
@click.option("-o", "target", default=None, metavar="FILE", help="Write it there. [stdout]")
@click.option("--check", is_flag=True, help="Write nothing; exit code 10 if the spec is not v2.1 yet.")
@click.option("--output", type=click.Choice(["text", "json"]), default="text", help="json: spec and report, as one.")
def migrate(spec: str, target: str | None, check: bool, output: str) -> None:
    """Write a spec of v1.x as v2.1, and say what became of each field.

    \b
    astraml migrate old.yaml -o spec.yaml
    astraml migrate old.yaml | astraml submit -f /dev/stdin

    The spec goes to stdout, the report to stderr: what moved, what took a default and is now written out, what to
    verify. A spec that is v2.1 already comes out as it was.
    """
    from astraml_ray.spec.loading import read_document
    from astraml_ray.spec.migration import migrate as migrate_document

    try:
        document = read_document(Path(spec))
        found = migrate_document(document, source=spec)
        changes = found.document != document
        text = _text(found, Path(spec), changes=changes)
        if target is not None and not check:
            _write(Path(target), text)
    except AstraError as error:
        _fail(error, output)
    if output == "json":
        told = {"document": found.document, "report": [move.as_dict() for move in found.report]}
        print(json.dumps(told, default=str))
    else:
        _report(found, spec, changes=changes)
        if target is None and not check:
            sys.stdout.write(text)
    if check and changes:
        raise SystemExit(_STALE)


def _text(found: Migration, path: Path, *, changes: bool) -> str:
    if not changes and path.is_file():
        return path.read_text(encoding="utf-8-sig")
    import yaml

    return yaml.safe_dump(found.document, sort_keys=False, allow_unicode=True)


def _report(found: Migration, spec: str, *, changes: bool) -> None:
    from astraml_ray.cli.provenance_page import moves_lines

    print(f"{spec} {'is of v1.x' if changes else 'is v2.1 already'}", file=sys.stderr)
    for line in moves_lines(found.report):
        print(line, file=sys.stderr)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RequestError(f"cannot be written: {error.strerror}", param=str(path)) from error


def _fail(error: AstraError, output: str) -> NoReturn:
    print(f"error: {error}", file=sys.stderr)
    if output == "json":
        print(json.dumps({"error": error.as_dict()}))
    raise SystemExit(error.exit_code) from error
