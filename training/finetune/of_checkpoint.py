"""The adapter of a checkpoint: what a run would have left, had it ended there."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from training.checkpoint import CheckpointError, load_checkpoint
from training.finetune.config import FinetuneConfig
from training.finetune.frugal import cast_weights
from training.finetune.workbench import Workbench
from training.methods import Tuner


@torch.no_grad()
def put_average(tuner: Tuner, average: Mapping[str, Tensor]) -> None:
    """Puts the averaged numbers of a checkpoint in place of the trained ones."""
    for name, parameter in tuner.named().items():
        parameter.copy_(average[name])
    tuner.refresh()


def write_checkpoint_adapter(config: FinetuneConfig, run: Path, step: int, path: Path) -> None:
    """Writes the adapter of a run's checkpoint.

    Args:
        config: the run's.

    Raises:
        CheckpointError: the run has no such checkpoint, or it is damaged.
        ValueError: the model is not there any more, or is another one now.
    """
    checkpoint = run / f"checkpoint-{step}"
    if not checkpoint.is_dir():
        there = sorted(int(one.name.rpartition("-")[2]) for one in run.glob("checkpoint-*"))
        raise CheckpointError(
            f"{run} has no checkpoint of step {step}; it has {', '.join(map(str, there)) or 'none at all'}"
        )
    tensors, state = load_checkpoint(checkpoint)
    bench = Workbench(config)
    if (base := state["fingerprint"].get("base")) != bench.base:
        raise ValueError(
            f"{config.model} is not the model that {checkpoint} was trained on (its weights' hash is "
            f"{bench.base[:12]}, then it was {str(base)[:12]}); put that one back"
        )
    method, scope = bench.plan(config)
    if method.needs_losses:  # where it trains is found on the data
        bench.load(run / "cache", None)
    else:
        cast_weights(bench.network, config)
    tuner = bench.attach(config, method, scope)
    try:
        tuner.load_state(tensors["model"], step)
    except ValueError as error:
        raise CheckpointError(f"{checkpoint} {error}") from None
    put_average(tuner, tensors["average"])
    bench.write_adapter(path, tuner, config, method, scope, {"step": str(step)})
