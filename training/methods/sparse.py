"""Sparse training in place with any rule of choice: the numbers with the highest score, or whole rows, columns, blocks.

The kinds of SHiRA (arXiv 2406.13175), Super-Tuning (arXiv 2607.09287), PaFi and FISH (Fisher) are choices here.
"""

from typing import ClassVar, Final, Literal

import torch
from einops import rearrange
from pydantic import Field
from torch import Tensor, nn

from training.methods.base import METHODS, Losses, needed
from training.methods.calibration import fisher, gradient_scores, size_of_gradient, snip
from training.methods.inplace import InPlaceTuner, ScatteredMethod
from training.methods.scope import Scope, parameters_in
from training.methods.selection import CAP, Score, choose, fixed, magnitude
from training.methods.supports import Columns, Rows, Scattered, Support

Selector = Literal["smallest", "largest", "random", "snip", "fisher", "gradient"]

_BY_GRADIENT: Final = {"snip": snip, "fisher": fisher, "gradient": size_of_gradient}


@METHODS.register("sparse")
class Sparse(ScatteredMethod):
    """Trains a share of the numbers in place, chosen by a rule."""

    about: ClassVar[str] = (
        "a share of the numbers by any rule: smallest, largest, random, SNIP, Fisher; or rows, columns, blocks"
    )
    paper: ClassVar[str] = "SHiRA, arXiv 2406.13175; SNIP, arXiv 1810.02340; FISH, arXiv 2111.09839"
    sized_by: ClassVar[str | None] = "fraction"
    stands_beside: ClassVar[bool] = True

    selector: Selector = "largest"
    """smallest, largest: by |w|; snip: by |w g|; fisher: by g^2; gradient: by |g|; random."""
    structure: Literal["single", "rows", "columns", "blocks", "cross"] = "single"
    """Single numbers; or of every matrix and filter whole rows, input columns, blocks of `block` x `block`, or a cross:
    rows and columns, half each, and the diagonal (SHiRA's Struct)."""
    per_tensor: bool = True
    """The share is that of every tensor (SHiRA); else of all numbers together, where some tensors may have none."""
    fraction: float = Field(default=0.01, gt=0, le=1)
    """Share of the numbers that is trained."""
    block: int = Field(default=16, ge=2)
    """Side of a block."""

    @property
    def needs_losses(self) -> bool:
        """What looks at gradients does."""
        return self.selector in _BY_GRADIENT

    def attach(
        self, model: nn.Module, scope: Scope, rng: torch.Generator, losses: Losses | None = None
    ) -> InPlaceTuner:
        """Scores every number in the scope, sums the scores of a structure, and chooses."""
        tensors = parameters_in(model, scope)
        if self.structure != "single":
            # a vector has no rows, and a grouped filter's columns are not input channels
            tensors = {n: p for n, p in tensors.items() if p.ndim > 1 and _module(model, n, "groups", 1) == 1}
            if not tensors:
                raise ValueError(f"no tensor in the scope has {self.structure}")
        tuner = InPlaceTuner(model, self.choose(model, tensors, rng, losses))
        tuner.recompute = self.recompute
        return tuner

    def choose(
        self, model: nn.Module, tensors: dict[str, nn.Parameter], rng: torch.Generator, losses: Losses | None = None
    ) -> dict[str, Support]:
        """What is trained of each tensor."""
        scores = self._scores(model, tensors, rng, losses)
        if self.structure == "cross":
            crosses = {n: _cross(score(), self.fraction, self.selector == "smallest") for n, score in scores.items()}
            return {n: Scattered(index, tensors[n].shape) for n, index in crosses.items()}
        scores = {n: self._grouped(score) for n, score in scores.items()}
        sets = [{n: s} for n, s in scores.items()] if self.per_tensor else [scores]
        supports: dict[str, Support] = {}
        for together in sets:
            total = sum(make().numel() for make in together.values())
            count = max(1, round(self.fraction * total))
            chosen = choose(together, count, largest=self.selector != "smallest", cap=self._cap)
            for name, index in chosen.items():
                supports[name] = self._support(index, tensors[name].shape)
        return supports

    @property
    def _cap(self) -> float:
        """SaRA's: a tensor that starts at zero would be taken whole, where the smallest of all together are asked."""
        together = self.selector == "smallest" and self.structure == "single" and not self.per_tensor
        return CAP if together else 1.0

    def _scores(
        self, model: nn.Module, tensors: dict[str, nn.Parameter], rng: torch.Generator, losses: Losses | None
    ) -> dict[str, Score]:
        if self.selector in ("smallest", "largest"):
            return {n: magnitude(p) for n, p in tensors.items()}
        if self.selector == "random":
            seeds = {n: int(torch.randint(1 << 62, (), generator=rng)) for n in tensors}
            return {n: _random(p.shape, seeds[n]) for n, p in tensors.items()}
        losses = needed(losses, f"selector {self.selector}")
        found = gradient_scores(model, tensors, losses, _BY_GRADIENT[self.selector])
        return {n: fixed(score) for n, score in found.items()}

    def _grouped(self, score: Score) -> Score:
        """Scores of rows, columns or blocks: the mean over their numbers, in place of each number's."""
        structure = self.structure
        if structure == "single":
            return score
        return lambda: _over(score(), structure, self.block)

    def _support(self, index: Tensor, shape: torch.Size) -> Support:
        match self.structure:
            case "rows":
                return Rows(index, shape)
            case "columns":
                return Columns(index, shape)
            case "blocks":
                return Scattered(_of_blocks(index, shape, self.block), shape)
            case _:
                return Scattered(index, shape)


def _module(model: nn.Module, name: str, attribute: str, default: int) -> int:
    found: int = getattr(model.get_submodule(name.rpartition(".")[0]), attribute, default)
    return found


def _random(shape: torch.Size, seed: int) -> Score:
    # made again on every pass from its own seed, so that it need not be kept
    return lambda: torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def _over(score: Tensor, structure: str, block: int) -> Tensor:
    matrix = score.flatten(1)
    if structure == "rows":
        return matrix.mean(1)
    if structure == "columns":
        return rearrange(score, "rows columns ... -> columns (rows ...)").mean(1)
    rows, columns = (-(-side // block) for side in matrix.shape)
    sums = matrix.new_zeros(rows * block, columns * block)
    sums[: matrix.shape[0], : matrix.shape[1]] = matrix
    return rearrange(sums, "(r a) (c b) -> (r c) (a b)", a=block, b=block).mean(1)


def _cross(score: Tensor, fraction: float, smallest: bool) -> Tensor:
    """Flat indices of the best rows and columns, half each, and of the diagonal: the share of a tensor in all."""
    matrix = score.flatten(1) * (-1 if smallest else 1)
    height, width = matrix.shape
    diagonal = torch.arange(min(height, width))
    half = max(0.0, fraction * matrix.numel() - len(diagonal)) / 2
    chosen = torch.zeros(height, width, dtype=torch.bool)
    chosen[diagonal, diagonal] = True
    chosen[matrix.mean(1).topk(min(height, round(half / width))).indices] = True
    chosen[:, matrix.mean(0).topk(min(width, round(half / height))).indices] = True
    return chosen.flatten().nonzero().squeeze(1)


def _of_blocks(index: Tensor, shape: torch.Size, block: int) -> Tensor:
    """Flat indices of all numbers in the chosen blocks, sorted."""
    height, width = shape[0], shape[1:].numel()
    columns = -(-width // block)
    y = (index // columns * block)[:, None, None] + torch.arange(block)[:, None]
    x = (index % columns * block)[:, None, None] + torch.arange(block)
    inside = (y < height) & (x < width)
    return (y * width + x)[inside].sort().values
