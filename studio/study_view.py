"""A study as the page shows it: every checkpoint as a dot, what the search has won and spent, how long more takes."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from studio.errors import RequestError
from studio.search_report import Finals, Row, choose, judged, name_of, read_finals, row_of, rows_of
from studio.studies import Place
from training.search import pareto
from training.search.entries import LedgerError
from training.search.study import Study, open_study

Role = Literal["front", "anchor", "other"]
NO_LIMIT: Final = 1.0
"""A copy rate that every model has at most."""


@dataclass(frozen=True, kw_only=True)
class Dot:
    """A checkpoint that competes."""

    name: str
    """TRIAL:STEP."""
    trial: int
    step: int
    quality: float
    copying: float
    role: Role
    share: float
    """Of the sites, those that are trained; 0..1."""
    why: str
    """Where the candidate came from."""


@dataclass(frozen=True, kw_only=True)
class StudyView:
    """All that is drawn of a study, read at one moment."""

    place: Place
    name: str
    strategy: str
    objectives: tuple[str, str]
    sites: tuple[str, ...]
    limit: float | None
    dots: tuple[Dot, ...]
    rows: tuple[Row, ...]
    """The front."""
    won: tuple[tuple[int, float], ...]
    """The hypervolume after so many trials."""
    budget: str
    budget_trials: int | None
    budget_steps: int | None
    seed: int
    """Of the strategy."""
    used: float
    """Of the budget, 0..1."""
    trials: int
    steps: int
    seconds: float
    """Of training and measuring."""
    running: tuple[int, ...]
    """Trials that are not finished."""
    failed: tuple[tuple[int, str], ...]
    """Trials that failed, and why."""
    recommended: str | None
    """The point to take."""

    def dot(self, name: str | None) -> Dot | None:
        """A checkpoint by its name."""
        return next((dot for dot in self.dots if dot.name == name), None)


def open_place(place: Place) -> Study:
    """Opens a study.

    Raises:
        RequestError: there is none, or its ledger is damaged or out of reach.
    """
    try:
        return open_study(place.folder, place.storage, name=place.name)
    except LedgerError as error:
        raise RequestError(str(error)) from error


def view_of(place: Place, *, limit: float | None = None) -> StudyView:
    """Reads a study, also while it runs.

    Args:
        limit: the highest copy rate that is acceptable; None: the study's own, or the knee where it has none;
            `NO_LIMIT`: the knee.

    Raises:
        RequestError: there is none, or its ledger is damaged or out of reach.
    """
    study = open_place(place)
    finals, trials = _finals(study.folder), study.trials()
    rows, spent = rows_of(study, finals), study.spent()
    return StudyView(
        place=place,
        name=study.header.name,
        strategy=study.header.strategy,
        objectives=study.header.objectives,
        sites=study.header.space.sites,
        limit=study.header.limit,
        dots=_dots(study, {row.name for row in rows}),
        rows=tuple(rows),
        won=tuple(_won(study)),
        budget=str(study.budget),
        budget_trials=study.budget.trials,
        budget_steps=study.budget.steps,
        seed=study.header.seed,
        used=_used(study),
        trials=spent.trials,
        steps=spent.steps,
        seconds=spent.train_seconds + spent.judge_seconds,
        running=tuple(trial.number for trial in trials if trial.outcome is None),
        failed=tuple((t.number, t.reason or "no reason given") for t in trials if t.outcome == "failed"),
        recommended=recommend(study, finals, limit),
    )


def recommend(study: Study, finals: Finals, limit: float | None) -> str | None:
    """The name of the point to take; None where there is none within the limit."""
    if limit is not None and limit >= NO_LIMIT:
        found = study.front()
        return name_of(pareto.knee(found, judged(study, finals))) if found else None
    chosen = choose(study, finals, limit=limit)
    return None if chosen is None else name_of(chosen)


def point_of(place: Place, name: str) -> Row:
    """Any checkpoint with all that is known of it, also one that is not on the front.

    Raises:
        RequestError: there is none of that name.
    """
    study = open_place(place)
    found = next((result for result in study.points() if name_of(result) == name), None)
    if found is None:
        raise RequestError(f"the study has no point {name}; take one of the chart")
    return row_of(study, found, _finals(study.folder))


def _finals(folder: Path) -> Finals:
    try:
        return read_finals(folder)
    except (OSError, ValueError):
        return {}  # it is written anew at the end of every search


def _dots(study: Study, front: set[str]) -> tuple[Dot, ...]:
    found = []
    for result in study.points():
        mask, name = result.candidate.mask, name_of(result)
        anchor = result.trial.why == "anchor"
        found.append(
            Dot(
                name=name,
                trial=result.trial.number,
                step=result.point.step,
                quality=result.point.quality,
                copying=result.point.copying,
                share=sum(mask) / max(1, len(mask)),
                why=result.trial.why,
                role="front" if name in front else "anchor" if anchor else "other",
            )
        )
    return tuple(found)


def _won(study: Study) -> list[tuple[int, float]]:
    reference = study.reference()
    if reference is None:
        return []
    found, points = [], []
    for done, trial in enumerate(study.trials(), 1):
        points += [point.objectives for point in trial.points if point.competes]
        found.append((done, pareto.hypervolume(points, reference)))
    return found


def _used(study: Study) -> float:
    budget, spent = study.budget, study.spent()
    if budget.trials is not None:
        return min(1.0, spent.finished / budget.trials)
    return min(1.0, spent.steps / (budget.steps or 1))


@dataclass(frozen=True, kw_only=True)
class Rate:
    """What studies of one kind cost."""

    per_step: float
    """Seconds."""
    per_sample: float
    """Seconds of measuring, for a picture that is made."""
    studies: int
    """How many it was learned from."""

    def seconds(self, *, trials: int, steps: int, looks: int, samples: int) -> float:
        """Of so many trials: steps of training and looks of so many samples each."""
        return trials * (steps * self.per_step + looks * samples * self.per_sample)


def learn_rate(told: Sequence[tuple[Study, dict[str, Any]]], *, model: str, method: str) -> Rate | None:
    """How fast earlier studies of the same model and method were; None where there were none.

    Args:
        told: studies with their setup.json.
    """
    steps, samples = [], []
    for study, setup in told:
        config = setup.get("config", {})
        if (config.get("model"), config.get("method")) != (model, method):
            continue
        each = int(setup.get("search", {}).get("samples") or 1)
        points = [point for trial in study.trials() for point in trial.points]
        trained = sum(trial.steps for trial in study.trials())
        if points and trained:
            steps.append(sum(point.train_seconds for point in points) / trained)
            samples.append(statistics.median(point.judge_seconds for point in points) / each)
    if not steps:
        return None
    return Rate(per_step=statistics.median(steps), per_sample=statistics.median(samples), studies=len(steps))


def left_of(view: StudyView) -> float | None:
    """Seconds until the budget is used, as fast as it was so far; None where nothing is known yet."""
    done = view.trials - len(view.running)
    if not done or not view.used or view.used >= 1:
        return None
    return view.seconds * (1 - view.used) / view.used
