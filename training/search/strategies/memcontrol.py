"""The default: every capacity first, then TPE over all checkpoints. See benchmarks/memcontrol_tabular.py."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import ClassVar

import torch
from torch.quasirandom import SobolEngine

from training.search.pareto import Objectives
from training.search.space import Candidate, Space
from training.search.strategies.optuna_samplers import MultivariateTPE
from training.search.strategy import STRATEGIES

START = 10
"""Candidates before TPE proposes any."""
STRATA = 8
"""Capacities of the first candidates: an eighth of the sites to all of them, each once."""
_TRIES = 10


@STRATEGIES.register("memcontrol-2")
class MemControl2(MultivariateTPE):
    """Begins with masks of every capacity, then multivariate TPE that is told of every checkpoint.

    How much is trained decides more than what, and nobody knows how much it should be: with many sites all masks that
    are drawn bit by bit train half of them. So the first candidates go through all capacities, and spread the numbers
    as evenly (a scrambled Sobol sequence): a few rates drawn freely may all be far from a good one. TPE is told of
    every checkpoint as of a candidate of its own, since a run is mostly past its best when it ends.
    """

    about: ClassVar[str] = "masks of every capacity, then TPE that is told of every checkpoint; the default"
    paper: ClassVar[str] = "this project, benchmarks/memcontrol_tabular.py"

    def __init__(self, space: Space, *, seed: int, limit: float | None = None) -> None:
        super().__init__(space, seed=seed, limit=limit)
        self._seen: set[str] = set()

    def ask(self) -> Candidate:
        """One of the first candidates, else what TPE proposes; not what was there before, if it proposes others."""
        for candidate in self._start:
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
        self._add(candidate, points[:-1])
        super().tell(candidate, points)

    @cached_property
    def _start(self) -> list[Candidate]:
        # of the first eight each number, and so the capacity, lies once in each eighth; the first few lie far apart
        evenly = SobolEngine(1 + len(self.space.numbers), scramble=True, seed=self.seed).draw(START).tolist()
        found = []
        for number, (capacity, *places) in enumerate(evenly):
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
            candidate = self.space.random(generator)
            values = {name: kind.at(u) for (name, kind), u in zip(self.space.numbers.items(), places, strict=True)}
            candidate = replace(candidate, values=values)
            if number < STRATA and self.space.sites:
                ones = max(1, round((int(capacity * STRATA) + 1) / STRATA * len(self.space.sites)))
                candidate = replace(candidate, mask=self.space.random_mask(ones, generator))
            found.append(candidate)
        return found
