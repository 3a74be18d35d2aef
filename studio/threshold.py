"""What SaRA's options come to on a histogram of the weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from studio.weight_histogram import WeightHistogram, layer_of


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Which weights are trained."""

    threshold: float
    """Those smaller than this."""
    fraction: float
    """Of the weights in the scope, before the cap: what the learning rate follows from."""
    count: int
    """How many are trained."""
    held_back: int
    """How many the cap leaves out."""
    by_tensor: NDArray[np.float64]
    """How many of each tensor in the scope."""


def chosen(
    found: WeightHistogram, inside: NDArray[np.bool_], options: Mapping[str, Any], *, share: float | None = None
) -> Choice:
    """Finds the threshold that SaRA's options mean here, and what is trained below it.

    Args:
        options: fraction, threshold or budget, and cap; None and what is missing is the default.
        share: of the whole network; goes before all three.
    """
    from training.methods.sara import SaRA

    known = {name: value for name, value in options.items() if value is not None}
    within = int(found.sizes[inside].sum())
    cap = float(known.get("cap", SaRA.model_fields["cap"].default))
    if share is not None:
        wanted = min(1.0, share * found.total / max(1, within)) * within
    elif "budget" in known:
        wanted = float(min(int(known["budget"]), within))
    else:
        wanted = float(known.get("fraction", SaRA.model_fields["fraction"].default)) * within
    if share is None and "threshold" in known:
        threshold = float(known["threshold"])
    else:
        threshold = found.threshold_for(wanted, inside=inside)
    below = float(found.below(threshold, inside=inside).sum())
    by_tensor = found.trained(threshold, cap=cap, inside=inside)
    count = round(float(by_tensor.sum()))
    return Choice(threshold=threshold, fraction=below / max(1, within), count=count,
                  held_back=max(0, round(below) - count), by_tensor=by_tensor)  # fmt: skip


def layer_shares(found: WeightHistogram, inside: NDArray[np.bool_], choice: Choice) -> list[dict[str, Any]]:
    """How much of each layer is trained, in the network's order; the smallest ones together where there are many."""
    names = [name for name, held in zip(found.names, inside, strict=True) if held]
    totals: dict[str, float] = {}
    trained: dict[str, float] = {}
    for name, size, count in zip(names, found.sizes[inside], choice.by_tensor, strict=True):
        layer = layer_of(name)
        totals[layer] = totals.get(layer, 0) + float(size)
        trained[layer] = trained.get(layer, 0) + float(count)
    return [
        {"layer": layer, "share": trained[layer] / total, "trained": round(trained[layer])}
        for layer, total in sorted(totals.items(), key=lambda pair: _in_order(pair[0]))
    ]


def _in_order(layer: str) -> list[tuple[int, int, str]]:
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in layer.split(".")]


def spread(found: WeightHistogram) -> tuple[float, float]:
    """The sizes that are worth drawing: from where one weight in 100,000 is smaller, to where all are."""
    low = found.threshold_for(found.total * 1e-5)
    high = found.threshold_for(found.total)
    low = max(low, high * 1e-9)
    return (low, high) if high > low * 1.01 else (low, low * 10)
