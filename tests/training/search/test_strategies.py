"""Every strategy against what the search relies on, on a formula."""

import math

import pytest

SITES = tuple(f"site{k}" for k in range(8))


def space():
    from training.search.space import Choice, LogUniform, Space

    return Space(
        sites=SITES,
        numbers={"learning_rate": LogUniform(low=1e-5, high=1e-3), "rank": Choice(options=(4, 8, 16))},
    )


def names():
    from training.search.strategies import STRATEGIES

    return list(STRATEGIES)


def strategy(name, seed=0, among=None):
    from training.search.strategies import STRATEGIES

    return STRATEGIES[name](among or space(), seed=seed)


def result(candidate):
    """Quality grows with what is trained, copying faster."""
    on = sum(candidate.mask)
    return [(10.0 - on + candidate.values["rank"] / 100, (on / 8) ** 2)]


@pytest.mark.parametrize("name", names())
def test_candidates_are_of_the_space(name):
    searcher, where = strategy(name), space()
    for _ in range(14):
        candidate = searcher.ask()
        where.check(candidate)
        searcher.tell(candidate, result(candidate))


@pytest.mark.parametrize("name", names())
def test_the_same_seed_proposes_the_same(name):
    one, two = strategy(name), strategy(name)
    for _ in range(12):
        first, second = one.ask(), two.ask()
        assert first == second
        one.tell(first, result(first))
        two.tell(second, result(second))
    assert strategy(name, seed=1).ask() != strategy(name, seed=0).ask()


@pytest.mark.parametrize("name", names())
def test_what_another_trained_or_what_failed_can_be_told(name):
    from training.search.space import Candidate

    searcher = strategy(name)
    other = Candidate(mask=(True,) * 8, values={"learning_rate": 1e-4, "rank": 8})
    searcher.tell(other, result(other))
    for points in ([], [(math.inf, math.inf)], [(1.0, 0.2), (math.inf, math.inf)]):
        searcher.tell(searcher.ask(), points)
    searcher.tell(other, [(math.inf, math.inf)])
    space().check(searcher.ask())


@pytest.mark.parametrize("name", ["tpe", "tpe-multivariate", "memcontrol-2"])
def test_what_diverges_is_proposed_less(name):
    """Training diverges where the first site is on."""
    searcher, asked = strategy(name), []
    for _ in range(50):
        asked.append(searcher.ask())
        searcher.tell(asked[-1], [(math.inf, math.inf)] if asked[-1].mask[0] else result(asked[-1]))
    assert sum(candidate.mask[0] for candidate in asked[-20:]) <= 6


@pytest.mark.parametrize("name", ["tpe", "tpe-multivariate", "memcontrol-2", "gp", "nsga2-10"])
def test_a_limit_leads_away_from_what_copies_more(name):
    """The more is trained the better, and the more is copied."""
    from training.search.strategies import STRATEGIES

    found = {}
    for limit in (None, 0.2):
        searcher = STRATEGIES[name](space(), seed=0, limit=limit)
        for _ in range(40):
            candidate = searcher.ask()
            searcher.tell(candidate, result(candidate))
        after = [searcher.ask() for _ in range(10)]
        found[limit] = sum(result(candidate)[0][1] <= 0.2 for candidate in after)
    assert found[0.2] > found[None]


def test_the_default_goes_through_all_capacities_first():
    found = {}
    for seed in (0, 1):
        searcher = strategy("memcontrol-2", seed)
        found[seed] = [searcher.ask() for _ in range(8)]
    for candidates in found.values():
        assert sorted(sum(c.mask) for c in candidates) == [1, 2, 3, 4, 5, 6, 7, 8]
        assert len({c.values["learning_rate"] for c in candidates}) == 8
    assert [sum(c.mask) for c in found[0]] != [sum(c.mask) for c in found[1]]


@pytest.mark.parametrize("sites", [("a", "b", "c"), ("all",), ()])
@pytest.mark.parametrize("seed", range(5))
def test_the_default_spreads_numbers_as_it_spreads_capacities(sites, seed):
    from training.search.space import LogUniform, Space

    ranges = {"learning_rate": LogUniform(low=1e-4, high=1e-2), "gain": LogUniform(low=1.0, high=10.0)}
    searcher = strategy("memcontrol-2", seed, Space(sites=sites, numbers=ranges))
    first = [searcher.ask().values for _ in range(8)]
    for name, kind in ranges.items():
        places = [math.log(v[name] / kind.low) / math.log(kind.high / kind.low) for v in first]
        assert sorted(int(8 * u) for u in places) == list(range(8))
        assert sorted(int(2 * u) for u in places[:2]) == [0, 1], "two already lie on both sides"


def test_the_default_learns_from_every_checkpoint():
    """Two that differ before their end alone lead to other proposals."""
    proposals = []
    for early in (0.5, 5.0):
        searcher = strategy("memcontrol-2")
        for _ in range(20):
            candidate = searcher.ask()
            best = early if candidate.mask[0] else 5.5 - early
            searcher.tell(candidate, [(best, best), (9.0, 1.0)])
        proposals.append([candidate.mask[0] for candidate in (searcher.ask() for _ in range(12))])
    # the first bit is good at the first checkpoint, or bad
    assert sum(proposals[0]) > sum(proposals[1]) + 2


def test_the_default_proposes_nothing_twice_while_there_is_something_else():
    searcher, seen = strategy("memcontrol-2"), set()
    for _ in range(40):
        candidate = searcher.ask()
        assert candidate.key not in seen
        seen.add(candidate.key)
        searcher.tell(candidate, result(candidate))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"mask": (True,)}, "has 8 sites"),
        ({"values": {"rank": 4}}, "learning_rate"),
        ({"values": {"rank": 5, "learning_rate": 1e-4}}, "rank 5"),
        ({"values": {"rank": 4, "learning_rate": 1.0}}, "learning_rate 1.0"),
    ],
)
def test_a_candidate_of_another_space_is_refused(change, told):
    from training.search.space import Candidate

    values = {"mask": (True,) * 8, "values": {"learning_rate": 1e-4, "rank": 8}, **change}
    with pytest.raises(ValueError, match=told):
        space().check(Candidate(**values))


def test_an_empty_space_and_a_wrong_range_are_refused():
    from training.search.space import LogUniform, Space

    with pytest.raises(ValueError, match="nothing to choose"):
        Space(sites=())
    with pytest.raises(ValueError, match="twice"):
        Space(sites=("a", "a"))
    with pytest.raises(ValueError, match="above 0"):
        LogUniform(low=0, high=1)


def test_candidates_of_another_study_are_brought_into_a_space():
    from training.search.seeds import seeds_of

    found = seeds_of(
        [
            (("site0", "site7", "elsewhere"), {"learning_rate": 1e-2, "rank": 9, "stop_step": 300}),
            (("site0", "site7"), {"learning_rate": 1e-3, "rank": 8}),
            (("elsewhere",), {"learning_rate": 1e-4, "rank": 8}),
            (("site1",), {}),
        ],
        space(),
    )
    for candidate in found:
        space().check(candidate)
    # a rate above the range goes to its end and a rank to the nearest; then it is the second one
    assert [sum(candidate.mask) for candidate in found] == [2, 1]
    assert found[0].values == {"learning_rate": 1e-3, "rank": 8}
    assert found[1].values == {"learning_rate": pytest.approx(1e-4), "rank": 8}
