"""What entries amount to, when a trial stops early, and candidates from outside."""

import json

import pytest

from training.search.early_stop import why_stop
from training.search.entries import Asked, Finished, Measured
from training.search.replay import Replay
from training.search.seeds import read_candidates
from training.search.space import Candidate
from training.search.strategies import STRATEGIES
from training.search.trial import Point


def replay(entries=()):
    found = Replay(lambda header: STRATEGIES[header.strategy](header.space, seed=header.seed))
    for entry in entries:
        found.take(entry)
    return found


def a_trial(toy, number, candidate, why="strategy"):
    point = toy.point(candidate, 50)
    return [
        Asked(trial=number, candidate=candidate, why=why, worker="w", at=0.0),
        Measured(trial=number, point=point),
        Finished(trial=number, outcome="complete", steps=50, seconds=1.0, at=0.0),
    ]


@pytest.mark.parametrize("name", list(STRATEGIES))
def test_a_strategy_that_is_told_again_proposes_the_same(toy, name):
    entries = [toy.header(strategy=name)]
    live = replay(entries)
    for number in range(11):
        candidate, why = (toy.space().anchors()[number], "anchor") if number < 2 else (live.propose(), "strategy")
        new = a_trial(toy, number, candidate, why)
        entries += new
        for entry in new:
            live.take(entry)
    assert replay(entries).propose() == live.propose()


def test_what_is_written_counts_where_a_strategy_would_have_proposed_something_else(toy):
    other = Candidate(mask=(True,) * 6, values={"learning_rate": 1e-4, "rank": 8})
    entries = [toy.header(), *a_trial(toy, 0, other)]
    found = replay(entries)
    assert found.trials[0].candidate == other
    # it is known to the strategy, which goes on with what comes second
    assert found.propose().key != other.key
    assert found.propose() == replay(entries).propose()


def points(*pairs, low=None):
    metrics = {} if low is None else {"copy-rate-low(latents, N=64)": low}
    return [Point(step=k, quality=q, copying=c, metrics=metrics) for k, (q, c) in enumerate(pairs, 1)]


@pytest.mark.parametrize(
    ("found", "limit", "stops"),
    [
        (points((5, 0.1)), 0.2, False),
        (points((5, 0.3)), 0.2, True),
        (points((5, 0.3), low=0.15), 0.2, False),
        (points((5, 0.4), low=0.25), 0.2, True),
        (points((5, 0.3)), None, False),
        # copying rises
        (points((5, 0.1), (5, 0.2), (6, 0.3)), None, True),
        (points((5, 0.1), (5, 0.2)), None, False),
        (points((5, 0.1), (4, 0.2), (6, 0.3)), None, False),
        (points((5, 0.1), (5, 0.2), (6, 0.2)), None, False),
        # quality alone never stops
        (points((5, 0.1), (6, 0.1), (7, 0.1), (8, 0.1)), None, False),
        # what is no number is not looked at
        (points((5, 0.1), (float("nan"), 0.2), (6, 0.3)), None, False),
        ([], 0.2, False),
    ],
)
def test_a_trial_stops_for_copying_and_never_for_quality_alone(found, limit, stops):
    assert (why_stop(found, limit) is not None) == stops


def write(tmp_path, content):
    path = tmp_path / "seeds.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


VALUES = {"learning_rate": 1e-4, "rank": 8}


def test_candidates_from_outside_are_read_by_names_or_bits(toy, tmp_path):
    path = write(tmp_path, [{"sites": ["site1", "site5"], "values": VALUES}, {"mask": "010001", "values": VALUES}])
    one, two = read_candidates(path, toy.space())
    assert one.key == two.key and one.mask == (False, True, False, False, False, True)
    path = write(tmp_path, [{"mask": "010001", "values": {**VALUES, "rank": 8.0}}])
    assert read_candidates(path, toy.space())[0].key == one.key


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("[{", "is no JSON"),
        ({}, "must be a list of candidates, is dict"),
        (["x"], "candidate 1: must be an object"),
        ([{"mask": "000000", "values": VALUES}, {"mask": "000000"}], "candidate 2: learning_rate, rank"),
        ([{"sites": ["site9"], "values": VALUES}], r"candidate 1: unknown site 'site9'; did you mean 'site"),
        ([{"sites": "site1", "values": VALUES}], "sites must be a list"),
        ([{"values": VALUES}], "give either sites"),
        ([{"mask": "01", "values": VALUES}], "2 bits: this space has 6"),
        ([{"mask": "01000x", "values": VALUES}], "text of 0 and 1"),
        ([{"mask": [1], "values": VALUES}], "text of 0 and 1"),
        ([{"mask": "010001", "values": {**VALUES, "learning_rate": 1}}], "learning_rate 1"),
        ([{"mask": "010001", "values": {**VALUES, "rank": "8"}}], "rank '8'"),
        ([{"mask": "010001", "values": [1]}], "values must be an object"),
        ([{"mask": "010001", "rates": {}}], "unknown key 'rates'"),
        ('[{"mask": "010001", "values": {"rank": 8, "learning_rate": NaN}}]', "learning_rate nan"),
    ],
)
def test_a_wrong_candidate_is_named_with_its_place(toy, tmp_path, content, told):
    with pytest.raises(ValueError, match=told):
        read_candidates(write(tmp_path, content), toy.space())


def test_a_missing_file_of_candidates_is_told(toy, tmp_path):
    with pytest.raises(ValueError, match="cannot be read"):
        read_candidates(tmp_path / "none.json", toy.space())
