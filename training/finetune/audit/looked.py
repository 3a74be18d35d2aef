"""Looks at every picture: features in every space, tiled distances to the trained ones."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from training.finetune.audit.near import Sets, Tiles
from training.finetune.audit.samples import Pictures, real_picture, softened
from training.finetune.data import Sample
from training.metrics.features import FeatureSpace
from training.metrics.memorization import tiled_distance

_AT_ONCE: Final = 32

OnProgress = Callable[[str, int, int], None]
"""Told the stage, how much of it is done, and of how much."""


@dataclass(frozen=True, kw_only=True)
class Looked:
    """Features and distances of all pictures."""

    sets: tuple[Sets, ...]
    """In every space; samples of canaries come last among the samples."""
    held_pixels: Pictures
    tiles: Tiles


def look_at(
    made: Pictures, main: int, trained: Sequence[Sample], held_out: Sequence[Sample], once: tuple[int, ...],
    spaces: Sequence[FeatureSpace], size: tuple[int, int], on_progress: OnProgress,
) -> Looked:  # fmt: skip
    """Looks at every picture once; of trained ones a few are in memory at a time."""
    width, height = size
    held = torch.stack([real_picture(s, size) for s in held_out]) if held_out else torch.zeros(0, 3, height, width)
    soft = softened(held, made[:main]) if held_out else held
    known: list[list[Tensor]] = [[] for _ in spaces]
    pixels: list[list[Tensor]] = [[], [], []]
    for first in range(0, len(trained), _AT_ONCE):
        part = torch.stack([real_picture(sample, size) for sample in trained[first : first + _AT_ONCE]])
        for space, found in zip(spaces, known, strict=True):
            found.append(space(part))
        for side, tiles in zip((made, held, soft), pixels, strict=True):
            tiles.append(tiled_distance(side, part))
        on_progress("comparing", min(first + _AT_ONCE, len(trained)), len(trained))

    def sets(space: FeatureSpace, found: Tensor) -> Sets:
        of_made, of_held, of_soft = (
            space(side) if len(side) else found.new_zeros(0, found.shape[1]) for side in (made, held, soft)
        )
        return Sets(
            space=space.name, made=of_made, trained=found, once=once, held_out=of_held, blurred=of_soft
        )  # fmt: skip

    of_made, of_held, of_soft = (torch.cat(tiles, 1) for tiles in pixels)
    return Looked(
        sets=tuple(sets(space, torch.cat(found)) for space, found in zip(spaces, known, strict=True)),
        held_pixels=held, tiles=Tiles(made=of_made, held_out=of_held, blurred=of_soft),
    )  # fmt: skip


def by_caption(held_out: Sequence[Sample], pixels: Pictures, size: int) -> list[Tensor]:
    """Held-out pictures in groups of one caption, in the order in which their tiled distances stand."""
    groups, first = [], 0
    while first < len(held_out):
        last = first + 1
        while last < min(first + size, len(held_out)) and held_out[last].caption == held_out[first].caption:
            last += 1
        groups.append(pixels[first:last])
        first = last
    return groups
