"""How the learning rate goes over a run: a pure function of the step for every schedule.

All but two are those of `diffusers.optimization`, to the digit, with one more knob: they fall to `final_rate` of the
peak, where diffusers falls to 0. `cosine_throughout` is what the mini family was trained with. `power` is the Power
scheduler (Shen et al. 2024, arXiv 2408.13359, eq. 7 and 8).
"""

import math
from collections.abc import Callable
from typing import Final

from pose.registry import Registry
from training.config import TrainingConfig

Schedule = Callable[[int, TrainingConfig], float]
"""The learning rate of step 0, 1, ... of a run."""

SCHEDULES: Final[Registry[Schedule]] = Registry("lr_scheduler")

PEAK_STEPS: Final = 100
"""Steps that the Power schedule stays at its peak when nothing else is said."""

END: Final = 0.01
"""What an exponential fall at the end comes down to before it is shifted."""


def rate_at(step: int, config: TrainingConfig) -> float:
    """The learning rate of a step."""
    return SCHEDULES[config.lr_scheduler](step, config)


@SCHEDULES.register("cosine_throughout")
def cosine_throughout(step: int, config: TrainingConfig) -> float:
    """A linear rise times a cosine over the whole run; the first step already has a rate."""
    rise = min(1.0, (step + 1) / max(1, config.warmup_steps))
    progress = min(1.0, step / config.steps)
    fall = config.final_rate + (1 - config.final_rate) * 0.5 * (1 + math.cos(math.pi * progress))
    return config.learning_rate * rise * fall


@SCHEDULES.register("constant")
def constant(step: int, config: TrainingConfig) -> float:
    """The peak from the first step to the last."""
    return config.learning_rate


@SCHEDULES.register("constant_with_warmup")
def constant_with_warmup(step: int, config: TrainingConfig) -> float:
    """The peak after a linear rise."""
    return _fall(step, config, lambda progress: 1.0)


@SCHEDULES.register("linear")
def linear(step: int, config: TrainingConfig) -> float:
    """A line down to the final rate."""
    return _fall(step, config, lambda progress: 1 - progress)


@SCHEDULES.register("cosine")
def cosine(step: int, config: TrainingConfig) -> float:
    """Half a cosine wave from the end of the warm-up to the end of the run."""
    return _fall(step, config, lambda progress: 0.5 * (1 + math.cos(math.pi * progress)))


@SCHEDULES.register("cosine_with_restarts")
def cosine_with_restarts(step: int, config: TrainingConfig) -> float:
    """`lr_num_cycles` half waves, each from the peak (SGDR, arXiv 1608.03983)."""

    def wave(progress: float) -> float:
        return 0.5 * (1 + math.cos(math.pi * ((config.lr_num_cycles * progress) % 1.0))) if progress < 1 else 0.0

    return _fall(step, config, wave)


@SCHEDULES.register("polynomial")
def polynomial(step: int, config: TrainingConfig) -> float:
    """What is left of the run to the power of `lr_power`."""
    return _fall(step, config, lambda progress: (1 - progress) ** config.lr_power)


@SCHEDULES.register("power")
def power(step: int, config: TrainingConfig) -> float:
    """min(peak, batch a n^b) for n samples seen, after a linear rise, with a fall at the end.

    The middle part knows nothing of the run's length, so a run can be made longer without beginning anew. The paper
    counts n in tokens and has a = 4, b = -0.51, peak 0.02 for language models of 4096 tokens a sample. Ours counts
    samples; for a fine-tuning run the peak is the method's rate, and `a` follows from where it is left.
    """
    first, decay = config.warmup_steps, decay_steps(config)
    last = max(first, config.steps - decay)
    if step < first:
        return step / first * _power_law(first, config)
    if step <= last:
        return _power_law(step, config)
    progress = min(1.0, (step - last) / max(1, config.steps - last))
    left = 1 - progress
    if config.lr_decay == "exponential":
        # an exponential alone never gets to 0: it is shifted so that it does
        left = (END**progress - END) / (1 - END)
    return _power_law(last, config) * (config.final_rate + (1 - config.final_rate) * left)


def decay_steps(config: TrainingConfig) -> int:
    """The steps of the Power schedule's fall at the end: a tenth of the run by default (sec. 3)."""
    return config.steps // 10 if config.lr_decay_steps is None else config.lr_decay_steps


def _power_law(step: int, config: TrainingConfig) -> float:
    """Eq. 7; written as a share of the peak where `a` is left to us, which is the same for that `a`."""
    seen = step * config.batch_size
    if seen == 0:
        return config.learning_rate
    if config.lr_power_a is None:
        return config.learning_rate * min(1.0, float((step / PEAK_STEPS) ** config.lr_power_b))
    return min(config.learning_rate, config.batch_size * config.lr_power_a * float(seen**config.lr_power_b))


def _fall(step: int, config: TrainingConfig, shape: Callable[[float], float]) -> float:
    """A linear rise, then from the peak to the final rate as `shape` goes from 1 to 0 for a progress of 0 to 1."""
    if step < config.warmup_steps:
        return config.learning_rate * step / max(1, config.warmup_steps)
    progress = min(1.0, (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps))
    return config.learning_rate * (config.final_rate + (1 - config.final_rate) * shape(progress))
