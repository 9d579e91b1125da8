"""`astraml data`: see what a dataset holds, and what augmentation makes of it, before anything is trained."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from astraml_ray.cli.flags import set_option
from astraml_ray.cli.outcome import conclude
from astraml_ray.cli.quantities import size
from astraml_ray.errors import DataError, Problem, SpecError, StorageError

if TYPE_CHECKING:
    from astraml_ray.data.inspection.inspect import Progress
    from astraml_ray.data.translation.candidates import Translate
    from astraml_ray.spec import JobSpec
    from astraml_ray.spec.text_augmentation import BackTranslation

__all__ = ["data"]

_F = TypeVar("_F", bound=Callable[..., Any])

_QUIET_S = 1.0
_LINE_EVERY_S = 5.0
_DRAW_EVERY_S = 0.2
_NAMES = ("light", "medium", "strong")
_MOST_THERE = 64
_SIDE_THERE = 224


@click.group()
def data() -> None:
    """See what a dataset holds, before anything is trained.

    \b
    astraml data inspect s3://bucket/dataset
    astraml data preview s3://bucket/dataset --augmentation light
    """


def _dataset_options(command: _F) -> _F:
    """Where the rows are, as the other verbs without a service take it."""
    command = click.option(
        "--output", type=click.Choice(["text", "json"]), default="text", help="json: one object on stdout."
    )(command)
    command = set_option(command)
    command = click.option("-f", "--file", "file", default=None, metavar="SPEC", help="A spec with a dataset.")(command)
    return click.argument("dataset", required=False)(command)


@data.command()
@_dataset_options
@click.option("--limit", type=click.IntRange(min=1), default=None, metavar="ROWS", help="Of each split. [all]")
@click.option("--project", default=None, help="Let the service read it, as a job of this project would. [read here]")
@click.option("--address", default=None, metavar="URL", help="Of the service. [ASTRAML_ADDRESS, this machine's]")
def inspect(
    dataset: str | None,
    file: str | None,
    settings: tuple[str, ...],
    output: str,
    limit: int | None,
    project: str | None,
    address: str | None,
) -> None:
    """Show what a dataset holds, and what is wrong with it.

    \b
    astraml data inspect s3://bucket/dataset
    astraml data inspect FOLDER --set dataset.columns.text=body --output json

    DATASET is a prefix, folder or file. Files, rows, columns, classes, lengths, duplicates, and what of train is in
    validation or test too; what matters comes first, with what to do. The exit code is 20 where the
    dataset cannot be read, or holds what training refuses (an `error:`). The service reads 100,000 rows of each split
    unless --limit says otherwise.
    """
    found: dict[str, Any] = {}

    if project is not None and (dataset is None or file or settings):
        raise click.UsageError("--project takes a DATASET, and neither -f nor --set")

    def work() -> dict[str, Any]:
        if project is not None and dataset is not None:
            found.update(_inspect_there(dataset, project, address, limit))
        else:
            found.update(_inspect_here(_spec_of(dataset, file, settings), limit))
        return found

    conclude(work, output=output, show=_show_inspection)
    if any(finding["level"] == "error" for finding in found["findings"]):
        raise SystemExit(DataError.exit_code)


def _inspect_here(spec: JobSpec, limit: int | None) -> dict[str, Any]:
    from astraml_ray.data.inspection.inspect import inspect_dataset

    line = _ProgressLine()
    try:
        return inspect_dataset(spec.dataset, limit=limit, progress=line.show)
    finally:
        line.close()


def _inspect_there(dataset: str, project: str, address: str | None, limit: int | None) -> dict[str, Any]:
    from astraml_ray.client import Client

    with Client(address) as client:
        return client.inspect_dataset(_place(dataset), project_id=project, limit=limit)


def _place(dataset: str) -> str:
    """The dataset as the service finds it: that has another working directory."""
    return dataset if "://" in dataset else str(Path(dataset).expanduser().absolute())


@data.command()
@_dataset_options
@click.option("--augmentation", default=None, metavar="NAME|FILE", help="light, medium, strong, or a YAML file.")
@click.option("-n", "rows", type=click.IntRange(1, 10_000), default=16, show_default=True, help="Rows; images: 256.")
@click.option("--seed", type=int, default=None, help="Of the run. [the spec's, 0]")
@click.option("--mask-token", default="[MASK]", show_default=True, help="Of the model's tokenizer.")
@click.option("--unknown-token", default="[UNK]", show_default=True, help="Of the model's tokenizer.")
@click.option("--size", type=int, default=None, metavar="PIXELS", help="Of a side of the images. [the spec's, 224]")
@click.option(
    "--draws", type=click.IntRange(1, 8), default=4, show_default=True, help="Epochs in which each image is shown."
)
@click.option(
    "--html", default=None, metavar="FILE", help="Write a page of it, which needs no other file. [images: preview.html]"
)
@click.option("--project", default=None, help="Let the service read it, as a job of this project would. [read here]")
@click.option("--address", default=None, metavar="URL", help="Of the service. [ASTRAML_ADDRESS, this machine's]")
def preview(
    dataset: str | None,
    file: str | None,
    settings: tuple[str, ...],
    output: str,
    augmentation: str | None,
    rows: int,
    seed: int | None,
    mask_token: str,
    unknown_token: str,
    size: int | None,
    draws: int,
    html: str | None,
    project: str | None,
    address: str | None,
) -> None:
    """Show training rows before and after augmentation.

    \b
    astraml data preview s3://bucket/dataset --augmentation light
    astraml data preview s3://bucket/images --augmentation strong -n 24 --size 128
    astraml data preview -f spec.yaml -n 50 --html preview.html

    The rows are the first ones of epoch 0, and what is shown is what a run with that seed trains on: texts here in the
    terminal, images on a page. Images are brought to a size as a model from scratch takes them. A file is a spec, or
    holds its `augmentation:` only. For back_translation, these rows alone are translated.
    """
    pages: list[Path] = []
    if project is not None and (dataset is None or file or settings):
        raise click.UsageError("--project takes a DATASET, and neither -f nor --set")
    if project is not None and (augmentation not in _NAMES or rows > _MOST_THERE):
        raise click.UsageError(f"--project takes --augmentation {', '.join(_NAMES)}, and -n {_MOST_THERE} at most")

    def here() -> dict[str, Any]:
        from astraml_ray.data.inspection.preview import preview_dataset
        from astraml_ray.settings import load_settings

        flags: dict[str, Any] = {} if augmentation is None else {"augmentation": read_augmentation(augmentation)}
        flags |= {} if seed is None else {"seed": seed}
        flags |= {} if size is None else {"hyperparams.image_size": size}
        spec = _spec_of(dataset, file, settings, **flags)
        with _stages() as progress:
            return preview_dataset(
                spec,
                rows=rows,
                draws=draws,
                cache=load_settings().cache,
                mask_token=mask_token,
                unknown_token=unknown_token,
                translator=_translator,
                progress=progress,
            )

    def there(dataset: str, project: str) -> dict[str, Any]:
        from astraml_ray.client import Client

        with _stages() as progress, Client(address) as client:
            progress("the service reads the first rows")
            return client.preview_dataset(
                _place(dataset),
                project_id=project,
                augmentation=augmentation or "",
                rows=rows,
                draws=draws,
                seed=seed or 0,
                image_size=size or _SIDE_THERE,
            )

    def work() -> dict[str, Any]:
        found = here() if project is None or dataset is None else there(dataset, project)
        page = html or ("preview.html" if found["kind"] == "images" and output == "text" else None)
        if page is not None:
            pages.append(Path(page))
            _write(pages[0], found)
        return found

    conclude(work, output=output, show=lambda found: _show_preview(found, pages, asked=html is not None))


@contextmanager
def _stages() -> Iterator[Callable[[str], None]]:
    """What is under way, on a terminal's stderr."""
    from rich.console import Console

    with Console(stderr=True).status("") as status:
        yield status.update


def _translator(rule: BackTranslation) -> Translate:
    """The models of a back-translation, on this machine."""
    import torch
    from transformers.utils import logging

    from astraml_ray.training.translation.translator import Translator

    logging.disable_progress_bar()
    return Translator(rule, torch.device("cuda" if torch.cuda.is_available() else "cpu")).candidates


def read_augmentation(given: str) -> Any:
    """The augmentations of a name or a file, as plain data that is not checked yet.

    Raises:
        SpecError: There is no such name, and no file that holds any.
    """
    from astraml_ray.spec.augmentation import PRESETS
    from astraml_ray.spec.loading import read_document

    if given in PRESETS:
        return given
    path = Path(given)
    if not path.is_file():
        message = f"{given!r} is neither {', '.join(PRESETS)} nor a file"
        raise SpecError([Problem("/augmentation", message)], source="--augmentation")
    document = read_document(path)
    if "augmentation" not in document:
        hint = "write it as augmentation: [{type: case_noise, rate: 0.05}]"
        raise SpecError([Problem("/augmentation", "is not in the file", hint)], source=given)
    return document["augmentation"]


def _write(path: Path, found: dict[str, Any]) -> None:
    from astraml_ray.cli.image_preview_page import image_preview_html
    from astraml_ray.cli.preview_page import preview_html

    try:
        path.write_text((image_preview_html if found["kind"] == "images" else preview_html)(found), encoding="utf-8")
    except OSError as error:
        raise StorageError(f"cannot be written: {error.strerror}", param=str(path)) from error


def _show_preview(found: dict[str, Any], pages: Sequence[Path], *, asked: bool) -> None:
    from rich.console import Console

    from astraml_ray.cli.image_preview_page import image_preview_table
    from astraml_ray.cli.preview_page import preview_page

    console = Console()
    if found["kind"] == "images":
        console.print(image_preview_table(found))
    elif not asked:
        console.print(preview_page(found, styled=console.is_terminal and not console.no_color))
    for page in pages:
        click.echo(str(page))


def _spec_of(dataset: str | None, file: str | None, settings: tuple[str, ...], **flags: Any) -> JobSpec:
    """The spec of a file, with what was given besides; of its model nothing is asked.

    Raises:
        SpecError: It is invalid, or names a secret, which only a service has.
    """
    from astraml_ray.spec.loading import build_spec, read_document

    document = {"model": "none", **(read_document(Path(file)) if file else {})}
    given = {**flags, **({"dataset": dataset} if dataset is not None else {})}
    spec = build_spec(document, settings=settings, flags=given, source=file or "flags")
    if spec.dataset.credentials is not None:
        problem = "names a secret, and without a service there are none"
        hint = "leave it out, and give this machine credentials: AWS_ACCESS_KEY_ID and so on, or AWS_PROFILE"
        raise SpecError([Problem("/dataset/credentials", problem, hint)], source=file or "flags")
    return spec


def _show_inspection(found: dict[str, Any]) -> None:
    from rich.console import Console

    from astraml_ray.cli.inspect_page import inspect_page

    Console().print(inspect_page(found))


class _ProgressLine:
    """How far the reading is, on stderr, once it takes more than a second."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._next = time.monotonic() + _QUIET_S
        self._drawn = False

    def show(self, progress: Progress) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + (_DRAW_EVERY_S if self._terminal else _LINE_EVERY_S)
        line = f"{progress.rows:,} rows, {size(progress.bytes)} of {size(progress.total_bytes)} read"
        print(f"\r\x1b[K{line}" if self._terminal else line, end="" if self._terminal else "\n", file=sys.stderr)
        sys.stderr.flush()
        self._drawn = True

    def close(self) -> None:
        """Takes the line off the terminal."""
        if self._drawn and self._terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
