"""Clips longer than the model: overlapping windows of latent frames, blended at every denoising step."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from models.codecs import num_latent_frames


@dataclass(frozen=True, kw_only=True)
class Window:
    """A run of latent frames that the model sees at once, and how much each counts where windows overlap."""

    start: int
    stop: int
    weights: Float[Tensor, "latent_frames"]

    def take(
        self, latents: Float[Tensor, "batch channels all_frames rows columns"]
    ) -> Float[Tensor, "batch channels latent_frames rows columns"]:
        """Cuts the window out of the latents of the whole clip."""
        return latents[:, :, self.start : self.stop]


def default_overlap(window: int) -> int:
    """Chooses the overlap of windows in latent frames: 2 of the mini model's 5, 4 of Wan's 21 (as released)."""
    return min(max(2, round(window / 5)), max(window - 1, 0))


def plan_windows(num_latents: int, window: int, overlap: int) -> tuple[Window, ...]:
    """Covers a clip with windows of `window` latent frames, of which neighbours share `overlap` or more.

    Weights ramp linearly over an overlap. The first latent frame of a later window counts nothing: the model takes it
    for a codec's first latent frame (one video frame), while here it stands for four.

    Raises:
        ValueError: the overlap is not at least 1 and below `window`, when more than one window is needed.
    """
    if num_latents <= window:
        return (Window(start=0, stop=num_latents, weights=torch.ones(num_latents)),)
    if not 1 <= overlap < window:
        raise ValueError(
            f"windows of {window} latent frames must overlap by 1 to {window - 1}, got {overlap}; "
            f"{default_overlap(window)} is the default"
        )
    starts = [*range(0, num_latents - window, window - overlap), num_latents - window]
    windows = []
    for index, start in enumerate(starts):
        weights = torch.ones(window)
        if index > 0:
            shared = starts[index - 1] + window - start
            weights[:shared] *= torch.arange(shared) / shared
        if index < len(starts) - 1:
            shared = start + window - starts[index + 1]
            weights[-shared:] *= 1 - torch.arange(shared) / shared
        windows.append(Window(start=start, stop=start + window, weights=weights))
    return tuple(windows)


@dataclass(frozen=True, kw_only=True)
class ClipPlan:
    """How many frames a request returns, how many are made for that, and in which windows."""

    num_frames: int
    num_made: int
    num_latents: int
    windows: tuple[Window, ...]
    factor: int

    def frames_of(self, window: Window) -> slice:
        """Gives the video frames that the model takes a window for: latent frame 0 stands for one frame."""
        return slice(self.factor * window.start, self.factor * (window.stop - 1) + 1)

    @property
    def frames_per_window(self) -> int:
        """Video frames that the model sees at once."""
        return self.factor * (self.windows[0].stop - 1) + 1


def plan_clip(
    num_frames: int | None,
    lengths: Sequence[int],
    *,
    model_frames: int,
    overlap_frames: int | None = None,
    factor: int = 4,
) -> ClipPlan:
    """Plans a clip: `num_frames`, or as many frames as there are poses, or as many as the model was trained on.

    Args:
        lengths: Number of poses of each driving clip; none for TI2V.
        model_frames: Frames that the model was trained on.
        overlap_frames: Frames that neighbouring windows share.
        factor: Frames a latent frame.

    Raises:
        ValueError: lengths differ, are too short, or a number of frames is not 4k + 1.
    """
    if len(set(lengths)) > 1:
        raise ValueError(f"all clips of poses must be equally long, got {list(lengths)} frames; cut them first")
    if num_frames is None:
        num_frames = lengths[0] if lengths else model_frames
        num_made = num_frames + (1 - num_frames) % factor
    else:
        num_latent_frames(num_frames, factor)
        num_made = num_frames
    if lengths and lengths[0] < num_frames:
        raise ValueError(
            f"num_frames is {num_frames} but there are only {lengths[0]} poses; leave num_frames out, "
            "or hold the last pose with poses.at_rate(poses.fps, num_frames)"
        )
    window = num_latent_frames(model_frames, factor)
    overlap = default_overlap(window)
    if overlap_frames is not None:
        if (overlap_frames - 1) % factor:
            raise ValueError(
                f"window_overlap must be {factor}k + 1 frames, got {overlap_frames}; try {factor * (overlap - 1) + 1}"
            )
        overlap = (overlap_frames - 1) // factor + 1
    num_latents = num_latent_frames(num_made, factor)
    windows = plan_windows(num_latents, window, overlap)
    return ClipPlan(num_frames=num_frames, num_made=num_made, num_latents=num_latents, windows=windows, factor=factor)


def blend(
    windows: Sequence[Window], parts: Sequence[Float[Tensor, "batch channels _ rows columns"]], num_latents: int
) -> Float[Tensor, "batch channels latent_frames rows columns"]:
    """Joins what the windows gave to one clip: the weighted mean where they overlap."""
    if len(parts) == 1:
        return parts[0]
    like = parts[0]
    total = like.new_zeros(*like.shape[:2], num_latents, *like.shape[3:])
    weight = like.new_zeros(num_latents)
    for window, part in zip(windows, parts, strict=True):
        weights = window.weights.to(like)
        total[:, :, window.start : window.stop] += part * rearrange(weights, "f -> f 1 1")
        weight[window.start : window.stop] += weights
    return total / rearrange(weight, "f -> f 1 1")


class ColourLock:
    """Holds mean and deviation of each colour channel at those of the first window, against slow drift.

    Statistics of later frames are smoothed in time, so that a quick change in the scene stays one. Our own choice:
    useful for long clips of a still scene, wrong where the light is meant to change.
    """

    def __init__(self, first_frames: int, smoothing: float = 0.9) -> None:
        self.first_frames = first_frames
        self.smoothing = smoothing
        self._seen: list[Tensor] = []
        self._target: Tensor | None = None
        self._now: Tensor | None = None
        self._count = 0

    def __call__(
        self, frames: Float[Tensor, "batch 3 frames height width"]
    ) -> Float[Tensor, "batch 3 frames height width"]:
        """Corrects the next frames of a clip, values in [-1, 1]; frames of the first window pass unchanged."""
        out = []
        for frame in frames.unbind(dim=2):
            pixels = rearrange(frame, "b c h w -> b c (h w)")
            statistics = torch.stack([pixels.mean(-1), pixels.std(-1).clamp(min=1e-3)])
            self._count += 1
            if self._count <= self.first_frames:
                self._seen.append(statistics)
                out.append(frame)
                continue
            if self._target is None or self._now is None:
                self._target = self._now = torch.stack(self._seen).mean(0)
            self._now = self.smoothing * self._now + (1 - self.smoothing) * statistics
            (mean, std), (mean_0, std_0) = (rearrange(s, "k b c -> k b c 1 1") for s in (self._now, self._target))
            out.append(((frame - mean) * (std_0 / std) + mean_0).clamp(-1, 1))
        return torch.stack(out, dim=2)
