"""Which numbers the rules and structures of `sparse` choose, and that exactly these are trained."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

SELECTORS = ("smallest", "largest", "random", "snip", "fisher", "gradient")
STRUCTURES = ("single", "rows", "columns", "blocks", "cross")


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(6, 8, 3, padding=1), nn.Flatten(), nn.Linear(8 * 9, 10))


def batch(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(4, 6, 3, 3, generator=generator), torch.randn(4, 10, generator=generator)


def losses(model):
    return lambda: (F.mse_loss(model(x), y) for x, y in (batch(10 + k) for k in range(2)))


def attached(model, **options):
    from training.methods import METHODS, Scope

    config = METHODS["sparse"](**options)
    return config.attach(model, Scope(), torch.Generator().manual_seed(0), losses(model))


def chosen(tuner, model):
    """Masks of what is trained, by pushing every value away from its place."""
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    with torch.no_grad():
        tuner.values.add_(1)
    tuner.refresh()
    masks = {n: p.detach() != before[n] for n, p in model.named_parameters()}
    with torch.no_grad():
        tuner.values.sub_(1)
    tuner.refresh()
    return masks


@pytest.mark.parametrize(("selector", "structure"), itertools.product(SELECTORS, STRUCTURES))
def test_what_is_trained_has_the_gradient_of_the_dense_network(selector, structure):
    model, dense = network(), network()
    tuner = attached(model, selector=selector, structure=structure, fraction=0.2, block=4)
    masks = chosen(tuner, model)
    x, y = batch(0)
    F.mse_loss(model(x), y).backward()
    F.mse_loss(dense(x), y).backward()
    wanted = torch.cat([p.grad[masks[n]] for n, p in dense.named_parameters()])
    # columns stand in their own order
    assert torch.allclose(tuner.values.grad.sort().values, wanted.sort().values, atol=1e-6)
    share = sum(int(m.sum()) for m in masks.values()) / sum(m.numel() for m in masks.values())
    assert 0.1 < share < 0.35


@pytest.mark.parametrize(
    ("selector", "score"),
    [
        ("smallest", lambda w, g: -w.abs()),
        ("largest", lambda w, g: w.abs()),
        ("snip", lambda w, g: (w * g).abs()),
        ("fisher", lambda w, g: g.square()),
        ("gradient", lambda w, g: g.abs()),
    ],
)
def test_single_numbers_are_those_with_the_highest_score(selector, score):
    model, dense = network(), network()
    masks = chosen(attached(model, selector=selector, fraction=0.1), model)
    total = {n: torch.zeros_like(p) for n, p in dense.named_parameters()}
    for loss in losses(dense)():
        dense.zero_grad()
        loss.backward()
        for n, p in dense.named_parameters():
            total[n] += score(p.detach(), p.grad)
    for n, mask in masks.items():
        count = max(1, round(0.1 * mask.numel()))
        assert set(mask.flatten().nonzero().flatten().tolist()) == set(total[n].flatten().topk(count).indices.tolist())


def test_a_cross_has_the_diagonal_and_whole_rows_and_columns():
    model = network()
    mask = chosen(attached(model, structure="cross", fraction=0.4), model)["2.weight"]
    assert mask[torch.arange(10), torch.arange(10)].all()
    rows, columns = mask.all(1), mask.all(0)
    assert rows.any() and columns.any()
    outside = mask[~rows][:, ~columns]
    assert int(outside.sum()) <= 10  # the rest of the diagonal
    strength = model[2].weight.detach().abs().mean(1)
    assert strength[rows].min() >= strength[~rows].max()


def test_random_numbers_follow_from_the_generator_alone():
    first, second = network(), network()
    one, two = (attached(m, selector="random", fraction=0.1) for m in (first, second))
    assert all((a == b).all() for a, b in zip(chosen(one, first).values(), chosen(two, second).values(), strict=True))


def test_a_structure_that_nothing_has_is_named():
    with pytest.raises(ValueError, match="no tensor in the scope has rows"):
        from training.methods import METHODS, Scope

        METHODS["sparse"](structure="rows").attach(nn.LayerNorm(4), Scope(), torch.Generator())


@pytest.mark.parametrize("structure", STRUCTURES)
def test_every_structure_goes_through_a_file(structure, tmp_path):
    from training.methods import METHODS, Scope
    from training.methods.adapter import Adapter, apply_adapter, load_adapter, save_adapter, weights_hash

    model, again = network(), network()
    base, sizes = weights_hash(model), {n: p.numel() for n, p in model.named_parameters()}
    tuner = attached(model, structure=structure, fraction=0.2, block=4)
    with torch.no_grad():
        tuner.values.add_(torch.randn(tuner.count, generator=torch.Generator().manual_seed(1)))
    tuner.refresh()
    config = METHODS["sparse"](structure=structure, fraction=0.2, block=4)
    adapter = Adapter(method="sparse", config=config, scope=Scope(), base=base, delta=tuner.delta())
    save_adapter(tmp_path / "a.safetensors", adapter, sizes, dtype="fp32")
    apply_adapter(again, load_adapter(tmp_path / "a.safetensors"))
    for (n, p), q in zip(model.named_parameters(), again.parameters(), strict=True):
        assert torch.allclose(p, q, atol=1e-6), n


def test_the_smallest_of_all_together_do_not_take_a_layer_that_starts_at_zero_whole():
    model = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16))
    nn.init.zeros_(model[1].weight)
    tuner = attached(model, selector="smallest", per_tensor=False, fraction=0.6)
    counts = {piece.name: piece.support.count for piece in tuner.pieces}
    assert counts["1.weight"] == 128
    assert 0 < counts["0.weight"] <= 128
