"""ID3: a set of trained numbers that grows while training."""

from typing import ClassVar, Final

import torch
from pydantic import Field
from torch import Tensor, nn

from training.methods.base import METHODS, Losses, needed
from training.methods.calibration import gradient_scores
from training.methods.inplace import InPlaceTuner, ScatteredMethod
from training.methods.scope import Scope, parameters_in
from training.methods.selection import choose, fixed
from training.methods.supports import Scattered

_USUAL_STEPS: Final = 100
"""Between two rounds, where nobody knows how long the run is."""


@METHODS.register("id3")
class ID3(ScatteredMethod):
    """Adds the numbers with the largest |g| / (|w| + eps)^exponent, a few every round."""

    about: ClassVar[str] = "a set that grows round by round, by gradient over magnitude"
    paper: ClassVar[str] = "ID3, arXiv 2408.14470"
    sized_by: ClassVar[str | None] = "fraction"

    fraction: float = Field(default=0.01, gt=0, le=1)
    """Share of the numbers that is trained in the end."""
    rounds: int = Field(default=10, ge=1)
    """Parts in which the set grows; the first is there from the start."""
    round_steps: int | None = Field(default=None, ge=1)
    """Steps between two of them; None for equal parts of the run, which the trainer knows."""
    epsilon: float = Field(default=0.1, gt=0)
    """The paper's eps, 0.1 to 1."""
    exponent: float = Field(default=1.0, ge=0)
    """The paper's exp, 1 to 2."""

    @property
    def needs_losses(self) -> bool:
        """Every round looks at gradients."""
        return True

    def attach(self, model: nn.Module, scope: Scope, rng: torch.Generator, losses: Losses | None = None) -> "ID3Tuner":
        """Chooses the first part.

        The paper looks at the gradients of every step, which costs a dense gradient of all weights each time; here a
        few batches are looked at in every round.
        """
        tuner = ID3Tuner(model, list(parameters_in(model, scope)), self, needed(losses, "id3"))
        tuner.recompute = self.recompute
        return tuner


class ID3Tuner(InPlaceTuner):
    """In-place training of a set that grows."""

    def __init__(self, model: nn.Module, names: list[str], config: ID3, losses: Losses) -> None:
        self._names, self._config, self._losses = names, config, losses
        self._total = sum(p.numel() for n, p in model.named_parameters() if n in set(names))
        super().__init__(model, {})
        parameters = dict(model.named_parameters())
        first = self._best({})
        self._set({n: Scattered(index, parameters[n].shape) for n, index in first.items()})

    def after_step(self, step: int) -> bool:
        """Writes the values; after every round the set grows."""
        super().after_step(step)
        length = self._config.round_steps or _USUAL_STEPS
        rounds = step // length
        if step % length or rounds >= self._config.rounds:
            return False
        now = {p.name: p.support.index().cpu().long() for p in self.pieces}
        more = self._best(now)
        names = now.keys() | more.keys()
        none = torch.zeros(0, dtype=torch.int64)
        self.choose_anew({n: torch.cat([now.get(n, none), more.get(n, none)]).sort().values for n in names})
        return True

    def _best(self, taken: dict[str, Tensor]) -> dict[str, Tensor]:
        """The next part of the budget, among what is not taken."""
        parameters = {n: p for n, p in self.model.named_parameters() if n in set(self._names)}
        self._detach()
        found = gradient_scores(self.model, parameters, self._losses, self._rule)
        self._attach()
        for name, index in taken.items():
            found[name].view(-1)[index] = 0  # never again: the score of nothing
        left = sum(len(index) for index in taken.values())
        budget = max(1, round(self._config.fraction * self._total / self._config.rounds))
        scores = {name: fixed(score) for name, score in found.items()}
        chosen = choose(scores, min(budget, self._total - left), largest=True)
        return {name: index for name, index in chosen.items() if len(index)}

    def _rule(self, weight: Tensor, grad: Tensor) -> Tensor:
        return grad.abs() / (weight.abs() + self._config.epsilon) ** self._config.exponent
