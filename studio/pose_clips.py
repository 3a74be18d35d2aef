"""The clips of the Pose page: each is a folder with keypoints, perhaps the video they came from, and its edits.

NAME/clip.json        what the page calls it, and the file of the video
NAME/keypoints*.json  what was found, a file for each person
NAME/edits.json       the edits, so that a reload or a restart loses none
NAME/...              of an extraction also the job's own files
"""

import json
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from studio.errors import RequestError
from studio.files import moved_in
from studio.jobs import Job, new_folder, start
from studio.pose_edits import PoseEdits
from studio.requests import make_request

if TYPE_CHECKING:
    from pose.sequence import PoseSequence

KEYPOINTS: Final = "keypoints"
LARGEST_KEYPOINTS_BYTES: Final = 64 << 20
"""A minute of 18 joints is half a megabyte; with hands and face ten."""
MOTION_FRAMES, MOTION_FPS, MOTION_SIZE = 48, 24.0, (512, 512)
"""How a bundled motion is written out for editing."""


@dataclass(frozen=True)
class Clip:
    """A folder that holds a clip."""

    folder: Path

    @property
    def name(self) -> str:
        """What the page calls it; comes from outside, so escape it."""
        return str(_read(self.folder / "clip.json").get("name") or self.folder.name)

    @property
    def video(self) -> Path | None:
        """The video that the keypoints came from, where there is one."""
        name = Path(str(_read(self.folder / "clip.json").get("video") or "")).name
        return self.folder / name if name and (self.folder / name).is_file() else None

    @property
    def files(self) -> list[Path]:
        """The keypoint files, from the leftmost person."""
        return sorted(self.folder.glob(f"{KEYPOINTS}*.json"), key=lambda path: (len(path.name), path.name))

    @property
    def job(self) -> Job | None:
        """The extraction, where keypoints come from one."""
        return Job(self.folder) if (self.folder / "command.json").is_file() else None

    def load_edits(self) -> tuple[int, PoseEdits]:
        """Reads which person was being edited, counted from 0, and how; none when they cannot be read."""
        kept = _read(self.folder / "edits.json")
        with suppress(RequestError, ValueError, TypeError):
            return max(0, int(kept.get("person", 0))), make_request(PoseEdits, dict(kept.get("edits", {})))
        return 0, PoseEdits()

    def save_edits(self, person: int, edits: PoseEdits) -> None:
        """Keeps the edits."""
        with moved_in(self.folder / "edits.json") as beside:
            beside.write_text(json.dumps({"person": person, "edits": edits.model_dump(mode="json")}))


@dataclass(frozen=True, kw_only=True)
class Someone:
    """One person of a clip."""

    file: Path
    person: int | None
    """Which person of the file, from 1; None when there is one."""
    poses: "PoseSequence"


def clips_folder() -> Path:
    """Where clips lie: with the app's jobs, $STUDIO_RUNS/app or runs/app here."""
    return Path(os.environ.get("STUDIO_RUNS", "runs")) / "app"


def poses_folder() -> Path:
    """Where keypoints are saved to be used again: $STUDIO_RUNS/poses or runs/poses here."""
    return Path(os.environ.get("STUDIO_RUNS", "runs")) / "poses"


def find_clip(name: str) -> Clip | None:
    """Finds a clip by its folder's name; nothing outside of the clips' folder is one."""
    folder = clips_folder() / Path(name).name
    return Clip(folder) if name and (folder / "clip.json").is_file() else None


def list_clips(most: int = 50) -> list[Clip]:
    """Lists the newest clips, the newest first."""
    found = sorted(clips_folder().glob("*/clip.json"), key=lambda path: path.parent.name, reverse=True)
    return [Clip(path.parent) for path in found[:most]]


def new_clip(name: str, *, video: str | None = None) -> Clip:
    """Makes an empty clip."""
    folder = new_folder(clips_folder())
    (folder / "clip.json").write_text(json.dumps({"name": name[:200], "video": video}))
    return Clip(folder)


def open_motion(name: str) -> Clip:
    """Writes a bundled motion out as a clip."""
    from pose.motions import make_motion
    from pose.readers import write_keypoints

    poses = make_motion(name, num_frames=MOTION_FRAMES, fps=MOTION_FPS, frame_size=MOTION_SIZE)
    clip = new_clip(name)
    write_keypoints(clip.folder / f"{KEYPOINTS}.json", poses)
    return clip


def open_keypoints(name: str, content: bytes) -> Clip:
    """Keeps an uploaded keypoint file as a clip, when it can be read.

    Raises:
        ValueError: it is too large, or no keypoint file; the message calls it by `name`.
    """
    from pose.readers import read_everyone

    if len(content) > LARGEST_KEYPOINTS_BYTES:
        raise RequestError(
            f"{name} has {len(content) >> 20} MB; keypoints have {LARGEST_KEYPOINTS_BYTES >> 20} at most"
        )
    clip = new_clip(name)
    file = clip.folder / f"{KEYPOINTS}.json"
    file.write_bytes(content)
    try:
        read_everyone(file)
    except ValueError as error:
        for path in (file, clip.folder / "clip.json"):
            path.unlink()
        clip.folder.rmdir()
        raise RequestError(str(error).replace(str(file), name)) from None
    return clip


def start_extraction(name: str, content: bytes, *, detector: str, fps: float | None, num_frames: int | None) -> Clip:
    """Keeps a video and starts finding everyone in it, as a job of its own.

    The one place where the page starts work; the queue goes here.
    """
    clip = new_clip(name, video=f"video{_suffix(name)}")
    video = clip.folder / f"video{_suffix(name)}"
    video.write_bytes(content)
    start(extract_words(video, clip.folder / f"{KEYPOINTS}.json", detector, fps, num_frames), clip.folder)
    return clip


def extract_words(video: Path, output: Path, detector: str, fps: float | None, num_frames: int | None) -> list[str]:
    """Writes the command that finds everyone in a video."""
    words = ["pose", "extract", str(video), "--everyone", f"--output={output}", f"--detector={detector}"]
    if fps:
        words.append(f"--fps={fps:g}")
    if num_frames:
        words.append(f"--num-frames={num_frames}")
    return words


def read_people(clip: Clip) -> list[Someone]:
    """Reads everyone in a clip, from the left.

    Raises:
        ValueError: a file cannot be read, or nobody is in it.
    """
    from pose.readers import read_everyone

    people = []
    for file in clip.files:
        found = read_everyone(file)
        people += [
            Someone(file=file, person=number if len(found) > 1 else None, poses=poses)
            for number, poses in enumerate(found, 1)
        ]
    return people


def edit_words(someone: Someone, edits: PoseEdits, output: Path) -> list[str]:
    """Writes the command that makes the same edits."""
    person = [] if someone.person is None else [f"--person={someone.person}"]
    return ["pose", "edit", str(someone.file), *person, *edits.flags(), f"--output={output}"]


def save_poses(name: str, poses: "PoseSequence") -> Path:
    """Saves keypoints under a name of the user's, cleaned; never over another file."""
    from pose.readers import write_keypoints

    folder = poses_folder()
    folder.mkdir(parents=True, exist_ok=True)
    stem = re.sub(r"[^\w-]+", "-", name).strip("-_")[:60] or "motion"
    taken: Sequence[Path] = list(folder.iterdir())
    names = {path.name for path in taken}
    number = next(n for n in range(1, len(names) + 2) if _numbered(stem, n) not in names)
    path = folder / _numbered(stem, number)
    write_keypoints(path, poses)
    return path


def _numbered(stem: str, number: int) -> str:
    return f"{stem}.json" if number == 1 else f"{stem}-{number}.json"


def _suffix(name: str) -> str:
    """The suffix of an upload's name, when it is a plain one."""
    suffix = Path(name).suffix.lower()
    return suffix if re.fullmatch(r"\.[a-z0-9]{1,5}", suffix) else ""


def _read(path: Path) -> dict[str, Any]:
    with suppress(OSError, json.JSONDecodeError, UnicodeDecodeError):
        found = json.loads(path.read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    return {}
