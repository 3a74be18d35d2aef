"""AdamW in its kinds: what a checkpoint keeps of it, and what it says when a package is missing."""

import pytest
import torch
from torch import nn

from training.optimizers import OptimizerOptions, check_optimizer, make_adamw, optimizer_tensors, restore_optimizer


def losses(parameters, optimizer, first, last):
    for step in range(first, last):
        target = torch.randn(parameters[0].shape, generator=torch.Generator().manual_seed(step))
        loss = sum((p - target[: len(p)]).square().mean() for p in parameters)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def start(size=5000):
    generator = torch.Generator().manual_seed(0)
    # the second is too small for bitsandbytes, and the first no multiple of its blocks
    return [nn.Parameter(torch.randn(size, generator=generator)), nn.Parameter(torch.randn(100, generator=generator))]


def made(parameters, options):
    return make_adamw([{"params": parameters, "lr": 1e-2}], options, weight_decay=0.01)


KINDS = [OptimizerOptions(adam_kernel=kernel) for kernel in ("auto", "fused", "foreach", "loop")]
KINDS.append(OptimizerOptions(optimizer="adamw8bit"))


@pytest.mark.parametrize("options", KINDS, ids=lambda o: f"{o.optimizer}-{o.adam_kernel}")
def test_state_that_was_stored_goes_on_bit_for_bit(options, tmp_path):
    if options.optimizer == "adamw8bit":
        pytest.importorskip("bitsandbytes")
    from safetensors.torch import load_file, save_file

    straight = start()
    losses(straight, made(straight, options), 0, 6)
    bent = start()
    optimizer = made(bent, options)
    losses(bent, optimizer, 0, 3)
    save_file(optimizer_tensors(optimizer, dict(zip("ab", bent, strict=True))), tmp_path / "o.safetensors")
    again = [nn.Parameter(p.detach().clone()) for p in bent]
    optimizer = made(again, options)
    restore_optimizer(optimizer, load_file(tmp_path / "o.safetensors"), dict(zip("ab", again, strict=True)))
    losses(again, optimizer, 3, 6)
    assert all(torch.equal(a, b) for a, b in zip(straight, again, strict=True))


def test_eight_bits_take_a_quarter_of_the_state_and_learn_nearly_the_same():
    pytest.importorskip("bitsandbytes")
    exact, small = start(40_000), start(40_000)
    begun = exact[0].detach().clone()
    one, two = made(exact, OptimizerOptions()), made(small, OptimizerOptions(optimizer="adamw8bit"))
    losses(exact, one, 0, 10)
    losses(small, two, 0, 10)

    def size(optimizer, parameters):
        found = optimizer_tensors(optimizer, {"a": parameters[0]})
        return sum(t.numel() * t.element_size() for t in found.values())

    assert size(two, small) < 0.27 * size(one, exact)
    assert (exact[0] - small[0]).norm() < 0.05 * (exact[0] - begun).norm()


def test_a_new_choice_takes_eight_bit_state_along():
    pytest.importorskip("bitsandbytes")
    from training.methods.ages import begin_ages
    from training.methods.base import Moved
    from training.methods.optimizer import _carried

    (parameter, _) = start()
    optimizer = made([parameter], OptimizerOptions(optimizer="adamw8bit"))
    losses([parameter], optimizer, 0, 3)
    kept = torch.cat([torch.arange(1000, 5000), torch.full((700,), -1)])
    move = Moved(old=parameter, new=nn.Parameter(torch.zeros(len(kept))), kept=kept)
    begin_ages(optimizer)
    before = optimizer.state[parameter]
    after = _carried(before, move)
    assert after["age"].tolist() == [3.0] * 4000 + [0.0] * 700

    def read(state, k):
        blocks = state[f"absmax{k}"].repeat_interleave(256)[: len(state[f"state{k}"])]
        return state[f"qmap{k}"][state[f"state{k}"].long()] * blocks

    for k in "12":
        old, new = read(before, k), read(after, k)
        assert new[4000:].abs().max() < 1e-4 * old.abs().max()  # its code for 0 is nearly that
        torch.testing.assert_close(new[:4000], old[1000:], rtol=0.15, atol=float(old.abs().max()) * 0.01)
    assert after["step"] == before["step"]


def test_the_fused_kernel_gives_the_steps_of_the_loop():
    one, two = start(), start()
    losses(one, made(one, OptimizerOptions(adam_kernel="fused")), 0, 5)
    losses(two, made(two, OptimizerOptions(adam_kernel="loop")), 0, 5)
    torch.testing.assert_close(one[0], two[0], rtol=1e-5, atol=1e-6)


def test_the_decays_of_the_config_reach_the_optimizer():
    (group,) = made(start(), OptimizerOptions(adam_beta1=0.8, adam_beta2=0.95, adam_epsilon=1e-6)).param_groups
    assert group["betas"] == (0.8, 0.95) and group["eps"] == 1e-6 and group["weight_decay"] == 0.01


def test_without_bitsandbytes_the_message_has_the_line_that_installs_it(monkeypatch):
    import training.optimizers

    monkeypatch.setattr(training.optimizers, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"optimizer adamw8bit: .* pip install 'animatex-studio\[eight-bit\]'"):
        check_optimizer(OptimizerOptions(optimizer="adamw8bit"))
