"""From specs of v1.x to v2.1: what moved, what took a default, what to verify. Pure.

In v1.x the fields are flat, at the top or under `hyperparams`, and have many spellings. What comes out has scheduler,
patience and batch size written out, and is the same job as the v2.1 spec that says the same.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from pydantic import BaseModel

from astraml_ray.errors import Problem, SpecError
from astraml_ray.spec.hyperparams import EarlyStopping, Hyperparams, parse_interval
from astraml_ray.spec.job import JobSpec
from astraml_ray.spec.loading import parse_spec
from astraml_ray.spec.moves import Migration, MigrationDraft, Move, Path, dotted, pointer
from astraml_ray.spec.v1_fields import BLOCKS, PER_DEVICE, RULES, STOPPING_ON, WARMUP_EPOCHS, Rule, plain_name

__all__ = ["CURRENT_VERSION", "KNOWN_VERSIONS", "Migration", "Move", "migrate"]

CURRENT_VERSION = "v2.1"
KNOWN_VERSIONS = ("v1.x (v1, v1.0, v1.1 ...)", CURRENT_VERSION)

_V1 = re.compile(r"v?1(?:\.(?:x|[0-9]{1,3}))?")
_NAMED = ("scheduler", "lr_scheduler", "optimizer")
"""Objects whose `name` or `type` is the value, and whose other fields are hyperparameters."""
_ONLY_AT_THE_TOP = {name for name, target in BLOCKS.items() if target == "hyperparams" and name not in _NAMED}
_DEEPEST = 8
_SUGGESTIONS = 20
_BATCH = ("hyperparams", "batch_size")
_SCHEDULER = ("hyperparams", "lr_scheduler")
_STOPPING = ("hyperparams", "early_stopping")
_PATIENCE = (*_STOPPING, "patience")


def migrate(document: Mapping[str, Any], *, source: str = "spec") -> Migration:
    """The v2.1 spec of a v1.x one. Without an `api_version` it is taken for v1.x.

    Args:
        document: As it was written.
        source: For the error.

    Raises:
        SpecError: The version is unknown, a field is, two fields say different things, or a value has no equal; with
            every problem found, under the pointer at which it was written.
    """
    if not _is_v1(document.get("api_version"), source):
        parse_spec(document, source=source)
        return Migration(dict(document))
    draft = MigrationDraft()
    _collect(draft, {key: value for key, value in document.items() if key != "api_version"}, (), ())
    _settle_batch(draft)
    _settle_warmup(draft)
    _settle_stopping(draft)
    if draft.problems:
        raise SpecError(draft.problems, source=source)
    _write_out(draft)
    migrated = _document(draft)
    try:
        spec = parse_spec(migrated, source=source)
    except SpecError as error:
        raise SpecError([_where_written(draft, problem) for problem in error.problems], source=source) from None
    return Migration(migrated, tuple(_checked(move, spec) for move in draft.moves))


def _is_v1(version: Any, source: str) -> bool:
    if version is None or (not isinstance(version, bool) and _V1.fullmatch(str(version))):
        return True
    if version == CURRENT_VERSION:
        return False
    known = f"known: {', '.join(KNOWN_VERSIONS)}"
    raise SpecError([Problem("/api_version", f"{str(version)[:40]!r} is no version", known)], source=source)


def _collect(draft: MigrationDraft, block: Mapping[Any, Any], at: Path, place: Path) -> None:
    """Goes through an object; `at` is where it was written, `place` what it is in v2.1."""
    model = _model_at(place)
    if len(at) > _DEEPEST:
        draft.problem(at, "is nested too deeply")
        return
    for key, value in block.items():
        name, source = plain_name(str(key)), (*at, str(key))
        rule = RULES.get(name)
        flat = place in ((), ("hyperparams",))
        own = model is not None and name in model.model_fields
        inside = _block(name, value, place, own=own)
        if inside is not None:
            _collect_block(draft, name, value, source, inside)
        elif own and not flat and not _rule_is_of(rule, (*place, name)):
            draft.put(source, (*place, name), value)
        elif rule is not None and (flat or rule.target is None or _within(rule.target, place)):
            _apply(draft, rule, value, source)
        elif name in BLOCKS and flat:
            draft.problem(source, "must be a mapping of fields")
        else:
            few = len(draft.problems) < _SUGGESTIONS
            draft.problem(source, "unknown field", _suggest(name, model, flat=flat) if few else None)


def _block(name: str, value: Any, place: Path, *, own: bool) -> Path | None:
    """What an object is in v2.1, if it is one of fields."""
    if not isinstance(value, Mapping):
        return None
    if own and _model_at((*place, name)) is not None:
        return (*place, name)
    target = tuple(BLOCKS[name].split(".")) if name in BLOCKS else None
    if target is None or (place and (target[: len(place)] != place or name in _ONLY_AT_THE_TOP)):
        return None
    return target


def _collect_block(draft: MigrationDraft, name: str, value: Mapping[Any, Any], source: Path, place: Path) -> None:
    rest = dict(value)
    if name in _NAMED:
        # {name: cosine, warmup_steps: 100}
        for key in ("name", "type"):
            if key in rest:
                _apply(draft, RULES[name], rest.pop(key), (*source, key))
    elif place == _STOPPING and isinstance(rest.get("enabled"), bool):
        enabled = rest.pop("enabled")
        _apply_stopping(draft, {} if enabled else None, (*source, "enabled"))
        rest = rest if enabled else {}
    _collect(draft, rest, source, place)


def _apply(draft: MigrationDraft, rule: Rule, value: Any, source: Path) -> None:
    try:
        new = rule.convert(value) if rule.convert else value
    except ValueError as error:
        draft.problem(source, str(error))
        return
    if rule.target is None:
        draft.moves.append(Move(dotted(source), None, value, "dropped", rule.note))
    elif rule.target in (PER_DEVICE, WARMUP_EPOCHS):
        draft.later.append((source, rule.target, new))
    elif rule.target == dotted(_STOPPING) or (rule.target == dotted(_PATIENCE) and new is None):
        _apply_stopping(draft, new, source)
    else:
        draft.put(source, tuple(rule.target.split(".")), new, rule)


def _apply_stopping(draft: MigrationDraft, value: Any, source: Path) -> None:
    """Off, on, or on with a patience."""
    if value is None:
        draft.put(source, _STOPPING, None)
    elif value:
        draft.put(source, _PATIENCE, value["patience"], RULES["patience"])
    else:
        draft.later.append((source, STOPPING_ON, True))


def _settle_stopping(draft: MigrationDraft) -> None:
    """`early_stopping: true` says nothing that is not so already, unless something else turns it off."""
    for source, target, _ in draft.later:
        if target == STOPPING_ON and draft.values.get(_STOPPING, ...) is None:
            draft.problem(source, f"conflicts with {dotted(draft.sources[_STOPPING])}, which turns it off")
        elif target == STOPPING_ON:
            draft.moves.append(Move(dotted(source), dotted(_STOPPING), True, "moved", "it is on unless it is null"))


def _settle_batch(draft: MigrationDraft) -> None:
    """Rows per device become rows over all workers."""
    gpus, workers = (draft.values.get(("resources", name)) for name in ("gpus", "workers"))
    count = next((n for n in (workers, gpus) if isinstance(n, int) and not isinstance(n, bool) and n > 0), 1)
    for source, target, value in draft.later:
        if target == PER_DEVICE:
            known = isinstance(value, int) and not isinstance(value, bool)
            note = f"{value} rows on each of {count} workers; v2.1 counts the rows over all of them"
            draft.put(source, _BATCH, value * count if known else value, Rule(None, kind="verify", note=note))


def _settle_warmup(draft: MigrationDraft) -> None:
    """A warm-up in epochs becomes a share of the run."""
    epochs = draft.values.get(("hyperparams", "epochs"), Hyperparams().epochs)
    for source, target, value in draft.later:
        if target != WARMUP_EPOCHS:
            continue
        numbers = [n for n in (epochs, value) if isinstance(n, (int, float)) and not isinstance(n, bool)]
        if len(numbers) < 2 or not 0 <= value < epochs:
            draft.problem(source, "must be a number of epochs below those of the run")
            continue
        note = f"{value:g} of {epochs:g} epochs, as a share of the run"
        share = value / epochs if value else 0
        draft.put(source, ("hyperparams", "warmup_steps"), share, Rule(None, kind="verify", note=note))


def _write_out(draft: MigrationDraft) -> None:
    """Scheduler, patience and batch size, with their defaults where nothing was said."""
    defaults = Hyperparams()
    written: list[tuple[Path, Any]] = [(_BATCH, defaults.batch_size), (_SCHEDULER, defaults.lr_scheduler)]
    if draft.values.get(_STOPPING, ...) is not None:
        written.append((_PATIENCE, EarlyStopping().patience))
    for target, value in written:
        if target not in draft.values:
            draft.values[target] = value
            draft.moves.append(Move(None, dotted(target), value, "default", "it was left out; this is the default"))


def _checked(move: Move, spec: JobSpec) -> Move:
    """The move, judged by the whole spec."""
    if move.to_path == dotted(_BATCH) and move.kind == "moved" and _workers(spec) > 1:
        note = f"v2.1 counts the rows over all {_workers(spec)} workers; if it was per GPU, multiply it"
        return replace(move, kind="verify", note=note)
    interval = parse_interval(spec.hyperparams.eval_every)
    if move.to_path == dotted(_PATIENCE) and move.kind == "verify" and (interval.count, interval.unit) == (1, "epochs"):
        return replace(move, kind="moved", note=None)
    return move


def _workers(spec: JobSpec) -> int:
    resources = spec.resources
    return resources.workers or (resources.gpus if isinstance(resources.gpus, int) else 1)


def _document(draft: MigrationDraft) -> dict[str, Any]:
    """Nested, with fields in the order in which the spec has them."""
    document: dict[str, Any] = {"api_version": CURRENT_VERSION}
    for path, value in sorted(draft.values.items(), key=lambda item: _rank(item[0])):
        place = document
        for name in path[:-1]:
            place = place.setdefault(name, {})
        place[path[-1]] = value
    return document


def _rank(path: Path) -> list[int]:
    ranks = []
    for depth, name in enumerate(path):
        model = _model_at(path[:depth])
        names = list(model.model_fields) if model else []
        ranks.append(names.index(name) if name in names else len(names))
    return ranks


def _where_written(draft: MigrationDraft, problem: Problem) -> Problem:
    """The problem, under the pointer of what was written."""
    path = tuple(problem.param.split("/")[1:])
    for depth in range(len(path), 0, -1):
        source = draft.sources.get(path[:depth])
        if source is not None:
            moved = f"as {dotted(path)} of v2.1: {problem.message}" if source != path[:depth] else problem.message
            return Problem(pointer((*source, *path[depth:])), moved, problem.hint)
    return problem


def _rule_is_of(rule: Rule | None, target: Path) -> bool:
    return rule is not None and rule.target == dotted(target)


def _within(target: str, place: Path) -> bool:
    return tuple(target.split("."))[: len(place)] == place


def _model_at(path: Path) -> type[BaseModel] | None:
    """The model of an object of the spec; None for what is none."""
    model: type[BaseModel] = JobSpec
    for name in path:
        info = model.model_fields.get(name)
        inner = next(_models_in(info.annotation), None) if info else None
        if inner is None:
            return None
        model = inner
    return model


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in getattr(annotation, "__args__", ()):
        # Lists of models have no fields that a path can name.
        if getattr(annotation, "__origin__", None) not in (tuple, list, dict):
            yield from _models_in(part)


def _suggest(name: str, model: type[BaseModel] | None, *, flat: bool) -> str | None:
    known = [*(RULES if flat else ()), *(model.model_fields if model else ())]
    close = difflib.get_close_matches(name[:100], known, n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else None
