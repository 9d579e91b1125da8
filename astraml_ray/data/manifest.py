"""The manifest: what a run reads, pinned. Objects with sizes and ETags, fragments with row counts, labels."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from astraml_ray.data.columns import Target
from astraml_ray.data.formats import Fragment, fragment_of
from astraml_ray.data.storage.credentials import Access
from astraml_ray.data.storage.objects import ObjectInfo

__all__ = ["LeftOut", "Manifest", "Split"]


@dataclass(frozen=True)
class Split:
    """The fragments of a split. `rows` counts the rows that belong to it, fragment by fragment.

    Attributes:
        fragments: Where the rows lie.
        rows: Rows of each fragment that belong to the split.
        side: "low" keeps the rows whose content hash is below the manifest's threshold, "high" the others,
            "all" keeps every row.
        classes: Rows of each class, fragment by fragment, where a sampler needs them.
        left_out: Numbers of each fragment's bad rows, ascending; empty if no fragment has any.
    """

    fragments: tuple[Fragment, ...]
    rows: tuple[int, ...]
    side: str = "all"
    classes: tuple[dict[str, int], ...] = ()
    left_out: tuple[tuple[int, ...], ...] = ()

    @property
    def total_rows(self) -> int:
        return sum(self.rows)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Bytes of each fragment."""
        return tuple(fragment.size for fragment in self.fragments)


@dataclass(frozen=True)
class LeftOut:
    """The bad rows of a split's files.

    Attributes:
        rows: Rows of the files, good and bad.
        reasons: How many are bad, by reason.
        first: The first few, for people.
        unreadable: Fragments that are left out as a whole.
    """

    rows: int
    reasons: dict[str, int]
    first: tuple[str, ...] = ()
    unreadable: tuple[Fragment, ...] = ()

    @property
    def count(self) -> int:
        """Bad rows."""
        return sum(self.reasons.values())


@dataclass(frozen=True)
class Manifest:
    """All that a worker needs to read the dataset; plain data, written as JSON into the run's folder.

    Attributes:
        objects: Every object, with size and ETag.
        formats: The format of each object.
        columns: Name of the column of each role; see columns.Roles.
        target: What the label column holds, if there is one.
        labels: The classes or tags, in the order of the model's outputs.
        splits: train, validation, and test where there is one.
        threshold: Content hashes below it are validation rows, where those were split off.
        endpoint_url: The S3 endpoint, when the spec names one.
        secret: Gives the dataset's credentials, when the spec names some; no part of what is written.
        left_out: By split that has files, the bad rows among them, where there are any.
    """

    objects: tuple[ObjectInfo, ...]
    formats: tuple[str, ...]
    columns: dict[str, str]
    target: Target | None
    labels: tuple[str, ...]
    splits: dict[str, Split]
    threshold: int = 0
    endpoint_url: str | None = None
    secret: Callable[[], str] | None = field(default=None, repr=False, compare=False)
    left_out: dict[str, LeftOut] = field(default_factory=dict)

    @property
    def access(self) -> Access:
        """How the objects are reached."""
        return Access(self.endpoint_url, self.secret)

    def to_json(self) -> str:
        """One JSON document."""
        return json.dumps(self._plain(), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """The reverse of to_json."""
        data: dict[str, Any] = json.loads(text)
        data["objects"] = tuple(ObjectInfo(**info) for info in data["objects"])
        data["formats"], data["labels"] = tuple(data["formats"]), tuple(data["labels"])
        data["splits"] = {
            name: Split(
                tuple(fragment_of(f) for f in split["fragments"]),
                tuple(split["rows"]),
                split["side"],
                tuple(split.get("classes", ())),
                tuple(tuple(rows) for rows in split.get("left_out", ())),
            )
            for name, split in data["splits"].items()
        }
        data["left_out"] = {
            name: LeftOut(
                left["rows"],
                left["reasons"],
                tuple(left["first"]),
                tuple(fragment_of(f) for f in left["unreadable"]),
            )
            for name, left in data.get("left_out", {}).items()
        }
        return cls(**data)

    def digest(self) -> str:
        """SHA-256 of the manifest."""
        return hashlib.sha256(json.dumps(self._plain(), sort_keys=True).encode()).hexdigest()

    def _plain(self) -> dict[str, Any]:
        plain = asdict(replace(self, secret=None))
        del plain["secret"]
        # A dataset without bad rows has the digest that it had before there was a policy for them.
        for part in (plain, *plain["splits"].values()):
            if not part["left_out"]:
                del part["left_out"]
        return plain
