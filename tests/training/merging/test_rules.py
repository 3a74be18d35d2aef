"""The rules on numbers that can be checked by hand, and against PEFT's on dense tensors."""

import math

import pytest
import torch
from peft.utils import merge_utils

from training.merging.rules import MergeOptions, agree, apply_rule, compete, drop, linear, mean, trim


def t(*rows):
    return torch.tensor(rows, dtype=torch.float32)


def test_soup_is_the_mean_and_linear_the_weighted_sum():
    stack = t([1, 2, 0], [3, 0, 4])
    assert mean(stack).tolist() == [2, 1, 2]
    assert linear(stack, torch.tensor([0.5, 2.0])).tolist() == [6.5, 1, 8]


def test_trimming_keeps_the_largest_of_each_adapters_own_numbers():
    stack = t([1, -4, 2, 0], [0, 0, 3, -1])
    # a half of four is two, a half of two is one
    assert trim(stack, [4, 2], 0.5).tolist() == [[0, -4, 2, 0], [0, 0, 3, 0]]


def test_ties_elects_by_sum_or_by_count_and_averages_who_agrees():
    stack = t([5, 1, 2], [-1, 1, -2], [-1, 0, 0])
    ones = torch.ones(3)
    # the first entry: 5 outweighs -1 -1, but two of three say minus; the second is alone with 1 and 1; the third ties
    assert agree(stack, ones, "total").tolist() == [5, 1, 2]
    assert agree(stack, ones, "frequency").tolist() == [-1, 1, 2]
    # weights multiply before the mean
    assert agree(stack, torch.tensor([2.0, 4.0, 1.0]), "total").tolist() == [10, 3, 4]


@pytest.mark.parametrize("election", ["total", "frequency"])
@pytest.mark.parametrize("density", [0.2, 0.5, 0.9])
def test_ties_is_pefts_on_dense_tensors(election, density):
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(17, 9, generator=generator) for _ in range(3)]
    weights = torch.tensor([1.0, 0.5, 2.0])
    theirs = merge_utils.ties(parts, weights, density, election)
    options = MergeOptions(rule="ties", density=density, election=election)
    stack = torch.stack([p.flatten() for p in parts])
    ours = apply_rule(stack, [153] * 3, weights.tolist(), options, torch.Generator())
    torch.testing.assert_close(ours.view(17, 9), theirs)


@pytest.mark.parametrize("then", ["linear", "ties"])
def test_dare_is_pefts_on_dense_tensors(then):
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(17, 9, generator=generator) for _ in range(3)]
    weights = torch.tensor([1.0, 0.5, 2.0])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        theirs = (merge_utils.dare_linear if then == "linear" else merge_utils.dare_ties)(parts, weights, 0.6)
    options = MergeOptions(rule="dare", density=0.6, then=then)
    stack = torch.stack([p.flatten() for p in parts])
    ours = apply_rule(stack, [153] * 3, weights.tolist(), options, torch.Generator().manual_seed(3))
    torch.testing.assert_close(ours.view(17, 9), theirs)


def test_dare_keeps_the_mean_and_draws_from_its_generator_alone():
    stack = torch.ones(2, 20_000)
    left = drop(stack, 0.25, torch.Generator().manual_seed(1))
    assert set(left.unique().tolist()) == {0.0, 4.0}
    assert left.mean().item() == pytest.approx(1.0, abs=0.05)
    assert not torch.equal(left[0], left[1])
    assert torch.equal(left, drop(stack, 0.25, torch.Generator().manual_seed(1)))


def test_pcb_makes_the_mean_of_what_nothing_tells_apart():
    # n(|d|) is 0 and 1 in both; the larger ones contradict each other: tanh(2 (1 - 1)), so every balance is 0
    assert compete(t([1, 2], [1, -3]), torch.ones(2), 1.0).tolist() == [1, -0.5]


def test_pcb_leaves_out_the_smaller_of_two_and_weighs_the_larger():
    # e^2 tanh(4) and e^2 tanh(6) win over 0; min-max within an adapter makes 1 of both
    stack = t([1, 2], [1, 3])
    assert compete(stack, torch.ones(2), 1.0).tolist() == [0, 2.5]
    assert compete(stack, torch.tensor([2.0, 1.0]), 1.0).tolist() == [0, 3.5]


def test_pcb_is_the_formula_worked_out_by_hand():
    # n is 0, 1/2, 1 in the first and 1, 1/2, 0 in the second, so sum_j sign n is 1 everywhere
    beta = [math.exp(2 * (k / 2) ** 2) * math.tanh(k + 1) for k in range(3)]
    low, middle, high = [(b - beta[0]) / (beta[2] - beta[0]) for b in beta]
    assert (low, high) == (0, 1) and 0 < middle < 1
    found = compete(t([1, 2, 3], [3, 2, 1]), torch.tensor([1.0, 2.0]), 1.0)
    torch.testing.assert_close(found, torch.tensor([3 * 2.0, (2 + 4) * middle / (2 * middle), 3.0]))


def test_pcb_with_a_small_ratio_lets_few_numbers_win():
    generator = torch.Generator().manual_seed(0)
    stack = torch.randn(2, 1000, generator=generator)
    found = compete(stack, torch.ones(2), 0.05)
    assert 0 < int(found.count_nonzero()) <= 105


@pytest.mark.parametrize("values", [{"density": 0.0}, {"density": 1.1}, {"ratio": 0.0}, {"rule": "sum"}, {"densty": 1}])
def test_options_out_of_range_are_refused(values):
    with pytest.raises(ValueError):
        MergeOptions(**values)
