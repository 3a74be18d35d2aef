"""The rules by which changes of one tensor become one, entry by entry.

Each takes the adapters' changes on the union of their supports, zero where an adapter has none, so that what all
leave alone plays no part in any mean, quantile or norm.
"""

from collections.abc import Sequence
from typing import Final, Literal, get_args

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

Rule = Literal["soup", "greedy", "linear", "ties", "dare", "pcb"]
RULES: Final = get_args(Rule)
Stacked = Float[Tensor, "adapters count"]
Merged = Float[Tensor, "count"]


class MergeOptions(BaseModel):
    """How adapters are joined."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    rule: Rule = "soup"
    """soup: the mean; greedy: the mean of those that help; linear: the weighted sum; ties: the mean of those that agree
    in sign; dare: drops at random first; pcb: by competition within and between adapters."""
    density: float = Field(default=0.5, gt=0, le=1)
    """ties, dare: share of each adapter's own numbers that is kept."""
    election: Literal["total", "frequency"] = "total"
    """ties: the sign with the larger sum wins, or that of more adapters."""
    then: Literal["linear", "ties"] = "linear"
    """dare: what follows the dropping."""
    ratio: float = Field(default=0.1, gt=0, le=1)
    """pcb: share of each adapter's numbers that wins the competition."""
    per_tensor: bool = False
    """ties, pcb: ranks the numbers of every tensor apart, as PEFT does; else of all together, as the papers do."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """dare: which numbers are dropped."""


def mean(stack: Stacked) -> Merged:
    """The soup (arXiv 2203.05482)."""
    return stack.mean(0)


def linear(stack: Stacked, weights: Float[Tensor, "adapters"]) -> Merged:
    """Task arithmetic (arXiv 2212.04089): the weighted sum."""
    return (stack * weights[:, None]).sum(0)


def trim(stack: Stacked, counts: Sequence[int], density: float) -> Stacked:
    """The largest `density` of each adapter's own `counts` numbers; the others are 0."""
    kept = torch.zeros_like(stack)
    for row, count, out in zip(stack, counts, kept, strict=True):
        top = row.abs().topk(int(density * count)).indices
        out[top] = row[top]
    return kept


def agree(stack: Stacked, weights: Float[Tensor, "adapters"], election: Literal["total", "frequency"]) -> Merged:
    """TIES after trimming (arXiv 2306.01708, alg. 1): elects a sign and takes the mean of those that have it."""
    votes = stack.sum(0) if election == "total" else stack.sign().sum(0)
    agreeing = stack.sign() == torch.where(votes >= 0, 1.0, -1.0)
    return (stack * weights[:, None] * agreeing).sum(0) / agreeing.sum(0).clamp(min=1)


def drop(stack: Stacked, density: float, generator: torch.Generator) -> Stacked:
    """DARE (arXiv 2311.03099): keeps each number with probability `density` and enlarges what is left accordingly."""
    rows = [row * torch.bernoulli(torch.full_like(row, density), generator=generator) / density for row in stack]
    return torch.stack(rows)


def compete(stack: Stacked, weights: Float[Tensor, "adapters"], ratio: float) -> Merged:
    """PCB (arXiv 2410.02396): numbers count by their size within an adapter and their accord with the others.

    intra_i = exp(N n(|d_i|)^2), inter_i = tanh(d_i sum_j sign(d_j) n(|d_j|)), n(.) the min-max over an adapter's
    numbers and |d_i| held within its 1 % and 99 % quantiles. The `ratio` highest of intra * inter are the weights of
    the mean, by how far they stand out. Here min-max and quantiles run over the union support: over whole tensors,
    of which a sparse change leaves 99 % at zero, they would say nothing.
    """
    sizes = torch.stack([_clamped(row.abs(), 0.01, 0.99) for row in stack])
    signed = stack.sign() * sizes
    normed = torch.stack([_min_max(row) for row in sizes])
    intra = torch.exp(len(stack) * normed.square())
    inter = torch.tanh(signed * (stack.sign() * normed).sum(0))
    balance = intra * inter
    scale = torch.stack([_min_max(_clamped(row, 1 - ratio, 1.0)) for row in balance])
    return (weights[:, None] * signed * scale).sum(0) / scale.sum(0).clamp(min=1e-12)


def _clamped(row: Tensor, low: float, high: float) -> Tensor:
    ordered = row.sort().values
    last = len(row) - 1
    # the nearest entries: `torch.quantile` refuses more than 16 million
    return row.clamp(float(ordered[round(low * last)]), float(ordered[round(high * last)]))


def _min_max(row: Tensor) -> Tensor:
    low, high = row.min(), row.max()
    # where all are alike, all are the largest
    return (row - low) / (high - low) if high > low else torch.ones_like(row)


def apply_rule(
    stack: Stacked, counts: Sequence[int], weights: Sequence[float], options: MergeOptions, rng: torch.Generator
) -> Merged:
    """Joins changes on a union support.

    Args:
        counts: how many of the numbers are each adapter's own.
        rng: of DARE, on the CPU.
    """
    by = torch.tensor(weights, dtype=stack.dtype)
    match options.rule:
        case "soup" | "greedy":
            return mean(stack)
        case "linear":
            return linear(stack, by)
        case "ties":
            return agree(trim(stack, counts, options.density), by, options.election)
        case "dare":
            left = drop(stack, options.density, rng)
            return linear(left, by) if options.then == "linear" else agree(left, by, options.election)
        case "pcb":
            return compete(stack, by, options.ratio)
