"""Changes beside quantized layers, with torch's dynamic quantization and, where it is installed, torchao's."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from training.methods import METHODS, Scope
from training.methods.adapter import Adapter
from training.methods.beside import SideTuner
from training.methods.changes import changes_of
from training.methods.inplace import InPlaceTuner
from training.methods.layers import writable
from training.methods.stack import stack_of

from . import toys

METHODS_HERE = [("sara", {"fraction": 0.1}), ("paca", {"rank": 3}), ("sparse", {"structure": "rows", "fraction": 0.2})]


class Int8Weight(nn.Parameter):
    """A parameter of 8 bits, as bitsandbytes has them."""


class Int8Linear(nn.Module):
    """A linear layer of 8 bits: y = s (q x) + b."""

    def __init__(self, layer):
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.register_buffer("steps", layer.weight.detach().abs().amax(1, keepdim=True) / 127)
        whole = (layer.weight.detach() / self.steps).round().to(torch.int8)
        self.weight = Int8Weight(whole.flatten()[:, None], requires_grad=False)  # packed: another shape
        self.bias = layer.bias

    def forward(self, x):
        return F.linear(x, self.weight.view(self.out_features, -1) * self.steps, self.bias)


def by_hand(model):
    for path, module in list(model.named_modules()):
        if isinstance(module, nn.Linear):
            model.set_submodule(path, Int8Linear(module))
    return model


def by_torchao(model):
    torchao = pytest.importorskip("torchao.quantization")
    torchao.quantize_(model, torchao.Int8WeightOnlyConfig())
    return model


def by_bitsandbytes(model):
    bnb = pytest.importorskip("bitsandbytes")
    for path, module in list(model.named_modules()):
        if isinstance(module, nn.Linear):
            made = bnb.nn.Linear4bit(module.in_features, module.out_features, module.bias is not None, torch.float32)
            made.load_state_dict(module.state_dict())
            model.set_submodule(path, made.to("cpu"))
    return model


@pytest.fixture(params=[by_hand, by_torchao, by_bitsandbytes], ids=["packed", "torchao", "bitsandbytes"])
def quantize(request):
    return request.param


def chosen(method, options, model):
    tuner = METHODS[method](**options).attach(model, Scope(tuple(linear(model))), torch.Generator().manual_seed(0))
    assert isinstance(tuner, InPlaceTuner)
    supports = {piece.name: piece.support for piece in tuner.pieces if piece.name.endswith(".weight")}
    tuner.unload()
    return supports


def linear(model):
    return [path for path, module in model.named_modules() if isinstance(module, nn.Linear)]


@pytest.mark.parametrize(("method", "options"), METHODS_HERE, ids=lambda v: str(v))
def test_a_quantized_model_learns_and_comes_back(method, options, quantize):
    plain = toys.make("linear")
    supports = chosen(method, options, copy.deepcopy(plain))
    model = quantize(plain)
    x, y = model.data(0)
    with torch.no_grad():
        before = model(x)
    tuner = SideTuner(model, supports)
    with torch.no_grad():
        assert torch.equal(model(x), before)
    optimizer = torch.optim.AdamW([p for g in tuner.parameters() for p in g.parameters], lr=0.05, weight_decay=0)
    losses = []
    for _ in range(8):
        loss = F.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
    with torch.no_grad():
        changed = model(x)
        with tuner.disabled():
            assert torch.equal(model(x), before)
        other = quantize(toys.make("linear"))
        again = SideTuner(other, {})
        again.load(tuner.delta())
        torch.testing.assert_close(other(x), changed)
        tuner.unload()
        assert torch.equal(model(x), before)
    with pytest.raises(ValueError, match="--format merged"):
        again.merge()


@pytest.mark.parametrize(("method", "options"), METHODS_HERE, ids=lambda v: str(v))
def test_gradients_are_those_of_a_dense_reference(method, options):
    model, dense = by_hand(toys.make("linear")), toys.make("linear")
    with torch.no_grad():
        for path in linear(dense):
            quantized = model.get_submodule(path)
            dense.get_submodule(path).weight.copy_(quantized.weight.view(quantized.out_features, -1) * quantized.steps)
    tuner = SideTuner(model, chosen(method, options, toys.make("linear")))
    x, y = model.data(0)
    F.mse_loss(model(x), y).backward()
    F.mse_loss(dense(x), y).backward()
    for name, beside in tuner._beside.items():
        expected = beside.support.of_dense(dict(dense.named_parameters())[name].grad)
        torch.testing.assert_close(beside.values.grad, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(("method", "options"), METHODS_HERE, ids=lambda v: str(v))
def test_an_adapter_goes_on_a_quantized_model_and_off_again(method, options, quantize):
    model = toys.make("linear")
    config = METHODS[method](**options)
    tuner = config.attach(model, Scope(tuple(linear(model))), torch.Generator().manual_seed(0))
    with torch.no_grad():
        tuner.values.add_(0.1 * torch.randn(tuner.count, generator=torch.Generator().manual_seed(1)))
    tuner.refresh()
    adapter = Adapter(method=method, config=config, scope=Scope(), base="", delta=tuner.delta())
    quantized = quantize(toys.make("linear"))
    x, _ = quantized.data(0)
    with torch.no_grad():
        before = quantized(x)
        wanted = model(x) - toys.make("linear")(x)
        attached = stack_of(quantized).add(changes_of(quantized, adapter), 1.0)
        gained = quantized(x) - before
        # the rest is what quantization does to the products with it
        assert (gained - wanted).norm() < 0.2 * wanted.norm()
        attached.set_scale(0.0)
        assert torch.equal(quantized(x), before)
        attached.set_scale(1.0)
        second = stack_of(quantized).add(changes_of(quantized, adapter), 1.0)
        second.unload()
        with stack_of(quantized).base():
            assert torch.equal(quantized(x), before)
        torch.testing.assert_close(quantized(x) - before, gained)
        attached.unload()
        assert torch.equal(quantized(x), before)


def test_what_needs_the_weights_themselves_is_refused():
    model = toys.make("linear")
    config = METHODS["lora"](rank=2)
    tuner = config.attach(model, Scope(), torch.Generator().manual_seed(0))
    adapter = Adapter(method="lora", config=config, scope=Scope(), base="", delta=tuner.delta())
    quantized = by_hand(toys.make("linear"))
    assert not writable(quantized.head.weight) and writable(quantized.head.bias)
    with pytest.raises(ValueError, match=r"quantized.*--format merged"):
        changes_of(quantized, adapter)


@pytest.mark.parametrize("how", ["load", "load_state"])
def test_numbers_beside_plain_layers_work_and_learn_after_they_were_loaded(how):
    """As in a run with split weights that goes on in a single process."""
    model = toys.make("linear")
    tuner = METHODS["sara"](fraction=0.3).attach(model, Scope(), torch.Generator().manual_seed(0))
    apart = {f"{path}.weight" for path in linear(model)}
    supports = {piece.name: piece.support for piece in tuner.pieces}
    assert any(name.endswith(".bias") for name in supports)
    tuner.unload()
    first = SideTuner(model, supports, apart=apart)
    with torch.no_grad():
        for parameter in first.named().values():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    first.refresh()
    other = toys.make("linear")
    again = SideTuner(other, supports, apart=apart)
    again.load(first.delta()) if how == "load" else again.load_state(first.state(), 1)
    x, y = model.data(0)
    torch.testing.assert_close(other(x), model(x))
    F.mse_loss(other(x), y).backward()
    F.mse_loss(model(x), y).backward()
    for name, parameter in first.named().items():
        torch.testing.assert_close(again.named()[name].grad, parameter.grad)
        assert parameter.grad.abs().max() > 0
