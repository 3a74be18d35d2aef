"""The contact sheet of `studio data preview`: what the model will see."""

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from einops import rearrange
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image, ImageDraw
from torch import Tensor

from pose.draw import draw_poses
from pose.media import to_uint8

if TYPE_CHECKING:
    from training.finetune.cache import Cache
    from training.finetune.config import FinetuneConfig
    from training.finetune.data import Sample, View
    from training.finetune.families import Family

_WIDTH_PX: Final = 1280
_MARGIN_PX: Final = 8
_LINE_PX: Final = 13
_CHAR_PX: Final = 6
_LINES: Final = 4
_STRIP: Final = 5
"""Frames of a clip that are shown."""
_CELL_PX: Final = 192
"""Longest side of a frame on the sheet."""
_GROUND, _INK, _FAINT = (24, 24, 28), (220, 220, 225), (140, 140, 150)


def data_sheet(
    config: "FinetuneConfig", family: "Family", samples: "Sequence[Sample]", cache: "Cache", count: int
) -> tuple[UInt8[ndarray, "height width 3"], int]:
    """Draws the first samples that a run would see, of each task in turn, and says how many they are.

    Each is cut and mirrored as it will be; below it stand its bucket and its caption with the trigger word. A clip is
    a strip of frames; with poses, the skeletons stand below it.
    """
    from training.finetune.data import Stream

    cells = []
    tasks = config.tasks(family.tasks)
    share = max(1, count // len(tasks))
    for task in tasks:
        own = [sample for sample in samples if sample.task == task]
        views = _first_views(Stream(own, config), min(share, len(own) * (2 if config.flip else 1)), config)
        cells += [_cell(view, config, family, cache) for view in views]
    return _laid_out(cells), len(cells)


def _first_views(stream: "object", count: int, config: "FinetuneConfig") -> "list[View]":
    from training.finetune.data import Stream

    assert isinstance(stream, Stream)
    views: list[View] = []
    seen: set[str] = set()
    for first in range(0, 50 * count * config.train_batch_size, config.train_batch_size):
        for view in stream.take(first, config.train_batch_size):
            key = f"{view.sample.path} {view.key}"
            if key not in seen and len(views) < count:  # a batch is filled up with what has been
                seen.add(key)
                views.append(view)
        if len(views) == count:
            break
    return views


def _cell(view: "View", config: "FinetuneConfig", family: "Family", cache: "Cache") -> Image.Image:
    frames = to_uint8(view.pixels() / 2 + 0.5)
    picks = torch.linspace(0, len(frames) - 1, min(_STRIP, len(frames))).round().long()
    rows = [frames[picks]]
    if family.wants(view.sample.task).poses:
        from training.finetune.data.poses import find_poses, place_poses

        poses = place_poses(find_poses(view.sample, cache, view.sample.fps or 1.0), view)
        rows.append(draw_poses(poses)[picks])
    picture = _strip(rows)
    lines = [line for text, _ in _words(view, config) for line in textwrap.wrap(text, picture.width // _CHAR_PX)]
    height = picture.height + _LINE_PX * min(len(lines), _LINES + 1) + 2
    cell = Image.new("RGB", (picture.width, height), _GROUND)
    cell.paste(picture, (0, 0))
    pen = ImageDraw.Draw(cell)
    place = picture.height + 2
    for text, ink in _words(view, config):
        for line in textwrap.wrap(text, picture.width // _CHAR_PX)[:_LINES]:
            pen.text((0, place), line.encode("latin-1", "replace").decode("latin-1"), fill=ink)
            place += _LINE_PX
    return cell


def _words(view: "View", config: "FinetuneConfig") -> list[tuple[str, tuple[int, int, int]]]:
    """Where it lies, and what it is called."""
    width, height, frames = view.sample.bucket
    where = f"{view.sample.task} " if isinstance(config.task, dict) else ""
    where += f"{width}x{height}" + (f"x{frames}" if frames > 1 else "")
    if view.sample.start:
        where += f" from {view.sample.start}"
    if view.mirrored:
        where += " mirrored"
    caption = f"{config.trigger} {view.caption}".strip() if view.caption else "(caption left out)"
    return [(where, _FAINT), (caption, _INK)]


def _strip(rows: "Sequence[UInt8[Tensor, 'frames height width 3']]") -> Image.Image:
    joined = rearrange(torch.stack(list(rows)), "r f h w c -> (r h) (f w) c").numpy()
    longest = max(rows[0].shape[1:3])
    image = Image.fromarray(joined)
    if longest == _CELL_PX:
        return image
    scale = _CELL_PX / longest
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST)


def _laid_out(cells: Sequence[Image.Image]) -> UInt8[ndarray, "height width 3"]:
    """Fills rows from the left."""
    across = max(_WIDTH_PX, max(cell.width for cell in cells) + 2 * _MARGIN_PX)
    places, left, top, deepest = [], _MARGIN_PX, _MARGIN_PX, 0
    for cell in cells:
        if left > _MARGIN_PX and left + cell.width + _MARGIN_PX > across:
            left, top, deepest = _MARGIN_PX, top + deepest + _MARGIN_PX, 0
        places.append((left, top))
        left, deepest = left + cell.width + _MARGIN_PX, max(deepest, cell.height)
    sheet = Image.new("RGB", (across, top + deepest + _MARGIN_PX), _GROUND)
    for cell, place in zip(cells, places, strict=True):
        sheet.paste(cell, place)
    return np.asarray(sheet)
