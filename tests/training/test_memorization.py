"""Figures of memorization, on sets whose copies are known."""

import pytest
import torch

DIM = 16


def cloud(count, seed):
    return torch.randn(count, DIM, generator=torch.Generator().manual_seed(seed))


def copies(trained, count, noise=0.01):
    picked = trained[torch.arange(count) % len(trained)]
    return picked + noise * cloud(count, 99)


def test_without_copying_the_copy_rate_is_at_its_background():
    from training.metrics.memorization import copy_rate

    rate = copy_rate(cloud(400, 0), cloud(100, 1), cloud(400, 2))
    assert rate.background == 0.05 and rate.low <= 0.05 <= rate.high and not rate.above_background


def test_copies_are_counted():
    from training.metrics.memorization import copy_rate

    trained = cloud(100, 1)
    made = torch.cat([copies(trained, 50), cloud(50, 0)])
    rate = copy_rate(made, trained, cloud(400, 2))
    assert 0.5 <= rate.value <= 0.6 and rate.above_background and rate.count == 100


def test_too_few_held_out_pictures_are_refused_with_what_is_needed():
    from training.metrics.memorization import TooFewError, copy_rate, membership, neighbour_ratio

    with pytest.raises(TooFewError, match="needs 20 held-out pictures at least, there are 5"):
        copy_rate(cloud(10, 0), cloud(10, 1), cloud(5, 2))
    with pytest.raises(TooFewError, match="100 held-out"):
        membership(torch.rand(10), torch.rand(20))
    with pytest.raises(TooFewError):
        neighbour_ratio(cloud(10, 0), cloud(1, 1))


def test_the_neighbour_ratio_sees_copies_but_for_duplicates():
    from training.metrics.memorization import neighbour_ratio

    trained = cloud(50, 1)
    assert neighbour_ratio(copies(trained, 50), trained).value == 1
    assert neighbour_ratio(cloud(50, 0), trained).value == 0
    assert neighbour_ratio(copies(trained, 50), torch.cat([trained, trained + 0.01])).value == 0


def test_a_tile_that_differs_is_what_counts_and_its_size_does_not():
    from training.metrics.memorization import tiled_distance

    for side in (16, 32):
        one = torch.zeros(1, 3, side, side)
        two = one.clone()
        two[..., : side // 4, : side // 4] = 0.5
        assert tiled_distance(one, two)[0, 0] == pytest.approx(0.5)
        assert tiled_distance(one, one)[0, 0] == 0


def test_a_chain_is_no_clique():
    from training.metrics.memorization import cliques

    alike = torch.eye(6, dtype=torch.bool)
    for i, j in [(0, 1), (1, 2), (0, 2), (2, 3), (3, 4)]:
        alike[i, j] = alike[j, i] = True
    assert cliques(alike, 3) == [[0, 1, 2]]
    assert cliques(alike, 2) == [[0, 1, 2], [3, 4]]


def test_c_t_falls_far_below_zero_for_a_model_that_copies():
    from training.metrics.memorization import TooFewError, data_copying

    trained, held_out = cloud(200, 1), cloud(300, 2)
    assert data_copying(copies(trained, 300), trained, held_out) < -5
    assert abs(data_copying(cloud(300, 0), trained, held_out)) < 3
    with pytest.raises(TooFewError, match="ten generated"):
        data_copying(cloud(8, 0), trained, held_out)


def test_copies_are_not_authentic():
    from training.metrics.memorization import authenticity

    trained = cloud(100, 1)
    assert authenticity(copies(trained, 100), trained) == 0
    assert authenticity(cloud(100, 0) * 2, trained) > 0.9


def test_an_attack_that_sees_nothing_and_one_that_sees_all():
    from training.metrics.memorization import membership

    generator = torch.Generator().manual_seed(0)
    luck = membership(torch.rand(500, generator=generator), torch.rand(500, generator=generator))
    assert abs(luck.auc - 0.5) < 0.06 and luck.true_positive_rate < 0.04
    sure = membership(torch.rand(100), torch.rand(200) + 2)
    assert (sure.auc, sure.true_positive_rate) == (1, 1)


def test_amd_is_over_generated_pictures_and_mifid_divides_by_it():
    from training.metrics.memorization import memorization_distance, memorization_informed

    trained = torch.eye(3)
    made = torch.tensor([[1.0, 0, 0], [1.0, 1.0, 0]])
    assert memorization_distance(made, trained) == pytest.approx((0 + 1 - 2**-0.5) / 2)
    assert memorization_informed(4.0, 0.05) == pytest.approx(80)
    assert memorization_informed(4.0, 0.2) == 4.0


def test_duplicates_and_worst_pairs_are_named_nearest_first():
    from training.metrics.memorization import duplicates, worst_pairs

    features = torch.tensor([[0.0, 0], [0, 0.1], [5, 5], [5, 5.05]])
    assert duplicates(features, limit=0.2) == [(2, 3), (0, 1)]
    assert worst_pairs(torch.tensor([[5.0, 5.2], [0, 0]]), features, 2).tolist() == [[1, 0], [0, 3]]


def test_repeats_and_what_is_found_of_them_correlate_by_rank():
    from training.metrics.memorization import rank_correlation

    assert rank_correlation([1, 5, 50], [0.1, 0.2, 9]) == pytest.approx(1)
