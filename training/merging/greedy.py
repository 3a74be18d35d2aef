"""The greedy soup: the mean of those adapters that help."""

from collections.abc import Callable, Mapping

from training.merging.join import Changes, join
from training.merging.rules import MergeOptions
from training.methods.changes import Change

Loss = Callable[[dict[str, Change]], float]
"""Measures a change: lower is better."""


def greedy(parts: Mapping[str, Changes], loss: Loss) -> tuple[list[str], dict[str, float], float]:
    """Chooses adapters whose mean has the lowest loss (Model soups, arXiv 2203.05482, recipe 1).

    From the best to the worst alone, each stays if the mean with it is no worse than without.

    Returns:
        The chosen names in the order of their losses, every adapter's own loss, and that of the mean.
    """
    losses = {name: loss(dict(changes)) for name, changes in parts.items()}
    order = sorted(parts, key=lambda name: losses[name])
    chosen, best = order[:1], losses[order[0]]
    for name in order[1:]:
        names = [*chosen, name]
        found = loss(join([parts[n] for n in names], [1.0] * len(names), MergeOptions(rule="soup")))
        if found <= best:
            chosen, best = names, found
    return chosen, losses, best
