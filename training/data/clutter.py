"""Photographs, as far as they can be made up: busy grounds, uneven light and rough surfaces for drawn characters.

A detector that has only seen clean drawings finds limbs in rocks and flowers. The grounds have the spectrum of natural
pictures (amplitude about 1 / frequency: Field 1987) with random blobs and bars before it; "dead leaves" of this kind
are known to teach nearly what photographs teach (Baradad et al., arXiv 2106.05963).
"""

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor

Pictures = Float[Tensor, "batch 3 height width"]

SHAPES = 12
"""Most blobs and bars of one ground."""


def pink_noise(
    count: int, size: tuple[int, int], generator: torch.Generator, *, steepness: tuple[float, float] = (0.8, 1.6)
) -> Float[Tensor, "batch 3 height width"]:
    """Noise of mean 0 and deviation 1 whose amplitude falls with frequency. `size` is (width, height) px."""
    width, height = size
    white = torch.randn(count, 3, height, width, generator=generator)
    down, across = torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None]
    frequency = (down.square() + across.square()).sqrt().clamp(min=1 / max(width, height))
    low, high = steepness
    power = low + (high - low) * torch.rand(count, 1, 1, 1, generator=generator)
    noise = torch.fft.irfft2(torch.fft.rfft2(white) * frequency**-power, s=(height, width))
    mixing = torch.randn(count, 3, 3, generator=generator) * 0.25 + 0.6  # mostly grey, as nature is
    noise = einsum(mixing, noise, "b o c, b c h w -> b o h w")
    noise = noise - noise.mean((1, 2, 3), keepdim=True)
    return noise / noise.std((1, 2, 3), keepdim=True)


def busy_grounds(count: int, size: tuple[int, int], generator: torch.Generator) -> Pictures:
    """Draws grounds full of things that are no characters, in 0..1."""
    width, height = size

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=generator)

    ground = uniform(0.2, 0.8, 3, 1, 1) + uniform(0.05, 0.25, 1, 1, 1) * pink_noise(count, size, generator)
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    for _ in range(SHAPES):
        cx, cy, turn = uniform(-0.1, 1.1, 1, 1), uniform(-0.1, 1.1, 1, 1), uniform(0, torch.pi, 1, 1)
        along = (x - cx) * turn.cos() + (y - cy) * turn.sin()
        aside = (y - cy) * turn.cos() - (x - cx) * turn.sin()
        power = torch.where(uniform(0, 1, 1, 1) < 0.5, 2.0, 8.0)  # ellipses and rounded bars
        inside = (along / uniform(0.03, 0.3, 1, 1)).abs() ** power + (aside / uniform(0.02, 0.12, 1, 1)).abs() ** power
        there = (inside < 1) & (uniform(0, 1, 1, 1) < 0.5)
        colour = uniform(0, 1, 3, 1, 1) + uniform(0, 0.2, 1, 1, 1) * pink_noise(count, size, generator)
        ground = torch.where(there[:, None], colour, ground)
    return ground.clamp(0, 1)


def as_photographs(drawn: Pictures, plain: Pictures, share: float, generator: torch.Generator) -> Pictures:
    """Puts a share of the drawn characters, found by their `plain` grounds, before busy grounds in uneven light."""
    count, _, height, width = drawn.shape
    size = (width, height)
    chosen = torch.rand(count, generator=generator) < share
    noise = pink_noise(count, size, generator, steepness=(1.4, 2.2))
    rough = pink_noise(count, size, generator)
    strength = torch.rand(3, count, generator=generator)
    if not chosen.any():
        return drawn
    ground = busy_grounds(count, size, generator)
    character = ((drawn - plain).abs().amax(1, keepdim=True) > 0.02).to(drawn)
    character = F.avg_pool2d(F.pad(character, (1, 1, 1, 1), mode="replicate"), 3, 1)
    light, grain, keep = (rearrange(s, "b -> b 1 1 1").to(drawn) for s in strength)
    body = drawn * (1 + 0.25 * grain * rough.to(drawn))
    made = torch.lerp(ground.to(drawn), body, character)
    # sometimes the ground shows through a little, so that its edge is no sign of the character either
    made = torch.lerp(made, drawn, 0.3 * keep)
    made = made * (1 + 0.3 * light * noise.mean(1, keepdim=True).to(drawn))
    return torch.where(chosen.to(drawn.device)[:, None, None, None], made.clamp(0, 1), drawn)
