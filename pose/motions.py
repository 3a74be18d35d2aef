"""The bundled motions: names that `--driving` takes in place of a video."""

from dataclasses import dataclass
from typing import Final

import torch

from pose.choreography import HUMAN, choreograph, improvise, joint_positions, proportions
from pose.sequence import PoseSequence


@dataclass(frozen=True, kw_only=True)
class _Bundled:
    about: str
    move: str | None
    """A name of `MOVES`, or None for an improvised dance."""
    tempo: float = 1.0
    seed: int = 0


_BUNDLED: Final = {
    "bow": _Bundled(about="bows deeply and comes up again", move="bow", tempo=0.7),
    "cheer": _Bundled(about="hops with both arms up", move="cheer", tempo=1.4),
    "clap": _Bundled(about="claps in front of the chest", move="clap", tempo=1.6),
    "dance-1": _Bundled(about="an easy improvised dance", move=None, seed=3),
    "dance-2": _Bundled(about="a lively improvised dance", move=None, tempo=1.3, seed=11),
    "disco": _Bundled(about="points at the ceiling and back", move="disco", tempo=1.1),
    "jump": _Bundled(about="crouches and jumps", move="jump", tempo=1.0),
    "jumping-jack": _Bundled(about="jumping jacks", move="jumping_jack", tempo=1.2),
    "kick": _Bundled(about="kicks to the left and to the right", move="kick", tempo=0.8),
    "march": _Bundled(about="marches on the spot", move="march", tempo=1.0),
    "point": _Bundled(about="points to one side and to the other", move="point", tempo=0.8),
    "robot": _Bundled(about="robot arms, in jerks", move="robot", tempo=0.9),
    "run": _Bundled(about="runs on the spot", move="run", tempo=1.5),
    "squat": _Bundled(about="squats with arms out", move="squat", tempo=0.8),
    "sway": _Bundled(about="sways from side to side", move="sway", tempo=0.8),
    "swim": _Bundled(about="swings the arms in circles", move="swim", tempo=0.9),
    "twist": _Bundled(about="twists hips and arms", move="twist", tempo=1.1),
    "walk": _Bundled(about="walks on the spot", move="walk", tempo=1.0),
    "wave": _Bundled(about="waves one hand", move="wave", tempo=1.3),
    "wave-both": _Bundled(about="waves both arms overhead", move="wave_both", tempo=1.0),
}

MOTIONS: Final = {name: bundled.about for name, bundled in _BUNDLED.items()}
"""Name -> what the body does."""


def make_motion(
    name: str, *, num_frames: int = 17, fps: float = 12.0, frame_size: tuple[int, int] = (128, 128)
) -> PoseSequence:
    """Performs a bundled motion on a body of human proportions, standing in the middle of the canvas.

    Raises:
        ValueError: there is no such motion; the message lists those that there are.
    """
    if name not in _BUNDLED:
        raise ValueError(f"there is no bundled motion {name!r}; known are {', '.join(sorted(_BUNDLED))}")
    bundled = _BUNDLED[name]
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
