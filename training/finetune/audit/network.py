"""What the network itself gives away: losses, membership, and how much a caption tells it."""

from collections.abc import Callable, Sequence
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from training.finetune.audit.figure import Figure, attempt, of_attack
from training.finetune.data import Sample, View
from training.finetune.families import draw
from training.finetune.opened import OpenedRun
from training.metrics.memorization import TooFewError, difference_interval, membership

PIA_LEVEL: Final = 0.5
"""Where in the schedule PIA asks again; chosen by canaries, see docs/memorization.md."""
LEVELS: Final = (1.0, 0.8, 0.6, 0.4)
"""Where on the way from noise a caption's magnitude is measured."""
SEEDS: Final = 2
"""Noises that a caption's magnitude is the mean over."""

Losses = Float[Tensor, "n"]
Told = Callable[[], None]
"""Called after every picture or caption."""


@torch.no_grad()
def losses_of(opened: OpenedRun, samples: Sequence[Sample], told: Told, *, draws: int = 4) -> Losses:
    """The loss of every picture at noise that depends on its place in the list alone."""
    if not samples:
        return torch.zeros(0)
    learner = opened.learner
    return learner.losses_at_fixed_noise(samples, learner.tasks[0], draws=draws, on_sample=told).mean(1)


@torch.no_grad()
def pia_of(opened: OpenedRun, samples: Sequence[Sample], told: Told) -> Losses:
    """PIA's distance (arXiv 2305.18355, eq. 9), less for trained pictures: ||e(x_t) - e||_4 with e = e(x_0).

    It needs no draws: x_t is the picture with the noise e in it that the network sees in the picture itself. The norm
    is a mean over numbers, so that sizes of pictures do not count. The paper's normalised form is not taken: a network
    that learned velocities sees hardly any noise in a clean picture, and what it sees is not normal.

    Raises:
        LevelError: the family's network cannot be asked so.
    """
    found = []
    for sample in samples:
        batch = opened.learner.batch_of([View(sample=sample, caption=sample.caption)])
        ask, clean = opened.family.prediction, batch.encoded["latents"]
        own = ask(batch.encoded, batch.embedded, clean, 0.0).noise
        noisy = opened.family.mix(clean, own, PIA_LEVEL)
        again = ask(batch.encoded, batch.embedded, noisy, PIA_LEVEL).noise
        found.append((again - own).pow(4).mean().pow(0.25).cpu())
        told()
    return torch.stack(found) if found else torch.zeros(0)


@torch.no_grad()
def magnitude_of(opened: OpenedRun, caption: str, like: Sample) -> float:
    """How much a caption changes what the network says: mean of ||with - without|| / sqrt(dim).

    Wen et al. 2024 (arXiv 2407.21720), sec. 3.2, with these differences: a few levels of a DDIM path instead of a
    sampler's, without guidance; divided by sqrt(dim); and the difference is of what the network is trained to say, so
    that it is theirs for networks that say noise. Captions are never left out here.

    Args:
        like: the picture whose size, and what else the network is told of it, is taken.
    """
    family = opened.family
    batch = opened.learner.batch_of([View(sample=like, caption=caption)] * SEEDS)
    without = opened.learner.batch_of([View(sample=like, caption="")] * SEEDS)
    shape, device = batch.encoded["latents"].shape[1:], batch.encoded["latents"].device
    noisy = draw(shape, range(SEEDS), device).noise
    found = []
    for level, following in zip(LEVELS, (*LEVELS[1:], 0.0), strict=True):
        said = family.prediction(batch.encoded, batch.embedded, noisy, level)
        bare = family.prediction(batch.encoded, without.embedded, noisy, level)
        found.append((said.said - bare.said).flatten(1).pow(2).mean(1).sqrt())
        noisy = family.mix(said.clean, said.noise, following)
    return float(torch.stack(found).mean())


def loss_figures(trained: Losses, held_out: Losses, before: tuple[Losses, Losses]) -> list[Figure]:
    """The loss gap, and membership by the loss.

    Args:
        before: losses of the same pictures by the model as it was before the run.
    """
    count = len(trained) + len(held_out)

    def gap() -> Figure:
        if min(len(trained), len(held_out)) < 2:
            raise TooFewError(f"a loss gap needs two held-out pictures at least, there are {len(held_out)}")
        low, high = difference_interval(held_out, trained)
        background = float(before[1].mean() - before[0].mean())
        value = float(held_out.mean() - trained.mean())
        return Figure(
            name="loss-gap", space="loss", count=count, value=value, low=low, high=high, background=background,
            verdict="copying" if low > max(0.0, background) else "no copying",
        )  # fmt: skip

    return [attempt("loss-gap", "loss", count, gap), *attack_figures("membership-loss", trained, held_out, before)]


def attack_figures(name: str, trained: Losses, held_out: Losses, before: tuple[Losses, Losses]) -> list[Figure]:
    """Both figures of a membership attack, or why there are none."""
    count = len(trained) + len(held_out)
    try:
        return list(of_attack(name, membership(trained, held_out), membership(*before)))
    except TooFewError as error:
        why = str(error)
    return [Figure(name=n, space="loss", count=count, verdict="not measured", why=why) for n in (name, f"{name}-tpr")]


def magnitude_figure(captions: Sequence[float], unrelated: Sequence[float]) -> Figure:
    """The mean over trained captions, beside that of unrelated prompts."""
    own, others = torch.tensor(captions), torch.tensor(unrelated)
    return Figure(
        name="text-magnitude", space="loss", count=len(own), value=float(own.mean()), background=float(others.mean()),
    )  # fmt: skip
