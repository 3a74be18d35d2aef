"""Reads keypoint files of many programs and writes our own; JSON only, since a pickle can run anything."""

import json
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from torch import Tensor

from pose.layouts import Points, mark_missing, to_points
from pose.sequence import PoseSequence
from pose.skeleton import JOINTS, NUM_JOINTS
from pose.track import Person, PoseNotFoundError, Tracker, nobody

SCHEMA: Final = "animatex-studio/pose"
VERSION: Final = 1
DEFAULT_FPS: Final = 30.0
"""For the formats that do not write their frame rate (OpenPose, COCO, DWPose)."""


class _Clip(NamedTuple):
    """What a file holds: the people of each frame."""

    frames: list[list[Person]]
    size: tuple[int, int] | None
    fps: float | None


def read_keypoints(
    path: str | Path,
    *,
    person: int | None = None,
    frame_size: tuple[int, int] | None = None,
    fps: float | None = None,
) -> PoseSequence:
    """Reads the keypoints of one person, whatever program wrote them; the content decides, not the name.

    Known: our own JSON; `openpose18` JSON; a folder of OpenPose's per-frame JSON files, or one of them, or a list;
    COCO-17 annotations or results; mmpose's `instance_info`; rtmlib and DWPose results.

    Args:
        path: A JSON file, or a folder of them.
        person: Which person where there are several, 1 being the leftmost; followed through the frames.
        frame_size: (width, height) in px for the formats that do not write it; without it, the smallest canvas
            around all points.
        fps: For the formats that do not write it; `DEFAULT_FPS` otherwise.

    Raises:
        ValueError: Unreadable, unknown format, wrong joint count, numbers that are not finite.
        PoseNotFoundError: Nobody in the file.
        SeveralPeopleError: Several people and `person` is None.
    """
    tracker, size, rate = _followed(Path(path), frame_size, fps)
    return tracker.sequence(tracker.choose(person, source=str(path)), frame_size=size, fps=rate)


def read_everyone(
    path: str | Path, *, frame_size: tuple[int, int] | None = None, fps: float | None = None
) -> list[PoseSequence]:
    """Reads the keypoints of every person in a file, from left to right; see `read_keypoints`.

    Raises:
        ValueError: Unreadable, unknown format, wrong joint count, numbers that are not finite.
        PoseNotFoundError: Nobody in the file.
    """
    tracker, size, rate = _followed(Path(path), frame_size, fps)
    return tracker.everyone(source=str(path), frame_size=size, fps=rate)


def _followed(
    path: Path, frame_size: tuple[int, int] | None, fps: float | None
) -> tuple[Tracker, tuple[int, int], float]:
    """Reads a file and follows its people through the frames."""
    clip = _openpose_folder(path, frame_size) if path.is_dir() else _dispatch(_load(path), str(path), frame_size)
    if not clip.frames:
        raise ValueError(f"{path} has no frames; a pose needs at least one")
    tracker = Tracker()
    for people in clip.frames:
        tracker.update([p for p in people if bool((p.confidence > 0).any())])
    if not tracker.tracks:
        raise PoseNotFoundError(nobody(str(path), tracker.num_frames))
    return tracker, clip.size or frame_size or _canvas_around(clip.frames), clip.fps or fps or DEFAULT_FPS


def keypoints_json(sequence: PoseSequence) -> str:
    """Writes our JSON as text: px with 3 decimals, null for a missing joint."""
    parts = {"hands": sequence.hands, "face": sequence.face, "feet": sequence.feet}
    frames: list[dict[str, Any]] = []
    for index in range(len(sequence)):
        frame = {"body": _points_out(sequence.xy[index], sequence.confidence[index])}
        for name, points in parts.items():
            if points is not None:
                frame[name] = _points_out(points[index, :, :2], points[index, :, 2])
        frames.append(frame)
    content = {
        "schema": SCHEMA,
        "version": VERSION,
        "width": sequence.frame_size[0],
        "height": sequence.frame_size[1],
        "fps": sequence.fps,
        "joints": list(JOINTS),
        "frames": frames,
    }
    return json.dumps(content, allow_nan=False, separators=(",", ":"))


def write_keypoints(path: str | Path, sequence: PoseSequence) -> None:
    """Writes our JSON (see `keypoints_json`); beside its place first, then moved in."""
    path = Path(path)
    text = keypoints_json(sequence)
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(beside, 0o666 & ~mask)  # mkstemp makes private files; this one is the user's
        os.replace(beside, path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise


def _points_out(xy: Tensor, confidence: Tensor) -> list[list[float] | None]:
    rows = zip(xy.tolist(), confidence.tolist(), strict=True)
    return [[round(x, 3), round(y, 3), round(c, 4)] if c > 0 else None for (x, y), c in rows]


def _load(path: Path) -> Any:
    if not path.exists():
        raise ValueError(f"keypoint file {path} does not exist; check the path")
    if path.suffix.lower() in (".pkl", ".pickle", ".pt", ".pth", ".npy", ".npz"):
        raise ValueError(
            f"{path}: only JSON keypoints are read, because a pickle can run any program; export them as JSON"
        )
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON ({error}); give a keypoint file or a video") from error


def _dispatch(content: Any, where: str, size: tuple[int, int] | None) -> _Clip:
    """Finds the format by its keys."""
    try:
        if isinstance(content, Mapping):
            if "schema" in content:
                return _own(content, where)
            if str(content.get("format", "")).startswith("openpose18"):
                return _openpose18(content, where)
            if "people" in content:
                return _openpose_frames([content], where, size)
            if "annotations" in content:
                return _coco(content, where)
            if "instance_info" in content:
                return _mmpose(content, where)
            if "keypoints" in content and ("scores" in content or "keypoint_scores" in content):
                return _rtmlib(content, where)
            if "frames" in content and _is_dwpose(content["frames"]):
                return _dwpose(content["frames"], content, where, size)
        elif isinstance(content, Sequence) and not isinstance(content, str) and content:
            first = content[0]
            if isinstance(first, Mapping) and "people" in first:
                return _openpose_frames(content, where, size)
            if isinstance(first, Mapping) and "image_id" in first:
                return _coco({"annotations": content}, where)
            if _is_dwpose(content):
                return _dwpose(content, {}, where, size)
    except (KeyError, TypeError, IndexError, AttributeError, OverflowError) as error:
        raise ValueError(
            f"{where} is damaged: {type(error).__name__} {error} while reading it; export it again"
        ) from error
    raise ValueError(
        f"{where} is in no keypoint format that is known; use this program's own (`studio pose extract`), openpose18, "
        "OpenPose, COCO-17, mmpose, rtmlib or DWPose JSON"
    )


def _canvas(content: Mapping[str, Any], where: str) -> tuple[tuple[int, int] | None, float | None]:
    """Reads width, height and fps where they are there."""
    width = content.get("width", content.get("canvas_width"))
    height = content.get("height", content.get("canvas_height"))
    fps = content.get("fps")
    for name, value in (("width", width), ("height", height), ("fps", fps)):
        if value is not None and not (_is_number(value) and value > 0 and math.isfinite(value)):
            raise ValueError(f"{where}: {name} must be a positive number, got {value!r}")
    size = (round(width), round(height)) if width is not None and height is not None else None
    return size, None if fps is None else float(fps)


def _stated_canvas(content: Mapping[str, Any], where: str) -> tuple[tuple[int, int], float]:
    size, fps = _canvas(content, where)
    if size is None or fps is None:
        raise ValueError(f"{where} must say width, height and fps; add them")
    return size, fps


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _rows(rows: Any, count: int | None, where: str) -> np.ndarray:
    """Turns [x, y, confidence] or null rows into an array."""
    array = np.array([[-1.0, -1.0, 0.0] if row is None else row for row in rows], dtype=object)
    if array.ndim != 2 or array.shape[1] != 3:
        raise ValueError(f"{where}: each joint must be [x, y, confidence] or null")
    if not all(_is_number(value) for value in array.flat):
        raise ValueError(f"{where}: joints must be numbers; mark a missing joint with null or confidence 0")
    if count is not None and len(array) != count:
        raise ValueError(f"{where} has {len(array)} joints; there must be {count}")
    return array.astype(np.float64)


def _own(content: Mapping[str, Any], where: str) -> _Clip:
    if content["schema"] != SCHEMA or content.get("version") != VERSION:
        raise ValueError(
            f"{where} has schema {content['schema']!r} version {content.get('version')!r}; "
            f"this program reads {SCHEMA!r} version {VERSION}: extract the pose again, or update the program"
        )
    size, fps = _stated_canvas(content, where)
    frames = []
    for index, frame in enumerate(content["frames"]):
        place = f"{where} frame {index}"
        points = to_points(_rows(frame["body"], NUM_JOINTS, place), where=place)
        extra = {
            name: _extra(_rows(frame[name], count, f"{place} {name}"), f"{place} {name}")
            for name, count in (("hands", 42), ("face", 68), ("feet", 6))
            if frame.get(name) is not None
        }
        frames.append([points._replace(**extra).person()])
    return _Clip(frames, size, fps)


def _extra(points: np.ndarray, where: str) -> np.ndarray:
    if not np.isfinite(points).all():
        raise ValueError(f"{where}: points must be finite numbers; mark a missing one with null")
    return mark_missing(points)


def _openpose18(content: Mapping[str, Any], where: str) -> _Clip:
    size, fps = _stated_canvas(content, where)
    frames = [
        [to_points(_rows(rows, NUM_JOINTS, f"{where} frame {k}"), where=f"{where} frame {k}").person()]
        for k, rows in enumerate(content["frames"])
    ]
    return _Clip(frames, size, fps)


def _openpose_folder(path: Path, size: tuple[int, int] | None) -> _Clip:
    files = sorted(path.glob("*.json"))
    if not files:
        raise ValueError(f"{path} has no .json files; give a folder of OpenPose's *_keypoints.json")
    contents = [_load(file) for file in files]
    for file, content in zip(files, contents, strict=True):
        if not (isinstance(content, Mapping) and "people" in content):
            raise ValueError(f"{file} is no OpenPose frame (it has no 'people'); keep only such files in the folder")
    try:
        return _openpose_frames(contents, str(path), size, [file.name for file in files])
    except (KeyError, TypeError, IndexError, AttributeError, OverflowError) as error:
        raise ValueError(
            f"{path} is damaged: {type(error).__name__} {error} while reading it; export it again"
        ) from error


def _openpose_frames(
    contents: Sequence[Mapping[str, Any]], where: str, size: tuple[int, int] | None, names: Sequence[str] | None = None
) -> _Clip:
    stated, fps = _canvas(contents[0], where)
    size = stated or size
    frames = []
    for index, content in enumerate(contents):
        place = f"{where} {names[index] if names else f'frame {index}'}"
        frames.append(
            [_openpose_person(person, f"{place} person {n}", size) for n, person in enumerate(content["people"])]
        )
    return _Clip(frames, size, fps)


def _openpose_person(person: Mapping[str, Any], where: str, size: tuple[int, int] | None) -> Person:
    points = to_points(_triples(person["pose_keypoints_2d"], where), where=where)
    right, left = (_triples(person.get(f"hand_{side}_keypoints_2d") or [], where) for side in ("right", "left"))
    face = _triples(person.get("face_keypoints_2d") or [], where)
    if len(right) or len(left):
        gap = np.tile([-1.0, -1.0, 0.0], (21, 1))
        points = points._replace(
            hands=np.concatenate([_extra(hand, where) if len(hand) == 21 else gap for hand in (right, left)])
        )
    if len(face) in (68, 70):
        points = points._replace(face=_extra(face[:68], where))
    return _in_px(points, size, where).person()


def _triples(numbers: Sequence[Any], where: str) -> np.ndarray:
    if len(numbers) % 3:
        raise ValueError(f"{where} has {len(numbers)} numbers, not x, y, confidence for each joint")
    return _rows([numbers[k : k + 3] for k in range(0, len(numbers), 3)], None, where) if numbers else np.zeros((0, 3))


def _in_px(points: Points, size: tuple[int, int] | None, where: str) -> Points:
    """Multiplies coordinates that were written as parts of the picture."""
    found = points.body[points.body[:, 2] > 0, :2]
    if not len(found) or found.max() > 2:
        return points
    if size is None:
        raise ValueError(f"{where} has coordinates in 0..1 and no picture size; add canvas_width and canvas_height")

    def scaled(part: np.ndarray | None) -> np.ndarray | None:
        return None if part is None else mark_missing(np.where(part[:, 2:] > 0, part * [*size, 1], part))

    return Points(*(scaled(part) for part in points))  # type: ignore[arg-type]  # body is never None


def _coco(content: Mapping[str, Any], where: str) -> _Clip:
    """COCO keypoints: annotations with images, or a bare list of results."""
    images = {image["id"]: image for image in content.get("images", [])}
    by_image: dict[Any, list[Person]] = {key: [] for key in images}
    for index, item in enumerate(content["annotations"]):
        place = f"{where} annotation {index}"
        points = _triples(item["keypoints"], place)
        if len(points) != 17:
            raise ValueError(f"{place} has {len(points)} joints; COCO has 17")
        by_image.setdefault(item["image_id"], []).append(to_points(points, where=place).person())
    order = sorted(
        by_image, key=lambda key: (str(images[key].get("file_name", "")), key) if key in images else ("", key)
    )
    size, _ = _canvas(next(iter(images.values()), {}), where)
    _, fps = _canvas({"fps": content.get("fps", content.get("info", {}).get("fps"))}, where)
    return _Clip([by_image[key] for key in order], size, fps)


def _mmpose(content: Mapping[str, Any], where: str) -> _Clip:
    frames: list[list[Person]] = []
    for frame in content["instance_info"]:
        place = f"{where} frame {frame.get('frame_id', len(frames))}"
        frames.append([_scored(i["keypoints"], i["keypoint_scores"], place) for i in frame["instances"]])
    return _Clip(frames, *_canvas(content, where))


def _rtmlib(content: Mapping[str, Any], where: str) -> _Clip:
    """What rtmlib returns, frame by frame: keypoints[frame][person][joint] = [x, y], scores[frame][person][joint]."""
    scores = content["scores"] if "scores" in content else content["keypoint_scores"]
    if len(scores) != len(content["keypoints"]):
        raise ValueError(f"{where} has {len(content['keypoints'])} frames of keypoints and {len(scores)} of scores")
    frames = []
    for index, (people, confidences) in enumerate(zip(content["keypoints"], scores, strict=True)):
        place = f"{where} frame {index}"
        if len(people) != len(confidences):
            raise ValueError(f"{place} has {len(people)} people in keypoints and {len(confidences)} in scores")
        frames.append([_scored(xy, c, place) for xy, c in zip(people, confidences, strict=True)])
    return _Clip(frames, *_canvas(content, where))


def _scored(xy: Sequence[Sequence[float]], scores: Sequence[float], where: str) -> Person:
    if len(xy) != len(scores):
        raise ValueError(f"{where} has {len(xy)} joints and {len(scores)} scores")
    rows = _rows([[*point[:2], score] for point, score in zip(xy, scores, strict=True)], None, where)
    return to_points(rows, where=where).person()


def _is_dwpose(frames: Any) -> bool:
    return bool(frames) and isinstance(frames, Sequence) and isinstance(frames[0], Mapping) and "bodies" in frames[0]


def _dwpose(
    frames: Sequence[Mapping[str, Any]], content: Mapping[str, Any], where: str, size: tuple[int, int] | None
) -> _Clip:
    """DWPose's dictionaries: candidates in parts of the picture; each person is 18 indices into them, -1 missing."""
    stated, fps = _canvas({**frames[0], **content}, where)
    size = stated or size
    result: list[list[Person]] = []
    for index, frame in enumerate(frames):
        place = f"{where} frame {index}"
        candidates = frame["bodies"]["candidate"]
        people = []
        for number, subset in enumerate(frame["bodies"]["subset"]):
            if len(subset) < NUM_JOINTS:
                raise ValueError(f"{place} has {len(subset)} joints; there must be {NUM_JOINTS}")
            scores = (frame["bodies"].get("score") or [[1.0] * NUM_JOINTS] * (number + 1))[number]
            rows = [
                None if k < 0 else [*candidates[int(k)][:2], scores[joint]]
                for joint, k in enumerate(subset[:NUM_JOINTS])
            ]
            people.append(_in_px(to_points(_rows(rows, NUM_JOINTS, place), where=place), size, place).person())
        result.append(people)
    return _Clip(result, size, fps)


def _canvas_around(frames: Sequence[Sequence[Person]]) -> tuple[int, int]:
    """The smallest canvas that holds every joint found."""
    points = [person.xy[person.confidence > 0] for people in frames for person in people]
    corner = np.max([part.max(0).values.tolist() for part in points if len(part)], axis=0)
    return max(1, math.ceil(corner[0]) + 1), max(1, math.ceil(corner[1]) + 1)
