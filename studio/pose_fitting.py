"""A motion on a picture, as `studio animate` would put it there, without a model."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import UInt8
from torch import Tensor

from pose.adjustment import Adjustment
from pose.align import adjust_poses
from pose.checks import Finding
from pose.media import read_image
from pose.overlay import draw_overlay
from pose.sequence import PoseSequence
from studio.driving import check_render, fit_driving, read_reference_pose
from studio.placement import Placement, choose_canvas

SHORT_SIDE_PX: Final = 480
"""Of the canvas; its shape counts here, not its size."""


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A motion that is aligned to a picture."""

    picture: UInt8[Tensor, "height width 3"]
    """The reference on the canvas."""
    driving: PoseSequence
    """The motion as it was."""
    poses: PoseSequence
    """The motion on the canvas."""
    reference_pose: PoseSequence | None
    """The skeleton of the picture, px of the picture; None when none was found."""
    notes: tuple[str, ...]


def fit_to_picture(content: bytes, driving: PoseSequence, *, detector: str = "mini") -> Fitted:
    """Finds the body in a picture and aligns a motion to it.

    Args:
        content: a picture file.
        driving: the motion.
        detector: who finds the skeleton.

    Raises:
        ValueError: no picture, several people, or a motion that cannot be aligned.
    """
    with tempfile.TemporaryDirectory() as folder:  # pictures are opened from files, with all their checks
        path = Path(folder) / "picture"
        path.write_bytes(content)
        try:
            source = read_image(path)
        except ValueError as error:
            raise ValueError(str(error).replace(str(path), "the picture")) from None
    size = source.shape[1], source.shape[0]
    placement = Placement.of(size, choose_canvas(size, width=None, height=None, short_side=SHORT_SIDE_PX), "cover")
    notes: list[str] = []
    skeleton = read_reference_pose(source, None, detector, notes.append)
    poses = fit_driving(driving, skeleton, source, placement, align="auto", note=notes.append)
    return Fitted(picture=placement.picture(source), driving=driving, poses=poses, reference_pose=skeleton,
                  notes=tuple(notes))  # fmt: skip


def draw_fitted(
    fitted: Fitted, adjustment: Adjustment, frame: int, *, longest_side: int = 640
) -> UInt8[np.ndarray, "height width 3"]:
    """Draws the adjusted skeleton of a frame over the picture."""
    return draw_overlay(fitted.picture, adjust_poses(fitted.poses, adjustment), frame, longest_side=longest_side)


def findings_of(fitted: Fitted, adjustment: Adjustment) -> list[Finding]:
    """Lists what would look bad, as `studio animate` says it."""
    adjusted = adjust_poses(fitted.poses, adjustment)
    return check_render(fitted.driving, fitted.reference_pose, adjusted, align="auto")
