"""The clips of the Pose page: each is a folder with keypoints, perhaps the video they came from, and its edits.

NAME/clip.json        what the page calls it, the video's file, the job that finds its keypoints
NAME/keypoints*.json  what was found, a file for each person
NAME/edits.json       the edits, so that a reload or a restart loses none
"""

import json
import re
import secrets
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from studio.errors import RequestError
from studio.files import moved_in
from studio.jobs import Job, runs_folder
from studio.pose_edits import PoseEdits
from studio.requests import make_request

if TYPE_CHECKING:
    from pose.sequence import PoseSequence

KEYPOINTS: Final = "keypoints"
EDITS: Final = "edits.json"
MOTION_FRAMES: Final = 48
MOTION_FPS: Final = 24.0
MOTION_SIZE: Final = (512, 512)
"""How a bundled motion is written out for editing."""
_FOLDER: Final = re.compile(r"\d{8}-\d{6}-[0-9a-f]{8}")
MOST_PEOPLE: Final = 20
"""Of one keypoint file."""


@dataclass(frozen=True)
class Clip:
    """A folder that holds a clip."""

    folder: Path

    @property
    def name(self) -> str:
        """What the page calls it; comes from outside, so escape it."""
        return str(self._facts().get("name") or self.folder.name)

    @property
    def video(self) -> Path | None:
        """The video that the keypoints came from, where there is one."""
        path = Path(str(self._facts().get("video") or ""))
        return path if path.is_file() else None

    @property
    def picture(self) -> Path | None:
        """The picture that the keypoints came from, where it was no video."""
        path = Path(str(self._facts().get("picture") or ""))
        return path if path.is_file() else None

    @property
    def job(self) -> int | None:
        """The number of the job that finds the keypoints, where one does."""
        number = self._facts().get("job")
        return number if isinstance(number, int) else None

    @property
    def files(self) -> list[Path]:
        """The keypoint files, from the leftmost person."""
        return sorted(self.folder.glob(f"{KEYPOINTS}*.json"), key=lambda path: (len(path.name), path.name))

    def load_edits(self, person: int | None = None) -> tuple[int, PoseEdits]:
        """Reads how a person is edited, counted from 0; none when that cannot be read.

        Args:
            person: by default the one that was edited last.
        """
        kept = _read(self.folder / EDITS)
        with suppress(RequestError, ValueError, TypeError, AttributeError):
            person = max(0, int(kept.get("person", 0))) if person is None else person
            return person, make_request(PoseEdits, dict(kept.get("people", {}).get(str(person), {})))
        return person or 0, PoseEdits()

    def save_edits(self, person: int, edits: PoseEdits) -> None:
        """Keeps the edits of a person; those of others stay."""
        people = _read(self.folder / EDITS).get("people")
        people = {**(people if isinstance(people, dict) else {}), str(person): edits.model_dump(mode="json")}
        with moved_in(self.folder / EDITS) as beside:
            beside.write_text(json.dumps({"person": person, "people": people}))

    def note(self, **facts: Any) -> None:
        """Writes what the page should know of the clip; what was noted before stays."""
        facts = {**self._facts(), **facts}
        with moved_in(self.folder / "clip.json") as beside:
            beside.write_text(json.dumps(facts))

    def _facts(self) -> dict[str, Any]:
        return _read(self.folder / "clip.json")


@dataclass(frozen=True, kw_only=True)
class Someone:
    """One person of a clip."""

    file: Path
    person: int | None
    """Which person of the file, from 1; None when there is one."""
    poses: "PoseSequence"


def clips_folder() -> Path:
    """Where clips lie."""
    return runs_folder() / "clips"


def poses_folder() -> Path:
    """Where keypoints are saved to be used again."""
    return runs_folder() / "poses"


def find_clip(name: str) -> Clip | None:
    """Finds a clip by its folder's name; nothing outside of the clips' folder is one."""
    clip = Clip(clips_folder() / name)
    return clip if _FOLDER.fullmatch(name) and (clip.folder / "clip.json").is_file() else None


def list_clips(most: int = 50) -> list[Clip]:
    """Lists the newest clips, the newest first."""
    found = sorted(clips_folder().glob("*/clip.json"), key=lambda path: path.parent.name, reverse=True)
    return [Clip(path.parent) for path in found[:most]]


def new_clip(name: str, **facts: Any) -> Clip:
    """Makes an empty clip; names of folders sort by time."""
    clip = Clip(clips_folder() / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}")
    clip.folder.mkdir(parents=True)
    clip.note(name=name[:200], **facts)
    return clip


def open_motion(name: str) -> Clip:
    """Writes a bundled motion out as a clip."""
    from pose.motions import make_motion
    from pose.readers import write_keypoints

    poses = make_motion(name, num_frames=MOTION_FRAMES, fps=MOTION_FPS, frame_size=MOTION_SIZE)
    clip = new_clip(name)
    write_keypoints(clip.folder / f"{KEYPOINTS}.json", poses)
    return clip


def open_keypoints(name: str, source: Any, uploads: Path) -> Clip:
    """Keeps an uploaded keypoint file as a clip, with everyone in it.

    Args:
        name: as the upload is called.
        source: the upload, a binary file.
        uploads: the folder that uploads are kept in.

    Raises:
        RequestError: it cannot be used; the message says why.
    """
    from pose.track import SeveralPeopleError
    from studio.uploads import keep_keypoints

    try:
        kept = [keep_keypoints(name, source, uploads)]
    except SeveralPeopleError:
        kept = []
        with suppress(RequestError):  # nobody has the next number
            for person in range(1, MOST_PEOPLE + 1):
                source.seek(0)
                kept.append(keep_keypoints(name, source, uploads, person=person))
    clip = new_clip(name)
    for number, path in enumerate(kept, 1):
        shutil.copyfile(path, clip.folder / f"{KEYPOINTS}-{number}.json")
    return clip


def open_picture(name: str, picture: Path) -> Clip:
    """Finds everyone in a picture with the mini detector, which takes less than a second.

    Raises:
        RequestError: nobody is seen.
    """
    from pose.detect import PoseNotFoundError, extract_everyone
    from pose.media import read_image
    from pose.readers import write_keypoints
    from studio.weights import open_detector

    try:
        found = extract_everyone([read_image(picture)], open_detector("mini"), fps=1.0, source="the picture")
    except PoseNotFoundError as error:
        raise RequestError(str(error)) from None
    clip = new_clip(name, picture=str(picture.absolute()))
    for number, poses in enumerate(found, 1):
        write_keypoints(clip.folder / f"{KEYPOINTS}-{number}.json", poses)
    return clip


def start_extraction(
    name: str,
    source: Path,
    submit: Callable[[Sequence[str], str], Job],
    *,
    detector: str,
    fps: float | None,
    num_frames: int | None,
) -> Clip:
    """Starts finding everyone in a video, as a job of the queue.

    Args:
        name: what the page calls the clip.
        source: the kept video or picture.
        submit: takes the words of a command and a title.
        detector: who finds the keypoints.
        fps: rate to read the video at; None for its own.
        num_frames: how many frames to read; None for all.
    """
    what = "picture" if source.suffix.lower() in (".png", ".jpg", ".jpeg") else "video"
    clip = new_clip(name, **{what: str(source.absolute())})
    words = ["pose", "extract", str(source.absolute()), "--everyone", f"--detector={detector}",
             f"--output={clip.folder / KEYPOINTS}.json"]  # fmt: skip
    words += [f"--fps={fps:g}"] if fps else []
    words += [f"--num-frames={num_frames}"] if num_frames else []
    try:
        clip.note(job=submit(words, f"pose of {name}").id)
    except Exception:
        shutil.rmtree(clip.folder)
        raise
    return clip


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
    taken = {path.name for path in folder.iterdir()}
    number = next(n for n in range(1, len(taken) + 2) if _numbered(stem, n) not in taken)
    path = folder / _numbered(stem, number)
    write_keypoints(path, poses)
    return path


def _numbered(stem: str, number: int) -> str:
    return f"{stem}.json" if number == 1 else f"{stem}-{number}.json"


def _read(path: Path) -> dict[str, Any]:
    with suppress(OSError, json.JSONDecodeError, UnicodeDecodeError):
        found = json.loads(path.read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    return {}
