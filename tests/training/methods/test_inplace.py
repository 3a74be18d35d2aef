"""In-place training against a dense optimizer whose gradients are masked."""

import copy

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

    grads = []
    for recompute in (inplace.recompute_of, lambda x: None):
        monkeypatch.setattr(inplace, "recompute_of", recompute)
        model = toys.make("linear").to(dtype)
        tuner = SaRA(fraction=0.5, nuclear_weight=0.0).attach(model, Scope(), torch.Generator().manual_seed(0))
        x, y = model.data(0)
        F.mse_loss(model(x), y.to(dtype)).backward()
        grads.append(tuner.values.grad.clone())
    tolerance = 1e-6 if dtype == torch.float32 else 1e-2
    assert (grads[0] - grads[1]).norm() <= tolerance * grads[1].norm()


def test_an_activation_and_a_norm_are_made_again_and_other_inputs_are_kept():
    from training.methods.recompute import recompute_of

    x = torch.randn(4, 8, requires_grad=True)
    for made in (F.gelu(x, approximate="tanh"), F.silu(x), torch.nn.LayerNorm(8)(x), F.gelu(x).bfloat16()):
        again = recompute_of(made)
        assert again().dtype == made.dtype
        torch.testing.assert_close(again(), made.detach())
    assert recompute_of(x * 2) is None
    assert recompute_of(x) is None
    with torch.autograd.graph.save_on_cpu():
        assert recompute_of(F.gelu(x)) is None


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
