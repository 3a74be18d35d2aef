"""Near-duplicates: a perceptual hash proposes pairs, small pictures decide."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Protocol, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from pose.media import iter_video, read_image

MOST_BITS: Final = 6
"""Hashes of near-duplicates differ in at most so many of 63 bits."""
MOST_DIFFERENCE: Final = 5.0
"""Mean difference of the small pictures, of 255."""
_SIDE: Final = 32
_ROWS: Final = 512


class Seen(Protocol):
    """A file that can be looked at."""

    @property
    def path(self) -> Path: ...  # noqa: D102
    @property
    def video(self) -> bool: ...  # noqa: D102


S = TypeVar("S", bound=Seen)


def find_twins(media: Sequence[S]) -> Iterator[tuple[S, S]]:
    """Pairs that look the same, each file in at most one: the earlier one first. Videos by their first frames."""
    if len(media) < 2:
        return
    small = np.stack([_small(medium) for medium in media])
    hashes = np.stack([perceptual_hash(picture) for picture in small]).astype(np.float32) * 2 - 1
    known: set[int] = set()
    for first in range(0, len(media), _ROWS):
        # for bits as -1 and 1, the number that differ follows from the product
        differing = (hashes.shape[1] - hashes[first : first + _ROWS] @ hashes.T) / 2
        for row, other in np.argwhere(differing <= MOST_BITS).tolist():
            one = first + row
            if one < other and other not in known and media[one].video == media[other].video:
                difference = np.abs(small[one].astype(np.float32) - small[other]).mean()
                if difference <= MOST_DIFFERENCE:
                    known.add(other)
                    yield media[one], media[other]


def perceptual_hash(picture: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """The signs of the 63 lowest frequencies of the grey picture against their median (pHash)."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
    low = cv2.dct(grey)[:8, :8].flatten()[1:]
    found: NDArray[np.bool_] = low > np.median(low)
    return found


def _small(medium: Seen) -> NDArray[np.uint8]:
    frame = next(iter(iter_video(medium.path, max_frames=1))) if medium.video else read_image(medium.path)
    small: NDArray[np.uint8] = cv2.resize(frame.numpy(), (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.uint8)
    return small
