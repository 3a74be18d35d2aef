"""From the files that were found to the samples of every task."""

import hashlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from training.finetune.cache import Cache
from training.finetune.config import DataSet
from training.finetune.data.buckets import Wanted, bucket, windows
from training.finetune.data.folder import PICTURES, VIDEOS, keypoints_of
from training.finetune.data.problems import DataError, Problem, error, errors_in
from training.finetune.data.scan import Medium, Scan, scan

_SIDES: Final = re.compile(r"\b(left|right)\b", re.IGNORECASE)
_WRITING: Final = re.compile(r"\b(text|letters?|words?|writing|written|logo|sign|says|saying|reads)\b", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A picture, or a piece of a video, for one task."""

    path: Path
    task: str
    captions: tuple[str, ...]
    """One of them is drawn every time."""
    size: tuple[int, int]
    """Width and height of the bucket that it is scaled and cropped to. [px]"""
    source: tuple[int, int]
    """Width and height of the file. [px]"""
    video: bool = False
    start: int = 0
    """First frame, at `fps`."""
    frames: int = 1
    fps: float | None = None
    """The rate at which the video is read; None: its own. [frames/s]"""
    digest: str
    """SHA-256 of the file."""
    stamp: tuple[int, int]
    """Size and time of change of the file."""
    group: int = 0
    """The number of its data set."""
    keypoints: Path | None = None
    """A file with the keypoints of the whole video."""

    @property
    def caption(self) -> str:
        """The first caption."""
        return self.captions[0]

    @property
    def bucket(self) -> tuple[int, int, int]:
        """What the samples of a batch share: width, height, frames."""
        return (*self.size, self.frames)

    @property
    def piece(self) -> str:
        """Names the content that is seen, whatever the file is called."""
        return f"{self.digest} {self.start}+{self.frames} at {self.fps}" if self.video else self.digest


@dataclass(frozen=True, kw_only=True)
class Found:
    """What is in the folders, as it is trained."""

    samples: tuple[Sample, ...]
    """Of all tasks; each as often as its set repeats it."""
    problems: tuple[Problem, ...]
    """Files that are left out, and other things that are wrong."""
    notes: tuple[str, ...]
    """What the user should know."""

    @property
    def left_out(self) -> tuple[Problem, ...]:
        """The files that are not trained."""
        return tuple(problem for problem in self.problems if problem.severity == "error")


def find_samples(
    sets: Sequence[DataSet],
    wanted: Mapping[str, Wanted],
    *,
    resolution: int,
    multiple: int,
    most_windows: int = 4,
    flip: bool = False,
    cache: Cache | None = None,
    on_file: Callable[[int, int], None] = lambda done, total: None,
) -> Found:
    """Decodes every file and cuts it to what each task wants, so that a bad one is known before training.

    Raises:
        DataError: a folder is missing or has nothing in it that can be used, or all weights are 0.
    """
    check_weights(sets)
    (fps,) = {want.fps for want in wanted.values()}
    seen = scan(sets, fps=fps, cache=cache, on_file=on_file)
    return make_samples(sets, seen, wanted, resolution=resolution, multiple=multiple, most_windows=most_windows,
                        flip=flip)  # fmt: skip


def make_samples(
    sets: Sequence[DataSet],
    seen: Scan,
    wanted: Mapping[str, Wanted],
    *,
    resolution: int,
    multiple: int,
    most_windows: int = 4,
    flip: bool = False,
) -> Found:
    """The samples of what was seen.

    Raises:
        DataError: a set has nothing that can be used.
    """
    samples: list[Sample] = []
    problems, notes = list(seen.problems), list(seen.notes)
    for group, data in enumerate(sets):
        own = [medium for medium in seen.media if medium.group == group]
        if not own:
            reason = f"; {len(bad)} cannot be read" if (bad := errors_in(problems, data.folder)) else ""
            endings = ", ".join(sorted(PICTURES | VIDEOS))
            raise DataError(f"data folder {data.folder} has no pictures or videos ({endings}){reason}")
        for task, want in wanted.items():
            some, wrong, told = _of_task(own, task, want, resolution, multiple, most_windows)
            problems += wrong
            notes += [f"{data.folder}: {text}" for text in told]
            samples += some * data.repeats
    for task in wanted:
        if not any(sample.task == task for sample in samples):
            said = "".join(f"; {text}" for text in notes)
            raise DataError(f"there is nothing to train {task} on in {', '.join(str(d.folder) for d in sets)}{said}")
    if flip:
        notes += _mirrored_notes(samples)
    return Found(samples=tuple(samples), problems=tuple(problems), notes=tuple(notes))


def check_weights(sets: Sequence[DataSet]) -> None:
    """Refuses data sets of which none is ever drawn.

    Raises:
        DataError: every weight is 0.
    """
    if all(data.weight == 0 for data in sets):
        raise DataError("every data set has the weight 0, so nothing would be drawn; give one of them more")


def digest(samples: Sequence[Sample]) -> str:
    """Tells sets of samples apart: a hash of pictures, sizes, captions and poses."""
    found = hashlib.sha256()
    for sample in samples:
        found.update(f"{sample.piece} {sample.size} {'|'.join(sample.captions)}\n".encode())
        if sample.keypoints is not None:
            found.update(sample.keypoints.read_bytes())
    return found.hexdigest()


def split(samples: Sequence[Sample], share: float) -> tuple[list[Sample], list[Sample]]:
    """Takes a share of the files out of training: the same ones every time, whatever else is in the folder.

    Raises:
        ValueError: nothing would be left.
    """
    if not share:
        return list(samples), []
    unique = sorted({sample.digest for sample in samples})
    held = set(unique[: max(1, math.floor(share * len(unique)))])
    if len(held) == len(unique):
        raise ValueError(f"validation_share {share}: leaves none of {len(unique)} files for training")
    train_on = [sample for sample in samples if sample.digest not in held]
    once = {(sample.task, sample.piece): sample for sample in samples if sample.digest in held}
    return train_on, list(once.values())


def _of_task(
    media: Sequence[Medium], task: str, want: Wanted, resolution: int, multiple: int, most: int
) -> tuple[list[Sample], list[Problem], list[str]]:
    samples: list[Sample] = []
    problems: list[Problem] = []
    stills = 0
    for medium in media:
        pieces = windows(medium.frames, want, most) if medium.video else [(0, 1)]
        if not medium.video and not want.stills:
            stills += 1
            continue
        if not pieces:
            problems.append(_too_short(medium, want))
        size = bucket(*medium.size, resolution=resolution, multiple=multiple)
        samples += [
            Sample(
                path=medium.path, task=task, captions=medium.captions, size=size, source=medium.size,
                video=medium.video, start=start, frames=frames, fps=want.fps if medium.video else None,
                digest=medium.digest, stamp=medium.stamp, group=medium.group,
                keypoints=keypoints_of(medium.path) if want.poses else None,
            )
            for start, frames in pieces
        ]  # fmt: skip
    notes = [f"{stills} pictures are left out of {task}, which learns from videos"] if stills else []
    return samples, problems, notes


def _too_short(medium: Medium, want: Wanted) -> Problem:
    rate = want.fps or medium.own_fps
    why = f"has {medium.frames} frames at {rate:g} a second; the shortest clip has {want.factor + 1}"
    return error(medium.path, "too short", why, "use a longer video, or raise fps")


def _mirrored_notes(samples: Sequence[Sample]) -> list[str]:
    """What a mirror image would contradict: it is not put right, so it must be told."""
    captions = {sample.path: " ".join(sample.captions) for sample in samples}
    notes = []
    for pattern, what in ((_SIDES, "say left or right"), (_WRITING, "speak of writing")):
        said = [path for path, text in captions.items() if pattern.search(text)]
        if said:
            notes.append(f"flip: {len(said)} captions {what}, such as that of {said[0]}, and mirrored it is not so")
    return notes
