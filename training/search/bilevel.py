"""The outer loop, for one worker: what it trains next, and what of that goes into the ledger.

Any number of workers, on any machines that reach the ledger and the study's folder, run the same loop. All decisions
are made from the ledger alone while it is locked, so nothing is trained twice, and a worker that is killed at any
moment leaves a study that every other one can go on with.
"""

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from training.checkpoint import SaveError
from training.disk import full_disk
from training.owners import this_worker
from training.search.early_stop import why_stop
from training.search.entries import Asked, Entry, Extended, Finished, Header, LedgerError, Measured, Taken, to_json
from training.search.leases import heartbeat, is_free
from training.search.ledger import Ledger, differences, open_ledger
from training.search.replay import Replay
from training.search.space import Candidate
from training.search.strategies import STRATEGIES
from training.search.trial import Inner, Outcome, Point, Trial, Why

REPEATS: Final = 3
"""Proposals in a row that may be known already, before one is drawn at random instead."""
FAILURES: Final = 3
"""Trials in a row that may fail in one worker before it gives up."""
DEATHS: Final = 5
"""Workers that may die with a trial before it gets to a next checkpoint; then it has failed."""


class SearchError(RuntimeError):
    """A search cannot go on: trial after trial fails."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """There is nothing more to do for this worker."""

    reason: str
    running: int
    """Trials that other workers still train."""


def bilevel(
    folder: Path, header: Header, inner: Inner, *, storage: str | None = None, seeds: Sequence[Candidate] = (),
    lease_s: float = 60.0, on_end: Callable[[Path], None] = lambda folder: None,
) -> Iterator[Entry | Ended]:  # fmt: skip
    """Begins a study, or goes on with one, until its budget is used; yields what it adds to the ledger, then `Ended`.

    First come trials whose workers are gone, then the two anchors (no site and every site, always), then `seeds`, then
    what the strategy proposes. Every checkpoint is an entry and competes. Closing the iterator stops: the trial that
    is in training is gone on with by whoever calls next. A study may be gone on with under a larger budget, but
    nothing else of its header may differ.

    Args:
        folder: the study's; each trial is trained in a folder of its own below it.
        inner: trains and measures; may raise, which is one failed trial.
        storage: where the ledger is, see `open_ledger`.
        seeds: candidates from outside, see `read_candidates`.
        lease_s: how long a worker of another machine may be silent before its trial is taken over.
        on_end: told the folder of a trial that nobody goes on with: it is complete, was stopped early, or failed.

    Raises:
        LedgerError: the study there has another header, or the ledger is damaged or out of reach.
        SaveError: the disk is full; calling again when there is space goes on.
        SearchError: trials failed one after another.
        ValueError: an unknown strategy, or a seed that is not of the space.
    """
    strategy = STRATEGIES[header.strategy]
    for candidate in seeds:
        header.space.check(candidate)
    folder.mkdir(parents=True, exist_ok=True)
    with _full_disk_is_told(folder), closing(open_ledger(folder, storage, study=header.name)) as ledger:
        replay = Replay(lambda begun: strategy(begun.space, seed=begun.seed, limit=begun.limit))
        yield from _Worker(folder, ledger, replay, inner, seeds, lease_s, on_end).run(header)


class _Worker:
    def __init__(
        self, folder: Path, ledger: Ledger, replay: Replay, inner: Inner, seeds: Sequence[Candidate], lease_s: float,
        on_end: Callable[[Path], None],
    ) -> None:  # fmt: skip
        self.folder, self.ledger, self.replay, self.inner, self.seeds = folder, ledger, replay, inner, seeds
        self.owner, self.lease_s, self.on_end = this_worker(), lease_s, on_end
        self._offset = 0
        self._news: deque[Entry] = deque()
        """Added to the ledger and not yet yielded: the consumer may take its time, so never while the lock is held."""
        self._failures: list[str] = []
        self._given_up: list[Path] = []

    def run(self, header: Header) -> Iterator[Entry | Ended]:
        self._begin(header)
        for trial in self.replay.trials:  # of a worker that was killed before it came to that
            if trial.outcome is not None:
                self.on_end(self.folder / trial.folder)
        while not isinstance(job := self._next(), Ended):
            self._end_others()
            with heartbeat(self.ledger.leases, job.number, self.owner, every_s=self.lease_s / 6):
                yield from self._told()
                yield from self._train(job)
            if len(self._failures) >= FAILURES:
                raise SearchError(
                    f"{FAILURES} trials in a row failed, the first one with: {self._failures[0]}; "
                    f"mend that, then go on with the study in {self.folder}"
                )
        self._end_others()
        yield from self._told()
        yield job

    def _end_others(self) -> None:
        """Tells of trials that were given up, now that the lock is free."""
        while self._given_up:
            self.on_end(self._given_up.pop())

    def _told(self) -> Iterator[Entry]:
        while self._news:
            yield self._news.popleft()

    def _catch_up(self) -> None:
        entries, self._offset = self.ledger.read(self._offset)
        for entry in entries:
            self.replay.take(entry)

    def _add(self, entry: Entry) -> None:
        """Adds an entry, while the lock is held."""
        self.ledger.append(entry)
        self._news.append(entry)
        self._catch_up()

    def _begin(self, header: Header) -> None:
        """Writes the header, or finds it to be the one that is there.

        Raises:
            LedgerError: it is another.
        """
        with self.ledger.exclusive():
            self._catch_up()
            if not self.replay.has_begun:
                self._add(header)
                return
            # a name is a label, or what a database found the study by: folders are renamed
            there = replace(self.replay.header, budget=header.budget, name=header.name)
            if found := differences(to_json(there), to_json(header)):
                name, old, new = found[0]
                raise LedgerError(
                    f"the study in {self.ledger.place} has {name} {_short(old)}, not {_short(new)}; "
                    "go on with what it has, or begin another in another folder"
                )
            if header.budget == self.replay.budget:
                return
            if not header.budget.covers(self.replay.budget):
                raise LedgerError(
                    f"the study in {self.ledger.place} has a budget of {self.replay.budget}, not {header.budget}; "
                    "it can only grow"
                )
            self._add(Extended(budget=header.budget))

    def _next(self) -> Trial | Ended:
        """The trial to train, which is this worker's from here on."""
        leases = self.ledger.leases
        with self.ledger.exclusive():
            self._catch_up()
            trials, running = self.replay.trials, 0
            for trial in [trial for trial in trials if trial.outcome is None]:
                if not is_free(leases, trial.number, expiry_s=self.lease_s):
                    running += 1
                elif self._take_over(trial):
                    return trials[trial.number]
            chosen = self._choose()
            if isinstance(chosen, str):
                return Ended(reason=chosen, running=running)
            # the lease first: a trial without one would be anybody's
            leases.take(len(trials), self.owner)
            self._ask(len(trials), *chosen)
            return trials[-1]

    def _take_over(self, trial: Trial) -> bool:
        """Takes a trial whose worker is gone; gives it up, if it took one worker after another with it."""
        died = self.ledger.leases.owner(trial.number) is not None
        self.ledger.leases.take(trial.number, self.owner)
        self._add(Taken(trial=trial.number, worker=self.owner.worker, died=died, at=time.time()))
        trial = self.replay.trials[trial.number]
        if trial.deaths < DEATHS:
            return True
        reason = f"its worker died {trial.deaths} times before it got to a next checkpoint: is there enough memory?"
        self._add(self._finished(trial, "failed", reason))
        self.ledger.leases.release(trial.number, self.owner)
        self._given_up.append(self.folder / trial.folder)
        return False

    def _finished(self, trial: Trial, outcome: Outcome, reason: str | None) -> Finished:
        return Finished(
            trial=trial.number, outcome=outcome, reason=reason, steps=trial.steps, seconds=trial.seconds,
            at=time.time(),
        )  # fmt: skip

    def _ask(self, trial: int, candidate: Candidate, why: Why) -> None:
        self._add(Asked(trial=trial, candidate=candidate, why=why, worker=self.owner.worker, at=time.time()))

    def _choose(self) -> tuple[Candidate, Why] | str:
        """What to train next and why that, or why nothing."""
        replay = self.replay
        for candidate in replay.header.space.anchors():
            if candidate.key not in replay.known:
                return candidate, "anchor"
        if (spent := replay.why_spent()) is not None:
            return spent
        for candidate in self.seeds:
            if candidate.key not in replay.known:
                return candidate, "seed"
        while replay.repeats < REPEATS:
            candidate = replay.propose()
            if candidate.key not in replay.known:
                return candidate, "strategy"
            self._ask(replay.known[candidate.key], candidate, "repeat")
        fresh = replay.fresh()
        return "there is no candidate left that was not trained" if fresh is None else (fresh, "random")

    def _train(self, trial: Trial) -> Iterator[Entry]:
        """Trains one trial to its end, or goes on with it; returns early when another worker has taken it over."""
        (self.folder / trial.folder).mkdir(exist_ok=True)
        failure, diverged = None, False
        with closing(self._points(trial)) as points:
            while (reason := self._why_stop(trial)) is None:
                try:
                    point = next(points)
                except StopIteration:
                    break
                except Exception as error:
                    if isinstance(error, SaveError) or full_disk(error) is not None:
                        raise
                    failure = f"{type(error).__name__}: {error}"
                    # a candidate that diverges is a bad one, but nothing that would befall all
                    diverged = isinstance(error, FloatingPointError)
                    break
                # what a trial that was taken over yields again is in the ledger already
                if point.step in {known.step for known in trial.points}:
                    continue
                if not self._record(Measured(trial=trial.number, point=self._below(point), note=_note(point))):
                    return
                yield from self._told()
                trial = self.replay.trials[trial.number]
        outcome: Outcome = "failed" if failure else "stopped" if reason else "complete"
        if not diverged:
            self._failures = [*self._failures, failure] if failure else []
        if self._record(replace(self._finished(trial, outcome, failure or reason), diverged=diverged)):
            self.on_end(self.folder / trial.folder)
        yield from self._told()

    def _points(self, trial: Trial) -> Generator[Point]:
        yield from self.inner(trial.candidate, self.folder / trial.folder)

    def _why_stop(self, trial: Trial) -> str | None:
        header = self.replay.header
        # an anchor is there to be compared with, so it goes to its end
        return why_stop(trial.points, header.limit) if header.early_stop and trial.why != "anchor" else None

    def _record(self, entry: Measured | Finished) -> bool:
        """Adds what came of a trial, if it is still this worker's."""
        with self.ledger.exclusive():
            held = self.ledger.leases.owner(entry.trial)
            if held is None or held[0] != self.owner:
                return False
            self._catch_up()
            self._add(entry)
        return True

    def _below(self, point: Point) -> Point:
        """The point with its path below the study's folder, so that the study can be moved."""
        if point.path is None or not Path(point.path).is_absolute():
            return point
        return replace(point, path=str(Path(point.path).relative_to(self.folder.absolute())))


def _note(point: Point) -> str | None:
    if point.competes:
        return None
    return f"quality {point.quality:g}, copying {point.copying:g}: not finite, so it competes on no front"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


@contextmanager
def _full_disk_is_told(folder: Path) -> Iterator[None]:
    """Words what a full disk does, whoever wrote to it: the ledger, a lease, the inner training.

    Raises:
        SaveError: the disk is full.
    """
    try:
        yield
    except Exception as error:
        told = str(error) if isinstance(error, SaveError) else full_disk(error)
        if told is None:
            raise
        raise SaveError(
            f"{told}. The ledger of {folder} is whole: make space, then start the same search again"
        ) from error
