"""Who covers whom, against closed forms."""

import math

import pytest
import torch


def normal(count, dim=5, seed=0, shift=0.0):
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)) + shift


def test_the_same_set_is_covered_whole():
    from training.metrics.coverage import support

    points = normal(40)
    found = support(points, points.clone(), k=3)
    # a point lies in the ball of all that count it among their three nearest, and in its own: 3 + 1 balls on average
    assert (found.precision, found.recall, found.coverage, found.density) == (1, 1, 1, pytest.approx(4 / 3))
    assert (found.k, found.generated, found.real) == (3, 40, 40)


def test_sets_far_apart_cover_nothing():
    from training.metrics.coverage import support

    found = support(normal(40), normal(30, seed=1, shift=100.0))
    assert (found.precision, found.recall, found.density, found.coverage) == (0, 0, 0, 0)


def test_points_on_a_line_by_hand():
    from training.metrics.coverage import support

    real = torch.tensor([[0.0], [1.0], [2.0]])  # k = 1: balls of 1
    generated = torch.tensor([[0.5], [0.75], [9.0]])  # k = 1: balls of 0.25, 0.25 and 8.25
    found = support(generated, real, k=1)
    assert found.precision == pytest.approx(2 / 3)
    assert found.recall == pytest.approx(2 / 3)  # 1 is just within 0.25 of 0.75, 2 is within 8.25 of 9, 0 in no ball
    assert found.density == pytest.approx((2 + 2) / 3)  # 0.5: balls of 0 and 1; 0.75: the same; 9: none
    assert found.coverage == pytest.approx(2 / 3)  # nothing is within 1 of 2


def test_sets_of_one_kind_have_the_coverage_and_density_of_the_paper():
    from training.metrics.coverage import expected_coverage, support

    found = [support(normal(40, seed=k), normal(60, seed=k + 1000)) for k in range(60)]
    assert sum(s.coverage for s in found) / 60 == pytest.approx(expected_coverage(40, 60), abs=0.02)
    assert sum(s.density for s in found) / 60 == pytest.approx(1, abs=0.05)
    assert expected_coverage(10**6, 10**6, k=3) == pytest.approx(1 - 1 / 8, abs=1e-5)


def test_a_collapsed_set_is_precise_and_covers_little():
    from training.metrics.coverage import coverage, recall, support

    real = normal(200)
    collapsed = real[:1] + 0.01 * normal(200, seed=1)
    assert support(collapsed, real).precision == 1
    assert coverage(collapsed, real) < 0.1 and recall(collapsed, real) < 0.1
    assert coverage(normal(200, seed=2), real) > 0.7 < recall(normal(200, seed=2), real)


def test_many_points_are_taken_some_at_a_time_with_the_same_result(monkeypatch):
    from training.metrics import coverage as module

    whole = module.support(normal(50), normal(30, seed=1))
    monkeypatch.setattr(module, "_ROWS", 7)
    assert module.support(normal(50), normal(30, seed=1)) == whole


def test_too_few_points_are_refused_with_what_is_needed():
    from training.metrics.coverage import support
    from training.metrics.memorization import TooFewError

    with pytest.raises(
        TooFewError, match="with 3 neighbours need 7 pictures a side, there are 6 generated and 40 real"
    ):
        support(normal(6), normal(40))
    with pytest.raises(ValueError, match="k must be 1 or more, got 0"):
        support(normal(40), normal(40), k=0)


@pytest.mark.parametrize("dim", [12, 200])
def test_the_vendi_score_counts_what_differs(dim):
    from training.metrics.coverage import vendi_score

    axes = torch.eye(dim)[:12]
    assert vendi_score(axes) == pytest.approx(12)
    assert vendi_score(axes[:1].expand(12, dim)) == pytest.approx(1)
    assert vendi_score(axes[:4].repeat(3, 1)) == pytest.approx(4)
    assert vendi_score(5 * axes) == pytest.approx(12)


def test_the_vendi_score_of_two_pictures_by_hand():
    from training.metrics.coverage import vendi_score

    # eigenvalues of [[1, c], [c, 1]] / 2 are (1 + c) / 2 and (1 - c) / 2
    c = 0.6
    entropy = -(0.8 * math.log(0.8) + 0.2 * math.log(0.2))
    assert vendi_score(torch.tensor([[1.0, 0.0], [c, 0.8]])) == pytest.approx(math.exp(entropy))


def test_there_is_no_vendi_score_of_nothing():
    from training.metrics.coverage import vendi_score
    from training.metrics.memorization import TooFewError

    with pytest.raises(TooFewError, match="there are none"):
        vendi_score(torch.empty(0, 4))
