"""What an animation will be made of, looked at before it is made: skeletons, their fit, and what would go wrong."""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from pose.adjustment import NOT_ADJUSTED, Adjustment
from pose.align import adjust_poses
from pose.checks import Finding
from pose.media import read_image
from pose.overlay import draw_overlay
from pose.sequence import PoseSequence
from studio.characters import picture_file
from studio.driving import check_render, fit_driving, kind_of, read_driving, read_reference_pose
from studio.placement import Fit, Placement, choose_canvas
from studio.progress import unheard

_VIDEO_FPS: Final = 2.0
_VIDEO_FRAMES: Final = 16
"""So little of a video is looked at: enough to see who moves and whether it fits, in about a second."""
_CLIP_FPS: Final = 12.0
_CLIP_FRAMES: Final = 48
_CLIP_SIDE: Final = 320
"""Of a moving preview: the most frames a second and in all, its longest side in px."""


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """What `studio animate` can be told about the picture and where the motion goes."""

    fit: Fit = "cover"
    width: int | None = None
    height: int | None = None
    """In px."""
    align: Literal["auto", "none"] = "auto"
    detector: str = "mini"
    reference_pose: Path | None = None


@dataclass(frozen=True, eq=False)  # two are never alike: what is drawn of one is kept by it
class Preflight:
    """A picture, its skeleton and a motion, ready to be fitted."""

    picture: UInt8[Tensor, "height width 3"]
    """On the canvas."""
    skeleton: PoseSequence | None
    """Of the picture, on the canvas; None where nobody was found."""
    driving: PoseSequence
    """As it was read."""
    fitted: PoseSequence
    """The motion on the canvas, fitted to the picture."""
    notes: tuple[str, ...]
    findings: tuple[Finding, ...]
    align: Literal["auto", "none"] = "auto"

    def adjusted(self, adjustment: Adjustment = NOT_ADJUSTED) -> PoseSequence:
        """The motion on the canvas with what a person changed by hand."""
        return adjust_poses(self.fitted, adjustment)

    def findings_with(self, adjustment: Adjustment) -> list[Finding]:
        """What would go wrong with what a person changed by hand."""
        return check_render(self.driving, self.skeleton, self.adjusted(adjustment), align=self.align)

    def reference_overlay(self) -> UInt8[np.ndarray, "height width 3"]:
        """The picture with its own skeleton."""
        if self.skeleton is None:
            return np.asarray(self.picture)
        return draw_overlay(self.picture, self.skeleton)

    def fitted_overlay(self, frame: int, adjustment: Adjustment) -> UInt8[np.ndarray, "height width 3"]:
        """The picture with the pose that it will take in a frame."""
        return draw_overlay(self.picture, self.adjusted(adjustment), frame)

    def fitted_clip(self, adjustment: Adjustment) -> bytes:
        """The picture with all of the motion, as a GIF that goes on and on: some of the frames, at its speed."""
        return _fitted_clip(self, adjustment)


@lru_cache(maxsize=8)
def _fitted_clip(found: Preflight, adjustment: Adjustment) -> bytes:
    poses = found.adjusted(adjustment)
    step = max(math.ceil(poses.fps / _CLIP_FPS), math.ceil(len(poses) / _CLIP_FRAMES))
    frames = [
        Image.fromarray(draw_overlay(found.picture, poses, k, longest_side=_CLIP_SIDE))
        for k in range(0, len(poses), step)
    ]
    first, *rest = (frame.quantize(256, method=Image.Quantize.FASTOCTREE) for frame in frames)
    file = io.BytesIO()
    duration_ms = max(20, round(1000 * step / poses.fps))
    first.save(file, "GIF", save_all=True, append_images=rest, duration=duration_ms, loop=0)
    return file.getvalue()


def look_ahead(
    reference: Path, driving: str, *, person: int | None = None, options: FitOptions = FitOptions(), side_px: int = 384
) -> Preflight:
    """Reads a picture and a motion as `studio animate` does, of a video only a few frames.

    Args:
        side_px: short side of the canvas where no size was asked for; alignment does not depend on it.

    Raises:
        ValueError: the picture or the motion cannot be used.
    """
    video = kind_of(driving) == "video"
    motion = read_driving(
        driving, model_fps=12.0, fps=_VIDEO_FPS if video else None, num_frames=_VIDEO_FRAMES if video else None,
        detector=options.detector, person=person, driving_fps=None, keep_frames=False, on_progress=unheard,
    )  # fmt: skip
    return fit_motion(reference, motion.poses, options=options, side_px=side_px)


def fit_motion(
    reference: Path, poses: PoseSequence, *, options: FitOptions = FitOptions(), side_px: int = 384
) -> Preflight:
    """Fits poses to a picture as `studio animate` does; see `look_ahead`.

    Raises:
        ValueError: the picture cannot be used, or the motion cannot be fitted.
    """
    notes: list[str] = []
    source = read_image(picture_file(reference))
    size = source.shape[1], source.shape[0]
    canvas = choose_canvas(size, width=options.width, height=options.height, short_side=side_px)
    placement = Placement.of(size, canvas, options.fit)
    skeleton = read_reference_pose(source, options.reference_pose, options.detector, notes.append)
    fitted = fit_driving(poses, skeleton, source, placement, align=options.align, note=notes.append)
    return Preflight(
        picture=placement.picture(source),
        skeleton=None if skeleton is None else placement.pose(skeleton),
        driving=poses,
        fitted=fitted,
        notes=tuple(notes),
        findings=tuple(check_render(poses, skeleton, fitted, align=options.align)),
        align=options.align,
    )


def stops(findings: Sequence[Finding]) -> bool:
    """Whether a render would fail."""
    return any(finding.stops for finding in findings)
