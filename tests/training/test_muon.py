"""Muon against torch's own and against its definition."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from training.muon import Muon, muon_for, orthogonalise, shares


@pytest.mark.parametrize("shape", [(24, 24), (16, 40), (40, 16)])
def test_matrices_move_as_torch_moves_them(shape):
    start = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    ours, theirs = (nn.Parameter(start.clone()) for _ in range(2))
    optimizers = (
        Muon([{"params": [ours], "orthogonal": True}], lr=0.02, weight_decay=0.1),
        torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
    )
    for step in range(3):
        gradient = torch.randn(shape, generator=torch.Generator().manual_seed(step + 1))
        for parameter, optimizer in zip((ours, theirs), optimizers, strict=True):
            parameter.grad = gradient.clone()
            optimizer.step()
    assert (ours - start).abs().max() > 0.01
    # both iterate in bfloat16, where the order of the sums tips a digit
    assert (ours - theirs).norm() < 0.05 * (theirs - start).norm()


def test_vectors_and_tables_move_as_adamw_moves_them():
    start = torch.randn(12, generator=torch.Generator().manual_seed(0))
    ours, theirs = (nn.Parameter(start.clone()) for _ in range(2))
    optimizers = (
        Muon([{"params": [ours]}], lr=0.02, weight_decay=0.1),
        torch.optim.AdamW([theirs], lr=0.02, weight_decay=0.1, betas=(0.9, 0.98), eps=1e-8),
    )
    for step in range(4):
        gradient = torch.randn(12, generator=torch.Generator().manual_seed(step + 1)) * 10.0 ** -(step * 3)
        for parameter, optimizer in zip((ours, theirs), optimizers, strict=True):
            parameter.grad = gradient.clone()
            optimizer.step()
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("shape", [(8, 30), (30, 8), (20, 20)])
def test_orthogonalising_brings_the_singular_values_near_1_and_keeps_the_directions(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(4))
    done = orthogonalise(matrix)
    assert done.shape == matrix.shape and done.dtype == matrix.dtype
    values = torch.linalg.svdvals(done)
    # of a square one the smallest value may be too near 0 to come up in five steps
    assert values.max() < 1.3 and values[: len(values) * 3 // 4].min() > 0.6
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    assert float((u @ vh * done).sum()) / min(shape) > 0.8


@pytest.mark.parametrize(("known", "type_of_products"), [({"avx512_bf16": True}, torch.bfloat16), ({}, torch.float32)])
def test_products_are_made_in_the_type_that_this_machine_is_fast_in(known, type_of_products, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known, raising=False)
    seen = set()

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func is torch.ops.aten.mm.default:
                seen.add(args[0].dtype)
            return func(*args, **(kwargs or {}))

    with Watch():
        turned = orthogonalise(torch.randn(8, 12, generator=torch.Generator().manual_seed(0)))
    assert seen == {type_of_products} and turned.dtype == torch.float32


def test_a_filter_is_orthogonalised_with_one_row_an_output_channel():
    conv = nn.Conv3d(6, 4, (1, 3, 3), bias=False)
    before = conv.weight.detach().clone()
    conv.weight.grad = torch.randn(conv.weight.shape, generator=torch.Generator().manual_seed(0))
    muon_for(conv, lr=1.0, weight_decay=0.0).step()
    update = (before - conv.weight.detach()).flatten(1)
    assert update.shape == (4, 54)
    values = torch.linalg.svdvals(update) / (0.2 * 54**0.5)
    assert values.min() > 0.6 and values.max() < 1.3
    assert float(update.square().mean().sqrt()) == pytest.approx(0.2, rel=0.25)  # for 4 rows: 0.2 * sqrt(54 * 4 / 216)


def test_every_trainable_weight_has_exactly_one_rule():
    module = nn.ModuleDict(
        {
            "table": nn.Embedding(10, 4), "matrix": nn.Linear(4, 6), "filter": nn.Conv2d(3, 5, 3),
            "one": nn.Linear(4, 1), "norm": nn.LayerNorm(4), "frozen": nn.Linear(2, 2).requires_grad_(False),
        }
    )  # fmt: skip
    optimizer = muon_for(module, lr=1e-3, weight_decay=0.1)
    names = {p: n for n, p in module.named_parameters()}
    rules = {group["orthogonal"]: {names[p] for p in group["params"]} for group in optimizer.param_groups}
    assert rules[True] == {"matrix.weight", "filter.weight"}
    assert rules[False] == {n for n, p in module.named_parameters() if p.requires_grad} - rules[True]
    assert {group["orthogonal"]: group["weight_decay"] for group in optimizer.param_groups} == {True: 0.1, False: 0.0}


def test_a_weight_without_a_gradient_stays_and_gets_no_state():
    linear = nn.Linear(4, 4)
    optimizer = muon_for(linear, lr=0.1, weight_decay=0.5)
    before = linear.weight.detach().clone()
    linear.bias.grad = torch.ones(4)
    optimizer.step()
    assert torch.equal(linear.weight, before)
    assert linear.weight not in optimizer.state


def test_a_zero_gradient_does_not_become_nan():
    linear = nn.Linear(4, 4)
    for parameter in linear.parameters():
        parameter.grad = torch.zeros_like(parameter)
    muon_for(linear, lr=0.1, weight_decay=0.0).step()
    assert all(p.isfinite().all() for p in linear.parameters())


def test_work_is_dealt_out_evenly_and_completely():
    costs = [7.0, 1.0, 5.0, 3.0, 3.0, 1.0]
    dealt = shares(costs, 3)
    assert sorted(k for part in dealt for k in part) == list(range(6))
    assert max(sum(costs[k] for k in part) for part in dealt) == 7
    assert shares([1.0], 2) == [[0], []]
