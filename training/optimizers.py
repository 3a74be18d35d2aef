"""AdamW in its kinds for the numbers of a fine-tuning method, and an optimizer's state as tensors for a checkpoint."""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from training.methods.ages import AGE, follow_ages

_TABLES = {"qmap1": "dynamic", "qmap2": "udynamic"}
"""What bitsandbytes looks 8-bit numbers up in: constants, shared by all parameters, and not worth storing."""


class OptimizerOptions(BaseModel):
    """How the trained numbers are moved along their gradients."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    optimizer: Literal["adamw", "adamw8bit"] = "adamw"
    """adamw, or adamw8bit with a quarter of its state (bitsandbytes; parameters of fewer than 4096 numbers keep 32)."""
    adam_beta1: float = Field(default=0.9, ge=0, lt=1)
    """Decay of the gradient's average."""
    adam_beta2: float = Field(default=0.999, ge=0, lt=1)
    """Decay of the average of the squared gradient."""
    adam_epsilon: float = Field(default=1e-8, gt=0)
    """Keeps the division by the root of the latter from growing without bounds."""
    adam_kernel: Literal["auto", "fused", "foreach", "loop"] = "auto"
    """Of adamw: fused is fastest, foreach takes more memory, loop goes tensor by tensor; auto is fused on a CPU and
    torch's choice elsewhere."""


def check_optimizer(options: OptimizerOptions) -> None:
    """Looks whether what is asked for is installed.

    Raises:
        ValueError: bitsandbytes is not.
    """
    if options.optimizer == "adamw8bit" and find_spec("bitsandbytes") is None:
        raise ValueError(
            "optimizer adamw8bit: bitsandbytes is not installed; pip install 'animatex-studio[eight-bit]', "
            'or use optimizer = "adamw"'
        )


def make_adamw(
    groups: list[dict[str, Any]], options: OptimizerOptions, *, weight_decay: float
) -> torch.optim.Optimizer:
    """An optimizer of parameter groups, each with its "lr".

    Raises:
        ValueError: bitsandbytes is asked for and not installed.
    """
    check_optimizer(options)
    betas = (options.adam_beta1, options.adam_beta2)
    if options.optimizer == "adamw8bit":
        from bitsandbytes.optim import AdamW8bit

        made: torch.optim.Optimizer = AdamW8bit(
            groups, betas=betas, eps=options.adam_epsilon, weight_decay=weight_decay
        )
        return made
    kernel = options.adam_kernel
    chosen = {"auto": (None, None), "fused": (True, False), "foreach": (False, True), "loop": (False, False)}
    fused, foreach = chosen[kernel]
    if kernel == "auto" and _all_on_cpu(groups):
        fused = True  # torch's own choice there is the loop, which takes a fifth of a small network's step
    return torch.optim.AdamW(
        groups, betas=betas, eps=options.adam_epsilon, weight_decay=weight_decay, fused=fused, foreach=foreach
    )


def _all_on_cpu(groups: list[dict[str, Any]]) -> bool:
    """Whether all parameters are plain tensors of the CPU: those that are split over processes go by torch's choice."""
    every = [parameter for group in groups for parameter in group["params"]]
    return all(p.device.type == "cpu" and not isinstance(p, DTensor) for p in every)


def optimizer_tensors(optimizer: torch.optim.Optimizer, names: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """All state of an optimizer, by "parameter:field"; a plain counter becomes a tensor without dimensions."""
    found: dict[str, Tensor] = {}
    for name, parameter in names.items():
        for key, value in optimizer.state.get(parameter, {}).items():
            if key not in _TABLES:
                found[f"{name}:{key}"] = value if isinstance(value, Tensor) else torch.tensor(value)
    return found


def restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], names: Mapping[str, nn.Parameter]
) -> None:
    """Gives a fresh optimizer the state that `optimizer_tensors` told."""
    options = {p: group for group in optimizer.param_groups for p in group["params"]}
    for key, value in tensors.items():
        name, field = key.rsplit(":", 1)
        parameter = names[name]
        state = optimizer.state[parameter]
        if field == AGE:
            follow_ages(optimizer)
        if not hasattr(optimizer, "name2qmap"):
            # counters stay on the CPU, where the optimizer made them and a step reads them; but not the fused kernel's
            on_cpu = value.ndim == 0 and not options[parameter].get("fused")
            state[field] = value.cpu() if on_cpu else value.to(parameter.device, copy=True)
        elif value.ndim == 0:
            state[field] = int(value)
        else:
            state[field] = value.to(parameter.device, copy=True)
            table = {"state1": "qmap1", "state2": "qmap2"}.get(field)
            if table is not None and value.dtype == torch.uint8:
                state[table] = optimizer.name2qmap[_TABLES[table]].to(parameter.device)
