"""Reads the driving motion, whatever it is, and fits it to the body in the reference picture."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import cv2
import torch
from jaxtyping import UInt8
from torch import Tensor

from pose.align import NotAlignableError, align_poses, fit_to_box
from pose.checks import Finding, check_aligned, check_driving, check_reference, check_shapes
from pose.detect import DetectorUnavailableError, PoseNotFoundError, SeveralPeopleError, extract_poses
from pose.media import iter_video, probe_video
from pose.motions import MOTIONS, make_motion
from pose.plausible import why_implausible
from pose.readers import read_keypoints
from pose.sequence import PoseSequence
from studio.errors import RequestError, did_you_mean
from studio.figure import find_figure
from studio.placement import Placement
from studio.progress import OnNote, OnProgress, Progress
from studio.weights import open_detector

_MOTION_FRAMES: Final = 17
_KEPT_SIDE_PX: Final = 256
"""Short side of the driving frames that are kept for the implicit indicator: CLIP towers see 224."""

Kind = Literal["motion", "keypoints", "video"]


@dataclass(frozen=True, kw_only=True)
class Driving:
    """A driving motion at the frame rate of the video to make."""

    kind: Kind
    name: str
    poses: PoseSequence
    frames: UInt8[Tensor, "frames height width 3"] | None = None
    """The pictures of a driving video, small; None when there are only keypoints."""


def kind_of(driving: str) -> Kind:
    """Tells what a driving motion is: a bundled name, a keypoint file or folder, or a video.

    Raises:
        RequestError: it is neither a bundled motion nor a file.
    """
    path = Path(driving)
    if driving in MOTIONS and not path.exists():
        return "motion"
    if path.is_dir() or path.suffix.lower() == ".json":
        if not path.exists():
            raise RequestError(f"--driving {driving}: no such file")
        return "keypoints"
    if path.is_file():
        return "video"
    hint = did_you_mean(driving, MOTIONS)
    raise RequestError(f"--driving {driving}: no such file and no bundled motion{hint}; `studio motions` lists them")


def read_driving(
    driving: str,
    *,
    model_fps: float,
    fps: float | None,
    num_frames: int | None,
    detector: str,
    person: int | None,
    driving_fps: float | None,
    keep_frames: bool,
    on_progress: OnProgress,
) -> Driving:
    """Reads a driving motion at `fps` (by default the model's, or the clip's when lower): the speed is kept.

    Raises:
        ValueError: the file cannot be used; the message says why and what to do.
    """
    kind, path = kind_of(driving), Path(driving)
    if kind == "motion":
        rate = fps or model_fps
        poses = make_motion(driving, num_frames=num_frames or _MOTION_FRAMES, fps=rate)
        return Driving(kind=kind, name=driving, poses=poses)
    if kind == "keypoints":
        poses = read_keypoints(path, person=person, fps=driving_fps)
        rate = fps or min(model_fps, poses.fps)
        return Driving(kind=kind, name=path.stem, poses=poses.at_rate(rate, num_frames))
    info = probe_video(path)
    rate = fps or min(model_fps, info.fps)
    kept: list[Tensor] = []
    expected = max(1, round(info.duration_s * rate)) if info.duration_s else None
    total = min(filter(None, (expected, num_frames)), default=None)
    frames = _watched(
        iter_video(path, fps=rate, max_frames=num_frames), total, kept if keep_frames else None, on_progress
    )
    try:
        poses = extract_poses(frames, open_detector(detector), fps=rate, person=person, source=f"--driving {driving}")
    except SeveralPeopleError as error:
        raise RequestError(str(error)) from None
    if num_frames is not None:  # a clip that is too short holds its last pose
        poses = poses.at_rate(rate, num_frames)
        kept += kept[-1:] * (num_frames - len(kept))
    return Driving(kind=kind, name=path.stem, poses=poses, frames=torch.stack(kept) if kept else None)


def _watched(
    frames: Iterator[Tensor], total: int | None, kept: list[Tensor] | None, on_progress: OnProgress
) -> Iterator[Tensor]:
    """Passes frames on, tells the progress, and keeps small copies."""
    for index, frame in enumerate(frames, 1):
        on_progress(Progress(stage="finding keypoints", done=index, total=total, unit="frames"))
        if kept is not None:
            kept.append(_shrunk(frame))
        yield frame


def _shrunk(frame: UInt8[Tensor, "height width 3"]) -> UInt8[Tensor, "small_height small_width 3"]:
    height, width = frame.shape[:2]
    scale = _KEPT_SIDE_PX / min(height, width)
    if scale >= 1:
        return frame
    size = round(width * scale), round(height * scale)
    return torch.from_numpy(cv2.resize(frame.numpy(), size, interpolation=cv2.INTER_AREA))


def read_reference_pose(
    picture: UInt8[Tensor, "height width 3"],
    keypoints: Path | None,
    detector: str,
    note: OnNote,
) -> PoseSequence | None:
    """Reads or detects the skeleton of the reference picture, in its px; None when nobody can find one.

    Raises:
        RequestError: the keypoints cannot be used, or there are several people.
    """
    if keypoints is not None:
        found = read_keypoints(keypoints).frame(0)
        if not found.visible.any():
            raise RequestError(f"--reference-pose {keypoints}: none of its joints is visible in frame 0")
        return found
    try:
        found = extract_poses([picture], open_detector(detector), fps=1.0, source="the reference picture")
    except PoseNotFoundError:
        return None
    except SeveralPeopleError as error:
        raise RequestError(f"{error}; crop the picture to one, or give --reference-pose K.json") from None
    except DetectorUnavailableError as error:
        if detector != "mini":
            raise
        note(f"the reference's skeleton is not detected: {error}")
        return None
    wrong = why_implausible(found)
    if wrong is not None:
        note(f"the skeleton that {detector} sees in the reference is left out: {wrong}; give --reference-pose K.json")
        return None
    return found


def fit_driving(
    poses: PoseSequence,
    reference_pose: PoseSequence | None,
    picture: UInt8[Tensor, "height width 3"],
    placement: Placement,
    *,
    align: Literal["auto", "none"],
    note: OnNote,
) -> PoseSequence:
    """Puts the driving skeleton on the canvas: aligned to the reference's, or fitted to its figure, or as it is.

    `reference_pose` and `picture` are in px of the placement's source.
    """
    if align == "none":
        return Placement.of(poses.frame_size, placement.canvas, "contain").pose(poses)
    if reference_pose is not None:
        try:
            return align_poses(poses, placement.pose(reference_pose))
        except NotAlignableError as error:
            note(f"{error}; the motion is fitted to the figure instead")
    (left, top, right, bottom), how = find_figure(picture)
    note(f"no skeleton found in the reference; the motion is fitted to the figure, found by {how}")
    scale, (across, down) = placement.scale, placement.shift
    box = (left * scale + across, top * scale + down, right * scale + across, bottom * scale + down)
    return fit_to_box(poses, _within(box, placement.canvas), placement.canvas)


def check_render(
    driving: PoseSequence,
    reference_pose: PoseSequence | None,
    placed: PoseSequence,
    *,
    align: Literal["auto", "none"],
) -> list[Finding]:
    """Lists what would make the video fail or look bad; that there is no skeleton `fit_driving` has said already.

    `placed` is the motion on the canvas of the video.
    """
    findings = check_driving(driving)
    if reference_pose is not None and align == "auto":
        findings += check_reference(reference_pose)
    if align == "none":  # aligned, the motion takes the reference's place, whatever it was filmed on
        findings += check_shapes(driving.frame_size, placed.frame_size)
    return findings + check_aligned(placed)


def _within(box: tuple[float, float, float, float], canvas: tuple[int, int]) -> tuple[float, float, float, float]:
    """Cuts a box to the canvas: what the crop took away cannot move."""
    (left, top, right, bottom), (width, height) = box, canvas
    return max(0.0, left), max(0.0, top), min(float(width), right), min(float(height), bottom)


def describe_poses(poses: PoseSequence) -> dict[str, Any]:
    """Sums up what was found, for the sidecar."""
    return {"frames": len(poses), "fps": poses.fps, "visible_joints_mean": float(poses.visible.float().sum(1).mean())}
