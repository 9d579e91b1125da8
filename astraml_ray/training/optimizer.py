"""AdamW and its learning rate."""

from __future__ import annotations

import torch

from astraml_ray.spec.hyperparams import Hyperparams
from astraml_ray.training.timetable import Timetable, lr_factor

__all__ = ["build_optimizer", "build_scheduler"]


def build_optimizer(model: torch.nn.Module, hyper: Hyperparams) -> torch.optim.AdamW:
    """Fused AdamW; weight decay on matrices only."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": hyper.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=hyper.lr,
        betas=(hyper.adam_beta1, hyper.adam_beta2),
        eps=hyper.adam_epsilon,
        fused=True,
    )


def build_scheduler(
    optimizer: torch.optim.Optimizer, hyper: Hyperparams, timetable: Timetable
) -> torch.optim.lr_scheduler.LambdaLR:
    """The schedule over the run's real number of optimizer steps."""
    total, warmup = timetable.total_steps, timetable.warmup_steps(hyper.warmup_steps)
    return torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: lr_factor(hyper.lr_scheduler, step, total_steps=total, warmup_steps=warmup)
    )
