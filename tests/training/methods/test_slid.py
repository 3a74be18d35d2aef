"""Chosen numbers of a filter's gradient alone: those of the whole gradient, wherever they lie."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from training.methods import Scope, slid
from training.methods.layers import ConvLayer
from training.methods.sara import SaRA
from training.methods.supports import Scattered

CONVOLUTIONS = {
    "3": (nn.Conv1d(8, 12, 3, padding=1), (21,)),
    "3x3": (nn.Conv2d(8, 12, 3, padding=1), (9, 7)),
    "unpadded": (nn.Conv2d(8, 12, 3), (9, 7)),
    "3x5": (nn.Conv2d(8, 12, (3, 5), padding=(1, 2)), (9, 7)),
    "wider padding": (nn.Conv2d(8, 12, (2, 3), padding=3), (9, 7)),
    "dilated": (nn.Conv2d(8, 12, 3, padding=2, dilation=2), (9, 7)),
    "same": (nn.Conv2d(8, 12, 3, padding="same", dilation=(1, 2)), (9, 7)),
    "1x1": (nn.Conv2d(8, 12, 1), (9, 7)),
    "3x3x3": (nn.Conv3d(8, 12, 3, padding=1), (4, 5, 6)),
    "1x3x3": (nn.Conv3d(8, 12, (1, 3, 3), padding=(0, 1, 1)), (4, 5, 6)),
}


def case(conv, sides, dtype=torch.float32, share=0.1):
    rng = torch.Generator().manual_seed(0)
    layer = ConvLayer(conv)
    x = torch.randn(5, conv.in_channels, *sides, generator=rng).to(dtype)
    out = layer.forward(x, conv.weight.detach().to(dtype), None)
    upstream = torch.randn(out.shape, generator=rng).to(dtype)
    flat = (torch.rand(conv.weight.numel(), generator=rng) < share).nonzero().flatten().int()
    dense = layer.weight_grad(upstream.double(), x.double(), slice(None))
    return layer, upstream, x, flat, dense.flatten()[flat].float()


@pytest.fixture
def made(monkeypatch):
    """Every time that they are made."""
    calls = []
    products = slid.slid_products
    monkeypatch.setattr(slid, "slid_products", lambda *args: (calls.append(args), products(*args))[1])
    return calls


@pytest.fixture
def always(made, monkeypatch):
    """They are made of any layer: those of the toys are too small to pay."""
    monkeypatch.setattr(slid, "_GRID_COST", 0)
    monkeypatch.setattr(slid, "_COST", {torch.float32: 1, torch.bfloat16: 1})
    return made


@pytest.mark.parametrize("places", [1, 30, 64, 200, 8192])
@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_they_are_those_of_the_whole_gradient(kind, places, monkeypatch):
    monkeypatch.setattr(slid, "_PLACES", places)
    layer, upstream, x, flat, wanted = case(*CONVOLUTIONS[kind])
    found = slid.slid_products(upstream, x, flat, layer.kernel, *layer.geometry[1:])
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)
    assert torch.equal(found, slid.slid_products(upstream, x, flat, layer.kernel, *layer.geometry[1:]))


def test_bfloat16_is_rounded_once_a_block_and_no_more():
    layer, upstream, x, flat, wanted = case(*CONVOLUTIONS["3x3"], torch.bfloat16)
    found = slid.slid_products(upstream, x, flat, layer.kernel, *layer.geometry[1:])
    torch.testing.assert_close(found, wanted.bfloat16().float(), rtol=2**-7, atol=1e-4)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_any_layout_will_do(layout):
    layer, upstream, x, flat, wanted = case(*CONVOLUTIONS["3x3"])
    wide = torch.cat([torch.zeros_like(x), x], dim=1)[:, x.shape[1] :]
    upstream = upstream.to(memory_format=layout)
    for given in (x.to(memory_format=layout), wide):
        found = slid.slid_products(upstream, given, flat, layer.kernel, *layer.geometry[1:])
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("conv", "share", "dtype", "few"),
    [
        (nn.Conv2d(128, 128, 3, padding=1), 0.01, torch.float32, True),
        (nn.Conv2d(128, 128, 3, padding=1), 0.05, torch.float32, False),
        (nn.Conv2d(128, 128, 3, padding=1), 0.01, torch.bfloat16, True),
        (nn.Conv2d(128, 128, 3, padding=1), 0.05, torch.bfloat16, False),
        (nn.Conv2d(128, 128, 3, padding=1), 0.01, torch.float64, False),
        (nn.Conv2d(16, 16, 3, padding=1), 0.01, torch.float32, False),
        (nn.Conv2d(128, 128, 3, padding=1, stride=2), 0.01, torch.float32, False),
        (nn.Conv2d(128, 128, 3, padding=1, groups=2), 0.01, torch.float32, False),
    ],
    ids=["few", "many", "few of bf16", "many of bf16", "float64", "few channels", "stride", "groups"],
)
def test_they_are_made_where_they_are_few_enough(conv, share, dtype, few, made):
    layer, upstream, x, flat, wanted = case(conv, (6, 6), dtype, share)
    found = Scattered(flat, conv.weight.shape).grad(layer, upstream, x)
    assert len(made) == few
    if not few:  # then it is torch's, which in bfloat16 sums as the processor can: without instructions for it, roughly
        wanted = layer.weight_grad(upstream, x, slice(None)).flatten()[flat].float()
    torch.testing.assert_close(found, wanted, rtol=2e-2, atol=1e-4)


def test_a_tuner_learns_by_them_as_a_masked_model_would(always):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.SiLU(), nn.Conv2d(16, 16, 3, padding=1), nn.SiLU(), nn.Conv2d(16, 3, 1)
    )
    dense = copy.deepcopy(model)
    tuner = SaRA(fraction=0.2, nuclear_weight=0.0).attach(model, Scope(), torch.Generator())
    x = torch.randn(4, 3, 8, 8)
    for step in range(1, 4):
        always.clear()
        for network in (model, dense):
            network(x).square().mean().backward()
        grads = {n: p.grad for n, p in dense.named_parameters()}
        wanted = torch.cat([piece.support.of_dense(grads[piece.name]) for piece in tuner.pieces])
        torch.testing.assert_close(tuner.values.grad, wanted, rtol=1e-5, atol=1e-6)
        assert len(always) == 3
        with torch.no_grad():
            tuner.values.sub_(0.5 * tuner.values.grad)
            tuner.values.grad = None
        tuner.after_step(step)
        dense.load_state_dict(model.state_dict())
        dense.zero_grad(set_to_none=True)


def test_nothing_is_read_from_beyond_a_channel(always):
    """What another channel or sample has at the edges meets zeros, however large it is."""
    layer, upstream, x, flat, _ = case(*CONVOLUTIONS["3x3"])
    alone = x.clone()
    alone[:, 1:] = 0
    loud = x.clone()
    loud[:, 1:] = 1e30
    first = flat[flat // 9 % 8 == 0]
    found, wanted = (
        slid.slid_products(upstream, given, first, layer.kernel, *layer.geometry[1:]) for given in (loud, alone)
    )
    assert torch.equal(found, wanted)


def test_a_filter_and_its_loss_agree_by_autograd(always):
    conv = CONVOLUTIONS["dilated"][0]
    layer, upstream, x, flat, _ = case(conv, (9, 7))
    weight = conv.weight.detach().clone().requires_grad_()
    F.conv2d(x, weight, padding=2, dilation=2).backward(upstream)
    found = layer.single_grads(upstream, x, flat, weight.shape)
    assert always
    torch.testing.assert_close(found, weight.grad.flatten()[flat], rtol=0, atol=1e-4)
