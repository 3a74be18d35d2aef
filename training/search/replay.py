"""What the entries of a ledger amount to, and a strategy in the very state that they left it in."""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from training.search.entries import (
    Asked,
    Budget,
    Entry,
    Extended,
    Finished,
    Header,
    LedgerError,
    Measured,
    Taken,
    candidate_from_json,
    candidate_to_json,
)
from training.search.pareto import Objectives
from training.search.space import Candidate, Space
from training.search.strategy import SearchStrategy
from training.search.trial import Trial

_DRAWS: Final = 100


class Replay:
    """Takes entries in their order.

    Strategies follow from what they are asked and told, so one that is asked and told again in the order of the
    ledger proposes what it would have proposed. Where it does not, since another version of it wrote the ledger, what
    is written counts, and it is told of that as of any foreign candidate.
    """

    def __init__(self, strategy: Callable[[Header], SearchStrategy] | None = None) -> None:
        self._make = strategy
        self._strategy: SearchStrategy | None = None
        self._header: Header | None = None
        self._budget: Budget | None = None
        self._proposed: Candidate | None = None
        self.trials: list[Trial] = []
        self.known: dict[str, int] = {}
        """The trial of every candidate, by its key."""
        self.repeats = 0
        """How often in a row, up to now, the strategy proposed what was there."""

    @property
    def has_begun(self) -> bool:
        """Whether there was a header."""
        return self._header is not None

    @property
    def header(self) -> Header:
        """The study's header, as it began."""
        if self._header is None:
            raise LedgerError("the ledger does not begin with a study")
        return self._header

    @property
    def budget(self) -> Budget:
        """What the study may spend by now."""
        return self._budget or self.header.budget

    def take(self, entry: Entry) -> None:
        """Takes the next entry.

        Raises:
            LedgerError: it does not follow on those before.
        """
        match entry:
            case Header():
                if self._header is not None:
                    raise LedgerError(f"the ledger holds two studies, {self._header.name!r} and {entry.name!r}")
                self._header = entry
                self._strategy = self._make(entry) if self._make else None
            case Extended():
                self._budget = entry.budget
            case Asked(why="repeat"):
                self.repeats += 1
                self._ask(entry.candidate)
                self._tell(entry.candidate, self._trial(entry.trial).result)
            case Asked():
                if entry.trial != len(self.trials) or not self.has_begun:
                    raise LedgerError(f"trial {entry.trial} does not follow on {len(self.trials)} trials")
                self.repeats = 0
                if entry.why == "strategy":
                    self._ask(entry.candidate)
                self.known[entry.candidate.key] = entry.trial
                self.trials.append(
                    Trial(number=entry.trial, candidate=entry.candidate, why=entry.why, worker=entry.worker)
                )
            case Taken():
                trial = self._trial(entry.trial)
                self.trials[entry.trial] = replace(trial, worker=entry.worker, deaths=trial.deaths + entry.died)
            case Measured():
                trial = self._trial(entry.trial)
                self.trials[entry.trial] = replace(trial, points=(*trial.points, entry.point), deaths=0)
            case Finished():
                trial = replace(
                    self._trial(entry.trial), outcome=entry.outcome, reason=entry.reason, diverged=entry.diverged
                )
                self.trials[entry.trial] = trial
                self._tell(trial.candidate, trial.result)

    def _trial(self, number: int) -> Trial:
        if not 0 <= number < len(self.trials):
            raise LedgerError(f"the ledger speaks of trial {number}, which was not asked for")
        return self.trials[number]

    def propose(self) -> Candidate:
        """What the strategy would train next, for the ledger: the entry of it is what makes it proposed."""
        assert self._strategy is not None
        if self._proposed is None:
            # as it will be read from the ledger
            self._proposed = candidate_from_json(candidate_to_json(self._strategy.ask()))
        return self._proposed

    def _ask(self, written: Candidate) -> None:
        if self._strategy is None:
            return
        proposed, self._proposed = self.propose(), None
        if proposed.key != written.key:
            self._tell(proposed, [])

    def _tell(self, candidate: Candidate, points: list[Objectives]) -> None:
        if self._strategy is not None:
            self._strategy.tell(candidate, points)

    @property
    def spent_steps(self) -> int:
        """Optimizer steps of all trials; one that is not finished counts as a whole one."""
        each = self.budget.steps_each or 0
        return sum(trial.steps if trial.outcome else max(trial.steps, each) for trial in self.trials)

    def why_spent(self) -> str | None:
        """Why no further trial may begin; None if one may."""
        budget = self.budget
        if budget.trials is not None and len(self.trials) >= budget.trials:
            return f"the budget of {budget.trials} trials is used"
        if budget.steps is not None and budget.steps_each is not None:
            left = budget.steps - self.spent_steps
            if left < budget.steps_each:
                return (
                    f"{max(0, left)} of the budget of {budget.steps} steps are left, a trial needs {budget.steps_each}"
                )
        return None

    def fresh(self) -> Candidate | None:
        """A random candidate that was not there before; None where there is none any more."""
        return _fresh(self.header.space, self.known, seed=self.header.seed * 1_000_003 + len(self.trials))


def _fresh(space: Space, known: dict[str, int], *, seed: int) -> Candidate | None:
    import torch  # not where a study is only read: it takes seconds to load

    generator = torch.Generator().manual_seed(seed)
    for _ in range(_DRAWS):
        candidate = space.random(generator)
        if candidate.key not in known:
            return candidate
    if not space.is_finite:
        return None
    return next((candidate for candidate in space.every() if candidate.key not in known), None)
