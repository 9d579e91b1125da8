"""From texts to padded tensors, the same for every peer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from feeding.case import Case

__all__ = ["PAD", "Tokens"]

PAD = 0


class Tokens:
    """A case's tokenizer; it is loaded where it is first used, so it travels to workers as a few strings."""

    def __init__(self, case: Case) -> None:
        self._file, self._max_length, self._classes = case.tokenizer, case.max_length, case.classes

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name.startswith("_")}

    @cached_property
    def tokenizer(self) -> Tokenizer:
        tokenizer = Tokenizer.from_str(Path(self._file).read_text())
        tokenizer.enable_truncation(self._max_length)
        return tokenizer

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of texts."""
        return [encoding.ids for encoding in self.tokenizer.encode_batch(list(texts))]

    @cached_property
    def classes(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self._classes)}

    def batch(self, texts: Sequence[str], labels: Sequence[Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """Texts and labels as tensors: ids (rows, longest), classes (rows,)."""
        return self.padded(self.ids(texts), labels)

    def padded(self, ids: Sequence[Any], labels: Sequence[Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and labels as tensors, as batch."""
        lengths = np.fromiter(map(len, ids), np.int64, len(ids))
        mask = np.arange(lengths.max()) < lengths[:, None]
        out = np.full(mask.shape, PAD, np.int64)
        out[mask] = np.fromiter(chain.from_iterable(ids), np.int64, int(lengths.sum()))
        return torch.from_numpy(out), torch.tensor([self.classes[str(label)] for label in labels])
