"""`astraml data inspect --project`: the service reads the dataset, under the project's rules."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from astraml_ray.client import Client
from astraml_ray.client.failures import ApiError
from tests.client.conftest import Astraml


def test_the_service_finds_what_this_machine_finds(astraml: Astraml, dataset: Path) -> None:
    here = json.loads(astraml("data", "inspect", str(dataset), "--limit", "1000", "--output", "json").stdout)
    there = astraml("data", "inspect", str(dataset), "--limit", "1000", "--project", "p-demo", "--output", "json")
    assert json.loads(there.stdout) == here
    shown = astraml("data", "inspect", str(dataset), "--project", "p-demo").stdout
    assert shown == astraml("data", "inspect", str(dataset)).stdout


def test_errors_keep_their_class(astraml: Astraml, client: Client, tmp_path: Path) -> None:
    place = str(tmp_path / "nothing")
    there = astraml("data", "inspect", place, "--project", "p-demo", code=20)
    assert "nothing" in there.stderr
    astraml("data", "inspect", "http://127.0.0.1/x", "--project", "p-demo", code=10)
    assert "--project takes a DATASET" in astraml("data", "inspect", "--project", "p-demo", code=2).stderr
    with pytest.raises(ApiError, match="nothing"):
        client.inspect_dataset(place, project_id="p-demo")


def test_the_service_previews_what_this_machine_does(astraml: Astraml, dataset: Path) -> None:
    verb = ("data", "preview", str(dataset), "--augmentation", "light", "-n", "4", "--seed", "5")
    here = json.loads(astraml(*verb, "--output", "json").stdout)
    there = json.loads(astraml(*verb, "--project", "p-demo", "--output", "json").stdout)
    assert there.pop("left_out") == 0
    assert there == here
    assert astraml(*verb, "--project", "p-demo").stdout == astraml(*verb).stdout
    assert "--project takes" in astraml(*verb[:3], "--project", "p-demo", code=2).stderr
