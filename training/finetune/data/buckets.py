"""Buckets: the few sizes and lengths that files are brought to, so that they can share a batch."""

import math
from dataclasses import dataclass, replace


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a task of a model takes."""

    frames: int = 1
    """Frames of a clip; 1 for single pictures."""
    factor: int = 0
    """A clip has k * factor + 1 frames; 0: the model takes single pictures only."""
    fps: float | None = None
    """Rate at which videos are read; None: their own. [frames/s]"""
    stills: bool = True
    """Whether pictures teach the task anything, as clips of one frame."""
    poses: bool = False
    """Whether the task needs the body's keypoints in every frame."""

    def asked(self, frames: int | None, fps: float | None) -> "Wanted":
        """With what the user asks instead.

        Raises:
            ValueError: the model has no clips of that length.
        """
        frames = self.frames if frames is None else frames
        if frames > 1 and not self.factor:
            raise ValueError(f"num_frames {frames}: this model takes single pictures; leave num_frames out")
        if self.factor and (frames - 1) % self.factor:
            below = (frames - 1) // self.factor * self.factor + 1
            raise ValueError(
                f"num_frames {frames}: must be {self.factor}k + 1 for this model; try {below} or {below + self.factor}"
            )
        if frames == 1 and not self.stills:
            raise ValueError(f"num_frames 1: this task learns from motion; try {2 * self.factor + 1}")
        return replace(self, frames=frames, fps=fps or self.fps)


def bucket(width: int, height: int, *, resolution: int, multiple: int) -> tuple[int, int]:
    """The size nearest to a picture's shape, 2:1 at most, of about `resolution`^2 pixels; its sides are multiples."""
    shape = min(2.0, max(0.5, width / height))
    across = max(multiple, round(resolution * math.sqrt(shape) / multiple) * multiple)
    return across, max(multiple, round(resolution**2 / across / multiple) * multiple)


def windows(total: int, wanted: Wanted, most: int) -> list[tuple[int, int]]:
    """The pieces (first frame, frames) that are taken of a video of `total` frames: at most `most`, evenly spread.

    Pieces do not overlap as long as fewer than `most` fit. A video that is too short for one gives the longest
    shorter clip that the model takes, and none where that would be a still.
    """
    frames = wanted.frames
    if total < frames:
        frames = (total - 1) // wanted.factor * wanted.factor + 1
        if frames == 1:
            return []
    count = min(most, total // frames)
    if count == 1:
        return [((total - frames) // 2, frames)]
    return [(round(k * (total - frames) / (count - 1)), frames) for k in range(count)]
