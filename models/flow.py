"""The formulas of flow matching: from clean latents to a noisy sample, its target and its weight in the loss."""

from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

NUM_TRAIN_TIMESTEPS = 1000
"""Timesteps that the network knows: t = 1000 sigma."""

Density = Literal["uniform", "logit_normal"]
"""How training times are drawn: as released, or as in SD3."""


def shift_sigmas(sigmas: Float[Tensor, "..."], shift: float) -> Float[Tensor, "..."]:
    """Moves noise levels toward pure noise: s u / (1 + (s - 1) u) (SD3, arXiv 2403.03206, sec. 5.3.2).

    Raises:
        ValueError: `shift` is not positive.
    """
    if not shift > 0:
        raise ValueError(f"shift must be positive, got {shift}; Wan uses 5 for 720p and 3 for 480p, 1 changes nothing")
    return shift * sigmas / (1 + (shift - 1) * sigmas)


def sample_sigmas(
    batch: int, *, shift: float = 5.0, generator: torch.Generator, density: Density = "uniform"
) -> Float[Tensor, "batch"]:
    """Draws noise levels in (0, 1] for training, on the generator's device; 1 is pure noise.

    "uniform" draws one of the 1000 shifted steps, as UniAnimate-DiT's training code does; "logit_normal" draws
    u = sigmoid(N(0, 1)) and shifts it (SD3, arXiv 2403.03206, sec. 3.1).

    Raises:
        ValueError: `density` is unknown or `shift` is not positive.
    """
    device = generator.device
    if density == "uniform":
        steps = torch.randint(1, NUM_TRAIN_TIMESTEPS + 1, (batch,), generator=generator, device=device)
        return shift_sigmas(steps / NUM_TRAIN_TIMESTEPS, shift)
    if density == "logit_normal":
        return shift_sigmas(torch.randn(batch, generator=generator, device=device).sigmoid(), shift)
    raise ValueError(f"density must be 'uniform' or 'logit_normal', got {density!r}")


def add_noise(
    latents: Float[Tensor, "batch *dims"], noise: Float[Tensor, "batch *dims"], sigmas: Float[Tensor, "batch"]
) -> Float[Tensor, "batch *dims"]:
    """Mixes clean latents and noise on the straight line between them: x_t = (1 - sigma) x_0 + sigma noise."""
    level = _per_sample(sigmas, latents)
    return (1 - level) * latents + level * noise


def velocity_target(
    latents: Float[Tensor, "batch *dims"], noise: Float[Tensor, "batch *dims"]
) -> Float[Tensor, "batch *dims"]:
    """Gives the velocity that the network learns: noise - x_0, the same at every noise level."""
    return noise - latents


def predicted_latents(
    noisy: Float[Tensor, "batch *dims"], velocity: Float[Tensor, "batch *dims"], sigmas: Float[Tensor, "batch"]
) -> Float[Tensor, "batch *dims"]:
    """Gives the clean latents that a velocity points at: x_0 = x_t - sigma v."""
    return noisy - _per_sample(sigmas, noisy) * velocity


def loss_weights(sigmas: Float[Tensor, "batch"], *, shift: float = 5.0) -> Float[Tensor, "batch"]:
    """Weighs the loss of a noise level: a bell around t = 500, zero at pure noise, mean 1 over the shifted steps.

    w(t) = exp(-2 ((t - 500) / 1000)^2) minus its minimum over the 1000 shifted steps, then divided by its mean
    (UniAnimate-DiT's training code). `shift` must be the one that `sample_sigmas` used.
    """
    grid = shift_sigmas(torch.arange(1, NUM_TRAIN_TIMESTEPS + 1, dtype=torch.float64) / NUM_TRAIN_TIMESTEPS, shift)
    bell = _bell(grid)
    least = bell.min()
    weights = (_bell(sigmas.double()) - least) / (bell - least).mean()
    return weights.clamp(min=0).to(sigmas.dtype)


def velocity_loss(
    predicted: Float[Tensor, "batch *dims"],
    target: Float[Tensor, "batch *dims"],
    weights: Float[Tensor, "batch"] | None = None,
) -> Float[Tensor, "batch"]:
    """Measures the weighted mean squared error of each sample; in float32 whatever the inputs are."""
    error = (predicted.float() - target.float()).square().flatten(1).mean(dim=1)
    return error if weights is None else error * weights.to(error)


def _bell(sigmas: Tensor) -> Tensor:
    return torch.exp(-2 * (sigmas - 0.5).square())


def _per_sample(sigmas: Tensor, like: Tensor) -> Tensor:
    return rearrange(sigmas, "batch -> batch" + " 1" * (like.ndim - 1)).to(like)
