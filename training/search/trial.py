"""What a search knows of one candidate: its number, its folder, and what came of it."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from training.search.pareto import Objectives
from training.search.space import Candidate


@dataclass(frozen=True, kw_only=True)
class Point:
    """One checkpoint of a trial, measured. Both objectives are better when smaller."""

    step: int
    """Optimizer steps made."""
    quality: float
    """A distance, such as the kernel distance of samples to held-out pictures."""
    copying: float
    """A share, such as the copy rate of samples."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Everything that was measured, by names that say feature space and number of samples."""
    path: str | None = None
    """The adapter of this checkpoint, below the study's folder; None where nothing was trained or kept."""
    train_seconds: float = 0.0
    """What training from the checkpoint before to this one took."""
    judge_seconds: float = 0.0
    """What measuring this one took."""

    @property
    def objectives(self) -> Objectives:
        """What the front is made of."""
        return (self.quality, self.copying)

    @property
    def competes(self) -> bool:
        """Whether both are numbers: what is not finite is in the ledger, but on no front."""
        return math.isfinite(self.quality) and math.isfinite(self.copying)


Inner = Callable[[Candidate, Path], Iterator[Point]]
"""The inner loop: trains a candidate in a folder of its own and yields every checkpoint, measured.

Called again with the same folder it goes on: first it yields again what was measured before, quickly. Closing the
iterator stops the training.
"""

Why = Literal["anchor", "seed", "strategy", "random", "repeat"]
"""Where a candidate came from. `random` is drawn where the strategy repeats itself; a `repeat` is no new trial."""
Outcome = Literal["complete", "stopped", "failed"]
"""How a trial ended; `stopped` means early."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One candidate and what came of it so far."""

    number: int
    candidate: Candidate
    why: Why
    worker: str
    """Who trains it, or did so last."""
    points: tuple[Point, ...] = ()
    """Its checkpoints, in the order in which they were measured."""
    outcome: Outcome | None = None
    """None while it is not finished."""
    reason: str | None = None
    """Why it was stopped, or what failed."""
    diverged: bool = False
    """It failed by its numbers: losses or gradients that are none."""
    deaths: int = 0
    """How often a worker died of it, or with it, since its last checkpoint."""

    @property
    def folder(self) -> str:
        """Its folder, below the study's."""
        return f"trial-{self.number}"

    @property
    def steps(self) -> int:
        """Optimizer steps made, up to the last checkpoint."""
        return self.points[-1].step if self.points else 0

    @property
    def seconds(self) -> float:
        """Of training and measuring, up to the last checkpoint."""
        return sum(point.train_seconds + point.judge_seconds for point in self.points)

    @property
    def result(self) -> list[Objectives]:
        """What a strategy is told: every checkpoint, and infinity where it diverged or ended in what is no number.

        Nothing of a trial that is not finished, or failed for a reason that may not be the candidate's.
        """
        if self.outcome is None or (self.outcome == "failed" and not self.diverged):
            return []
        found = [point.objectives for point in self.points if point.competes]
        ended_well = not self.diverged and self.points and self.points[-1].competes
        return found if ended_well else [*found, (math.inf, math.inf)]
