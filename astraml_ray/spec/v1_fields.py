"""What the fields of v1.x specs are called in v2.1: the table of their spellings. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from astraml_ray.spec.v1_values import (
    early_stopping_of,
    init_of,
    interval_of,
    labels_of,
    monitor_of,
    norm_of,
    number_of,
    optimizer_of,
    precision_if,
    precision_of,
    scheduler_of,
    seconds_of,
    share_of,
    shuffle_of,
    steps_of,
    task_of,
    whole_of,
)

__all__ = ["BLOCKS", "PER_DEVICE", "RULES", "STOPPING_ON", "WARMUP_EPOCHS", "Kind", "Rule", "plain_name"]

Kind = Literal["moved", "default", "verify", "dropped"]

PER_DEVICE = "per device"
"""A target that is settled once the number of workers is known."""
WARMUP_EPOCHS = "warm-up in epochs"
"""A target that is settled once the number of epochs is known."""

STOPPING_ON = "early stopping is on"
"""A target that is settled once it is known that nothing turns it off."""

BLOCKS: Mapping[str, str] = {
    "hyperparams": "hyperparams",
    "hyperparameters": "hyperparams",
    "training": "hyperparams",
    "params": "hyperparams",
    "dataset": "dataset",
    "data": "dataset",
    "columns": "dataset.columns",
    "model": "model",
    "resources": "resources",
    "checkpoint": "checkpoint",
    "limits": "limits",
    "schedule": "schedule",
    "early_stopping": "hyperparams.early_stopping",
    "scheduler": "hyperparams",
    "lr_scheduler": "hyperparams",
    "optimizer": "hyperparams",
}
"""Objects in a v1.x spec, by what they become."""

_EVALUATIONS = (
    "v2.1 counts evaluations, four an epoch unless eval_every says otherwise; v1.x counted epochs: "
    "to wait for as many epochs, set eval_every to 1 epochs or multiply by 4"
)
_INTERVAL = "a whole number is taken for steps, a fraction for a share of an epoch"
_NO_PLACE = "v2.1 has no such setting"
_DATA_TASKS = "v2.1 sizes its data tasks by itself; training workers are resources.workers"
_STORED = "the service keeps what a job makes in its own place"


@dataclass(frozen=True)
class Rule:
    """What becomes of one field.

    Attributes:
        target: Dotted path in v2.1; None where there is no such thing any more.
        convert: From the old value to the new one; raises ValueError for one that v2.1 cannot mean.
        kind: "verify" where the same words may mean something else.
        note: Said in the report.
    """

    target: str | None
    convert: Callable[[Any], Any] | None = None
    kind: Kind = "moved"
    note: str | None = None


def plain_name(name: str) -> str:
    """`batchSize` and `batch-size` are `batch_size`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).replace("-", "_").lower()


def _rules() -> dict[str, Rule]:
    rules: dict[str, Rule] = {}

    def add(names: str, target: str | None, convert: Callable[[Any], Any] | None = None, **more: Any) -> None:
        for name in names.split():
            rules[name] = Rule(target, convert, **more)

    h, e, d = "hyperparams.", "hyperparams.early_stopping.", "dataset."
    add("batch_size global_batch_size train_batch_size batch", f"{h}batch_size", whole_of)
    add(
        "per_device_batch_size per_device_train_batch_size per_gpu_batch_size per_gpu_train_batch_size "
        "batch_size_per_gpu batch_size_per_device",
        PER_DEVICE,
        whole_of,
    )
    add("learning_rate lr base_lr max_lr", f"{h}lr", number_of)
    add("epochs num_epochs n_epochs max_epochs num_train_epochs", f"{h}epochs", whole_of)
    add("scheduler lr_scheduler lr_scheduler_type lr_schedule scheduler_type", f"{h}lr_scheduler", scheduler_of)
    patience = {"kind": "verify", "note": _EVALUATIONS}
    add("patience early_stopping_patience early_stop_patience", f"{e}patience", whole_of, **patience)
    add("early_stopping early_stop", "hyperparams.early_stopping", early_stopping_of)
    add("monitor early_stopping_monitor early_stopping_metric metric_for_best_model", f"{e}monitor", monitor_of)
    add("min_delta early_stopping_min_delta early_stopping_threshold early_stopping_delta", f"{e}min_delta", number_of)
    add("mode early_stopping_mode", f"{e}mode")
    add("restore_best restore_best_weights load_best_model_at_end", f"{e}restore_best")
    add(
        "gradient_accumulation_steps accumulate_grad_batches grad_accum grad_accumulation gradient_accumulation "
        "grad_accum_steps accumulation_steps accum_steps",
        f"{h}gradient_accumulation_steps",
        whole_of,
    )
    add("warmup warmup_steps num_warmup_steps lr_warmup_steps", f"{h}warmup_steps", number_of)
    add("warmup_ratio warmup_proportion warmup_fraction", f"{h}warmup_steps", share_of)
    add("warmup_epochs num_warmup_epochs", WARMUP_EPOCHS, number_of)
    add("weight_decay wd", f"{h}weight_decay", number_of)
    add(
        "max_grad_norm gradient_clip_val gradient_clipping grad_clip clip_grad_norm clip_norm",
        f"{h}max_grad_norm",
        norm_of,
    )
    add("max_steps num_train_steps total_steps", f"{h}max_steps", steps_of)
    add("adam_beta1 beta1", f"{h}adam_beta1", number_of)
    add("adam_beta2 beta2", f"{h}adam_beta2", number_of)
    add("adam_epsilon adam_eps epsilon eps", f"{h}adam_epsilon", number_of)
    add("precision mixed_precision", f"{h}precision", precision_of)
    add("fp16 amp", f"{h}precision", precision_if("fp16"))
    add("bf16", f"{h}precision", precision_if("bf16"))
    add("dropout dropout_rate", f"{h}dropout", number_of)
    add("max_length max_seq_length max_seq_len seq_len sequence_length max_len", f"{h}max_length", whole_of)
    add("mask_probability mlm_probability", f"{h}mask_probability", number_of)
    add(
        "eval_every eval_interval eval_steps eval_freq val_every val_check_interval",
        f"{h}eval_every",
        interval_of,
        note=_INTERVAL,
    )
    add("optimizer optim", None, optimizer_of, kind="dropped", note="v2.1 always trains with AdamW")
    add("data dataset dataset_path data_path dataset_uri data_uri data_dir dataset_dir", f"{d}path")
    add("train_data train_path train_file train_dataset training_data", f"{d}train")
    add(
        "val_data val_path val_file val_dataset validation_data validation_path validation_file valid_data "
        "valid_path eval_data dev_data",
        f"{d}validation",
    )
    add("test_data test_path test_file test_dataset", f"{d}test")
    add("data_format dataset_format format", f"{d}format")
    add("val_split validation_split valid_split val_fraction validation_fraction", f"{d}validation_fraction", number_of)
    add("endpoint_url s3_endpoint s3_endpoint_url", f"{d}endpoint_url")
    add("text_column text_field text_col", f"{d}columns.text")
    add("label_column label_field label_col target_column", f"{d}columns.label")
    add("image_column", f"{d}columns.image")
    add("model model_name model_name_or_path model_path base_model pretrained_model", "model.name")
    add("model_revision revision", "model.revision")
    add("pretrained", "model.init", init_of)
    add("task task_type", "task", task_of)
    add("gpus num_gpus n_gpus gpu_count gpu", "resources.gpus", whole_of)
    add("workers train_workers", "resources.workers", whole_of)
    add("cpus_per_worker", "resources.cpus_per_worker", number_of)
    add("threads_per_worker", "resources.threads_per_worker", whole_of)
    add("seed random_seed random_state manual_seed", "seed", whole_of)
    add("project_id project project_name", "project_id")
    add("name job_name run_name experiment_name experiment", "name")
    add("labels tags", "labels", labels_of)
    add("priority", "priority", whole_of)
    add("augmentation augmentations", "augmentation")
    add("schedule cron cron_schedule", "schedule.cron")
    add("timezone tz", "schedule.timezone")
    add("max_retries retries num_retries max_restarts", "limits.max_retries", whole_of)
    add("max_duration timeout max_runtime max_runtime_seconds time_limit", "limits.max_duration", seconds_of)
    add("queue_timeout max_wait", "limits.queue_timeout", seconds_of)
    add("save_steps save_every checkpoint_steps checkpoint_every checkpoint_interval", "checkpoint.every", interval_of)
    add("save_total_limit keep_checkpoints", "checkpoint.keep", whole_of)
    dropped: dict[str, Any] = {"kind": "dropped"}
    add("num_workers dataloader_num_workers dataloader_workers", None, note=_DATA_TASKS, **dropped)
    add("prefetch_factor pin_memory persistent_workers", None, note=_DATA_TASKS, **dropped)
    add("shuffle", None, shuffle_of, note="v2.1 always shuffles, in an order that the seed fixes", **dropped)
    add("output_dir save_dir checkpoint_dir log_dir logging_dir", None, note=_STORED, **dropped)
    add("logging_steps log_interval log_every_n_steps", None, note=_NO_PLACE, **dropped)
    return rules


RULES: Mapping[str, Rule] = _rules()
"""Every field that a v1.x spec may have, at the top or under `hyperparams`."""
