"""Choosing k numbers out of all tensors by score, exactly and in little memory."""

from collections.abc import Callable, Iterable, Mapping
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

Score = Callable[[], Float[Tensor, "..."]]
"""Makes the scores of one tensor, none negative; made anew on every pass, so that only one tensor's exist at a time."""


CAP: Final = 0.5
"""The largest share of a matrix or filter that is taken of it where the smallest of all numbers are chosen."""


def fixed(score: Float[Tensor, "..."]) -> Score:
    """Scores that are there already."""
    return lambda: score


def magnitude(tensor: Float[Tensor, "..."]) -> Score:
    """|x|, in float32 on the CPU, so that every machine chooses alike."""
    return lambda: tensor.detach().cpu().float().abs()


def kth_smallest(scores: Iterable[Score], k: int) -> float:
    """The k-th smallest of all scores (k from 1).

    Two passes over the bit patterns, which order floats >= 0 as integers: first the upper 16 bits are counted, then
    the lower 16 of the bin in which the k-th lies. A sort of all would take eight bytes a number.

    Raises:
        ValueError: there are fewer than k.
    """
    makers = list(scores)
    counts = torch.zeros(1 << 15, dtype=torch.int64)
    for make in makers:
        counts += torch.bincount(_bits(make()) >> 16, minlength=1 << 15).cpu()
    total = int(counts.sum())
    if not 1 <= k <= total:
        raise ValueError(f"the {k}-th smallest of {total}")
    below = counts.cumsum(0)
    upper = int(torch.searchsorted(below, k))
    rest = k - (int(below[upper - 1]) if upper else 0)
    lower_counts = torch.zeros(1 << 16, dtype=torch.int64)
    for make in makers:
        bits = _bits(make())
        lower_counts += torch.bincount(bits[(bits >> 16) == upper] & 0xFFFF, minlength=1 << 16).cpu()
    lower = int(torch.searchsorted(lower_counts.cumsum(0), rest))
    return float(torch.tensor((upper << 16) | lower, dtype=torch.int32).view(torch.float32))


def _bits(score: Tensor) -> Tensor:
    # -0.0 has a sign bit: adding 0 takes it away
    return (score.detach().flatten().float() + 0.0).contiguous().view(torch.int32)


def choose(scores: Mapping[str, Score], k: int, *, largest: bool = False, cap: float = 1.0) -> dict[str, Tensor]:
    """The flat indices of the k smallest (or largest) scores of all tensors together, sorted, by tensor.

    Ties at the limit are taken in the order of the tensors and their numbers, so that the count is k exactly.

    Args:
        cap: the largest share of any one matrix or filter that may be chosen; a tensor that starts at zero would
            otherwise be taken whole. What the cap leaves out is not replaced by others. Vectors have no cap.

    Raises:
        ValueError: k is below 1 or above the number of scores.
    """
    total = sum(make().numel() for make in scores.values())
    if not 1 <= k <= total:
        raise ValueError(f"{k} numbers to train: there are {total} to choose from; must be 1 to {total}")
    limit = kth_smallest(scores.values(), total - k + 1 if largest else k)
    left = k
    inside = {}
    for name, make in scores.items():
        score = make().detach().flatten()
        inside[name] = (score > limit if largest else score < limit).nonzero().flatten()
        left -= len(inside[name])
    chosen = {}
    for name, make in scores.items():
        made = make().detach()
        score = made.flatten()
        index = inside[name]
        if left > 0:
            ties = (score == limit).nonzero().flatten()[:left]
            left -= len(ties)
            index = torch.cat([index, ties])
        most = int(cap * len(score))
        if made.ndim > 1 and len(index) > most:
            order = score[index].sort(stable=True, descending=largest).indices
            index = index[order[:most]]
        if len(index):
            chosen[name] = index.sort().values
    return chosen
