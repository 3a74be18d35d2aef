"""How near a generated video is to the true one, and how near two sets of pictures are."""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from training.metrics.memorization import TooFewError

Video = Float[Tensor, "frames 3 height width"]
"""RGB in 0..1."""


def psnr_star(video: Video, truth: Video) -> float:
    """PSNR* in dB: the mean over frames of each frame's PSNR, in floating point.

    The star (Animate-X, arXiv 2410.10306, sec. 4.1, after DisCo) tells it from the PSNR of uint8 differences, which
    overflow and come out too high. A frame without any error counts as 100 dB.
    """
    mse = (video.double() - truth.double()).square().mean(dim=(1, 2, 3)).clamp(min=1e-10)
    return float((-10 * mse.log10()).mean())


def l1(video: Video, truth: Video) -> float:
    """Mean absolute difference, 0..1."""
    return float((video - truth).abs().mean())


def sharpness(video: Video, truth: Video) -> float:
    """Mean step between neighbouring pixels, beside the truth's: below 1 is blurred, above 1 is noisy."""

    def steps(pictures: Video) -> float:
        return float(pictures.diff(dim=-1).abs().mean() + pictures.diff(dim=-2).abs().mean())

    return steps(video) / max(steps(truth), 1e-9)


def ssim(video: Video, truth: Video, *, window: int = 11, sigma: float = 1.5) -> float:
    """Structural similarity, mean over frames and colours (Wang et al. 2004), with the usual Gaussian window."""
    x = torch.arange(window, dtype=video.dtype, device=video.device) - window // 2
    line = (-x.square() / (2 * sigma**2)).exp()
    line = line / line.sum()

    # as products with band matrices: on a CPU a quarter faster than convolutions of one channel each
    down, across = (_band(line, side) for side in video.shape[-2:])

    def blur(image: Tensor) -> Tensor:
        return down @ image @ across.T

    mean_x, mean_y = blur(video), blur(truth)
    var_x = blur(video * video) - mean_x.square()
    var_y = blur(truth * truth) - mean_y.square()
    covariance = blur(video * truth) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    similarity = ((2 * mean_x * mean_y + c1) * (2 * covariance + c2)) / (
        (mean_x.square() + mean_y.square() + c1) * (var_x + var_y + c2)
    )
    return float(similarity.mean())


def _band(line: Float[Tensor, "window"], side: int) -> Float[Tensor, "out side"]:
    """The matrix that slides a window along a side, where it fits whole."""
    rows = side - len(line) + 1
    return torch.stack([F.pad(line, (k, rows - 1 - k)) for k in range(rows)])


def frechet_distance(first: Float[Tensor, "n dim"], second: Float[Tensor, "m dim"]) -> float:
    """The Frechet distance of two sets of features, taken as Gaussians: |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^1/2).

    With mini-CLIP features it is called FD-mini, never FID: other features, other numbers. It is biased for few
    samples, so only compare values at equal N.

    Raises:
        ValueError: a set has fewer than two samples.
    """
    if min(len(first), len(second)) < 2:
        raise ValueError(f"a Frechet distance needs two samples a side at least, got {len(first)} and {len(second)}")
    a, b = first.double().cpu().numpy(), second.double().cpu().numpy()
    difference = a.mean(0) - b.mean(0)
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    # tr((C1 C2)^1/2) is the sum of the square roots of the eigenvalues of C1 C2, which are those of the symmetric
    # C1^1/2 C2 C1^1/2: no complex numbers and nothing to regularise, also with fewer samples than dimensions
    values, vectors = np.linalg.eigh(cov_a)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    values = np.linalg.eigvalsh(root @ cov_b @ root)
    trace = np.sqrt(np.clip(values, 0, None)).sum()
    return float(difference @ difference + np.trace(cov_a) + np.trace(cov_b) - 2 * trace)


def full_rank_frechet_distance(first: Float[Tensor, "n dim"], second: Float[Tensor, "m dim"]) -> float:
    """The Frechet distance where both covariances can be told: 2 dim + 1 samples a side.

    Raises:
        TooFewError: a side has fewer, so that the number says more of how many there are than of what they are.
    """
    least = 2 * first.shape[1] + 1
    if min(len(first), len(second)) < least:
        raise TooFewError(
            f"a Frechet distance of {first.shape[1]} dimensions needs {least} pictures a side, there are {len(first)} "
            f"and {len(second)}; use the kernel distance (kd), or a space of fewer dimensions"
        )
    return frechet_distance(first, second)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number and how far it may be off."""

    value: float
    error: float | None
    """One standard error; None where there are too few samples to tell."""


def kernel_distance(first: Float[Tensor, "n dim"], second: Float[Tensor, "m dim"]) -> float:
    """The squared maximum mean discrepancy of two sets of features, without bias: it may come out below 0.

    The kernel is that of KID (arXiv 1801.01401, sec. 4), (x . y + 1)^3, on vectors of unit length, so numbers compare
    within a feature space only. Unlike a Frechet distance it has the same expectation for any number of samples.

    Raises:
        ValueError: a set has fewer than two samples.
    """
    return kernel_estimate(first, second).value


def kernel_estimate(first: Float[Tensor, "n dim"], second: Float[Tensor, "m dim"]) -> Estimate:
    """The kernel distance with its standard error by the jackknife, every sample left out once.

    A bootstrap would draw samples twice, and a sample beside itself is what the distance leaves out to be unbiased.

    Raises:
        ValueError: a set has fewer than two samples.
    """
    if min(len(first), len(second)) < 2:
        raise ValueError(f"a kernel distance needs two samples a side at least, got {len(first)} and {len(second)}")

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T + 1) ** 3

    x, y = (F.normalize(side.double(), dim=-1) for side in (first, second))
    across = kernel(x, y)
    value, variance = -2 * float(across.mean()), 0.0
    for side, toward in ((x, across.sum(1)), (y, across.sum(0))):
        n, other = len(side), across.numel() // len(side)
        own = kernel(side, side).fill_diagonal_(0).sum(1)
        within = float(own.sum())
        value += within / (n * (n - 1))
        if n > 2:
            # what is left of the distance without each sample, but for terms that all have in common
            left = (within - 2 * own) / ((n - 1) * (n - 2)) - 2 * (across.sum() - toward) / ((n - 1) * other)
            variance += (n - 1) * float(left.var(correction=0))
        else:
            variance = math.nan
    return Estimate(value=value, error=None if math.isnan(variance) else math.sqrt(variance))


def motion_energy(video: Video, mask: Float[Tensor, "frames 1 height width"]) -> float:
    """Mean absolute change from frame to frame where `mask` is 1, in 1/255: how much the background moves."""
    change = (video[1:] - video[:-1]).abs().mean(1, keepdim=True)
    where = mask[1:] * mask[:-1]
    return float(255 * (change * where).sum() / where.sum().clamp(min=1))


def pck(
    found: Float[Tensor, "*batch joints 2"],
    truth: Float[Tensor, "*batch joints 2"],
    exists: Bool[Tensor, "*batch joints"],
    *,
    seen: Bool[Tensor, "*batch joints"] | None = None,
    share: float = 0.1,
) -> tuple[int, int]:
    """PCK as (right, all) joints: right are those found within `share` of the larger side of the character's box."""
    low = truth.masked_fill(~exists[..., None], torch.inf).amin(-2)
    high = truth.masked_fill(~exists[..., None], -torch.inf).amax(-2)
    size = (high - low).amax(-1, keepdim=True)
    right = ((found - truth).norm(dim=-1) < share * size) & exists
    if seen is not None:
        right &= seen
    return int(right.sum()), int(exists.sum())
