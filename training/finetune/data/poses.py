"""The body's keypoints in a clip: from a file beside the video, or found by the mini detector once and kept."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from models.loading import resolve_folder
from pose.detect import DetectorUnavailableError, PoseDetector, PoseNotFoundError, extract_poses, load_detector
from pose.readers import read_keypoints
from pose.sequence import PoseSequence
from pose.skeleton import MIRROR
from training.finetune.cache import Cache
from training.finetune.data.clips import frames_of, offset, scaled_size
from training.finetune.data.find import Sample
from training.finetune.data.problems import DataError, Problem, error
from training.finetune.data.stream import View
from training.hashing import file_sha256

LEAST_FOUND: Final = 0.5
"""The body must be found in this share of a clip's frames."""


@cache
def _detector() -> tuple[PoseDetector, str]:
    """The mini detector and the hash of its weights."""
    weights = resolve_folder("mini") / "pose" / "model.onnx"
    found = load_detector("mini", weights=weights)
    return found, file_sha256(weights)


def find_poses(sample: Sample, store: Cache, fps: float) -> PoseSequence:
    """The keypoints of a clip, in px of the file's frames; `fps` is the rate of its frames.

    Raises:
        ValueError: nobody is found, or the keypoint file cannot be used.
    """
    if sample.keypoints is not None:
        return _from_file(sample, sample.keypoints, fps)
    detector, version = _detector()

    def detect() -> dict[str, Tensor]:
        try:
            found = extract_poses(frames_of(sample), detector, fps=fps, source=str(sample.path))
        except PoseNotFoundError:  # kept as well, or it would be looked for again in every run
            none = torch.zeros(sample.frames, 18)
            return {"xy": none[..., None].expand(-1, -1, 2) - 1, "confidence": none}
        return {"xy": found.xy, "confidence": found.confidence}

    found = store.get(f"poses {version} {sample.piece}", detect)
    poses = PoseSequence(xy=found["xy"], confidence=found["confidence"], frame_size=sample.source, fps=fps)
    seen = float(poses.visible.any(dim=1).float().mean())
    if seen < LEAST_FOUND:
        raise DataError(
            f"a body is found in {seen:.0%} of the frames {sample.start} to {sample.start + sample.frames - 1}"
        )
    return poses


def _from_file(sample: Sample, path: Path, fps: float) -> PoseSequence:
    whole = read_keypoints(path).at_rate(fps)
    last = sample.start + sample.frames
    if len(whole) < last - 1:  # one less may be rounding
        raise DataError(f"{path.name} ends after {len(whole)} frames at {fps:g} a second, the clip needs {last}")
    return whole[torch.arange(sample.start, last).clamp(max=len(whole) - 1)]


def keep_posed(
    samples: Sequence[Sample], store: Cache, fps: Callable[[Sample], float]
) -> tuple[list[Sample], list[Problem]]:
    """Takes out the clips in which no body is found, so that none is met in training.

    Raises:
        DataError: no clip is left, or there is no detector.
    """
    kept: list[Sample] = []
    problems: dict[tuple[Path, str], Problem] = {}
    good: dict[str, bool] = {}
    for sample in samples:
        key = f"{sample.path} {sample.piece}"
        if key not in good:
            try:
                find_poses(sample, store, fps(sample))
                good[key] = True
            except DetectorUnavailableError as wrong:
                raise DataError(str(wrong)) from wrong
            except ValueError as wrong:
                good[key] = False
                fix = "write its keypoints beside it (studio pose extract FILE --output STEM.keypoints.json)"
                problems[sample.path, str(wrong)] = error(sample.path, "no pose", str(wrong), fix)
        if good[key]:
            kept.append(sample)
    if samples and not kept:
        first = next(iter(problems.values()))
        raise DataError(f"no clip has a body to animate; {first.file}: {first.why}. {first.fix}")
    return kept, list(problems.values())


def place_poses(poses: PoseSequence, view: View) -> PoseSequence:
    """Keypoints of the file's frames, moved as the pixels of a view are: scaled, cut, mirrored. Body and feet."""
    sample = view.sample
    scaled = torch.tensor(scaled_size(sample.source, sample.size), dtype=poses.xy.dtype)
    own = torch.tensor(poses.frame_size, dtype=poses.xy.dtype)
    corner = torch.tensor(offset(sample.source, sample.size, view.crop), dtype=poses.xy.dtype)

    def move(
        xy: Float[Tensor, "frames points 2"], confidence: Float[Tensor, "frames points"], other: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        placed = xy * (scaled / own) - corner
        if view.mirrored:
            placed = torch.stack([sample.size[0] - placed[..., 0], placed[..., 1]], dim=-1)[:, list(other)]
            confidence = confidence[:, list(other)]
        return torch.where(confidence[..., None] > 0, placed, -1.0), confidence

    xy, confidence = move(poses.xy, poses.confidence, MIRROR)
    feet = None
    if poses.feet is not None:
        feet_xy, feet_seen = move(poses.feet[..., :2], poses.feet[..., 2], (3, 4, 5, 0, 1, 2))
        feet = torch.cat([feet_xy, feet_seen[..., None]], dim=-1)
    return replace(poses, xy=xy, confidence=confidence, frame_size=sample.size, feet=feet, hands=None, face=None)
