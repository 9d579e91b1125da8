"""Run by a test as a process of its own: trains within a bound on its memory, halving until it fits, then without."""

from __future__ import annotations

import json
import os
import resource
import sys
from pathlib import Path

import torch
from transformers import BertConfig, BertForMaskedLM

from astraml_ray.errors import MemoryExhaustedError
from astraml_ray.training.failures import AttemptFailure, decide, divisor_after
from tests.unit.test_loop import SMALL, hyper, make_setting

ROWS = 64
ROOM = 160 << 20


def used_bytes() -> int:
    """Address space of this process."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    torch.set_num_threads(1)
    setting = make_setting(Path(sys.argv[1]), "masked-lm")
    config = BertConfig(vocab_size=20_000, **SMALL, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    setting.model = BertForMaskedLM(config).double()
    settings = hyper(batch_size=ROWS, epochs=1, lr=1e-3)
    setting.run(hyper(batch_size=2, epochs=1, max_steps=1))  # what is loaded at first use is loaded now

    failures: list[AttemptFailure] = []
    bound = used_bytes() + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (bound, resource.RLIM_INFINITY))
    while True:
        try:
            _, _, bounded = setting.run(settings, divisor=divisor_after(failures))
            break
        except MemoryExhaustedError as error:
            failures.append(AttemptFailure(error.code, error.message, 0))
            if not decide(error, failures, max_retries=0, micro_rows=ROWS).retry:
                raise
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    _, _, free = setting.run(settings)
    print(
        json.dumps(
            {
                "divisor": divisor_after(failures),
                "code": failures[0].code if failures else None,
                "message": failures[0].message if failures else None,
                "bounded": bounded.values("train/loss"),
                "free": free.values("train/loss"),
            }
        )
    )


if __name__ == "__main__":
    main()
