"""Chosen dot products alone: the numbers of the dense product, where they are fewer and wherever they lie."""

import copy
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from tests.training.methods import toys
from training.methods import Scope, sampled
from training.methods.layers import ConvLayer, LinearLayer
from training.methods.sampled import sampled_products
from training.methods.sara import SaRA
from training.methods.supports import Scattered


def case(dtype, shape=(96, 160), share=0.05):
    rng = torch.Generator().manual_seed(0)
    chosen = torch.rand(shape, generator=rng) < share
    chosen[10:20] = False  # rows without any
    upstream, x = (torch.randn(3, 37, n, generator=rng).to(dtype) for n in shape)
    dense = upstream.double().flatten(0, 1).T @ x.double().flatten(0, 1)
    return chosen.flatten().nonzero().flatten().int(), upstream, x, dense[chosen].float()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(96, 160), (95, 161)], ids=["even", "odd"])
@pytest.mark.parametrize("block", [1 << 12, 1 << 18])
def test_they_are_those_of_the_dense_product(dtype, shape, block, monkeypatch):
    monkeypatch.setattr(sampled, "_BLOCK", block)
    flat, upstream, x, wanted = case(dtype, shape)
    found = sampled_products(LinearLayer().factors(upstream, x), flat, shape)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)  # in bfloat16 too: they add up in float32
    gathered = Scattered(flat, torch.Size(shape)).gathered(LinearLayer(), upstream, x)
    torch.testing.assert_close(found, gathered, rtol=1e-2, atol=1e-5 if dtype == torch.float32 else 1e-2)
    assert torch.equal(found, sampled_products(LinearLayer().factors(upstream, x), flat, shape))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_part_of_a_larger_tensor_will_do(dtype):
    flat, upstream, x, wanted = case(dtype)
    stacked = torch.cat([torch.zeros(3, 37, 7, dtype=dtype), upstream], dim=2)[:, :, 7:]
    shifted = torch.cat([torch.zeros(1, dtype=dtype), x.flatten()])[1:].view_as(x)
    found = sampled_products(LinearLayer().factors(stacked, shifted), flat, (96, 160))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pointwise_filters_have_them_too(dtype):
    flat, upstream, x, wanted = case(dtype)
    pointwise = ConvLayer(torch.nn.Conv1d(160, 96, 1))
    found = sampled_products(pointwise.factors(upstream.mT.contiguous(), x.mT), flat, (96, 160))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
    for other in ({"stride": 2}, {"padding": 1}, {"groups": 2}):
        assert ConvLayer(torch.nn.Conv1d(160, 96, 1, **other)).factors(upstream.mT, x.mT) is None


@pytest.mark.parametrize(
    ("shape", "share", "dtype", "few"),
    [
        ((256, 256), 0.01, torch.float32, True),
        ((256, 256), 0.2, torch.float32, False),
        ((768, 768), 0.005, torch.bfloat16, True),
        ((768, 768), 0.03, torch.bfloat16, False),
        ((256, 256), 0.01, torch.bfloat16, False),
        ((256, 256), 0.001, torch.float64, False),
        ((768, 768), 0.0, torch.float32, False),
    ],
)
def test_they_are_made_where_they_are_few_enough(shape, share, dtype, few, monkeypatch):
    chosen = torch.arange(0, shape[0] * shape[1], round(1 / share)) if share else torch.zeros(0, dtype=torch.int64)
    ways = []
    monkeypatch.setattr(sampled, "sampled_products", lambda *args: (ways.append("sampled"), sampled_products(*args))[1])
    upstream, x = (torch.randn(8, n, generator=torch.Generator().manual_seed(n)).to(dtype) for n in shape)
    found = Scattered(chosen, torch.Size(shape)).grad(LinearLayer(), upstream, x)
    assert ways == ["sampled"] * few
    wanted = (upstream.double().T @ x.double()).flatten()[chosen].float()
    torch.testing.assert_close(found, wanted, rtol=1e-2, atol=1e-5)


def test_after_another_choice_the_products_are_those_of_the_new_one(monkeypatch):
    monkeypatch.setattr(sampled, "_TURNED_COST", 0)  # the toy's layers are too small for it
    monkeypatch.setattr(sampled, "_COST", {torch.float32: 1})
    model = toys.make("linear")
    dense = copy.deepcopy(model)
    tuner = SaRA(fraction=0.2, nuclear_weight=0.0, reselect_step=1).attach(model, Scope(), torch.Generator())
    before = tuner.count
    with torch.no_grad():
        tuner.values[::3] = 1.0  # too large to go on
    tuner.after_step(1)
    assert 0 < tuner.count < before
    dense.load_state_dict(model.state_dict())
    x, y = model.data(0)
    for network in (model, dense):
        F.mse_loss(network(x), y).backward()
    grads = {n: p.grad for n, p in dense.named_parameters()}
    wanted = torch.cat([piece.support.of_dense(grads[piece.name]) for piece in tuner.pieces])
    torch.testing.assert_close(tuner.values.grad, wanted, rtol=1e-5, atol=1e-6)


def test_nobody_is_told_that_sparse_tensors_are_in_beta():
    code = """
import warnings
import torch
from training.methods.sampled import sampled_products
before = list(warnings.filters)
sampled_products([(torch.ones(4, 2), torch.ones(4, 2))], torch.tensor([3, 5]), (4, 4))
assert warnings.filters == before
"""
    done = subprocess.run([sys.executable, "-W", "error::UserWarning", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "beta" not in done.stderr
