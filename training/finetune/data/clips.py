"""From a file to the pixels that the model sees: scaled to fill the bucket, cut, mirrored."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from pose.media import iter_video, read_image
from training.finetune.data.problems import DataError

if TYPE_CHECKING:
    from training.finetune.data.find import Sample

CENTRE: Final = 0.5
"""What stands over is cut off on both sides alike."""
CROPS: Final = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Where a random crop may lie, as a part of what stands over: few places, so that all are encoded only once."""


def stamp(path: Path) -> tuple[int, int]:
    """Size and time of change: tells whether a file is still the one that was looked at."""
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def scaled_size(source: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """The size (width, height) at which a source fills a bucket."""
    scale = max(size[0] / source[0], size[1] / source[1])
    return max(size[0], round(source[0] * scale)), max(size[1], round(source[1] * scale))


def offset(source: tuple[int, int], size: tuple[int, int], crop: float) -> tuple[int, int]:
    """Left and top of the cut, in px of the scaled source."""
    width, height = scaled_size(source, size)
    return int((width - size[0]) * crop), int((height - size[1]) * crop)


def frames_of(sample: "Sample") -> Iterator[UInt8[Tensor, "source_height source_width 3"]]:
    """The frames of a sample as they are in the file.

    Raises:
        DataError: the file is another one than when it was looked at.
        MediaError: it cannot be read any more.
    """
    if not sample.path.is_file() or stamp(sample.path) != sample.stamp:
        raise DataError(f"{sample.path} was changed or removed since the run began; start the run again")
    if not sample.video:
        return iter((read_image(sample.path),))
    last = sample.start + sample.frames
    return islice(iter_video(sample.path, fps=sample.fps, max_frames=last), sample.start, last)


def load_pixels(
    sample: "Sample", *, mirrored: bool = False, crop: float = CENTRE
) -> Float[Tensor, "frames 3 height width"]:
    """The frames filling their bucket, in -1..1; `crop` says where the cut lies, 0 left or top, 1 right or bottom."""
    frames = [_fitted(frame, sample.size, mirrored, crop) for frame in frames_of(sample)]
    if len(frames) != sample.frames:
        raise DataError(f"{sample.path} has {sample.start + len(frames)} frames now, not what it had; start again")
    return rearrange(torch.stack(frames).float() / 127.5 - 1, "f h w c -> f c h w")


def _fitted(
    frame: UInt8[Tensor, "source_height source_width 3"], size: tuple[int, int], mirrored: bool, crop: float
) -> UInt8[Tensor, "height width 3"]:
    image = Image.fromarray(frame.numpy())
    left, top = offset(image.size, size, crop)
    image = image.resize(scaled_size(image.size, size), Image.Resampling.LANCZOS)
    image = image.crop((left, top, left + size[0], top + size[1]))
    if mirrored:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).reshape(size[1], size[0], 3)
