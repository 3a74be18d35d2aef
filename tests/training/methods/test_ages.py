"""Numbers that join a vector late are moved as if they had a vector of their own."""

import pytest
import torch
from torch import nn

from training.methods.base import Moved
from training.methods.optimizer import rebuild
from training.optimizers import optimizer_tensors, restore_optimizer


class Tuner:
    """What `rebuild` looks at."""

    def __init__(self, values):
        self.values, self.moved = nn.Parameter(values), ()

    def parameters(self):
        from training.methods.base import ParamGroup

        return [ParamGroup(parameters=(self.values,))]

    def grow(self, newcomers):
        old, kept = self.values, [*range(len(self.values)), *[-1] * len(newcomers)]
        self.values = nn.Parameter(torch.cat([old.detach(), newcomers]))
        self.moved = (Moved(old=old, new=self.values, kept=torch.tensor(kept)),)


def adamw(parameter, **options):
    return torch.optim.AdamW([parameter], lr=1e-2, **{"weight_decay": 0.1, "eps": 1e-12, **options})


def step(optimizer, parameter, gradient):
    parameter.grad = gradient.clone()
    optimizer.step()
    optimizer.zero_grad()


@pytest.mark.parametrize("options", [{}, {"foreach": True}, {"fused": True}, {"betas": (0.5, 0.9)}])
def test_a_newcomer_moves_as_in_a_vector_of_its_own(options):
    gradients = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    tuner = Tuner(torch.tensor([0.3, -0.2]))
    optimizer = adamw(tuner.values, **options)
    own = [nn.Parameter(torch.tensor([value])) for value in (0.3, -0.2, 0.5)]
    alone = [adamw(parameter, **options) for parameter in own]
    for k, gradient in enumerate(gradients):
        if k == 10:
            tuner.grow(torch.tensor([0.5]))
            rebuild(optimizer, tuner)
        step(optimizer, tuner.values, gradient[: len(tuner.values)])
        for j in range(len(tuner.values)):
            step(alone[j], own[j], gradient[j : j + 1])
    torch.testing.assert_close(tuner.values.detach(), torch.cat(own).detach(), rtol=1e-5, atol=1e-7)
    # those that were there from the beginning bit for bit
    assert torch.equal(tuner.values[:2], torch.cat(own[:2]))


def test_newcomers_of_eight_bit_adamw_go_no_farther_than_their_rate():
    bitsandbytes = pytest.importorskip("bitsandbytes")
    tuner = Tuner(torch.zeros(5000))
    optimizer = bitsandbytes.optim.AdamW8bit([tuner.values], lr=1e-2, weight_decay=0.0)
    for _ in range(300):
        step(optimizer, tuner.values, torch.ones(5000))
    tuner.grow(torch.zeros(3000))
    rebuild(optimizer, tuner)
    step(optimizer, tuner.values, torch.ones(8000))
    assert optimizer.state[tuner.values]["age"][[0, -1]].tolist() == [301, 1]
    # half of a code of eight bits may be lost of either average
    assert 0.5e-2 < float(-tuner.values.detach()[5000:].mean()) < 1.5e-2


def test_without_ages_a_newcomer_would_leap():
    parameter = nn.Parameter(torch.tensor([0.0, 0.0]))
    optimizer = adamw(parameter, weight_decay=0.0)
    for k in range(1001):
        step(optimizer, parameter, torch.tensor([1.0, float(k == 1000)]))
    assert float(-parameter.detach()[1]) > 2.4e-2
    tuner = Tuner(torch.tensor([0.0]))
    aged = adamw(tuner.values, weight_decay=0.0)
    for _ in range(1000):
        step(aged, tuner.values, torch.tensor([1.0]))
    tuner.grow(torch.tensor([0.0]))
    rebuild(aged, tuner)
    step(aged, tuner.values, torch.tensor([1.0, 1.0]))
    assert float(-tuner.values.detach()[1]) == pytest.approx(1e-2, rel=1e-4)


def test_ages_go_into_a_checkpoint_and_come_out_of_it():
    gradients = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    tuner = Tuner(torch.tensor([0.3, -0.2]))
    optimizer = adamw(tuner.values)
    for gradient in gradients[:5]:
        step(optimizer, tuner.values, gradient[:2])
    tuner.grow(torch.tensor([0.5]))
    rebuild(optimizer, tuner)
    step(optimizer, tuner.values, gradients[5])
    again = nn.Parameter(tuner.values.detach().clone())
    resumed = adamw(again)
    kept = {name: tensor.clone() for name, tensor in optimizer_tensors(optimizer, {"values": tuner.values}).items()}
    restore_optimizer(resumed, kept, {"values": again})
    for gradient in gradients[6:]:
        step(optimizer, tuner.values, gradient)
        step(resumed, again, gradient)
    assert torch.equal(again, tuner.values)


def test_a_vector_that_is_not_moved_does_not_age():
    tuner = Tuner(torch.tensor([0.3]))
    optimizer = adamw(tuner.values)
    step(optimizer, tuner.values, torch.tensor([1.0]))
    tuner.grow(torch.tensor([0.5]))
    rebuild(optimizer, tuner)
    before = tuner.values.detach().clone()
    optimizer.step()  # a task that does not train it
    assert torch.equal(tuner.values, before)
    assert optimizer.state[tuner.values]["age"].tolist() == [1, 0]
