"""A model's files are data: nothing in a folder that a job names is run."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from astraml_ray.errors import ModelError
from astraml_ray.training.models import Blueprint, build_model, load_config


class _Opens:
    """Unpickled, it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.path), "w"))


def test_a_pickle_is_no_model(tmp_path: Path) -> None:
    folder, marker = tmp_path / "model", tmp_path / "ran"
    folder.mkdir()
    (folder / "config.json").write_text(
        '{"model_type": "bert", "hidden_size": 8, "num_attention_heads": 2, "vocab_size": 9}'
    )
    for name in ("pytorch_model.bin", "model.bin", "training_args.bin"):
        (folder / name).write_bytes(pickle.dumps(_Opens(marker)))
    blueprint = Blueprint(str(folder), None, scratch=False)
    with pytest.raises(ModelError, match="safetensors"):
        build_model("text-classification", load_config(blueprint), blueprint, seed=1)
    assert not marker.exists()
    pickle.loads((folder / "model.bin").read_bytes())
    assert marker.exists(), "it would have"
