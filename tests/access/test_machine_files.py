"""Files of the service's machine: whichever field names them."""

from __future__ import annotations

from typing import Any

import pytest

from astraml_ray.access.machine_files import guard_files
from astraml_ray.access.targets import AllowedTargets

ALLOWED = AllowedTargets.parse("/mnt/open")


def found(*augmentations: dict[str, Any], **fields: Any) -> list[str]:
    document = {"dataset": {"path": "s3://bucket/d"}, "model": {"name": "tiny-bert"}, **fields}
    return [problem.param for problem in guard_files({**document, "augmentation": augmentations}, allowed=ALLOWED)]


@pytest.mark.parametrize(
    ("forward", "refused"),
    [
        ("/etc/model", True),
        ("~/model", True),
        ("./model", True),
        ("file:///etc/model", True),
        ("simplecache::file:///etc/model", True),
        ("/mnt/open/../../etc/model", True),
        ("/mnt/open/model", False),
        ("s3://bucket/model", False),
        ("Helsinki-NLP/opus-mt-en-de", False),
    ],
)
def test_the_models_of_a_translation_are_guarded_as_the_model_is(forward: str, refused: bool) -> None:
    rule = {"type": "back_translation", "forward": forward, "backward": "s3://bucket/back"}
    assert found(rule) == (["/augmentation/0/forward"] if refused else [])
    assert found({**rule, "forward": "a/b", "backward": forward}) == (["/augmentation/0/backward"] if refused else [])
    assert found(model={"name": forward}) == (["/model/name"] if refused else [])


def test_lexicons_are_guarded() -> None:
    rules = [{"type": "synonym", "lexicon": value} for value in ("/etc/passwd", "s3://b/l.json", {"a": ["b"]}, "l.tsv")]
    assert found(*rules) == ["/augmentation/0/lexicon", "/augmentation/3/lexicon"]
    assert found(augmentation_on="auto") == []
    assert guard_files({"augmentation": "light"}, allowed=ALLOWED) == []
