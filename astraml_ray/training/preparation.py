"""What a run needs before its first step: dataset, task, tokenizer and model configuration, kept in its folder."""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer

from astraml_ray.data.encoding.encoder import Encoder, encoder_from_plain, encoder_to_plain
from astraml_ray.data.encoding.text import TextEncoder
from astraml_ray.data.manifest import Manifest
from astraml_ray.data.plan import epoch_blocks
from astraml_ray.data.prepare import build_manifest
from astraml_ray.data.quarantine import quarantined
from astraml_ray.data.rows import read_rows
from astraml_ray.errors import DataError, ModelError, Problem, SpecError
from astraml_ray.settings import Settings
from astraml_ray.spec import JobSpec
from astraml_ray.spec.job import Task
from astraml_ray.spec.loading import dump_spec, parse_document, parse_spec
from astraml_ray.training.advice import advise, left_out_warnings
from astraml_ray.training.models import (
    Blueprint,
    adapt_config,
    context_length,
    find_blueprint,
    load_config,
    load_tokenizer,
)
from astraml_ray.training.run_folder import RunFolder
from astraml_ray.training.secrets import ValueOf, dataset_secret, require_source
from astraml_ray.training.tasks import TASKS

__all__ = ["RunInputs", "load_inputs", "prepare", "store_inputs"]

_TOKENIZER_LETTERS = 64_000_000
_SAMPLE_ROWS = 1000


@dataclass(frozen=True)
class RunInputs:
    """Everything that every attempt of a run shares. Pickles.

    Attributes:
        spec: With `task` and all defaults resolved.
        manifest: The dataset, pinned.
        encoder: How rows become tokens.
        blueprint: Where the weights come from.
        config: The model's configuration (transformers).
        tokenizer: The model's tokenizer (transformers).
        secrets: Gives the values of the secrets that the spec names; None is for a run without a service.
    """

    spec: JobSpec
    manifest: Manifest
    encoder: Encoder
    blueprint: Blueprint
    config: Any
    tokenizer: Any
    secrets: ValueOf | None = None

    @property
    def train_rows(self) -> int:
        return self.manifest.splits["train"].total_rows


def prepare(spec: JobSpec, settings: Settings, *, secrets: ValueOf | None = None) -> tuple[RunInputs, list[Problem]]:
    """Reads the bucket and the model's files, and resolves what the spec left open.

    Returns:
        The inputs, and warnings about settings that cannot work.

    Raises:
        SpecError: The spec asks for what the task does not have, or names a secret where there are none.
        ModelError: The model cannot be had.
        DataError: The dataset cannot be used.
    """
    require_source(spec, secrets)
    blueprint = find_blueprint(spec.model)
    config = load_config(blueprint)
    manifest = build_manifest(spec.dataset, task=spec.task, cache=settings.cache, secret=dataset_secret(spec, secrets))
    task = _task_of(spec.task, manifest, config)
    _check_monitor(spec, task)
    tokenizer = load_tokenizer(blueprint, lambda: _tokenizer_texts(manifest, spec.seed))
    if task == "masked-lm" and tokenizer.mask_token is None:
        raise ModelError("its tokenizer has no mask token", param="/task", hint="choose task causal-lm")
    config = adapt_config(config, tokenizer, manifest.labels, spec.hyperparams, scratch=blueprint.scratch)
    max_length = context_length(config, tokenizer, spec.hyperparams.max_length)
    encoder = TextEncoder(
        tokenizer.backend_tokenizer.to_str(),
        task,
        max_length,
        manifest.labels,
        tokenizer.mask_token or tokenizer.unk_token or "",
        spec.hyperparams.mask_probability,
    )
    spec = spec.model_copy(
        update={"task": task, "hyperparams": spec.hyperparams.model_copy(update={"max_length": max_length})}
    )
    inputs = RunInputs(spec, manifest, encoder, blueprint, config, tokenizer, secrets)
    warnings = advise(
        spec,
        train_rows=inputs.train_rows,
        validation_rows=manifest.splits["validation"].total_rows,
        truncated_share=_truncated_share(inputs),
    )
    return inputs, [*left_out_warnings(manifest, spec.dataset.on_bad_row), *warnings]


def _task_of(wanted: Task, manifest: Manifest, config: Any) -> Any:
    """The task; `auto` goes by the columns, and without labels by what the model was made for."""
    if wanted != "auto":
        return wanted
    if manifest.target is not None:
        content = next(role for role in ("image", "tokens", "text") if role in manifest.columns)
        return {"image": "image", "tokens": "token", "text": "text"}[content] + "-classification"
    made_for = " ".join(config.architectures or [])
    if "CausalLM" in made_for or "LMHead" in made_for:
        return "causal-lm"
    if "MaskedLM" in made_for:
        return "masked-lm"
    raise DataError(
        "the dataset has no label column, and the model does not tell whether it is a causal or a masked one",
        param="/task",
        hint="set task to causal-lm or masked-lm, or name the label column: dataset.columns.label=NAME",
    )


def _check_monitor(spec: JobSpec, task: str) -> None:
    rule = spec.hyperparams.early_stopping
    if rule is not None and rule.monitor.removeprefix("validation/") not in TASKS[task].metrics:
        known = ", ".join(f"validation/{name}" for name in TASKS[task].metrics)
        problem = Problem("/hyperparams/early_stopping/monitor", f"{task} has no {rule.monitor}; it has {known}")
        raise SpecError([problem])


def _texts(manifest: Manifest, seed: int) -> Iterator[str]:
    """Training texts, fragment by fragment in the first epoch's order."""
    split = manifest.splits["train"]
    for block in epoch_blocks(split.rows, split.sizes, seed=seed, epoch=0):
        for fragment in block.fragments:
            yield from read_rows(manifest, split, fragment)["text"].to_pylist()


def _tokenizer_texts(manifest: Manifest, seed: int) -> list[str]:
    """As many training texts as a tokenizer is trained on; more would take memory and change little."""
    texts, letters = [], 0
    for text in _texts(manifest, seed):
        texts.append(text)
        letters += len(text)
        if letters > _TOKENIZER_LETTERS:
            break
    return texts


def _truncated_share(inputs: RunInputs) -> float:
    texts = list(itertools.islice(_texts(inputs.manifest, inputs.spec.seed), _SAMPLE_ROWS))
    max_length = inputs.spec.hyperparams.max_length or 0
    lengths = [len(ids) for ids in inputs.tokenizer(texts, truncation=False, verbose=False)["input_ids"]]
    return sum(length > max_length for length in lengths) / max(1, len(lengths))


def store_inputs(inputs: RunInputs, folder: RunFolder) -> None:
    """Writes the inputs into the run's folder; `inputs.json` last."""
    with tempfile.TemporaryDirectory() as temporary:
        inputs.config.save_pretrained(temporary)
        inputs.tokenizer.save_pretrained(temporary)
        folder.upload(Path(temporary), "inputs")
    if inputs.spec.dataset.on_bad_row == "quarantine" and inputs.manifest.left_out:
        folder.write("quarantine.jsonl", quarantined(inputs.manifest))
    folder.write("manifest.json", inputs.manifest.to_json().encode())
    folder.write("spec.yaml", dump_spec(inputs.spec).encode())
    document = {"encoder": encoder_to_plain(inputs.encoder), "blueprint": asdict(inputs.blueprint)}
    folder.write("inputs.json", json.dumps(document, indent=1).encode())


def load_inputs(folder: RunFolder, *, secrets: ValueOf | None = None) -> RunInputs:
    """The inputs that store_inputs wrote.

    Raises:
        StorageError: There is no such run.
        SpecError: It names a secret where there are none.
    """
    document = json.loads(folder.read("inputs.json"))
    spec = parse_spec(parse_document(folder.read("spec.yaml").decode(), source="spec.yaml"))
    require_source(spec, secrets)
    with tempfile.TemporaryDirectory() as temporary:
        folder.download("inputs", Path(temporary))
        config = AutoConfig.from_pretrained(temporary)
        tokenizer = AutoTokenizer.from_pretrained(temporary)
    manifest = Manifest.from_json(folder.read("manifest.json").decode())
    return RunInputs(
        spec,
        replace(manifest, secret=dataset_secret(spec, secrets)),
        encoder_from_plain(document["encoder"]),
        Blueprint(**document["blueprint"]),
        config,
        tokenizer,
        secrets,
    )
