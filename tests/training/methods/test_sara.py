"""SaRA's rules, and the bugs of the released code as tests of ours (specs, 1.8)."""

import pytest
import torch
import torch.nn.functional as F

from training.methods import METHODS, Scope, rebuild
from training.methods.sara import SaRA, learning_rate_of, nuclear_direction

from . import toys
from .test_conformance import optimizer_of


def attach(model, **options):
    return SaRA(**options).attach(model, Scope(), torch.Generator().manual_seed(0))


@pytest.fixture
def model():
    return toys.make("linear")


def test_the_smallest_of_the_whole_network_are_trained(model):
    tuner = attach(model, fraction=0.1)
    everything = torch.cat([p.flatten() for p in model.parameters()]).abs()
    assert tuner.count == round(0.1 * len(everything))
    assert tuner.values.abs().max() <= everything.sort().values[tuner.count]
    assert any(not isinstance(model.get_submodule(p.name.rpartition(".")[0]), torch.nn.Linear) for p in tuner.pieces)


def test_a_threshold_trains_what_is_below_it_and_a_budget_so_many(model):
    tuner = attach(model, threshold=0.01)
    assert tuner.values.abs().max() < 0.01
    assert attach(toys.make("linear"), budget=77).count == 77


def test_a_layer_that_starts_at_zero_is_not_taken_whole(model):
    torch.nn.init.zeros_(model.head.weight)
    tuner = attach(model, fraction=0.05, cap=0.25)
    taken = {p.name: p.support.count for p in tuner.pieces}
    assert taken["head.weight"] == model.head.weight.numel() // 4


def test_signs_survive(model):
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    attach(model, fraction=0.5).after_step(1)
    for name, p in model.named_parameters():
        assert torch.equal(p, before[name])


def test_the_low_rank_term_reaches_the_trained_numbers(model):
    wide = torch.nn.Linear(80, 80)
    tuner = attach(wide, fraction=0.3, nuclear_weight=1.0, nuclear_every=1)
    tuner.penalty().backward()
    (piece,) = [p for p in tuner.pieces if p.name == "weight"]
    matrix = torch.zeros(80, 80)
    matrix.view(-1)[piece.support.index().long()] = tuner.values[piece.span].detach()
    u, _, v = torch.linalg.svd(matrix)
    wanted = (u @ v).flatten()[piece.support.index().long()]
    torch.testing.assert_close(tuner.values.grad[piece.span], wanted, rtol=0, atol=2e-3)
    torch.testing.assert_close(nuclear_direction(piece, tuner.values[piece.span].detach()), wanted, rtol=0, atol=2e-3)


def test_the_term_differs_from_step_to_step_and_is_the_same_again(model):
    def terms():
        tuner = attach(torch.nn.Sequential(*[torch.nn.Linear(80, 80) for _ in range(4)]), fraction=0.3, nuclear_every=1)
        found = []
        for step in range(6):
            found.append(float(tuner.penalty().detach()))
            tuner.after_step(step + 1)
        return found

    torch.manual_seed(0)
    first = terms()
    torch.manual_seed(0)
    assert first == terms()
    assert len(set(first)) > 1


@pytest.mark.parametrize("form", ["nuclear", "decay"])
def test_a_term_every_few_steps_is_the_same_on_average(form):
    def total(every):
        torch.manual_seed(0)
        tuner = attach(torch.nn.Linear(80, 80), fraction=0.3, nuclear_form=form, nuclear_every=every)
        terms = []
        for step in range(12):
            terms.append(tuner.penalty())
            tuner.after_step(step + 1)
        assert [step for step, term in enumerate(terms) if term is not None] == list(range(0, 12, every))
        return sum(float(term.detach()) for term in terms if term is not None)

    assert total(4) == pytest.approx(total(1), rel=1e-5)


def test_a_resumed_run_goes_on_with_the_terms_draws():
    torch.manual_seed(0)
    network = torch.nn.Sequential(*[torch.nn.Linear(80, 80) for _ in range(4)])
    tuner = attach(network, fraction=0.3, nuclear_every=3)
    for step in range(3):
        tuner.after_step(step + 1)
    state = {n: v.clone() for n, v in tuner.state().items()}
    straight = [float(tuner.penalty().detach())]
    tuner.unload()
    again = attach(network, fraction=0.3, nuclear_every=3)
    again.load_state(state, 3)
    assert [float(again.penalty().detach())] == straight


def test_reselection_goes_on_with_the_small_ones_their_state_and_their_rate(model):
    tuner = attach(model, fraction=0.3, reselect_step=3, nuclear_weight=0.0)
    optimizer = optimizer_of(tuner, lr=0.02)
    for step in range(3):
        x, y = model.data(step)
        F.mse_loss(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
        before = (tuner.values.detach().clone(), {k: v.clone() for k, v in optimizer.state[tuner.values].items()})
        again = tuner.after_step(step + 1)
        assert again == (step == 2)
    learned = {n: p.detach().clone() for n, p in model.named_parameters()}
    small = before[0].abs() <= tuner.limit
    assert 0 < small.sum() < len(small)
    rebuild(optimizer, tuner)
    torch.testing.assert_close(tuner.values.detach(), before[0][small], rtol=0, atol=0)
    state = optimizer.state[tuner.values]
    for key in ("exp_avg", "exp_avg_sq"):
        torch.testing.assert_close(state[key], before[1][key][small], rtol=0, atol=0)
    assert state["step"] == 3
    assert optimizer.param_groups[0]["lr"] == 0.02
    # what left stays where it had got to, also in the file
    for name, p in model.named_parameters():
        assert torch.equal(p, learned[name])
    assert sum(len(v) for k, v in tuner.delta().items() if k.endswith(".change")) == len(small)
    moving = tuner.values.detach().clone()
    x, y = model.data(9)
    F.mse_loss(model(x), y).backward()
    optimizer.step()
    tuner.after_step(4)
    assert not torch.equal(tuner.values, moving)
    changed = sum(int((p != learned[n]).sum()) for n, p in model.named_parameters())
    assert 0 < changed <= tuner.count


def test_weights_in_bf16_are_trained_in_float32(model):
    model = model.bfloat16()
    tuner = attach(model, fraction=0.1, nuclear_weight=0.0)
    optimizer = torch.optim.SGD([tuner.values], lr=1.0)
    before = tuner.values.detach().clone()
    for step in range(64):
        tuner.values.grad = torch.full_like(tuner.values, 1e-6)
        optimizer.step()
        tuner.after_step(step + 1)
    torch.testing.assert_close(before - tuner.values.detach(), torch.full_like(before, 64e-6), rtol=1e-2, atol=1e-8)
    (piece, *_) = tuner.pieces
    assert torch.equal(piece.support.take(piece.parameter), tuner.values[piece.span].bfloat16())


@pytest.mark.parametrize(("fraction", "rate"), [(0.058, 5e-4), (0.0058, 9.3e-4), (0.023, 7.6e-4), (0.145, 1.7e-4)])
def test_the_rate_is_the_papers_at_its_fractions(fraction, rate):
    assert learning_rate_of(fraction) == pytest.approx(rate, rel=0.05)


def test_two_rules_at_once_are_refused():
    with pytest.raises(ValueError, match="give one of fraction, threshold and budget"):
        METHODS["sara"](fraction=0.1, budget=5)
