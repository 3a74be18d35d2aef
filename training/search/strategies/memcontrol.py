"""The default: few sites first, then multivariate TPE. Measured in benchmarks/memcontrol_tabular.py."""

from collections.abc import Sequence
from typing import ClassVar

import torch

from training.search.pareto import Objectives
from training.search.space import Candidate, Space
from training.search.strategies.optuna_samplers import MultivariateTPE
from training.search.strategy import STRATEGIES

START_SHARES = (1 / 8, 1 / 8, 1 / 8, 1 / 8, 2 / 8, 2 / 8, 3 / 8, 5 / 8)
"""Of the sites that the first candidates train, in turn."""
_LOW, _HIGH = 0.25, 0.75
"""Places in the range of a number, which the first candidates take in turn."""
_TRIES = 10


@STRATEGIES.register("memcontrol-2")
class MemControl2(MultivariateTPE):
    """Begins with candidates of growing capacity at low and high rates in turn, then multivariate TPE.

    How much is trained decides more than what: copies come with capacity, and quality flattens early. So the first
    candidates are random masks of few sites, instead of the half that is on in a random one.
    """

    about: ClassVar[str] = "few sites first at low and high rates, then TPE over all variables together; the default"
    paper: ClassVar[str] = "this project, benchmarks/memcontrol_tabular.py"

    def __init__(self, space: Space, *, seed: int) -> None:
        super().__init__(space, seed=seed)
        self._seen: set[str] = set()

    def ask(self) -> Candidate:
        """One of the first candidates, else what TPE proposes; not what was there before, if it proposes others."""
        for candidate in self._start():
            if candidate.key not in self._seen:
                break
        else:
            for _ in range(_TRIES):
                candidate = super().ask()
                if candidate.key not in self._seen:
                    break
        self._seen.add(candidate.key)
        return candidate

    def tell(self, candidate: Candidate, points: Sequence[Objectives]) -> None:
        """Also remembers it, or what another worker trains would be proposed again."""
        self._seen.add(candidate.key)
        super().tell(candidate, points)

    def _start(self) -> list[Candidate]:
        found = []
        for number, share in enumerate(START_SHARES):
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
            ones = max(1, round(share * len(self.space.sites))) if self.space.sites else 0
            place = _LOW if number % 2 == 0 else _HIGH
            values = {name: kind.at(place) for name, kind in self.space.numbers.items()}
            found.append(Candidate(mask=self.space.random_mask(ones, generator), values=values))
        return found
