"""Keeping an optimizer in step with a tuner that has chosen anew what it trains."""

from typing import Any

import torch
from torch import Tensor

from training.methods.ages import AGE, begin_ages
from training.methods.base import Moved, Tuner


def rebuild(optimizer: torch.optim.Optimizer, tuner: Tuner) -> None:
    """Gives the optimizer the tuner's present parameters, and their state where they had any.

    Learning rates and all other options stay as they are: a new choice is no new start. To be called when
    `Tuner.after_step` says so. An optimizer that is resumed afterwards needs `follow_ages`.
    """
    state: dict[Tensor, Any] = {}
    if any(bool((move.kept < 0).any()) for move in tuner.moved):
        begin_ages(optimizer)
    for move in tuner.moved:
        old = move.old
        if old in optimizer.state:
            state[move.new] = _carried(optimizer.state[old], move)
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


def _carried(state: dict[str, Any], move: Moved) -> dict[str, Any]:
    """The state of a parameter for the one that it gave way to."""
    if isinstance(state.get("absmax1"), Tensor):
        return _carried_in_eight_bits(state, move)
    return {
        key: move.carry(value) if isinstance(value, Tensor) and value.shape == move.old.shape else value
        for key, value in state.items()
    }


def _carried_in_eight_bits(state: dict[str, Any], move: Moved) -> dict[str, Any]:
    """Bitsandbytes' state: numbers change their blocks, and with it what they are multiples of."""
    from bitsandbytes.functional import quantize_blockwise

    found = dict(state)
    for k in ("1", "2"):
        block = -(-len(move.old) // len(state[f"absmax{k}"]))
        block = 1 << (block - 1).bit_length()
        largest = state[f"absmax{k}"].repeat_interleave(block)[: len(move.old)]
        carried = move.carry(state[f"qmap{k}"][state[f"state{k}"].long()] * largest)
        codes, quantized = quantize_blockwise(carried, code=state[f"qmap{k}"], blocksize=block)
        found[f"state{k}"], found[f"absmax{k}"] = codes, quantized.absmax
    if AGE in state:
        found[AGE] = move.carry(state[AGE])
    return found
