"""Reads a study: its trials, its front, and what it cost. Nothing is trained or changed here."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from training.search import pareto
from training.search.entries import Budget, Header, LedgerError
from training.search.ledger import Ledger, open_ledger
from training.search.pareto import Objectives
from training.search.replay import Replay
from training.search.space import Candidate
from training.search.trial import Point, Trial

_BEYOND = 0.1


@dataclass(frozen=True, kw_only=True)
class Result:
    """A checkpoint of a trial, as one of all that compete."""

    trial: Trial
    point: Point
    adapter: Path | None
    """Its file; None where nothing was trained or kept."""

    @property
    def candidate(self) -> Candidate:
        """How it was trained."""
        return self.trial.candidate

    @property
    def objectives(self) -> Objectives:
        """Quality and copying, both better when smaller."""
        return self.point.objectives


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What a study has cost so far."""

    trials: int
    """Begun."""
    finished: int
    failed: int
    """Of the finished ones."""
    steps: int
    """Optimizer steps up to the last checkpoint of every trial."""
    train_seconds: float
    judge_seconds: float


def open_study(folder: Path, storage: str | None = None, *, name: str | None = None) -> "Study":
    """Opens a study to read it, also while it runs.

    Args:
        storage: where its ledger is, see `open_ledger`; None: in the folder.
        name: the study's, where a database holds several.

    Raises:
        LedgerError: there is none, or its ledger is damaged or out of reach.
    """
    study = Study(folder, open_ledger(folder, storage, study=name))
    if not study.refresh().has_begun:
        raise LedgerError(f"{study.ledger.place} holds no study; if its ledger is in a database, name that as storage")
    return study


class Study:
    """All that a ledger says."""

    def __init__(self, folder: Path, ledger: Ledger) -> None:
        self.folder, self.ledger = folder, ledger
        self._replay, self._offset = Replay(), 0

    def refresh(self) -> Replay:
        """Reads what was added since."""
        entries, self._offset = self.ledger.read(self._offset)
        for entry in entries:
            self._replay.take(entry)
        return self._replay

    @property
    def header(self) -> Header:
        """What it is of."""
        return self._replay.header

    @property
    def budget(self) -> Budget:
        """What it may spend by now."""
        return self._replay.budget

    def trials(self) -> Sequence[Trial]:
        """All trials by number, also those that are in training or failed."""
        return tuple(self._replay.trials)

    def points(self) -> list[Result]:
        """Every checkpoint that competes, which is all with finite numbers."""
        return [
            Result(trial=trial, point=point, adapter=self.folder / point.path if point.path else None)
            for trial in self._replay.trials
            for point in trial.points
            if point.competes
        ]

    def front(self) -> list[Result]:
        """The checkpoints that no other beats, by quality."""
        return pareto.front(self.points(), _objectives)

    def knee(self) -> Result | None:
        """The checkpoint of the front that is good at both; None where nothing is measured yet."""
        points = self.points()
        return pareto.knee(points, _objectives) if points else None

    def best_within(self, limit: float | None = None) -> Result | None:
        """The best quality with copying up to a limit, by default the study's; None where there is none."""
        limit = self.header.limit if limit is None else limit
        return None if limit is None else pareto.best_within(self.points(), _objectives, limit)

    def reference(self) -> Objectives | None:
        """Where hypervolumes are measured from: the header's, else a tenth beyond the worst of the anchors.

        None until the anchors are finished.
        """
        if self.header.reference is not None:
            return self.header.reference
        anchors = [trial for trial in self._replay.trials if trial.why == "anchor"]
        if len(anchors) < len(self.header.space.anchors()) or any(trial.outcome is None for trial in anchors):
            return None
        found = [point.objectives for trial in anchors for point in trial.points if point.competes]
        if not found:
            return None
        quality, copying = (max(values) for values in zip(*found, strict=True))
        return (quality + _BEYOND * abs(quality), copying + _BEYOND * abs(copying))

    def hypervolume(self) -> float | None:
        """The area between the front and the reference; None where there is no reference yet."""
        reference = self.reference()
        if reference is None:
            return None
        return pareto.hypervolume([result.objectives for result in self.points()], reference)

    def spent(self) -> Spent:
        """What it has cost so far."""
        trials = self._replay.trials
        points = [point for trial in trials for point in trial.points]
        return Spent(
            trials=len(trials), finished=sum(trial.outcome is not None for trial in trials),
            failed=sum(trial.outcome == "failed" for trial in trials), steps=sum(trial.steps for trial in trials),
            train_seconds=sum(point.train_seconds for point in points),
            judge_seconds=sum(point.judge_seconds for point in points),
        )  # fmt: skip


def _objectives(result: Result) -> Objectives:
    return result.objectives
