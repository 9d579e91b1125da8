"""Models and tokenizers through transformers' Auto classes: alias, hub id, folder or s3:// prefix."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import requests
import torch
import yaml
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)

from astraml_ray.data.encoding.tokenizers import train_tokenizer
from astraml_ray.data.storage.objects import list_objects, reading, resolve
from astraml_ray.errors import ModelError
from astraml_ray.settings import configs_folder, load_settings
from astraml_ray.spec.hyperparams import Hyperparams
from astraml_ray.spec.model import ModelSpec
from astraml_ray.training.tasks import TASKS

__all__ = [
    "MODEL_FILES",
    "Blueprint",
    "aliases",
    "build_model",
    "context_length",
    "fetch",
    "fetched",
    "find_blueprint",
    "image_sides",
    "load_config",
    "load_tokenizer",
]

MODEL_FILES = (".json", ".safetensors", ".txt", ".model", ".spm")
"""How the names of a model's files end, of those that are read."""
_DEFAULT_CONTEXT = 512
_ANY_SIDE = 64
_HUB = "https://huggingface.co"


@dataclass(frozen=True)
class Blueprint:
    """Where a model comes from.

    Attributes:
        location: Hub id, local folder or s3:// prefix of configuration, tokenizer and weights; None from scratch
            with a configuration of our own.
        revision: Of a hub id.
        scratch: Random weights, and a tokenizer trained on the dataset.
        config: The configuration's fields, where an alias gives them.
        tokenizer_kind: What is trained from scratch.
        vocab_size: Of a tokenizer trained from scratch.
        image_size: Pixels of a side, where an alias gives them.
    """

    location: str | None
    revision: str | None
    scratch: bool
    config: dict[str, Any] | None = None
    tokenizer_kind: Literal["wordpiece", "bpe"] = "wordpiece"
    vocab_size: int = 8000
    image_size: int | None = None


def aliases() -> dict[str, dict[str, Any]]:
    """Every alias with its fields, from configs/models."""
    files = sorted((configs_folder() / "models").glob("*.yaml"))
    return {file.stem: yaml.safe_load(file.read_text()) for file in files}


def find_blueprint(spec: ModelSpec) -> Blueprint:
    """Resolves a model's name: an alias, a folder, an s3:// prefix, else a hub id.

    Raises:
        ModelError: The folder or the alias does not exist, or has nothing to load.
    """
    alias = aliases().get(spec.name)
    if alias is not None:
        scratch = (alias.get("init", "pretrained") if spec.init == "auto" else spec.init) == "scratch"
        if not scratch and "pretrained" not in alias:
            raise ModelError(
                f"{spec.name} has no pretrained weights",
                param="/model/init",
                hint="use init: scratch, or another model",
            )
        location = None if scratch else alias["pretrained"]
        config = alias["config"] if scratch else None
        if "tokenizer" not in alias:
            return Blueprint(location, spec.revision, scratch, config, image_size=alias["image_size"])
        made = alias["tokenizer"]
        return Blueprint(location, spec.revision, scratch, config, made["kind"], made["vocab_size"])
    is_path = spec.name.startswith((".", "/", "~", "s3://")) or Path(spec.name).is_dir()
    if is_path and not spec.name.startswith("s3://"):
        folder = Path(spec.name).expanduser().absolute()
        if not (folder / "config.json").is_file():
            raise ModelError(
                "no config.json is there", param=str(folder), hint="give a folder saved by save_pretrained"
            )
        return Blueprint(str(folder), None, spec.init == "scratch")
    return Blueprint(spec.name, spec.revision, spec.init == "scratch")


def fetch(blueprint: Blueprint) -> str:
    """The local place, or hub id, that transformers loads a blueprint from.

    Raises:
        ModelError: The hub cannot be reached and the model is not in its cache; said at once.
    """
    location = blueprint.location
    assert location is not None
    if location.startswith("s3://"):
        return _download(location)
    if not Path(location).is_dir() and not _cached(blueprint):
        _check_hub(location)
    return location


@contextlib.contextmanager
def fetched(blueprint: Blueprint) -> Iterator[str]:
    """As fetch, for a while: what was downloaded from a bucket is removed afterwards."""
    place = fetch(blueprint)
    try:
        yield place
    finally:
        if (blueprint.location or "").startswith("s3://"):
            shutil.rmtree(place, ignore_errors=True)


def _download(uri: str) -> str:
    target = Path(tempfile.mkdtemp(prefix="astraml-model-"))
    with reading(uri):
        for info in list_objects(uri):
            name = info.uri.rsplit("/", 1)[-1]
            if name.endswith(MODEL_FILES):
                filesystem, path = resolve(info.uri)
                filesystem.get_file(path, str(target / name))
    if not (target / "config.json").is_file():
        raise ModelError(
            "no config.json is there", param=uri, hint="give a prefix with a model saved by save_pretrained"
        )
    return str(target)


def _cached(blueprint: Blueprint) -> bool:
    try:
        AutoConfig.from_pretrained(blueprint.location, revision=blueprint.revision, local_files_only=True)
    except (OSError, ValueError):
        return False
    return True


def _check_hub(name: str) -> None:
    endpoint = os.environ.get("HF_ENDPOINT", _HUB)
    hint = "give the path of a folder, or an s3:// prefix, that holds the model; or use model tiny-bert (from scratch)"
    if load_settings().hub_offline:
        raise ModelError(f"{name} is not in the local cache, and HF_HUB_OFFLINE is set", param="/model/name", hint=hint)
    try:
        status = requests.head(
            f"{endpoint}/{name}/resolve/main/config.json", timeout=5, allow_redirects=True
        ).status_code
    except requests.RequestException as error:
        raise ModelError(
            f"{name} is no alias ({', '.join(aliases())}) and no folder, and the hub {endpoint} does not answer "
            f"({type(error).__name__})",
            param="/model/name",
            hint=hint,
        ) from error
    if status in (401, 403, 404):
        raise ModelError(
            f"the hub has no model {name!r} for you (HTTP {status}), and it is no alias ({', '.join(aliases())})",
            param="/model/name",
            hint="check the name; a gated model needs HF_TOKEN",
        )


def _loading(location: str, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except (OSError, ValueError, KeyError, ImportError) as error:
        text = (str(error).strip() or type(error).__name__).splitlines()[0]
        hint = "check that config.json, the tokenizer's files and *.safetensors are there and whole"
        if "trust_remote_code" in str(error):
            hint = "its code would have to be run, which is off; use a model that transformers knows"
        raise ModelError(f"cannot be loaded: {text}", param=location, hint=hint) from error


def load_config(blueprint: Blueprint) -> Any:
    """The configuration, as published or as the alias says."""
    if blueprint.config is not None:
        fields = dict(blueprint.config)
        return AutoConfig.for_model(fields.pop("model_type"), **fields)
    location = fetch(blueprint)
    return _loading(location, lambda: AutoConfig.from_pretrained(location, revision=blueprint.revision))


def load_tokenizer(blueprint: Blueprint, texts: Callable[[], Sequence[str]]) -> Any:
    """The published tokenizer, or one trained on `texts` from scratch."""
    if not blueprint.scratch:
        location = fetch(blueprint)
        tokenizer = _loading(location, lambda: AutoTokenizer.from_pretrained(location, revision=blueprint.revision))
        if getattr(tokenizer, "backend_tokenizer", None) is None:
            raise ModelError("has no fast tokenizer (tokenizer.json)", param=location, hint="convert its tokenizer")
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
        return tokenizer
    import tokenizers

    made = tokenizers.Tokenizer.from_str(
        train_tokenizer(texts(), kind=blueprint.tokenizer_kind, vocab_size=blueprint.vocab_size)
    )
    given = ["input_ids", "attention_mask"]
    if blueprint.tokenizer_kind == "wordpiece":
        names = {"unk": "[UNK]", "pad": "[PAD]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
        given.append("token_type_ids")  # as BERT's; of pairs they are trained with
    else:
        names = {"unk": "<|endoftext|>", "bos": "<|endoftext|>", "eos": "<|endoftext|>", "pad": "<|endoftext|>"}
    roles = {f"{role}_token": token for role, token in names.items()}
    return PreTrainedTokenizerFast(tokenizer_object=made, model_input_names=given, **roles)


def context_length(config: Any, tokenizer: Any, wanted: int | None) -> int:
    """Tokens of a sequence at most: the spec's, else the model's up to 512.

    Raises:
        ModelError: The spec asks for more than the model has.
    """
    positions = getattr(config, "max_position_embeddings", None)
    if positions and config.model_type in ("roberta", "xlm-roberta", "camembert", "mpnet"):
        positions -= 2  # their position ids begin after the padding id
    limit = min(n for n in (positions, tokenizer.model_max_length, 1 << 40) if n)
    if wanted is not None and wanted > limit:
        raise ModelError(
            f"{wanted} tokens are more than the model's context of {limit}",
            param="/hyperparams/max_length",
            hint=f"use at most {limit}",
        )
    return int(wanted or min(limit, _DEFAULT_CONTEXT))


def adapt_config(
    config: Any, tokenizer: Any, classes: tuple[str, ...], hyper: Hyperparams, *, scratch: bool, number: bool = False
) -> Any:
    """Puts the classes (or, with `number`, one output), the padding token and the dropout rate into a configuration.

    A tokenizer of None is one of images, which have none.
    """
    if classes:
        config.num_labels = len(classes)
        config.id2label = dict(enumerate(classes))
        config.label2id = {name: index for index, name in enumerate(classes)}
        config.problem_type = "single_label_classification"
    if number:
        config.num_labels, config.problem_type = 1, "regression"
    if tokenizer is not None:
        config.pad_token_id = tokenizer.pad_token_id
    if tokenizer is not None and scratch:
        config.vocab_size = len(tokenizer)
        for role in ("bos", "eos"):
            if getattr(tokenizer, f"{role}_token_id") is not None:
                setattr(config, f"{role}_token_id", getattr(tokenizer, f"{role}_token_id"))
    if hyper.dropout is not None:
        for name, value in config.to_dict().items():
            if "drop" in name and isinstance(value, float):
                setattr(config, name, hyper.dropout)
    return config


def build_model(task: str, config: Any, blueprint: Blueprint, *, seed: int) -> torch.nn.Module:
    """The model of a task, in float32, with published weights (safetensors only) or random ones.

    A new head's weights follow from the seed. Parameters that the loss does not reach are frozen, because
    DistributedDataParallel would wait for their gradients.

    Raises:
        ModelError: The weights cannot be loaded.
    """
    torch.manual_seed(seed)
    kind = TASKS[task].model
    if blueprint.scratch:
        model = kind.from_config(config)
    else:
        location = fetch(blueprint)
        model = _loading(
            location,
            lambda: kind.from_pretrained(
                location,
                config=config,
                revision=blueprint.revision,
                dtype=torch.float32,
                use_safetensors=True,
                ignore_mismatched_sizes=True,
            ),
        )
    _freeze_unreached(model)
    trained: torch.nn.Module = model.float().train()
    return trained


def _freeze_unreached(model: Any) -> None:
    model.eval()  # BatchNorm must not learn from what is no data
    model(**_any_inputs(model.config)).logits.float().sum().backward()
    for parameter in model.parameters():
        if parameter.grad is None:
            parameter.requires_grad_(False)
    model.zero_grad(set_to_none=True)


def _any_inputs(config: Any) -> dict[str, torch.Tensor]:
    if (vocabulary := getattr(config, "vocab_size", None)) is None:
        height, width = image_sides(config) or (_ANY_SIDE, _ANY_SIDE)
        return {"pixel_values": torch.zeros(1, config.num_channels, height, width)}
    ids = torch.full((1, 4), min(5, vocabulary - 1))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def image_sides(config: Any) -> tuple[int, int] | None:
    """Height and width that an image model is made for, in pixels; None if it takes any."""
    size = getattr(config, "image_size", None)
    if size is None or isinstance(size, int):
        return None if size is None else (size, size)
    height, width = size
    return height, width
