"""Methods of equal size: the option of each that trains nearest to a share of the network."""

from typing import Any

import torch
from pydantic import ValidationError
from torch import nn

from training.methods.base import MethodConfig
from training.methods.scope import Scope


def at_share(config: MethodConfig, model: nn.Module, scope: Scope, share: float) -> MethodConfig:
    """The config with its size set so that it trains nearest to `share` (0..1) of all numbers of the model.

    A rank is found by attaching: the model is as before afterwards.

    Raises:
        ValueError: the method has no size to set, or none of its sizes fits this model.
    """
    option = config.sized_by
    if option is None:
        raise ValueError(
            f"a share of {share:g} was asked for, but this method ({config.about}) has no size; choose with scope"
        )
    total = sum(p.numel() for p in model.parameters())
    if option == "fraction":
        within = sum(p.numel() for name, p in model.named_parameters() if scope.holds(name))
        fraction = min(1.0, share * total / max(1, within))
        # SaRA's other two ways of saying it would contradict
        others: dict[str, Any] = {n: None for n in ("threshold", "budget") if n in type(config).model_fields}
        return config.model_copy(update={**others, "fraction": fraction})
    return _at_count(config, model, scope, option, round(share * total))


def _at_count(config: MethodConfig, model: nn.Module, scope: Scope, option: str, wanted: int) -> MethodConfig:
    """Doubles until it is enough, or little enough, then goes between the last two by the line through them."""
    found: dict[int, int] = {}
    size = 1
    while size <= config.largest and not _reached(found, wanted):
        _try(config, model, scope, option, size, found)
        size *= 2
    if not found:
        raise ValueError(f"no {option} of this method ({config.about}) fits this model")
    below = max(((count, s) for s, count in found.items() if count < wanted), default=None)
    above = min(((count, s) for s, count in found.items() if count >= wanted), default=None)
    if below and above:
        (fewer, low), (more, high) = below, above
        between = low + (high - low) * (wanted - fewer) / max(1, more - fewer)
        for candidate in {int(between), int(between) + 1}:
            _try(config, model, scope, option, candidate, found)
    best = min(found, key=lambda s: (abs(found[s] - wanted), s))
    return config.model_copy(update={option: best})


def _reached(found: dict[int, int], wanted: int) -> bool:
    counts = list(found.values())
    shrinks = len(counts) > 1 and counts[1] < counts[0]  # RandLoRA has the more products the thinner they are
    return bool(counts) and (counts[-1] <= wanted if shrinks else counts[-1] >= wanted and len(counts) > 1)


def _try(config: MethodConfig, model: nn.Module, scope: Scope, option: str, size: int, found: dict[int, int]) -> None:
    """Counts what a size trains; a size that the method cannot have is passed over."""
    if size in found:
        return
    try:
        sized = type(config).model_validate({**config.model_dump(), option: size})
        tuner = sized.attach(model, scope, torch.Generator().manual_seed(0))
    except (ValidationError, ValueError):
        return
    found[size] = tuner.count
    tuner.unload()
