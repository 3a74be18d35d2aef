"""Looks at every file: a bad one is known before anything is trained."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from pose.media import iter_video, probe_video, read_image
from training.finetune.cache import Cache
from training.finetune.config import DataSet
from training.finetune.data.captions import Captions, unreadable_caption
from training.finetune.data.clips import stamp
from training.finetune.data.folder import Listing, is_video, list_files
from training.finetune.data.problems import Problem, error
from training.hashing import file_sha256


@dataclass(frozen=True, kw_only=True)
class Medium:
    """One file that can be read."""

    path: Path
    captions: tuple[str, ...]
    video: bool
    size: tuple[int, int]
    """Width and height, upright. [px]"""
    frames: int
    """At the rate at which it is read; 1 of a picture."""
    own_fps: float
    """What the file says; 0 of a picture. [frames/s]"""
    digest: str
    """SHA-256 of the file."""
    stamp: tuple[int, int]
    """Size and time of change when it was looked at."""
    group: int
    """The number of its data set."""


@dataclass(frozen=True, kw_only=True)
class Scan:
    """What is in the folders."""

    media: tuple[Medium, ...]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]
    """What the user should know of the folders as a whole."""
    files: int
    """Pictures and videos, bad ones included."""


def scan(
    sets: Sequence[DataSet],
    *,
    fps: float | None = None,
    cache: Cache | None = None,
    on_file: Callable[[int, int], None] = lambda done, total: None,
) -> Scan:
    """Lists the folders and decodes every file whole; `cache` remembers what was found, by content.

    `on_file` hears how many files of how many have been looked at.

    Raises:
        DataError: a folder is not there.
    """
    listings = [list_files(data.folder) for data in sets]
    total = sum(len(listing.files) for listing in listings)
    media: list[Medium] = []
    problems: list[Problem] = []
    notes: list[str] = []
    done = 0
    for group, (data, listing) in enumerate(zip(sets, listings, strict=True)):
        captions = Captions(listing)
        bare, first = 0, len(media)
        for path in listing.files:
            done += 1
            on_file(done, total)
            try:
                told = captions.of(path)
            except ValueError as wrong:
                problems.append(unreadable_caption(path, wrong))
                continue
            texts = told or (data.caption or listing.caption_folder(path),)
            found = _look(path, texts, group, fps, cache)
            if isinstance(found, Medium):
                media.append(found)
                bare += told is None
            else:
                problems.append(found)
        problems += captions.problems
        notes += _notes(data, listing, bare, media[first:])
    return Scan(media=tuple(media), problems=tuple(problems), notes=tuple(notes), files=total)


def _notes(data: DataSet, listing: Listing, bare: int, own: Sequence[Medium]) -> list[str]:
    notes = []
    if listing.left_out:
        notes.append(f"{data.folder}: of its splits train is used, and {', '.join(listing.left_out)} not")
    if bare:
        word = f"the set's caption {data.caption!r}" if data.caption else "their folder's name"
        kind = "files" if any(m.video for m in own) else "pictures"
        notes.append(f"{data.folder}: {bare} of {len(own)} {kind} have no caption and get {word}")
    return notes


def _look(
    path: Path, captions: tuple[str, ...], group: int, fps: float | None, cache: Cache | None
) -> Medium | Problem:
    video = is_video(path)
    try:
        seen, digest = stamp(path), file_sha256(path)

        def decode() -> dict[str, torch.Tensor]:
            # whole: a truncated file has a good header
            return {"facts": torch.tensor(_video(path, fps) if video else _picture(path), dtype=torch.float64)}

        found = cache.get(f"facts {video} {digest} {fps}", decode) if cache else decode()
    except (ValueError, OSError) as wrong:
        fix = "get a whole copy of it, or take it out (studio data check --quarantine)"
        return error(path, "unreadable", str(wrong), fix)
    width, height, frames, own_fps = found["facts"].tolist()
    return Medium(
        path=path, captions=captions, video=video, size=(int(width), int(height)), frames=int(frames), own_fps=own_fps,
        digest=digest, stamp=seen, group=group,
    )  # fmt: skip


def _picture(path: Path) -> list[float]:
    height, width = read_image(path).shape[:2]
    return [width, height, 1, 0]


def _video(path: Path, fps: float | None) -> list[float]:
    info = probe_video(path)
    frames = sum(1 for _ in iter_video(path, fps=fps))
    return [info.width, info.height, frames, info.fps]
