"""The bundled motions: names that `--driving` takes in place of a video."""

import torch

from pose.bundled import BUNDLED, MOTIONS
from pose.choreography import HUMAN, choreograph, improvise, joint_positions, proportions
from pose.sequence import PoseSequence

__all__ = ["MOTIONS", "make_motion"]


def make_motion(
    name: str, *, num_frames: int = 17, fps: float = 12.0, frame_size: tuple[int, int] = (128, 128)
) -> PoseSequence:
    """Performs a bundled motion on a body of human proportions, standing in the middle of the canvas.

    Raises:
        ValueError: there is no such motion; the message lists those that there are.
    """
    if name not in BUNDLED:
        raise ValueError(f"there is no bundled motion {name!r}; known are {', '.join(sorted(BUNDLED))}")
    bundled = BUNDLED[name]
    time_s = torch.arange(num_frames) / fps
    if bundled.move is None:
        angles = improvise(time_s * bundled.tempo, torch.Generator().manual_seed(bundled.seed))
    else:
        angles = choreograph(bundled.move, time_s, tempo=bundled.tempo)
    xy = joint_positions(angles[None], proportions(HUMAN))[0]
    width, height = frame_size
    scale = 0.78 * min(width, height)
    xy = xy * scale + torch.tensor([width / 2, 0.93 * height])
    return PoseSequence(xy=xy, confidence=torch.ones(xy.shape[:2]), frame_size=frame_size, fps=fps)
