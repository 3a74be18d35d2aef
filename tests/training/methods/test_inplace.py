"""In-place training against a dense optimizer whose gradients are masked."""

import copy
import weakref

import pytest
import torch
import torch.nn.functional as F

from training.methods import Scope
from training.methods.paca import PaCA
from training.methods.sara import SaRA, matrix_sign

from . import toys
from .test_conformance import optimizer_of


def masks_of(model, tuner):
    masks = {}
    for piece in tuner.pieces:
        mask = torch.zeros(piece.parameter.shape)
        part = piece.support.take(mask)
        piece.support.put(mask, torch.ones_like(part))
        masks[piece.name] = mask
    return masks


@pytest.mark.parametrize("kind", toys.KINDS)
@pytest.mark.parametrize("config", [SaRA(fraction=0.2, nuclear_weight=0.0), PaCA(rank=4)], ids=["sara", "paca"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_twenty_steps_are_those_of_a_dense_masked_reference(kind, config, checkpointing):
    model = toys.make(kind)
    dense = copy.deepcopy(model)
    model.checkpointing = checkpointing
    tuner = config.attach(model, Scope(), torch.Generator().manual_seed(0))
    masks = masks_of(model, tuner)
    ours = optimizer_of(tuner)
    chosen = [p for n, p in dense.named_parameters() if n in masks]
    theirs = torch.optim.AdamW(chosen, lr=1e-2, weight_decay=0.0)
    for step in range(20):
        x, y = model.data(step)
        for half in (slice(0, 2), slice(2, 4)):
            (F.mse_loss(model(x[half]), y[half]) / 2).backward()
            (F.mse_loss(dense(x[half]), y[half]) / 2).backward()
        for name, p in dense.named_parameters():
            p.grad = p.grad * masks[name] if name in masks else None
        theirs_grad = {n: p.grad for n, p in dense.named_parameters()}
        wanted = torch.cat([piece.support.of_dense(theirs_grad[piece.name]) for piece in tuner.pieces])
        torch.testing.assert_close(tuner.values.grad, wanted, rtol=1e-5, atol=1e-6)
        torch.nn.utils.clip_grad_norm_([tuner.values], 0.1)
        torch.nn.utils.clip_grad_norm_(chosen, 0.1)
        for optimizer in (ours, theirs):
            optimizer.step()
            optimizer.zero_grad()
        tuner.after_step(step + 1)
    for (name, p), q in zip(model.named_parameters(), dense.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-6 * 20, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_inputs_made_again_are_those_that_would_have_been_kept(dtype, monkeypatch):
    from training.methods import inplace

    grads, made, real = [], [], inplace.recompute_of
    monkeypatch.setattr(inplace, "recompute_of", lambda x: (made.append(found := real(x)), found)[1])
    for recompute in (True, False):
        made.clear()
        model = toys.make("linear").to(dtype)
        method = SaRA(fraction=0.5, nuclear_weight=0.0, recompute=recompute)
        tuner = method.attach(model, Scope(), torch.Generator().manual_seed(0))
        x, y = model.data(0)
        F.mse_loss(model(x), y.to(dtype)).backward()
        assert any(again is not None for again in made) == recompute
        grads.append(tuner.values.grad.clone())
    tolerance = 1e-6 if dtype == torch.float32 else 1e-2
    assert (grads[0] - grads[1]).norm() <= tolerance * grads[1].norm()


def test_an_activation_and_a_norm_are_made_again_and_other_inputs_are_kept():
    from training.methods.recompute import recompute_of

    x = torch.randn(4, 8, requires_grad=True)
    for made in (F.gelu(x, approximate="tanh"), F.silu(x), torch.nn.LayerNorm(8)(x), F.gelu(x).bfloat16()):
        again = recompute_of(made)
        assert again.whole().dtype == made.dtype
        torch.testing.assert_close(again.whole(), made.detach())
    assert recompute_of(x * 2) is None
    assert recompute_of(x) is None
    with torch.autograd.graph.save_on_cpu():
        assert recompute_of(F.gelu(x)) is None


def test_an_activation_with_one_reader_is_made_again_a_few_places_at_a_time():
    from training.methods.recompute import recompute_of

    x = torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    for made in (F.gelu(x), F.silu(x.bfloat16())):
        places = recompute_of(made).by_place(made.dtype)
        parts = [places(0, 3), places(3, 8)]
        torch.testing.assert_close(torch.cat(parts, 1), made.detach().flatten(0, 1).T)
        recompute_of(made)
        assert recompute_of(made).by_place(made.dtype) is None, "two readers: all at once, for both"
    assert recompute_of(torch.nn.LayerNorm(8)(x)).by_place(x.dtype) is None


@pytest.mark.parametrize("autocast", [False, True], ids=["float32", "autocast"])
def test_a_gradient_from_places_made_again_is_that_from_a_kept_input(autocast, monkeypatch):
    from training.methods import inplace, recompute, sampled

    monkeypatch.setattr(sampled, "_TURNED_COST", 0)  # the layers here are too small for it
    monkeypatch.setattr(sampled, "_COST", {torch.float32: 1, torch.bfloat16: 1})
    monkeypatch.setattr(sampled, "_BLOCK", 1 << 10)
    used, real = [], recompute.Again.by_place
    monkeypatch.setattr(recompute.Again, "by_place", lambda self, dtype: (used.append(dtype), real(self, dtype))[1])
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.GELU(), torch.nn.Linear(32, 16))
    x, grads = torch.randn(3, 50, 16), []
    for keeps in (False, True):
        model = copy.deepcopy(network)
        if keeps:
            monkeypatch.setattr(inplace, "recompute_of", lambda x: None)
        tuner = SaRA(fraction=0.2, nuclear_weight=0.0).attach(model, Scope(), torch.Generator())
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            model(x).float().square().mean().backward()
        grads.append(tuner.values.grad)
    assert used == [torch.bfloat16 if autocast else torch.float32]
    torch.testing.assert_close(*grads, rtol=1e-5, atol=1e-8)


def test_the_matrix_sign_is_that_of_the_decomposition():
    matrix = torch.randn(70, 130, generator=torch.Generator().manual_seed(0)) * (torch.rand(70, 130) < 0.05)
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    torch.testing.assert_close(matrix_sign(matrix), u @ v, rtol=0, atol=1e-3)


@pytest.mark.parametrize("shape", [(128, 384), (300, 70), (96, 512), (256, 256)])
@pytest.mark.parametrize("seed", range(3))
def test_the_matrix_sign_of_few_small_numbers_is_right_in_bfloat16_too(shape, seed):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 0.03
    small = weight.abs() <= weight.abs().flatten().kthvalue(weight.numel() // 50).values
    matrix = weight * small
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    wanted, found = (u @ v)[small], matrix_sign(matrix.bfloat16()).float()[small]
    assert F.cosine_similarity(found, wanted, dim=0) > 0.998
    assert found.norm() / wanted.norm() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("geometry", [{}, {"stride": 2, "padding": 1}, {"padding": 2, "dilation": 2}])
def test_the_gradient_of_a_few_channels_is_that_of_the_convolution(dims, dtype, geometry):
    from training.methods.layers import ConvLayer

    rng = torch.Generator().manual_seed(0)
    conv = (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)[dims - 1](2, 60, 3, **geometry)
    x = torch.randn(3, 2, *(7,) * dims, generator=rng).to(dtype)
    y = conv(x.float())
    upstream = torch.randn(y.shape, generator=rng).to(dtype)
    (wanted,) = torch.autograd.grad(y, conv.weight, upstream.float())
    found = ConvLayer(conv).weight_grad(upstream, x, slice(None))
    assert (found - wanted).norm() <= (1e-6 if dtype == torch.float32 else 5e-3) * wanted.norm()


@pytest.mark.parametrize("channels", [(12, 8), (8, 12)])
def test_the_gradient_of_a_convolutions_input_needs_no_input(channels):
    from training.methods.layers import ConvLayer

    conv = torch.nn.Conv2d(*channels, 3, padding=1)
    x = torch.randn(2, channels[0], 6, 6, generator=torch.Generator().manual_seed(0), requires_grad=True)
    y = conv(x)
    for upstream in (torch.ones_like(y), torch.ones_like(y).to(memory_format=torch.channels_last)):
        (wanted,) = torch.autograd.grad(y, x, upstream, retain_graph=True)
        torch.testing.assert_close(ConvLayer(conv).input_grad(upstream, x.shape, conv.weight), wanted)


@pytest.mark.parametrize("config", [SaRA(fraction=0.2, nuclear_weight=0.0), PaCA(rank=4)], ids=["sara", "paca"])
def test_checkpointing_computes_no_product_again_that_nothing_needs(config):
    """The frozen layer's weight is saved before its product, so a block's last product is not made twice."""
    from torch.utils.checkpoint import checkpoint

    from training.methods.layers import LinearLayer

    made = []

    class Counted(LinearLayer):
        def forward(self, x, weight, bias):
            made.append(weight.shape)
            return super().forward(x, weight, bias)

    block = torch.nn.Sequential(torch.nn.Linear(8, 12), torch.nn.GELU(), torch.nn.Linear(12, 8))
    tuner = config.attach(block, Scope(), torch.Generator().manual_seed(0))
    for site in tuner._sites:
        site.layer = Counted()
    checkpoint(block, torch.randn(4, 8), use_reentrant=False).square().sum().backward()
    assert made == [(12, 8), (8, 12), (12, 8)]
    assert tuner.values.grad.norm() > 0


def test_a_checkpointed_block_lets_its_input_go_when_its_gradients_are_made():
    from torch.utils.checkpoint import checkpoint

    blocks = [torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.GELU(), torch.nn.Linear(8, 8)) for _ in range(3)]
    PaCA(rank=4).attach(torch.nn.ModuleList(blocks), Scope(), torch.Generator().manual_seed(0))
    alive, left = [], []
    x = torch.randn(4, 8)
    for number, block in enumerate(blocks):
        if number == 1:
            x.register_hook(lambda grad: left.extend(ref() is not None for ref in alive))
        if number == 2:
            alive.append(weakref.ref(x.untyped_storage()))
        x = checkpoint(block, x, use_reentrant=False)
    loss = x.square().sum()
    del x
    loss.backward()
    assert left == [False]


def test_a_graph_can_be_gone_through_twice():
    model = toys.make("linear")
    tuner = SaRA(fraction=0.2, nuclear_weight=0.0).attach(model, Scope(), torch.Generator())
    for checkpointing in (False, True):
        model.checkpointing = checkpointing
        x, y = model.data(0)
        loss = F.mse_loss(model(x), y)
        loss.backward(retain_graph=True)
        once = tuner.values.grad.clone()
        loss.backward()
        torch.testing.assert_close(tuner.values.grad, 2 * once)
        tuner.values.grad = None


def test_what_several_layers_read_is_made_again_once_and_then_let_go(monkeypatch):
    from training.methods import recompute

    made = []
    real = recompute._layer_norm
    monkeypatch.setattr(recompute, "_layer_norm", lambda node: made.append(weakref.ref(out := real(node))) or out)
    layers = torch.nn.ModuleList(torch.nn.Linear(8, 8) for _ in range(3))
    SaRA(fraction=0.2, nuclear_weight=0.0).attach(layers, Scope(), torch.Generator())
    norm = torch.nn.LayerNorm(8)
    y = norm(torch.randn(4, 8, requires_grad=True))
    loss = sum(layer(y) for layer in layers).square().sum()
    loss.backward()
    assert len(made) == 1
    assert made[0]() is None
