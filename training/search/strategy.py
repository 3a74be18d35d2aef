"""What proposes candidates. A strategy knows nothing of what is trained; adding one is one file."""

import abc
from collections.abc import Sequence
from typing import ClassVar, Final

from pose.registry import Registry
from training.search.pareto import Objectives
from training.search.space import Candidate, Space


class SearchStrategy(abc.ABC):
    """Proposes candidates and is told what came of them. It may be told of candidates that it did not propose.

    All its proposals follow from the seed and from what it was asked and told, in that order. Nothing of it is saved: a
    search that goes on elsewhere asks and tells it again in the order of its ledger, and it is where it was.
    """

    about: ClassVar[str]
    """One line for `studio search --help`."""
    paper: ClassVar[str]
    """Where it comes from."""

    def __init__(self, space: Space, *, seed: int, limit: float | None = None) -> None:
        """Begins anew.

        Args:
            limit: the highest copying that is acceptable; candidates above it are of no use, however good.
        """
        self.space, self.seed, self.limit = space, seed, limit

    @abc.abstractmethod
    def ask(self) -> Candidate:
        """The next candidate to train."""

    @abc.abstractmethod
    def tell(self, candidate: Candidate, points: Sequence[Objectives]) -> None:
        """What a candidate got at each of its checkpoints, the last one last.

        Where it failed, as by a rate at which training diverges, the last one is infinite: worse than any. Nothing at
        all is told where it was not trained.
        """


STRATEGIES: Final[Registry[type[SearchStrategy]]] = Registry("strategy")
"""`studio search --strategy`."""
