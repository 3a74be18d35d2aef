"""`studio data check`: all that can be said of data before it is trained."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

import av
import av.error
from PIL import Image

from training.finetune.cache import Cache
from training.finetune.config import FinetuneConfig
from training.finetune.data.captions import Captions
from training.finetune.data.find import Found, check_weights, make_samples
from training.finetune.data.folder import list_files
from training.finetune.data.likeness import find_twins
from training.finetune.data.problems import DataError, Problem, error, note, warning
from training.finetune.data.scan import Medium, Scan, scan
from training.finetune.families import Family
from training.finetune.gather import wanted_of, with_poses_found

MOST_ASPECT: Final = 2.0
"""Buckets go to 2:1; of what is longer, a part is cut away."""
_ORIENTATION: Final = 0x0112
"""EXIF's tag for how a picture is turned."""
_UNEVEN: Final = 1.5
"""A rate is variable when one frame lasts so many times longer than another."""


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What a check found."""

    files: int
    """Pictures and videos, bad ones included."""
    problems: tuple[Problem, ...]
    """Notes included."""
    notes: tuple[str, ...]
    """Of the folders as a whole."""
    found: Found | None
    """What would be trained; None where that is nothing."""

    @property
    def ok(self) -> bool:
        """Whether there are neither errors nor warnings."""
        return all(problem.severity == "note" for problem in self.problems)


def check_data(
    config: FinetuneConfig,
    family: Family,
    cache: Cache | None,
    *,
    on_file: Callable[[int, int], None] = lambda done, total: None,
) -> Checked:
    """Decodes every file and looks for all that is wrong with it, its caption and its neighbours.

    Raises:
        DataError: a folder is missing or empty, or all weights are 0.
        ValueError: the model does not know the task, or has no clips of that length.
    """
    wanted = wanted_of(config, family)
    check_weights(config.data)
    (fps,) = {want.fps for want in wanted.values()}
    seen = scan(config.data, fps=fps, cache=cache, on_file=on_file)
    for data in config.data:
        if not list_files(data.folder).files:
            raise DataError(f"data folder {data.folder} has no pictures or videos")
    problems = list(seen.problems)
    found: Found | None = None
    notes = seen.notes
    try:
        found = make_samples(
            config.data, seen, wanted, resolution=config.resolution, multiple=family.multiple,
            most_windows=config.clip_windows, flip=config.flip,
        )  # fmt: skip
        if cache is not None:
            found = with_poses_found(found, wanted, cache)
        problems, notes = list(found.problems), found.notes
    except DataError as wrong:
        # the files that made it so are listed; where there are none, the reason itself is
        if not problems:
            problems.append(error(config.data[0].folder, "nothing to train", str(wrong), "see docs/data.md"))
    for data in config.data:
        problems += Captions(list_files(data.folder)).orphans()
    for medium in seen.media:
        problems += _looks(medium, config, fps)
        problems += _captions(medium, config, family)
    problems += _copies(seen)
    unique = {(p.file, p.kind, p.why): p for p in problems}
    order = {"error": 0, "warning": 1, "note": 2}
    ranked = sorted(unique.values(), key=lambda p: (order[p.severity], str(p.file)))
    return Checked(files=seen.files, problems=tuple(ranked), notes=notes, found=found)


def _looks(medium: Medium, config: FinetuneConfig, fps: float | None) -> Iterator[Problem]:
    """Size, shape and format."""
    (width, height), path = medium.size, medium.path
    if width * height < config.resolution**2 * 0.9:
        why = f"is {width}x{height} px and is blown up to the area of {config.resolution}x{config.resolution}"
        yield warning(path, "small", why, "use a larger one, or lower resolution")
    if max(width / height, height / width) > MOST_ASPECT:
        part = 1 - MOST_ASPECT / max(width / height, height / width)
        why = f"is {width}x{height} px; buckets go to 2:1, so {part:.0%} of it is cut away"
        yield warning(path, "extreme shape", why, "crop it to what matters, or split it")
    yield from _video_looks(medium, fps) if medium.video else _picture_looks(path)


def _picture_looks(path: Path) -> Iterator[Problem]:
    with Image.open(path) as image:
        frames = int(getattr(image, "n_frames", 1))
        if frames > 1:
            why = f"is an animated {image.format} of {frames} frames; the first one is taken"
            yield note(path, "animated picture", why, "convert it to MP4 to train it as a clip")
        if image.getexif().get(_ORIENTATION, 1) != 1:
            yield note(path, "EXIF rotation", "is turned upright, as its EXIF data says")
        if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
            yield note(
                path, "transparency", "has transparent parts, which are laid over white", "lay it over what fits"
            )
        elif image.mode != "RGB":
            yield note(path, "not RGB", f"is of mode {image.mode} and is converted to RGB")


def _video_looks(medium: Medium, fps: float | None) -> Iterator[Problem]:
    path = medium.path
    if fps and medium.own_fps < fps * 0.95:
        why = f"has {medium.own_fps:g} frames a second, read at {fps:g}: frames repeat, and motion stutters"
        yield warning(path, "slow", why, f"use a faster one, or set fps = {medium.own_fps:g}")
    lengths = _frame_lengths(path)
    if lengths and max(lengths) > _UNEVEN * max(min(lengths), 1e-6):
        why = f"has a variable rate: frames last {min(lengths):.3f} to {max(lengths):.3f} s; it is read by time"
        yield note(path, "variable rate", why)


def _frame_lengths(path: Path) -> list[float]:
    """Times between frames, the last one left out, which is often cut."""
    try:
        with av.open(f"file:{path}", options={"protocol_whitelist": "file"}) as container:
            packets = container.demux(video=0)
            times = sorted(
                float(p.pts * p.time_base) for p in packets if p.pts is not None and p.time_base is not None and p.size
            )
    except (av.error.FFmpegError, OSError):  # it could be decoded a moment ago
        return []
    return [after - before for before, after in pairwise(times)][:-1]


def _captions(medium: Medium, config: FinetuneConfig, family: Family) -> Iterator[Problem]:
    for caption in medium.captions:
        if not caption:
            fix = "write what it shows, or remove the file so that the folder's name is taken"
            yield warning(medium.path, "empty caption", "has an empty caption", fix)
            continue
        cut = family.num_tokens_cut(f"{config.trigger} {caption}".strip())
        if cut:
            why = (
                f"has a caption of which the last {cut} tokens are more than the text encoder reads: {caption[:40]}..."
            )
            yield warning(medium.path, "long caption", why, "shorten it; what matters comes first")


def _copies(seen: Scan) -> Iterator[Problem]:
    """The same file twice, and pictures that look the same."""
    same: dict[str, list[Medium]] = defaultdict(list)
    for medium in seen.media:
        same[medium.digest].append(medium)
    for first, *others in same.values():
        for other in others:
            yield warning(other.path, "duplicate", f"is the same file as {first.path}{_said(first, other)}",
                          "remove one; several captions can stand in metadata.jsonl as a list")  # fmt: skip
    for one, other in find_twins([group[0] for group in same.values()]):
        yield warning(other.path, "near duplicate", f"looks like {one.path}{_said(one, other)}",
                      "remove one, unless both are wanted")  # fmt: skip


def _said(one: Medium, other: Medium) -> str:
    return " with another caption" if one.captions != other.captions else ""
