"""`studio pose extract`, `edit`, `align` and `draw`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from pose.adjustment import NOT_ADJUSTED
from studio.cli.console import Console
from studio.cli.verb import Result, Verb
from studio.errors import RequestError
from studio.pose_edits import PoseEdits
from studio.requests import Adjust, Positional, Request

if TYPE_CHECKING:
    from jaxtyping import UInt8
    from torch import Tensor

    from pose.sequence import PoseSequence

_DOUBTS_TOLD = 5
_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


class ExtractRequest(Request):
    """Finds the keypoints of a video or a picture and writes them as K.json."""

    file: Annotated[Path, Positional()]
    """A video or a picture."""
    output: Path
    """The keypoint file to write."""
    detector: Annotated[str, Field(min_length=1)] = "mini"
    """Who finds them: mini, dwpose, rtmw, rtmpose, or a MODEL.onnx."""
    person: Annotated[int, Field(ge=1)] | None = None
    """Which person, 1 being the leftmost, when there are several."""
    everyone: bool = False
    """Writes every person, K-1.json, K-2.json and so on, from the left, instead of K.json."""
    fps: Annotated[float, Field(gt=0, le=240)] | None = None
    """Frame rate to read a video at; by default its own."""
    num_frames: Annotated[int, Field(ge=1)] | None = None
    """How many frames to read; by default all."""


class EditRequest(PoseEdits):
    """Repairs the keypoints of K.json: joints by hand, then gaps, then jitter, then the ends; writes another K.json."""

    keypoints: Annotated[Path, Positional()]
    """A keypoint file or folder."""
    output: Path
    """The keypoint file to write."""
    person: Annotated[int, Field(ge=1)] | None = None
    """Which person, 1 being the leftmost, when there are several."""
    keypoints_fps: Annotated[float, Field(gt=0, le=240)] | None = None
    """Frame rate of keypoint files that do not write it; 30 if not given."""


class AlignRequest(Request):
    """Fits the motion of K.json to the body of a reference and writes it as another K.json."""

    driving: Path
    """The keypoints of the motion."""
    reference: Path
    """The body: a picture, or its keypoints."""
    output: Path
    """The keypoint file to write."""
    adjust: Adjust = NOT_ADJUSTED
    """Changes the aligned motion by hand, such as arms=1.2, scale=0.9 or shift_x=0.05; repeat it for several. Names as
    in studio animate."""
    detector: Annotated[str, Field(min_length=1)] = "mini"
    """Who finds the keypoints of a picture."""
    person: Annotated[int, Field(ge=1)] | None = None
    """Which person of the driving file, when there are several."""


class DrawRequest(Request):
    """Draws the skeletons of K.json as a video."""

    keypoints: Annotated[Path, Positional()]
    """A keypoint file or folder."""
    output: Path
    """The MP4 to write."""
    height: Annotated[int, Field(ge=16, le=4096)] | None = None
    """Height of the video; by default that of the keypoints' canvas."""
    width: Annotated[int, Field(ge=16, le=4096)] | None = None
    """Width of the video; by default that of the keypoints' canvas."""
    person: Annotated[int, Field(ge=1)] | None = None
    """Which person, when there are several."""


def run_extract(request: ExtractRequest, console: Console) -> Result:
    """Finds keypoints and says how many."""
    from collections.abc import Iterator

    from pose.detect import extract_everyone, extract_poses
    from pose.media import iter_video, probe_video, read_image
    from pose.readers import write_keypoints
    from studio.files import check_output
    from studio.progress import Progress
    from studio.weights import open_detector

    check_output(request.output, suffixes=(".json",))
    if request.everyone and request.person is not None:
        raise RequestError(f"--person {request.person}: with --everyone nobody is chosen; leave one of the two out")
    people = 0

    class Counting:
        """Passes detections on and remembers the largest crowd."""

        def detect(self, frame: "UInt8[Tensor, 'height width 3']") -> list[Any]:
            nonlocal people
            found = detector.detect(frame)
            people = max(people, len(found))
            return found

    def watched(frames: "Iterator[Tensor]", total: int | None) -> "Iterator[Tensor]":
        for index, frame in enumerate(frames, 1):
            console.progress(Progress(stage="finding keypoints", done=index, total=total, unit="frames"))
            yield frame

    detector = open_detector(request.detector)
    if request.file.suffix.lower() in _PICTURES:
        frames, fps = watched(iter([read_image(request.file)]), 1), 1.0
    else:
        info = probe_video(request.file)
        fps = request.fps or info.fps
        expected = round(info.duration_s * fps) if info.duration_s else None
        total = min(filter(None, (expected, request.num_frames)), default=None)
        frames = watched(iter_video(request.file, fps=request.fps, max_frames=request.num_frames), total)
    if request.everyone:
        found = extract_everyone(frames, Counting(), fps=fps, source=str(request.file))
        outputs = [request.output.with_stem(f"{request.output.stem}-{number}") for number in range(1, len(found) + 1)]
    else:
        found = [extract_poses(frames, Counting(), fps=fps, person=request.person, source=str(request.file))]
        outputs = [request.output]
    told = []
    for output, poses in zip(outputs, found, strict=True):
        write_keypoints(output, poses)
        told.append(_told(output, poses))
        console.say(
            f"{output}: {len(poses)} frames, a body in {told[-1]['detected']} of them, "
            f"{told[-1]['missing']} joints missing"
        )
    first = {**told[0], "people": people}
    return {**first, "everyone": told} if request.everyone else first


def _told(output: Path, poses: "PoseSequence") -> dict[str, Any]:
    """Sums up a keypoint file for `--json`."""
    return {
        "output": str(output), "frames": len(poses), "detected": int(poses.visible.any(dim=1).sum()),
        "missing": int((~poses.visible).sum()), "fps": poses.fps,
    }  # fmt: skip


def run_edit(request: EditRequest, console: Console) -> Result:
    """Repairs, writes, and says what still deserves a look."""
    from pose.readers import read_keypoints, write_keypoints
    from pose.timeline import doubtful_frames
    from studio.files import check_output
    from studio.pose_edits import apply_edits, repair

    check_output(request.output, suffixes=(".json",))
    before = read_keypoints(request.keypoints, person=request.person, fps=request.keypoints_fps)
    try:
        poses = apply_edits(before, request)
    except ValueError as error:
        raise RequestError(f"{request.keypoints}: {error}") from None
    write_keypoints(request.output, poses)
    told = _told(request.output, poses)
    kept = range(request.first, request.first + len(poses))
    # numbered as in the clip that was read, so that the number fits into --fix
    doubts = [doubt for doubt in doubtful_frames(repair(before, request)) if doubt.frame in kept]
    lost = int((~before.visible).sum())
    console.say(
        f"{request.output}: {len(poses)} of {len(before)} frames, {told['missing']} joints missing ({lost} before)"
    )
    for doubt in doubts[:_DOUBTS_TOLD]:
        console.note(f"frame {doubt.frame}: {(doubt.joint or '').replace('_', ' ')} {doubt.why}".replace("  ", " "))
    if len(doubts) > _DOUBTS_TOLD:
        console.note(f"{len(doubts) - _DOUBTS_TOLD} more joints deserve a look")
    return {**told, "doubtful_frames": sorted({doubt.frame for doubt in doubts})}


def run_align(request: AlignRequest, console: Console) -> Result:
    """Retargets and writes."""
    from pose.align import adjust_poses, align_poses
    from pose.checks import check_aligned, check_driving, check_reference
    from pose.detect import extract_poses
    from pose.media import read_image
    from pose.readers import read_keypoints, write_keypoints
    from studio.files import check_output
    from studio.weights import open_detector

    check_output(request.output, suffixes=(".json",))
    driving = read_keypoints(request.driving, person=request.person)
    reference: PoseSequence
    if request.reference.is_dir() or request.reference.suffix.lower() == ".json":
        reference = read_keypoints(request.reference).frame(0)
    else:
        reference = extract_poses([read_image(request.reference)], open_detector(request.detector), fps=1.0)
    aligned = adjust_poses(align_poses(driving, reference), request.adjust)
    write_keypoints(request.output, aligned)
    width, height = aligned.frame_size
    findings = [*check_driving(driving), *check_reference(reference), *check_aligned(aligned)]
    for finding in findings:
        console.note(str(finding))
    console.say(f"{request.output}: {len(aligned)} frames on {width}x{height}")
    return {"output": str(request.output), "frames": len(aligned), "width": width, "height": height,
            "findings": [str(finding) for finding in findings]}  # fmt: skip


def run_draw(request: DrawRequest, console: Console) -> Result:
    """Draws and writes."""
    from pose.draw import draw_poses
    from pose.readers import read_keypoints
    from studio.files import check_output, moved_in
    from studio.video import write_video

    check_output(request.output, suffixes=(".mp4",))
    poses = read_keypoints(request.keypoints, person=request.person)
    width, height = poses.frame_size
    if request.width or request.height:  # one side alone keeps the shape
        wide = request.width or round(width * (request.height or height) / height)
        width, height = wide, request.height or round(height * wide / width)
    frames = draw_poses(poses, size=(width, height))
    with moved_in(request.output) as beside:
        write_video(beside, frames, poses.fps)
    console.say(f"{request.output}: {len(frames)} frames of {width}x{height} at {poses.fps:g} fps")
    return {"output": str(request.output), "frames": len(frames), "width": width, "height": height, "fps": poses.fps}


VERBS = (
    Verb("pose extract", ExtractRequest, run_extract),
    Verb("pose edit", EditRequest, run_edit),
    Verb("pose align", AlignRequest, run_align),
    Verb("pose draw", DrawRequest, run_draw),
)
