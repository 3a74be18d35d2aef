"""`PoseSequence`: what a pose detector found in a clip, in pixels, with nothing guessed."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from pose.skeleton import NUM_JOINTS

VISIBLE: float = 0.3
"""Joints with at least this confidence count as found (DWPose's threshold)."""


@dataclass(frozen=True, kw_only=True)
class PoseSequence:
    """The body (and perhaps hands, face, feet) of one person over the frames of a clip.

    A joint that was not found has confidence 0 and xy = -1; `visible` says which were. Nothing is NaN.
    """

    xy: Float[Tensor, "frames joints 2"]
    """Joint positions in px of `frame_size`, x to the right, y down; -1 where missing."""
    confidence: Float[Tensor, "frames joints"]
    """0..1; 0 where missing."""
    frame_size: tuple[int, int]
    """(width, height) in px."""
    fps: float
    """Frames a second."""
    hands: Float[Tensor, "frames 42 3"] | None = None
    """(x, y, confidence) of 21 points of the right hand, then 21 of the left."""
    face: Float[Tensor, "frames 68 3"] | None = None
    """(x, y, confidence) of the 68 face points."""
    feet: Float[Tensor, "frames 6 3"] | None = None
    """(x, y, confidence) of big toe, small toe and heel, right foot first."""

    def __post_init__(self) -> None:
        frames, joints = self.confidence.shape
        if joints != NUM_JOINTS or self.xy.shape != (frames, joints, 2):
            raise ValueError(
                f"a pose has {NUM_JOINTS} joints in OpenPose order: xy must be (frames, {NUM_JOINTS}, 2) "
                f"and confidence (frames, {NUM_JOINTS}), got {tuple(self.xy.shape)} and {tuple(self.confidence.shape)}"
            )
        if not frames:
            raise ValueError("a pose sequence needs at least one frame, got 0")
        if min(self.frame_size) < 1:
            raise ValueError(f"frame_size must be at least 1x1 px, got {self.frame_size}")
        if not self.fps > 0:
            raise ValueError(f"fps must be positive, got {self.fps}")
        if not (torch.isfinite(self.xy).all() and torch.isfinite(self.confidence).all()):
            raise ValueError("keypoints must be finite numbers; mark a missing joint with confidence 0")

    def __len__(self) -> int:
        return self.xy.shape[0]

    @property
    def visible(self) -> Tensor:
        """Bool (frames, joints): which joints were found."""
        return self.confidence >= VISIBLE

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return len(self) / self.fps

    def frame(self, index: int) -> "PoseSequence":
        """Takes one frame as a sequence of its own."""
        return self[index : index + 1 or None]

    def __getitem__(self, frames: slice | Tensor) -> "PoseSequence":
        """Takes some of the frames; fps stays as it is."""

        def take(points: Tensor | None) -> Tensor | None:
            return None if points is None else points[frames]

        return replace(
            self,
            xy=self.xy[frames],
            confidence=self.confidence[frames],
            hands=take(self.hands),
            face=take(self.face),
            feet=take(self.feet),
        )

    def at_rate(self, fps: float, num_frames: int | None = None) -> "PoseSequence":
        """Resamples to another rate by nearest frame in time, so that the motion keeps its speed.

        `num_frames` cuts the result, or holds the last pose when the clip is too short.
        """
        length = num_frames or max(1, round(self.duration_s * fps))
        index = (torch.arange(length) * (self.fps / fps)).round().long().clamp(max=len(self) - 1)
        return replace(self[index], fps=fps)
