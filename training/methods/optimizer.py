"""Keeping an optimizer in step with a tuner that has chosen anew what it trains."""

from typing import Any

import torch
from torch import Tensor

from training.methods.base import Tuner


def rebuild(optimizer: torch.optim.Optimizer, tuner: Tuner) -> None:
    """Gives the optimizer the tuner's present parameters, and their state where they had any.

    Learning rates and all other options stay as they are: a new choice is no new start. To be called when
    `Tuner.after_step` says so.
    """
    state: dict[Tensor, Any] = {}
    for move in tuner.moved:
        old = move.old
        if old in optimizer.state:
            state[move.new] = {
                key: move.carry(value) if value.shape == old.shape else value
                for key, value in optimizer.state[old].items()
            }
    groups = list(tuner.parameters())
    options = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    present = {p for group in groups for p in group.parameters}
    state.update({p: s for p, s in optimizer.state.items() if p in present})
    optimizer.param_groups.clear()
    optimizer.state.clear()
    for index, group in enumerate(groups):
        kept = options[min(index, len(options) - 1)]
        optimizer.add_param_group({**kept, "params": list(group.parameters)})
    optimizer.state.update(state)
    tuner.moved = ()
