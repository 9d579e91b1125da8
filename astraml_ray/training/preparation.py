"""What a run needs before its first step: dataset, task, tokenizer and model configuration, kept in its folder."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
from transformers import AutoConfig, AutoTokenizer

from astraml_ray.data.augmentation.lexicons import read_lexicons
from astraml_ray.data.bad_data.quarantine import quarantined
from astraml_ray.data.columns import classification_of
from astraml_ray.data.encoding.encoder import Encoder, encoder_from_plain, encoder_to_plain
from astraml_ray.data.encoding.images import ImageEncoder
from astraml_ray.data.encoding.text import TextEncoder
from astraml_ray.data.encoding.words import WordEncoder, separate_words
from astraml_ray.data.images.mixing import mixings_of
from astraml_ray.data.manifest import Manifest
from astraml_ray.data.plan import epoch_blocks
from astraml_ray.data.prepare import build_manifest
from astraml_ray.data.rows import read_rows
from astraml_ray.errors import DataError, ModelError, Problem, SpecError
from astraml_ray.settings import Settings
from astraml_ray.spec import JobSpec
from astraml_ray.spec.augmentation import augmentations_of, back_translation_of
from astraml_ray.spec.job import Task
from astraml_ray.spec.loading import dump_spec, parse_document, parse_spec
from astraml_ray.spec.sampling import sampling_problems
from astraml_ray.training.advice import advise, left_out_warnings
from astraml_ray.training.image_inputs import image_encoder
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
from astraml_ray.training.tasks import TASKS, check_for_task, check_model
from astraml_ray.training.translation.translator import check_translators

__all__ = ["RunInputs", "load_inputs", "placed", "prepare", "store_inputs"]

_TOKENIZER_LETTERS = 64_000_000
_SAMPLE_ROWS = 1000


@dataclass(frozen=True)
class RunInputs:
    """Everything that every attempt of a run shares. Pickles.

    Attributes:
        spec: With `task` and all defaults resolved.
        manifest: The dataset, pinned.
        encoder: How rows become tokens, or pixels.
        blueprint: Where the weights come from.
        config: The model's configuration (transformers).
        tokenizer: The model's tokenizer (transformers); None where there are no texts.
        secrets: Gives the values of the secrets that the spec names; None is for a run without a service.
        translations: URI of the run folder whose translated texts are read, where an augmentation takes them.
    """

    spec: JobSpec
    manifest: Manifest
    encoder: Encoder
    blueprint: Blueprint
    config: Any
    tokenizer: Any
    secrets: ValueOf | None = None
    translations: str | None = None

    @property
    def train_rows(self) -> int:
        return self.manifest.splits["train"].total_rows


def prepare(
    spec: JobSpec, settings: Settings, *, secrets: ValueOf | None = None, manifest: Manifest | None = None
) -> tuple[RunInputs, list[Problem]]:
    """Reads the bucket and the model's files, and resolves what the spec left open.

    Args:
        spec: The job.
        settings: Of this process.
        secrets: Gives the values of the secrets that the spec names.
        manifest: Of the dataset, if it is known already.

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
    manifest = manifest or build_manifest(
        spec.dataset,
        task=spec.task,
        cache=settings.cache,
        secret=dataset_secret(spec, secrets),
        count_classes=spec.sampling != "natural",
    )
    task = _task_of(spec.task, manifest, config)
    check_model(config, task)
    check_for_task(spec, task, pairs="text_pair" in manifest.columns)
    if (rule := back_translation_of(spec.augmentation)) is not None:
        check_translators(rule)
    _check(spec, task, manifest)
    if task == "image-classification":
        encoder: Encoder = replace(
            image_encoder(config, blueprint, spec.hyperparams, manifest.labels),
            mixes=bool(mixings_of(augmentations_of(spec.augmentation, task))),
            on_device=spec.augmentation_on == "device",
        )
        config = adapt_config(config, None, manifest.labels, spec.hyperparams, scratch=blueprint.scratch)
        return _advised(RunInputs(_resolved(spec, task), manifest, encoder, blueprint, config, None, secrets))
    tokenizer = load_tokenizer(blueprint, lambda: _tokenizer_texts(manifest, spec.seed))
    if task == "masked-lm" and tokenizer.mask_token is None:
        raise ModelError("its tokenizer has no mask token", param="/task", hint="choose task causal-lm")
    config = adapt_config(
        config,
        tokenizer,
        manifest.labels,
        spec.hyperparams,
        scratch=blueprint.scratch,
        number=manifest.target == "number",
    )
    max_length = context_length(config, tokenizer, spec.hyperparams.max_length)
    encoder = _encoder_of(spec, task, manifest, tokenizer, config, max_length)
    spec = _resolved(spec, task, max_length=max_length)
    return _advised(RunInputs(spec, manifest, encoder, blueprint, config, tokenizer, secrets))


def placed(inputs: RunInputs, *, gpus: bool) -> RunInputs:
    """The inputs of an attempt whose workers have GPUs, or not: images are augmented there, or in the data tasks."""
    encoder = inputs.encoder
    if not isinstance(encoder, ImageEncoder) or inputs.spec.augmentation_on != "auto":
        return inputs
    on_device = gpus and bool(augmentations_of(inputs.spec.augmentation, inputs.spec.task))
    return replace(inputs, encoder=replace(encoder, on_device=on_device))


def _resolved(spec: JobSpec, task: Any, **hyperparams: Any) -> JobSpec:
    return spec.model_copy(update={"task": task, "hyperparams": spec.hyperparams.model_copy(update=hyperparams)})


def _advised(inputs: RunInputs) -> tuple[RunInputs, list[Problem]]:
    warnings = advise(
        inputs.spec,
        train_rows=inputs.train_rows,
        validation_rows=inputs.manifest.splits["validation"].total_rows,
        truncated_share=_truncated_share(inputs) if inputs.tokenizer is not None else 0.0,
    )
    return inputs, [*left_out_warnings(inputs.manifest, inputs.spec.dataset.on_bad_row), *warnings]


def _task_of(wanted: Task, manifest: Manifest, config: Any) -> Any:
    """The task; `auto` goes by the columns, and without labels by what the model was made for."""
    if wanted != "auto":
        return wanted
    if manifest.target is not None:
        return classification_of(manifest.columns)
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


def _encoder_of(
    spec: JobSpec, task: Any, manifest: Manifest, tokenizer: Any, config: Any, max_length: int
) -> TextEncoder | WordEncoder:
    unknown = tokenizer.unk_token or tokenizer.mask_token or ""
    mask = tokenizer.mask_token or unknown
    lexicons = read_lexicons(augmentations_of(spec.augmentation, task), manifest.access)
    if task == "token-classification":
        separate_words(tokenizer.backend_tokenizer)
    text = tokenizer.backend_tokenizer.to_str()
    if task == "token-classification":
        return WordEncoder(text, max_length, manifest.labels, mask, unknown, lexicons)
    return TextEncoder(
        text,
        task,
        max_length,
        manifest.labels,
        mask,
        spec.hyperparams.mask_probability,
        unknown,
        segments="text_pair" in manifest.columns and (getattr(config, "type_vocab_size", 0) or 0) > 1,
        lexicons=lexicons,
    )


def _check(spec: JobSpec, task: str, manifest: Manifest) -> None:
    """Refuses what does not fit the task."""
    problems = []
    rule = spec.hyperparams.early_stopping
    if rule is not None and rule.monitor.removeprefix("validation/") not in TASKS[task].metrics:
        known = ", ".join(f"validation/{name}" for name in TASKS[task].metrics)
        problems.append(Problem("/hyperparams/early_stopping/monitor", f"{task} has no {rule.monitor}; it has {known}"))
    problems += sampling_problems(spec.sampling, task, manifest.labels if manifest.target == "class" else None)
    if "text_pair" in manifest.columns and task in ("causal-lm", "masked-lm"):
        problems.append(
            Problem("/dataset/columns/text_pair", f"{task} reads one text per row", "leave it out, or join the texts")
        )
    if problems:
        raise SpecError(problems)


def _train_rows(manifest: Manifest, seed: int) -> Iterator[pa.Table]:
    """Training rows, fragment by fragment in the first epoch's order."""
    split = manifest.splits["train"]
    for block in epoch_blocks(split.rows, split.sizes, seed=seed, epoch=0):
        for fragment in block.fragments:
            yield read_rows(manifest, split, fragment)


def _texts(manifest: Manifest, seed: int) -> Iterator[str]:
    """Training texts; of tagged rows, their words."""
    for rows in _train_rows(manifest, seed):
        for role in (role for role in ("text", "text_pair") if role in rows.column_names):
            yield from rows[role].to_pylist()
        if "tokens" in rows.column_names:
            yield from (" ".join(words) for words in rows["tokens"].to_pylist())


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
    encoder, lengths = inputs.encoder, list[int]()
    assert isinstance(encoder, (TextEncoder, WordEncoder))
    for rows in _train_rows(inputs.manifest, inputs.spec.seed):
        lengths += encoder.lengths(rows.slice(0, _SAMPLE_ROWS - len(lengths)))
        if len(lengths) >= _SAMPLE_ROWS:
            break
    max_length = inputs.spec.hyperparams.max_length or 0
    return sum(length > max_length for length in lengths) / max(1, len(lengths))


def store_inputs(inputs: RunInputs, folder: RunFolder) -> None:
    """Writes the inputs into the run's folder; `inputs.json` last."""
    with tempfile.TemporaryDirectory() as temporary:
        inputs.config.save_pretrained(temporary)
        if inputs.tokenizer is not None:
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
        encoder = encoder_from_plain(document["encoder"])
        tokenizer = None if isinstance(encoder, ImageEncoder) else AutoTokenizer.from_pretrained(temporary)
    manifest = Manifest.from_json(folder.read("manifest.json").decode())
    return RunInputs(
        spec,
        replace(manifest, secret=dataset_secret(spec, secrets)),
        encoder,
        Blueprint(**document["blueprint"]),
        config,
        tokenizer,
        secrets,
    )
