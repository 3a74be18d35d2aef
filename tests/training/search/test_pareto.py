"""Fronts, what they cover, and which point to take."""

import pytest


def itself(point):
    return point


def test_a_front_has_the_points_that_no_other_beats():
    from training.search.pareto import front

    points = [(3, 1), (1, 3), (2, 2), (2, 3), (3, 3), (2, 2)]
    assert front(points, itself) == [(1, 3), (2, 2), (3, 1)]
    assert front([], itself) == []


def test_a_hypervolume_is_the_area_behind_the_points():
    from training.search.pareto import hypervolume

    # two squares of 1 x 2 and 2 x 1 that share one of 1 x 1
    assert hypervolume([(1, 2), (2, 1), (2, 2)], (3, 3)) == 3
    assert hypervolume([(4, 0)], (3, 3)) == 0
    assert hypervolume([(0, 0)], (3, 2)) == 6


def test_the_knee_is_the_point_that_is_good_at_both():
    from training.search.pareto import knee

    assert knee([(0, 10), (1, 2), (10, 0), (4, 1.9)], itself) == (1, 2)
    assert knee([(5, 5)], itself) == (5, 5)
    with pytest.raises(ValueError, match="no points"):
        knee([], itself)


def test_a_limit_on_copying_takes_the_best_quality_within_it():
    from training.search.pareto import best_within

    points = [(1, 0.5), (2, 0.1), (3, 0.05)]
    assert best_within(points, itself, 0.1) == (2, 0.1)
    assert best_within(points, itself, 0.01) is None
