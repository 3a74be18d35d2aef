"""Finds people in pictures: one protocol, the mini detector and rtmlib's detectors behind it."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, Protocol, runtime_checkable

from jaxtyping import UInt8
from torch import Tensor

from pose.sequence import PoseSequence
from pose.track import DetectorUnavailableError, Person, PoseNotFoundError, SeveralPeopleError, Tracker

__all__ = [
    "DETECTORS",
    "DetectorUnavailableError",
    "Person",
    "PoseDetector",
    "PoseNotFoundError",
    "SeveralPeopleError",
    "extract_everyone",
    "extract_poses",
    "load_detector",
]

DETECTORS: Final = {
    "mini": "ours, one drawn or real figure, ships with the program",
    "rtmpose": "RTMPose-m with YOLOX-m, 17 body joints (rtmlib)",
    "rtmw": "RTMW-x with YOLOX-m, body, hands, face and feet (rtmlib)",
    "dwpose": "DWPose-l with YOLOX-m, body, hands, face and feet (rtmlib)",
}
"""Name and description of each detector that `load_detector` knows."""

BATCH: Final = 16
"""Frames in memory at a time while extracting."""


@runtime_checkable
class PoseDetector(Protocol):
    """Finds the people in a picture."""

    def detect(self, frame: UInt8[Tensor, "height width 3"]) -> list[Person]:
        """Finds everyone in one RGB picture; nobody is an empty list."""
        ...


@runtime_checkable
class BatchPoseDetector(PoseDetector, Protocol):
    """A detector that is faster with several pictures at once."""

    def detect_batch(self, frames: Sequence[UInt8[Tensor, "height width 3"]]) -> list[list[Person]]:
        """Finds everyone in each of several RGB pictures."""
        ...


def load_detector(name_or_path: str, *, weights: Path | None = None, download: bool | None = None) -> PoseDetector:
    """Loads a detector by its name in `DETECTORS`, or from an ONNX file whose inputs and outputs tell its kind.

    Args:
        name_or_path: A name, or the path of an `.onnx` file.
        weights: The mini detector's ONNX file (pose does not know where models keeps it).
        download: Whether rtmlib may fetch missing weights; None: yes, unless HF_HUB_OFFLINE is set.

    Raises:
        DetectorUnavailableError: Weights are missing, or the file is no pose detector.
        ValueError: Neither a known name nor an ONNX file.
    """
    from pose import mini_detector, rtm_detector  # they bring onnxruntime, which takes a second to load

    if name_or_path == "mini":
        if weights is None:
            raise DetectorUnavailableError("the mini detector needs its weights; pass weights=PATH of pose/model.onnx")
        return mini_detector.MiniDetector(weights)
    if name_or_path in DETECTORS:
        if download is None:
            download = os.environ.get("HF_HUB_OFFLINE", "0").lower() not in ("1", "true", "yes", "on")
        return rtm_detector.load_named(name_or_path, download=download)
    path = Path(name_or_path)
    if path.suffix.lower() != ".onnx":
        raise ValueError(
            f"unknown detector {name_or_path!r}; known are {', '.join(DETECTORS)}, or the path of an .onnx file"
        )
    if not path.is_file():
        raise DetectorUnavailableError(f"detector file {path} does not exist; check the path")
    if mini_detector.is_mini(path):
        return mini_detector.MiniDetector(path)
    return rtm_detector.load_file(path)


def extract_poses(
    frames: Iterable[UInt8[Tensor, "height width 3"]],
    detector: PoseDetector,
    *,
    fps: float,
    person: int | None = None,
    source: str = "the video",
) -> PoseSequence:
    """Finds the chosen person in every frame, followed even when the detector's order changes.

    Holds a few frames at a time. A frame in which the person is not found has all joints missing, so that frames and
    poses stay in step.

    Args:
        frames: RGB pictures of one size.
        detector: What finds people.
        fps: The frames' rate.
        person: Which of several people, 1 being the leftmost where first seen.
        source: What messages should call the frames.

    Raises:
        PoseNotFoundError: Nobody, or not this person.
        SeveralPeopleError: Several people and `person` is None.
        ValueError: No frames, or frames of different sizes.
    """
    tracker, size = _followed(frames, detector, source)
    return tracker.sequence(tracker.choose(person, source=source), frame_size=size, fps=fps)


def extract_everyone(
    frames: Iterable[UInt8[Tensor, "height width 3"]],
    detector: PoseDetector,
    *,
    fps: float,
    source: str = "the video",
) -> list[PoseSequence]:
    """Finds every person, from left to right where first seen; see `extract_poses`.

    Raises:
        PoseNotFoundError: Nobody.
        ValueError: No frames, or frames of different sizes.
    """
    tracker, size = _followed(frames, detector, source)
    return tracker.everyone(source=source, frame_size=size, fps=fps)


def _followed(frames: Iterable[Tensor], detector: PoseDetector, source: str) -> tuple[Tracker, tuple[int, int]]:
    """Finds people in every frame and follows them; also gives the size of the frames in px."""
    tracker = Tracker()
    size: tuple[int, int] | None = None
    for batch in _batches(frames):
        for frame in batch:
            frame_size = (frame.shape[1], frame.shape[0])
            if size not in (None, frame_size):
                raise ValueError(f"frames must have one size, got {size} and {frame_size}; resize them first")
            size = frame_size
        for people in detect_all(detector, batch):
            tracker.update(people)
    if size is None:
        raise ValueError(f"{source} has no frames; at least one is needed")
    return tracker, size


def detect_all(detector: PoseDetector, frames: Sequence[UInt8[Tensor, "height width 3"]]) -> list[list[Person]]:
    """Finds everyone in each of a few RGB pictures, at once where the detector can."""
    if isinstance(detector, BatchPoseDetector):
        return detector.detect_batch(frames)
    return [detector.detect(frame) for frame in frames]


def _batches(frames: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    batch: list[Tensor] = []
    for frame in frames:
        batch.append(frame)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
