"""How soft pictures are, and real ones made as soft as generated ones, so that the two can be compared.

A soft picture is near to all others: by its distance alone, a model that has learned nothing yet seems to copy.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Pictures = Float[Tensor, "n 3 height width"]
"""RGB in 0..1."""


def mean_step(pictures: Pictures) -> float:
    """Mean difference of neighbouring pixels, across and down: small where pictures are soft."""
    across = (pictures[..., 1:] - pictures[..., :-1]).abs().mean()
    down = (pictures[..., 1:, :] - pictures[..., :-1, :]).abs().mean()
    return float(across + down) / 2


def softening(pictures: Pictures, step: float) -> float:
    """The blur that brings the `mean_step` of pictures down to `step`; 0 where they are soft enough. [px]"""
    if mean_step(pictures) <= step:
        return 0.0
    low, high = 0.0, float(max(pictures.shape[-2:]))
    for _ in range(12):  # to a few hundredths of a pixel
        sigma = (low + high) / 2
        low, high = (sigma, high) if mean_step(blurred(pictures, sigma)) > step else (low, sigma)
    return high


def blurred(pictures: Pictures, sigma: float) -> Pictures:
    """Gaussian blur. [px]"""
    if sigma <= 0:
        return pictures
    found = pictures
    for dim in (-1, -2):
        reach = min(math.ceil(3 * sigma), found.shape[dim] - 1)
        place = torch.arange(-reach, reach + 1, dtype=found.dtype, device=found.device)
        kernel = torch.exp(-(place**2) / (2 * sigma**2))
        kernel = (kernel / kernel.sum()).reshape((1, 1, -1, 1) if dim == -2 else (1, 1, 1, -1)).expand(3, 1, -1, -1)
        pad = (0, 0, reach, reach) if dim == -2 else (reach, reach, 0, 0)
        found = F.conv2d(F.pad(found, pad, mode="reflect"), kernel, groups=3)
    return found
