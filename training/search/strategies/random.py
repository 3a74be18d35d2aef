"""Every candidate drawn alike."""

from collections.abc import Sequence
from typing import ClassVar

import torch

from training.search.pareto import Objectives
from training.search.space import Candidate
from training.search.strategy import STRATEGIES, SearchStrategy


@STRATEGIES.register("random")
class Random(SearchStrategy):
    """Draws every bit and number evenly."""

    about: ClassVar[str] = "every bit and number drawn evenly"
    paper: ClassVar[str] = "Bergstra and Bengio, JMLR 2012"

    _told = 0
    _asked = 0

    def ask(self) -> Candidate:
        """The candidate of this number, whatever became of the others."""
        number = max(self._asked, self._told)
        self._asked = number + 1
        return self.space.random(torch.Generator().manual_seed(self.seed * 1_000_003 + number))

    def tell(self, candidate: Candidate, points: Sequence[Objectives]) -> None:
        """Counts."""
        self._told += 1
