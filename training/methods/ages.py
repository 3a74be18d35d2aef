"""The age of numbers that began to be trained later than others of their vector, where the optimizer reckons by it.

Adam divides its averages by what they lack while they are young. It has one count of steps for a vector, so a number
that joins one late would be moved several times as far as its rate says (Ansell et al. 2024, SpIEL, arXiv 2401.16405,
keep an age for every number for this).
"""

from collections.abc import Iterator
from typing import Any, Final

import torch
from torch import Tensor

AGE: Final = "age"
"""The state that holds it: steps of every number of a vector."""


def begin_ages(optimizer: torch.optim.Optimizer) -> None:
    """From here on numbers of one vector may differ in age. All are as old as their vector now."""
    for _, parameter, state in _reckoning(optimizer):
        if AGE not in state:
            state[AGE] = torch.full_like(parameter, float(state["step"]), dtype=torch.float32)
    follow_ages(optimizer)


def follow_ages(optimizer: torch.optim.Optimizer) -> None:
    """Makes every step of the optimizer one that fits the ages in its state.

    A loop of one's own calls it after `load_state_dict`, where a method's choices may have been made anew before.
    """
    if not any(isinstance(getattr(hook, "__self__", None), _Steps) for hook in _hooks(optimizer)):
        steps = _Steps()
        optimizer.register_step_pre_hook(steps.before)
        optimizer.register_step_post_hook(steps.after)


def _hooks(optimizer: torch.optim.Optimizer) -> Iterator[Any]:
    return iter(optimizer._optimizer_step_pre_hooks.values())


def _reckoning(
    optimizer: torch.optim.Optimizer,
) -> Iterator[tuple[dict[str, Any], torch.nn.Parameter, dict[str, Any]]]:
    """The vectors whose averages are divided by what they lack: of Adam and its kin, also in eight bits."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = optimizer.state.get(parameter, {})
            if "betas" in group and "step" in state and ("exp_avg_sq" in state or "state2" in state):
                yield group, parameter, state


class _Steps:
    """What a vector was before a step, so that the step can be made to fit the ages."""

    def __init__(self) -> None:
        self._before: dict[torch.nn.Parameter, tuple[Tensor, float]] = {}

    @torch.no_grad()
    def before(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        self._before = {
            parameter: (parameter.detach().clone(), float(state["step"]))
            for _, parameter, state in _reckoning(optimizer)
            if AGE in state
        }

    @torch.no_grad()
    def after(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        for group, parameter, state in _reckoning(optimizer):
            values, then = self._before.pop(parameter, (parameter, float(state["step"])))
            step = float(state["step"])
            if step == then:
                continue
            age = state[AGE].add_(1)
            one, two = group["betas"][:2]
            longer = (1 - one**step) / (1 - one**age) * ((1 - two**age) / (1 - two**step)).sqrt()
            decayed = values * (1 - group["lr"] * group.get("weight_decay", 0.0))
            fitting = decayed + longer * (parameter - decayed)
            parameter.copy_(torch.where(age < step, fitting, parameter))
