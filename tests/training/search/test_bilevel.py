"""The outer loop: what comes when, what ends it, and what goes wrong."""

import itertools
import json
import math
from contextlib import closing
from dataclasses import replace

import pytest

from training.owners import this_worker
from training.search.entries import Asked, Budget, Extended, Finished, LedgerError, Measured, Taken
from training.search.ledger import open_ledger
from training.search.space import Candidate, Choice, Space
from training.search.study import open_study


@pytest.fixture
def search(toy, tmp_path):
    """Runs a search of the toy to its end."""
    from training.search.bilevel import bilevel

    def run(inner=toy.inner, folder=tmp_path / "study", storage=None, seeds=(), **changes):
        return list(bilevel(folder, toy.header(**changes), inner, storage=storage, seeds=seeds))

    return run


def asked(entries):
    return [entry for entry in entries if isinstance(entry, Asked)]


def test_the_anchors_come_first_then_seeds_then_the_strategy(search, toy):
    seed = Candidate(mask=(True, False) * 3, values={"learning_rate": 1e-4, "rank": 8})
    entries = search(seeds=[seed], budget=Budget(trials=6))
    assert [entry.why for entry in asked(entries)] == ["anchor", "anchor", "seed", "strategy", "strategy", "strategy"]
    assert [sum(entry.candidate.mask) for entry in asked(entries)[:2]] == [0, 6]
    assert asked(entries)[2].candidate == seed
    assert entries[-1].reason == "the budget of 6 trials is used"


def test_every_checkpoint_is_on_record_and_competes(search, tmp_path):
    search(early_stop=False)
    study = open_study(tmp_path / "study")
    assert [trial.outcome for trial in study.trials()] == ["complete"] * 12
    assert len(study.points()) == 12 * 5
    front = study.front()
    assert {result.point.step for result in front} - {50}
    assert all(
        a.objectives[0] < b.objectives[0] and a.objectives[1] > b.objectives[1] for a, b in itertools.pairwise(front)
    )
    assert study.knee() in front
    best = study.best_within(0.2)
    assert best.point.copying <= 0.2
    assert best.adapter == tmp_path / "study" / best.point.path
    spent = study.spent()
    assert (spent.trials, spent.finished, spent.steps) == (12, 12, 12 * 50)
    assert spent.train_seconds == pytest.approx(12 * 15) and spent.judge_seconds == pytest.approx(15)


def test_a_hypervolume_without_a_reference_is_measured_from_beyond_the_anchors(search, tmp_path):
    search(reference=None, budget=Budget(trials=3))
    study = open_study(tmp_path / "study")
    anchors = [point for trial in study.trials()[:2] for point in trial.points]
    reference = (1.1 * max(p.quality for p in anchors), 1.1 * max(p.copying for p in anchors))
    assert study.reference() == pytest.approx(reference)
    assert study.hypervolume() > 0


def test_a_finished_search_does_nothing_when_it_is_started_again(search, tmp_path):
    search()
    before = (tmp_path / "study" / "ledger.jsonl").read_bytes()
    assert len(search()) == 1
    assert (tmp_path / "study" / "ledger.jsonl").read_bytes() == before


def test_a_search_that_is_closed_goes_on_with_the_same_trial(toy, search, tmp_path):
    from training.search.bilevel import bilevel

    search(folder=tmp_path / "straight")
    events = bilevel(tmp_path / "study", toy.header(), toy.inner)
    for entry in events:
        if isinstance(entry, Measured) and entry.trial == 5 and entry.point.step == 20:
            break
    events.close()
    search()
    one, two = open_study(tmp_path / "straight"), open_study(tmp_path / "study")
    assert [replace(t, worker="") for t in one.trials()] == [replace(t, worker="") for t in two.trials()]
    trained = (tmp_path / "study" / "trial-5" / "trained.txt").read_text().split()[1::2]
    assert trained == [str(point.step) for point in two.trials()[5].points]


def test_a_budget_of_steps_counts_what_stopped_trials_made(search, tmp_path):
    entries = search(budget=Budget(steps=250, steps_each=50))
    study = open_study(tmp_path / "study")
    assert any(trial.outcome == "stopped" for trial in study.trials())
    assert [trial.outcome for trial in study.trials()[:2]] == ["complete", "complete"]
    assert 200 < study.spent().steps <= 250
    assert "a trial needs 50" in entries[-1].reason


def test_a_study_goes_on_under_a_larger_budget_only(search, tmp_path):
    search(budget=Budget(trials=4))
    entries = search(budget=Budget(trials=6))
    assert isinstance(entries[0], Extended) and len(asked(entries)) == 2
    assert open_study(tmp_path / "study").budget == Budget(trials=6)
    with pytest.raises(LedgerError, match="budget of 6 trials, not 4 trials"):
        search(budget=Budget(trials=4))


def test_a_study_whose_folder_has_another_name_now_is_gone_on_with(search):
    search(budget=Budget(trials=2), name="before")
    assert len(asked(search(budget=Budget(trials=4), name="after"))) == 2


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"seed": 1}, "seed 0, not 1"),
        ({"strategy": "random"}, "strategy 'memcontrol-2', not 'random'"),
        ({"fingerprint": {"data": "b"}}, "fingerprint.data 'a', not 'b'"),
        ({"space": Space(sites=("x",))}, "space.sites"),
    ],
)
def test_a_study_is_not_gone_on_with_under_another_header(search, changes, told):
    search(budget=Budget(trials=2), fingerprint={"data": "a"})
    with pytest.raises(LedgerError, match=told):
        search(**{"budget": Budget(trials=2), "fingerprint": {"data": "a"}, **changes})


def test_a_repeated_proposal_is_answered_from_the_ledger_and_a_small_space_comes_to_its_end(search, toy, tmp_path):
    small = Space(sites=("a", "b"), numbers={"rank": Choice(options=(4, 8))})
    trained = []

    def counted(candidate, folder):
        trained.append(candidate.key)
        yield from toy.inner(candidate, folder)

    entries = search(counted, space=small, strategy="tpe", budget=Budget(trials=50))
    assert sorted(trained) == sorted(candidate.key for candidate in small.every())
    first = {entry.candidate.key: entry.trial for entry in asked(entries) if entry.why != "repeat"}
    repeats = [entry for entry in asked(entries) if entry.why == "repeat"]
    assert repeats and all(entry.trial == first[entry.candidate.key] for entry in repeats)
    assert entries[-1].reason == "there is no candidate left that was not trained"
    assert len(open_study(tmp_path / "study").trials()) == 8


def test_a_failed_trial_is_recorded_and_the_search_goes_on(search, toy, tmp_path):
    def fragile(candidate, folder):
        for number, point in enumerate(toy.inner(candidate, folder)):
            if folder.name == "trial-1" and number == 2:
                raise RuntimeError("too many sites")
            yield point

    search(fragile)
    study = open_study(tmp_path / "study")
    assert len(study.trials()) == 12 and study.spent().failed == 1
    failed = study.trials()[1]
    assert (failed.outcome, failed.reason, failed.steps) == ("failed", "RuntimeError: too many sites", 20)
    # it may not be the candidate's fault, so a strategy is told nothing
    assert failed.result == []


def test_three_failures_in_a_row_end_the_search_with_the_first(search, tmp_path):
    from training.search.bilevel import SearchError

    def broken(candidate, folder):
        raise RuntimeError(f"failure of {folder.name}")
        yield

    with pytest.raises(SearchError, match=r"failure of trial-0.*mend that"):
        search(broken)
    assert open_study(tmp_path / "study").spent().failed == 3


def test_candidates_that_diverge_do_not_end_the_search(search, toy, tmp_path):
    def diverging(candidate, folder):
        for point in toy.inner(candidate, folder):
            if folder.name in ("trial-2", "trial-3", "trial-4", "trial-5"):
                raise FloatingPointError("the losses are nan")
            yield point

    search(diverging)
    study = open_study(tmp_path / "study")
    assert (study.spent().failed, study.spent().finished) == (4, 12)
    # a strategy is told that they ended worse than any other
    assert all(trial.result == [(math.inf, math.inf)] for trial in study.trials()[2:6])


def test_a_trial_that_nobody_goes_on_with_is_told_once_it_is_over(toy, tmp_path):
    from training.search.bilevel import bilevel

    over = []

    def fragile(candidate, folder):
        for point in toy.inner(candidate, folder):
            if folder.name == "trial-3":
                raise FloatingPointError("the losses are nan")
            yield point

    def going():
        return bilevel(tmp_path / "study", toy.header(), fragile, on_end=lambda folder: over.append(folder.name))

    events = going()
    for entry in events:
        if isinstance(entry, Measured) and entry.trial == 5 and entry.point.step == 20:
            break
    events.close()
    assert over == [f"trial-{k}" for k in range(5)]  # trial 5 is gone on with
    over.clear()
    list(going())  # what a killed worker may have left is cleaned as well
    outcomes = {trial.outcome for trial in open_study(tmp_path / "study").trials()}
    assert over == [f"trial-{k}" for k in range(12)] and outcomes == {"complete", "stopped", "failed"}


@pytest.mark.parametrize("odd", [math.nan, math.inf])
def test_a_number_that_is_not_finite_is_null_in_the_ledger_and_competes_on_no_front(search, toy, tmp_path, odd):
    def diverging(candidate, folder):
        for point in toy.inner(candidate, folder):
            yield replace(point, quality=odd if folder.name == "trial-1" else point.quality, metrics={"kd": odd})

    search(diverging)
    lines = (tmp_path / "study" / "ledger.jsonl").read_text().splitlines()
    entries = [json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} in JSON")) for line in lines]
    (first, *_) = [entry for entry in entries if entry["entry"] == "point" and entry["trial"] == 1]
    assert first["point"]["quality"] is None and first["point"]["metrics"] == {"kd": None}
    assert "not finite" in first["note"]
    study = open_study(tmp_path / "study")
    assert study.trials()[1].outcome == "complete" and study.trials()[1].result == [(math.inf, math.inf)]
    assert {result.trial.number for result in study.points()} == set(range(12)) - {1}


def test_a_full_disk_loses_nothing_and_the_search_goes_on_when_there_is_space(search, processes, tmp_path):
    study = tmp_path / "study"
    told = processes("starve", study, largest=6000)["told"]
    assert "ledger.jsonl could not be written" in told and "make space" in told
    whole = (study / "ledger.jsonl").read_bytes()
    assert whole.endswith(b"\n") and 5000 < len(whole) <= 6000
    search(), search(folder=tmp_path / "straight")
    one, two = open_study(tmp_path / "straight"), open_study(study)
    assert [replace(t, worker="") for t in one.trials()] == [replace(t, worker="") for t in two.trials()]
    assert (study / "ledger.jsonl").read_bytes().startswith(whole)


def test_a_full_disk_of_the_inner_training_is_no_failure_of_the_trial(search, toy, tmp_path):
    from training.checkpoint import SaveError

    def full(candidate, folder):
        yield toy.point(candidate, 10)
        raise OSError(28, "No space left on device", str(folder / "adapter"))

    with pytest.raises(SaveError, match=r"adapter could not be written: No space left.*make space"):
        search(full)
    assert [trial.outcome for trial in open_study(tmp_path / "study").trials()] == [None]
    search()
    assert open_study(tmp_path / "study").trials()[0].outcome == "complete"


def test_a_trial_that_another_worker_has_taken_over_is_left_to_it(toy, tmp_path):
    """As when a machine was asleep for longer than a lease lasts."""
    from training.search.bilevel import bilevel

    study = tmp_path / "study"
    sleeper = bilevel(
        study, toy.header(budget=Budget(trials=3)), lambda c, f: iter([toy.point(c, s) for s in toy.STEPS])
    )
    for entry in sleeper:
        if isinstance(entry, Measured):
            break
    (study / "leases" / "trial-0.json").unlink()
    others = list(bilevel(study, toy.header(budget=Budget(trials=3)), toy.inner))
    assert any(isinstance(entry, Finished) and entry.trial == 0 for entry in others)
    (ended,) = list(sleeper)
    assert ended.running == 0
    assert [len(trial.points) for trial in open_study(study).trials()] == [5, 5, 4]


def test_a_trial_that_takes_worker_after_worker_with_it_has_failed(search, toy, tmp_path):
    """As one does that needs more memory than there is, for which the system kills."""
    from training.search.bilevel import DEATHS, bilevel

    def until_the_first(kind):
        events = bilevel(tmp_path / "study", toy.header(), toy.inner)
        next(entry for entry in events if isinstance(entry, kind))
        events.close()

    until_the_first(Asked)
    # one that is stopped does not die
    for _ in range(DEATHS):
        until_the_first(Taken)
    for _ in range(DEATHS):
        with closing(open_ledger(tmp_path / "study")) as ledger, ledger.exclusive():
            ledger.leases.take(0, replace(this_worker(), born="1"))
        assert open_study(tmp_path / "study").trials()[0].outcome is None
        until_the_first(Taken)
    search()
    study = open_study(tmp_path / "study")
    assert study.trials()[0].outcome == "failed" and "enough memory" in study.trials()[0].reason
    assert study.spent().finished == 12 and study.spent().failed == 1


def test_what_has_no_study_says_so(tmp_path):
    with pytest.raises(LedgerError, match="holds no study"):
        open_study(tmp_path)
