"""What a search knows of one candidate: its number, its folder, and what came of it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

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


Inner = Callable[[Candidate, Path], Iterator[Point]]
"""The inner loop: trains a candidate in a folder of its own and yields every checkpoint, measured.

Called again with the same folder it goes on: first it yields again what was measured before, quickly. Closing the
iterator stops the training.
"""
