"""The processes of one run: `accelerate launch` and `torchrun` start several of us."""

import os
from datetime import timedelta
from typing import Final

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

PATIENCE: Final = timedelta(hours=12)
"""So long processes wait for one of them, as for the main one that measures and makes samples; NCCL's own ten minutes
are too short for that."""


def number_of_processes() -> int:
    """How many there are."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def several_processes() -> bool:
    """Whether this one is not alone."""
    return number_of_processes() > 1


def device_of(asked: str | None) -> torch.device:
    """Where a process computes: as asked, else on a GPU where there is one; each of several on its own."""
    if asked == "cpu" or parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.cuda.is_available():
        return torch.device("cpu" if asked is None else asked)
    if several_processes():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device(asked or "cuda")


def know_each_other(device: torch.device) -> None:
    """Connects the processes, where that was not done yet."""
    PartialState(cpu=device.type == "cpu", timeout=PATIENCE)


def refuse_plugins() -> None:
    """Stops where accelerate is told to split what is trained.

    Raises:
        ValueError: it is.
    """
    for flag, name in (("ACCELERATE_USE_FSDP", "FSDP"), ("ACCELERATE_USE_DEEPSPEED", "DeepSpeed")):
        if parse_flag_from_env(flag):
            raise ValueError(
                f"{name}: launch without it (accelerate launch --multi_gpu), and split the frozen weights by "
                'split_weights = true, or save memory with weights_dtype = "nf4" or gradient_checkpointing'
            )
