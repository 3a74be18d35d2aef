"""Learning rates: those that diffusers has are its, and the Power schedule is the paper's."""

import math
from itertools import pairwise
from typing import get_args

import pytest
import torch

from training.config import ScheduleName
from training.schedules import SCHEDULES, decay_steps, rate_at


def test_the_config_offers_what_is_there():
    assert set(get_args(ScheduleName)) == set(SCHEDULES)


@pytest.mark.parametrize("warmup", [0, 7])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("constant", {}), ("constant_with_warmup", {}), ("linear", {}), ("cosine", {}),
        ("cosine_with_restarts", {"lr_num_cycles": 3}), ("polynomial", {"lr_power": 1.0}),
        ("polynomial", {"lr_power": 2.5}),
    ],
)  # fmt: skip
def test_a_schedule_that_diffusers_has_gives_its_rates(toys, name, options, warmup):
    from diffusers.optimization import get_scheduler

    steps, peak = 60, 3e-4
    theirs = get_scheduler(
        name, torch.optim.SGD([torch.zeros(1)], lr=peak), num_warmup_steps=warmup, num_training_steps=steps,
        num_cycles=options.get("lr_num_cycles", 1), power=options.get("lr_power", 1.0),
    )  # fmt: skip
    # diffusers' polynomial ends at 1e-7, the others at 0
    final = 1e-7 / peak if name == "polynomial" else 0.0
    config = toys.config(
        steps=steps, learning_rate=peak, warmup_steps=warmup, final_rate=final, lr_scheduler=name, **options
    )
    for step in range(steps):
        assert rate_at(step, config) == pytest.approx(theirs.get_last_lr()[0], rel=1e-9, abs=1e-18), step
        theirs.optimizer.step()
        theirs.step()


@pytest.mark.parametrize(
    "name", ["linear", "cosine", "cosine_with_restarts", "polynomial", "cosine_throughout", "power"]
)
def test_a_falling_rate_ends_at_its_share_of_the_peak_or_of_the_power_law(toys, name):
    config = toys.config(steps=50, warmup_steps=5, learning_rate=2.0, final_rate=0.1, lr_scheduler=name)
    assert rate_at(50, config) == pytest.approx(0.2)
    assert max(rate_at(step, config) for step in range(51)) <= 2.0


def test_the_default_is_the_cosine_over_the_whole_run_that_mini_was_trained_with(toys):
    config = toys.config(steps=100, warmup_steps=10, learning_rate=2.0, final_rate=0.1)
    for step in range(101):
        rise, fall = min(1.0, (step + 1) / 10), 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * (step / 100)))
        assert rate_at(step, config) == 2.0 * rise * fall


def test_the_power_schedule_is_equations_7_and_8(toys):
    a, b, batch, peak = 0.4, -0.51, 4, 0.02
    config = toys.config(
        steps=100_000, batch_size=batch, warmup_steps=100, learning_rate=peak, final_rate=0.0, lr_scheduler="power",
        lr_power_a=a, lr_power_b=b, lr_decay_steps=1000, lr_decay="linear",
    )  # fmt: skip

    def eta(samples):
        return min(peak, batch * a * samples**b)

    assert rate_at(50, config) == pytest.approx(0.5 * eta(400))
    for step in (100, 1_000, 5_000, 50_000, 99_000):
        assert rate_at(step, config) == pytest.approx(eta(step * batch))
    assert rate_at(1_000, config) == peak > rate_at(5_000, config)
    assert rate_at(99_500, config) == pytest.approx(0.5 * eta(99_000 * batch))
    assert rate_at(100_000, config) == 0.0


def test_the_power_law_knows_nothing_of_the_runs_length(toys):
    short, long = (
        toys.config(steps=n, lr_scheduler="power", warmup_steps=20, learning_rate=1e-3) for n in (1000, 50_000)
    )
    assert [rate_at(s, short) for s in range(901)] == [rate_at(s, long) for s in range(901)]
    assert rate_at(100, short) == 1e-3 > rate_at(200, short) == pytest.approx(1e-3 * 2**-0.51)
    assert decay_steps(short) == 100


def test_an_exponential_fall_is_steeper_at_first_and_gets_to_its_end(toys):
    line, curve = (
        toys.config(
            steps=1000, lr_scheduler="power", warmup_steps=0, learning_rate=1.0, final_rate=0.0, lr_decay=shape,
            lr_decay_steps=400,
        )
        for shape in ("linear", "exponential")
    )  # fmt: skip
    assert rate_at(600, line) == rate_at(600, curve)
    assert all(rate_at(s, curve) < rate_at(s, line) for s in range(601, 1000))
    assert rate_at(1000, curve) == pytest.approx(0.0, abs=1e-12)
    assert all(x > y for x, y in pairwise(rate_at(s, curve) for s in range(600, 1001)))
