"""The precision of a run: float32, or autocast to bfloat16 or float16."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import torch

__all__ = ["Precision"]


class Precision:
    """fp32, or autocast to bf16 or fp16; fp16 scales its losses."""

    def __init__(self, wanted: str, device: torch.device) -> None:
        if wanted == "auto":
            wanted = "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
        self.name = wanted
        self._device = device.type
        self._dtype = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[wanted]
        self.scaler = torch.amp.GradScaler(device.type, enabled=wanted == "fp16")

    def autocast(self) -> Any:
        """The context of a forward."""
        return contextlib.nullcontext() if self._dtype is None else torch.autocast(self._device, self._dtype)

    def step(self, optimizer: Any, model: torch.nn.Module, max_norm: float | None) -> torch.Tensor:
        """Clips and steps; returns the gradient's norm before clipping."""
        self.scaler.unscale_(optimizer)
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm if max_norm is not None else math.inf)
        self.scaler.step(optimizer)
        self.scaler.update()
        # fp16 skips a step whose scaled gradient overflows, and lowers the scale: that is no failure.
        return norm if not self.scaler.is_enabled() else torch.nan_to_num(norm, posinf=0.0, nan=0.0)
