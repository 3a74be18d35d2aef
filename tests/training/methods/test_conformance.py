"""Every method against every behaviour that the trainer, the adapter file and the user rely on."""

import copy

import pytest
import torch
import torch.nn.functional as F

from training.methods import METHODS, Scope, find_scope, follow_ages, rebuild

from . import toys

OPTIONS = {
    "sara": {"fraction": 0.1, "nuclear_weight": 0.0, "reselect_step": 2},
    "paca": {"rank": 4},
    "hft": {"round_steps": 2},
    "lt-sft": {"fraction": 0.1, "select_step": 1},
    "id3": {"fraction": 0.2, "rounds": 3, "round_steps": 1},
    "spt": {"fraction": 0.2, "rank": 1},
    "fourierft": {"rank": 20},
    "waveft": {"rank": 20},
}
"""Small enough for the toys, and with every change of what is trained within two steps."""


def attach(name, model, scope=Scope(), **options):  # noqa: B008
    config = METHODS[name](**{**OPTIONS.get(name, {}), **options})
    losses = lambda: (F.mse_loss(model(x), y) for x, y in (model.data(100 + k) for k in range(2)))  # noqa: E731
    return config.attach(model, scope, torch.Generator().manual_seed(0), losses if config.needs_losses else None)


def optimizer_of(tuner, lr=1e-2):
    groups = [{"params": list(g.parameters), "lr": lr * g.rate} for g in tuner.parameters()]
    return torch.optim.AdamW(groups, weight_decay=0.0)


def train(model, tuner, steps, *, accumulate=1, clip=None, first=0, optimizer=None):
    optimizer = optimizer or optimizer_of(tuner)
    for step in range(first, first + steps):
        x, y = model.data(step, 4)
        for part in range(accumulate):
            size = 4 // accumulate
            cut = slice(part * size, (part + 1) * size)
            loss = F.mse_loss(model(x[cut]), y[cut]) / accumulate
            extra = tuner.penalty()
            (loss if extra is None else loss + extra / accumulate).backward()
        if clip:
            torch.nn.utils.clip_grad_norm_([p for g in tuner.parameters() for p in g.parameters], clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if tuner.after_step(step + 1):
            rebuild(optimizer, tuner)
    return optimizer


def weights(model):
    return {n: t.detach().clone() for n, t in model.state_dict().items()}


LINEAR_ONLY = ("delora", "gralora", "randlora", "vera", "miss", "boft", "road", "fourierft", "waveft")
UNKNOWN = {
    ("attention", "conv2"),
    ("attention", "conv3"),
    *((m, "conv3") for m in ("loha", "lokr", "oft", "hra")),
    ("oft", "conv2"),
    *((m, k) for m in LINEAR_ONLY for k in ("conv2", "conv3")),
}
"""What a method finds nothing in."""


@pytest.fixture(params=[(m, k) for m in METHODS for k in toys.KINDS if (m, k) not in UNKNOWN], ids="-".join)
def pair(request):
    return request.param


@pytest.fixture
def method(pair):
    return pair[0]


@pytest.fixture
def kind(pair):
    return pair[1]


@pytest.mark.parametrize("pair", sorted(UNKNOWN), ids="-".join)
def test_a_method_that_finds_nothing_says_so_and_leaves_the_model_alone(pair):
    model = toys.make(pair[1])
    with pytest.raises(ValueError, match="in the scope"):
        attach(pair[0], model)
    assert all(p.requires_grad for p in model.parameters())


def equal(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def test_attaching_is_the_identity(method, kind):
    model = toys.make(kind)
    x, _ = model.data(0)
    before = model(x)
    attach(method, model)
    # a rotation by nothing is a product with what is the identity only to rounding
    tolerance = 1e-5 if method in ("oft", "hra") else 0.0
    torch.testing.assert_close(model(x), before, rtol=0, atol=tolerance)


def test_training_learns_and_moves_only_what_the_scope_holds(method, kind):
    model = toys.make(kind)
    inside = ("blocks.0",) if kind == "linear" else ("norm", "down")
    before = weights(model)
    x, y = model.data(0)
    with torch.no_grad():
        at_first = float(F.mse_loss(model(x), y))
    tuner = attach(method, model, find_scope(model, inside))
    optimizer = optimizer_of(tuner)
    for step in range(15):
        F.mse_loss(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
        if tuner.after_step(step + 1):
            rebuild(optimizer, tuner)
    with torch.no_grad():
        assert float(F.mse_loss(model(x), y)) < at_first
    tuner.merge()
    for name, value in weights(model).items():
        if not name.startswith(inside):
            assert torch.equal(value, before[name]), name


def test_the_count_is_what_the_optimizer_holds(method, kind):
    tuner = attach(method, toys.make(kind))
    assert tuner.count == sum(p.numel() for g in tuner.parameters() for p in g.parameters) > 0


def test_merged_is_unmerged(method, kind):
    model = toys.make(kind)
    names = list(model.state_dict())
    trained = {n: p.requires_grad for n, p in model.named_parameters()}
    tuner = attach(method, model)
    train(model, tuner, 3)
    x, _ = model.data(0)
    with torch.no_grad():
        before = model(x)
        tuner.merge()
        torch.testing.assert_close(model(x), before, rtol=1e-4, atol=1e-5)
    assert list(model.state_dict()) == names
    assert {n: p.requires_grad for n, p in model.named_parameters()} == trained


def test_unloading_and_disabling_give_the_base_bit_for_bit(method, kind):
    model = toys.make(kind)
    base, (x, _) = weights(model), model.data(0)
    with torch.no_grad():
        plain = model(x)
        tuner = attach(method, model)
    train(model, tuner, 3)
    with torch.no_grad():
        changed = model(x)
        assert not torch.equal(changed, plain)
        with tuner.disabled():
            assert torch.equal(model(x), plain)
        torch.testing.assert_close(model(x), changed, rtol=0, atol=0)
        tuner.unload()
        assert torch.equal(model(x), plain)
    equal(weights(model), base)


def test_a_scale_of_one_half_lies_between(method, kind):
    model = toys.make(kind)
    x, _ = model.data(0)
    tuner = attach(method, model)
    train(model, tuner, 3)
    with torch.no_grad():
        outputs = []
        for scale in (0.0, 0.5, 1.0):
            tuner.set_scale(scale)
            outputs.append(model(x))
    zero, half, one = outputs
    assert 0 < (half - zero).norm() < 1.5 * (one - zero).norm()
    assert (half - one).norm() < (zero - one).norm()


def test_what_is_saved_loads_into_a_fresh_model(method, kind):
    model = toys.make(kind)
    x, _ = model.data(0)
    tuner = attach(method, model)
    train(model, tuner, 3)
    delta = {name: value.clone() for name, value in tuner.delta().items()}
    other = toys.make(kind)
    again = attach(method, other)
    again.load(delta)
    with torch.no_grad():
        torch.testing.assert_close(other(x), model(x), rtol=1e-5, atol=1e-6)
        again.unload()
    equal(weights(other), weights(toys.make(kind)))


def test_resuming_goes_on_bit_for_bit(method, kind):
    straight = toys.make(kind)
    train(straight, attach(method, straight), 5)
    model = toys.make(kind)
    tuner = attach(method, model)
    optimizer = train(model, tuner, 3)
    state = {n: v.clone() for n, v in sorted(tuner.state().items())}  # a file has an order of its own
    numbers = copy.deepcopy(optimizer.state_dict())
    other = toys.make(kind)
    again = attach(method, other)
    again.load_state(state, 3)
    resumed = optimizer_of(again)
    resumed.load_state_dict(numbers)
    follow_ages(resumed)
    train(other, again, 2, first=3, optimizer=resumed)
    x, _ = straight.data(9)
    with torch.no_grad():
        assert torch.equal(other(x), straight(x))


def test_accumulation_is_the_large_batch(method, kind):
    model = toys.make(kind)
    other = copy.deepcopy(model)
    # Adam's first step moves everything alike: what moved most would be left to rounding
    options = {"select_step": 9} if method == "lt-sft" else {}
    train(model, attach(method, model, **options), 2)
    tuner = attach(method, other, **options)
    train(other, tuner, 2, accumulate=4)
    x, _ = model.data(9)
    with torch.no_grad():
        torch.testing.assert_close(other(x), model(x), rtol=1e-3, atol=1e-4)


def test_checkpointing_changes_nothing(method, kind):
    model = toys.make(kind)
    other = copy.deepcopy(model)
    other.checkpointing = True
    train(model, attach(method, model), 2)
    train(other, attach(method, other), 2)
    x, _ = model.data(9)
    with torch.no_grad():
        torch.testing.assert_close(other(x), model(x), rtol=1e-5, atol=1e-6)


def test_clipping_bounds_the_gradient(method, kind):
    model = toys.make(kind)
    tuner = attach(method, model)
    x, y = model.data(0)
    (100 * F.mse_loss(model(x), y)).backward()
    parameters = [p for g in tuner.parameters() for p in g.parameters]
    torch.nn.utils.clip_grad_norm_(parameters, 0.01)
    norm = torch.stack([p.grad.norm() for p in parameters if p.grad is not None]).norm()
    assert 0 < norm <= 0.0101
