"""What in a dataset's facts matters, and what to do about it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from astraml_ray.data.columns import LABEL_NAMES
from astraml_ray.data.storage.objects import ObjectInfo

__all__ = ["find_faults"]

Facts = Mapping[str, Any]
Finding = dict[str, Any]

_LEVELS = ("error", "warning", "note")
_LARGEST = 0.95
_MANY_DUPLICATES = 0.01
_SHOWN = 5
_PARTITION = re.compile(r"/([A-Za-z_]\w*)=[^/]*(?=/)")


def find_faults(facts: Facts, *, unread: Sequence[ObjectInfo] = (), read: Sequence[ObjectInfo] = ()) -> list[Finding]:
    """The findings about what inspect_dataset counted, worst first.

    Args:
        facts: As inspect_dataset gives them.
        unread: Objects that no split reads.
        read: The training objects.
    """
    found = [*_leakage(facts), *_columns(facts), *_folders(facts, read), *_left_out(unread)]
    for name, split in facts["splits"].items():
        found += [*_rows(name, split), *_labels(name, split, facts), *_duplicates(name, split)]
        found += _images(name, split)
    found += _about_reading(facts)
    return sorted(found, key=lambda finding: _LEVELS.index(finding["level"]))


def _leakage(facts: Facts) -> Iterator[Finding]:
    for overlap in facts["leakage"]:
        rows, split = overlap["rows"], overlap["split"]
        if rows:
            yield _finding(
                "warning",
                "leakage",
                split,
                f"{_count(rows, 'row')} of {split} ({_share(rows, overlap['hashed'])}) "
                f"{'is' if rows == 1 else 'are'} in train too",
                "take them out of train: scores on them say how well the model remembers, not how well it does",
            )


def _folders(facts: Facts, objects: Sequence[ObjectInfo]) -> Iterator[Finding]:
    """Spark writes columns into the names of folders, `label=pos/part-0.parquet`; others sort texts into them."""
    names = {name for info in objects for name in _PARTITION.findall(info.uri)}
    lost = sorted(names - {column["name"] for column in facts["columns"]})
    if lost:
        message = f"folders are named {', '.join(f'{name}=…' for name in lost[:_SHOWN])}, and such columns are not read"
        yield _finding("warning", "partition_folders", None, message, "write those columns into the files, too")
    folders = sorted({info.uri.split("/")[-2] for info in objects})
    if not lost and len(folders) > 1 and facts["splits"]["train"]["formats"] == ["text"]:
        message = f"texts lie in folders ({', '.join(folders[:_SHOWN])}), whose names are no labels"
        yield _finding(
            "note", "text_folders", None, message, "if they are, write a CSV or JSON Lines with a label column"
        )


def _left_out(objects: Sequence[ObjectInfo]) -> Iterator[Finding]:
    if objects:
        size = sum(info.size for info in objects)
        message = f"{_count(len(objects), 'file')} of no split left out ({size:,} bytes): {objects[0].uri}"
        message += " is the first" if len(objects) > 1 else ""
        hint = "name files or folders train*, validation* or test* to have them read; or give dataset.train"
        yield _finding("note", "files_of_no_split", None, message, hint)


def _columns(facts: Facts) -> Iterator[Finding]:
    for column in facts["columns"]:
        if column["why"] == "only_text" and column["name"].lower() in LABEL_NAMES:
            message = f"column {column['name']!r} is taken for the text, since no other holds texts"
            yield _finding("warning", "doubtful_text", None, message, "name the text: dataset.columns.text=NAME")


def _rows(name: str, split: Facts) -> Iterator[Finding]:
    text = split["text"]
    for one in split["refused"]:
        hint = "training refuses it: correct those rows, or leave them out: dataset.on_bad_row=quarantine"
        yield _finding("error", "refused_file", name, f"{one['file']}: {one['why']}", hint)
    if not split["rows_read"]:
        yield _finding("error", "no_rows", name, f"{name} has no rows", "add rows, or take its files out")
    if text["null"]:
        message = f"{_count(text['null'], _noun(split))} of {name} {'is' if text['null'] == 1 else 'are'} null"
        yield _finding(
            "error",
            "null_images" if split["image"] else "null_texts",
            name,
            message,
            "training refuses them: fill or remove those rows, or leave them out: dataset.on_bad_row=quarantine",
        )
    if text["blank"]:
        message = f"{_count(text['blank'], 'text')} of {name} {'is' if text['blank'] == 1 else 'are'} empty or blank"
        yield _finding("warning", "blank_texts", name, message, "remove those rows: nothing can be learned from them")


def _images(name: str, split: Facts) -> Iterator[Finding]:
    if split["unnamed_images"]:
        message = f"{_count(split['unnamed_images'], 'image')} of {name} left out: no metadata file names"
        one = split["unnamed_images"] == 1
        yield _finding(
            "note", "unnamed_images", name, f"{message} {'it' if one else 'them'}", "add rows that name them"
        )
    image = split["image"]
    if image is not None and image["unreadable"]:
        one = image["unreadable"] == 1
        message = f"{_count(image['unreadable'], 'image')} of {name} {'is' if one else 'are'} unreadable or too large"
        yield _finding(
            "error", "unreadable_images", name, message, "training refuses them: repair or remove those rows"
        )


def _noun(split: Facts) -> str:
    return "image" if split["image"] else "text"


def _labels(name: str, split: Facts, facts: Facts) -> Iterator[Finding]:
    label = split["label"]
    if label is None:
        return
    if label["null"]:
        message = f"{_count(label['null'], 'label')} of {name} {'is' if label['null'] == 1 else 'are'} null"
        yield _finding(
            "error",
            "null_labels",
            name,
            message,
            "training refuses them: label or remove those rows, or leave them out: dataset.on_bad_row=quarantine",
        )
    if label["blank"]:
        message = f"{_count(label['blank'], 'label')} of {name} {'is' if label['blank'] == 1 else 'are'} empty"
        yield _finding("warning", "blank_labels", name, message, "they become a class of their own: label those rows")
    if len(label["types"]) > 1:
        kinds = ", ".join(f"{kind} in {_count(rows, 'row')}" for kind, rows in label["types"].items())
        hint = "write all labels in one way; or is it another column? dataset.columns.label=NAME"
        yield _finding("warning", "mixed_labels", name, f"the labels of {name} are of several types: {kinds}", hint)
    yield from _classes(name, label, facts)


def _classes(name: str, label: Facts, facts: Facts) -> Iterator[Finding]:
    largest = label["largest"]
    if label["more_classes"]:
        message = f"{name} has over {len(label['classes']):,} different labels: they are no classes"
        yield _finding("error", "too_many_classes", name, message, "name another column: dataset.columns.label=NAME")
        return
    if name == "train" and len(label["classes"]) == 1:
        message = f"train has one class only, {largest['class']!r}"
        yield _finding("error", "one_class", name, message, "add rows of other classes, or choose another task")
    elif largest and largest["share"] > _LARGEST and facts["rows_are"] != "words":
        message = f"{largest['share']:.1%} of the rows of {name} are of class {largest['class']!r}"
        hint = "a model that always says so scores as much: look at f1_macro, and add rows of the other classes"
        yield _finding("warning", "dominant_class", name, message, hint)
    train = facts["splits"]["train"]["label"]
    if train["more_classes"]:
        return
    if label["untrained"]:
        message = f"{name} has labels that no training row has: {_listing(label['untrained'])}"
        hint = "add training rows of those classes, or take these rows out"
        yield _finding("error" if facts["limit"] is None else "warning", "untrained_classes", name, message, hint)
    unseen = [one for one in label["missing"] if one in train["classes"]]
    if unseen and label["classes"]:
        message = f"{name} has no row of {_count(len(unseen), 'class', 'classes')}: {_listing(unseen)}"
        hint = "its scores say nothing of them; draw it again with rows of each class"
        yield _finding("warning", "missing_classes", name, message, hint)


def _duplicates(name: str, split: Facts) -> Iterator[Finding]:
    found = split["duplicates"]
    if found["conflicting"]:
        message = (
            f"{_count(found['conflicting'], _noun(split))} of {name} {'has' if found['conflicting'] == 1 else 'have'}"
        )
        hint = "settle which label is right: no model can learn both"
        yield _finding("warning", "conflicting_labels", name, f"{message} rows of different labels", hint)
    if found["rows"]:
        share = found["rows"] / found["hashed"]
        message = (
            f"{_count(found['rows'], 'row')} of {name} ({_share(found['rows'], found['hashed'])}) "
            f"{'repeats' if found['rows'] == 1 else 'repeat'} an earlier {_noun(split)}"
        )
        level = "warning" if share >= _MANY_DUPLICATES else "note"
        yield _finding(level, "duplicates", name, message, "keep one of each, unless they are to count more")


def _about_reading(facts: Facts) -> Iterator[Finding]:
    share = facts["hashing"]["share"]
    if share < 1:
        message = (
            f"duplicates and leakage were sought in a random sample of 1 in {round(1 / share):,} texts; "
            "their numbers of rows are those of the sample"
        )
        hint = f"there are more different rows than the {facts['hashing']['most_rows']:,} whose hashes are kept"
        yield _finding("note", "sampled", None, message, hint)
    cut = [name for name, split in facts["splits"].items() if split["rows"] is None]
    if cut:
        message = f"only the first {facts['limit']:,} rows of {', '.join(cut)} were read"
        yield _finding("note", "limited", None, message, "leave --limit out to read all")


def _finding(level: str, code: str, split: str | None, message: str, hint: str) -> Finding:
    return {"level": level, "code": code, "split": split, "message": message, "hint": hint}


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if part / whole >= 0.001 else "under 0.1%"


def _listing(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(repr(name) for name in names[:_SHOWN]) + (f" and {more:,} more" if more > 0 else "")
