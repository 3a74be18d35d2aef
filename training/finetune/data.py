"""Folders of pictures: what is in them, what is wrong with them, and in which order they are seen."""

import csv
import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from einops import rearrange
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from pose.media import read_image
from training.finetune.config import DataSet

PICTURES: Final = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}
"""Endings of the files that are read."""


class DataError(ValueError):
    """There is nothing to train on."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One picture with its caption."""

    path: Path
    caption: str
    size: tuple[int, int]
    """Width and height of the bucket that it is scaled and cropped to. [px]"""
    digest: str
    """SHA-256 of the file."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """What is in the folders."""

    pictures: tuple[Picture, ...]
    """Each as often as its set repeats it."""
    problems: dict[str, str]
    """Files that are left out, and why."""
    notes: tuple[str, ...]
    """What the user should know."""


def find_pictures(sets: Sequence[DataSet], *, resolution: int, multiple: int) -> Found:
    """Lists and decodes every picture, so that a bad one is known before training.

    Raises:
        DataError: a folder is missing or has no picture that can be read.
    """
    pictures: list[Picture] = []
    problems: dict[str, str] = {}
    notes: list[str] = []
    for data in sets:
        if not data.folder.is_dir():
            raise DataError(f"data folder {data.folder}: no such folder")
        captions = _captions(data.folder, problems)
        paths = sorted(p for p in data.folder.rglob("*") if p.suffix.lower() in PICTURES and not p.name.startswith("."))
        own: list[Picture] = []
        bare = 0
        for path in paths:
            try:
                # whole: a truncated file has a good header
                height, width = read_image(path).shape[:2]
            except (ValueError, OSError) as error:
                problems[str(path)] = str(error)
                continue
            told = captions.get(path.relative_to(data.folder).as_posix())
            text = path.with_suffix(".txt")
            if told is None and text.is_file():
                told = text.read_text(encoding="utf-8", errors="replace").strip()
            if told is None:
                bare += 1
                told = data.caption or path.parent.name.replace("_", " ").replace("-", " ")
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            size = bucket(width, height, resolution=resolution, multiple=multiple)
            own.append(Picture(path=path, caption=told, size=size, digest=digest))
        if not own:
            reason = f"; {len(problems)} cannot be read" if problems else ""
            raise DataError(f"data folder {data.folder} has no pictures ({', '.join(sorted(PICTURES))}){reason}")
        if bare:
            word = f"the set's caption {data.caption!r}" if data.caption else "their folder's name"
            notes.append(f"{data.folder}: {bare} of {len(own)} pictures have no caption and get {word}")
        pictures += own * data.repeats
    return Found(pictures=tuple(pictures), problems=problems, notes=tuple(notes))


def _captions(folder: Path, problems: dict[str, str]) -> dict[str, str]:
    """What metadata.jsonl and metadata.csv say of the files beside and below them."""
    found: dict[str, str] = {}
    for path in sorted(folder.rglob("metadata.*")):
        place = path.parent.relative_to(folder)
        try:
            for row in _rows(path):
                name, text = row.get("file_name"), row.get("text", row.get("caption"))
                if isinstance(name, str) and isinstance(text, str):
                    found[(place / name).as_posix()] = text
        except (ValueError, OSError, csv.Error) as error:
            problems[str(path)] = f"cannot be read ({error}); its captions are not used"
    return found


def _rows(path: Path) -> Iterator[dict[str, object]]:
    if path.suffix == ".jsonl":
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if line.strip():
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError(f"line {number} is not an object")
                yield row
    elif path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as file:
            yield from csv.DictReader(file)


def bucket(width: int, height: int, *, resolution: int, multiple: int) -> tuple[int, int]:
    """The size nearest to a picture's shape, 2:1 at most, of about `resolution`^2 pixels; its sides are multiples."""
    shape = min(2.0, max(0.5, width / height))
    across = max(multiple, round(resolution * math.sqrt(shape) / multiple) * multiple)
    return across, max(multiple, round(resolution**2 / across / multiple) * multiple)


def load_pixels(picture: Picture, *, mirrored: bool = False) -> Float[Tensor, "1 3 height width"]:
    """The picture filling its bucket, in -1..1: scaled, and what stands over is cut off on both sides alike."""
    image = Image.fromarray(read_image(picture.path).numpy())
    width, height = picture.size
    scale = max(width / image.width, height / image.height)
    image = image.resize(
        (max(width, round(image.width * scale)), max(height, round(image.height * scale))), Image.Resampling.LANCZOS
    )
    left, top = (image.width - width) // 2, (image.height - height) // 2
    image = image.crop((left, top, left + width, top + height))
    if mirrored:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).float() / 127.5 - 1
    return rearrange(pixels, "(f h w c) -> f c h w", f=1, h=height, w=width)


class Order:
    """An endless stream over things, in which every batch is of one kind.

    Each pass is a new permutation, which follows from the seed and the number of the pass alone, so a resumed run goes
    on where it stopped without anything saved.
    """

    def __init__(self, kinds: Sequence[object], batch_size: int, seed: int) -> None:
        self._batch_size, self._seed = batch_size, seed
        groups = defaultdict(list)
        for index, kind in enumerate(kinds):
            groups[kind].append(index)
        self._groups = [groups[kind] for kind in sorted(groups, key=str)]
        self.batches = sum(math.ceil(len(group) / batch_size) for group in self._groups)
        self._pass = -1
        self._order: list[list[int]] = []

    def take(self, first: int, count: int) -> list[int]:
        """Things `first` .. `first + count` of the stream; they lie within one batch."""
        batch, start = divmod(first, self._batch_size)
        number, place = divmod(batch, self.batches)
        if number != self._pass:
            self._pass, self._order = number, self._shuffled(number)
        return self._order[place][start : start + count]

    def _shuffled(self, number: int) -> list[list[int]]:
        generator = torch.Generator().manual_seed((self._seed * 1_000_003 + number) % (1 << 63))
        batches = []
        for group in self._groups:
            order = [group[k] for k in torch.randperm(len(group), generator=generator).tolist()]
            # the last batch is filled up from the beginning of the pass
            order += [order[k % len(order)] for k in range(-len(order) % self._batch_size)]
            batches += [order[k : k + self._batch_size] for k in range(0, len(order), self._batch_size)]
        return [batches[k] for k in torch.randperm(len(batches), generator=generator).tolist()]
