"""Videos that are compared: what of them can be shown in step, and how much two of them differ."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy import ndarray

from studio.errors import RequestError

MOST_BYTES: Final = 200_000_000
"""Of a video in the player: it is kept in memory while it is shown, as by `st.video`."""
MOST_FRAMES: Final = 240
"""Frames that are measured; those of a longer video are taken evenly."""
_SIDE: Final = 512
"""Larger pictures are measured at this long side."""
PLAYABLE: Final = {".mp4": "video/mp4", ".webm": "video/webm", ".mov": "video/mp4", ".m4v": "video/mp4"}


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A video as its file says it is."""

    path: Path
    fps: float
    frames: int
    width: int
    height: int

    @property
    def mime(self) -> str:
        """Its type for a browser."""
        return PLAYABLE[self.path.suffix.lower()]


def look_at(path: Path) -> Clip:
    """Reads what a video is from its head; no frame is decoded where the file says how many there are.

    Raises:
        RequestError: it is not there, no video, too large, or of a kind that browsers do not play.
    """
    import av

    if path.suffix.lower() not in PLAYABLE:
        raise RequestError(f"{path.name}: browsers do not play {path.suffix or 'it'}; take {', '.join(PLAYABLE)}")
    if not path.is_file():
        raise RequestError(f"{path.name}: is not there any more; it was moved or deleted")
    if (size := path.stat().st_size) > MOST_BYTES:
        raise RequestError(f"{path.name}: has {size / 1e6:.0f} MB; the player takes {MOST_BYTES / 1e6:.0f} MB at most")
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            rate = stream.average_rate or stream.guessed_rate or Fraction(0)
            frames = stream.frames or round(float((stream.duration or 0) * (stream.time_base or 0) * rate))
            if not rate or not frames:
                raise RequestError(f"{path.name}: does not say how long it is; write it again as MP4")
            return Clip(path=path, fps=float(rate), frames=int(frames), width=stream.width, height=stream.height)
    except (av.FFmpegError, IndexError) as error:
        raise RequestError(f"{path.name}: is no video that can be read ({error})") from None


def in_step(clips: list[Clip]) -> tuple[float, int]:
    """The rate and the number of frames of videos that are played together: the finest rate, the shortest time.

    Raises:
        ValueError: there are none.
    """
    if not clips:
        raise ValueError("there are no videos to play")
    fps = max(clip.fps for clip in clips)
    seconds = min(clip.frames / clip.fps for clip in clips)
    return fps, max(1, int(seconds * fps + 1e-6))


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How much two videos differ, frame by frame."""

    frames: tuple[int, ...]
    """Numbers of those that were measured, from 0."""
    psnr: tuple[float, ...]
    """In dB, over all channels; equal frames count as 100."""
    ssim: tuple[float, ...]
    """Of the grey pictures, windows of 11 with a deviation of 1.5 (Wang et al. 2004)."""
    size: tuple[int, int]
    """Width and height at which it was measured."""


def measure(one: Clip, two: Clip) -> Difference:
    """Compares two videos of one rate and size.

    Raises:
        RequestError: they cannot be laid over each other.
    """
    if abs(one.fps - two.fps) > 1e-3:
        raise RequestError(f"the rates differ, {one.fps:g} and {two.fps:g} frames/s; make both with the same --fps")
    if one.width * two.height != two.width * one.height:
        raise RequestError(
            f"the shapes differ, {one.width}x{one.height} and {two.width}x{two.height}; make both in the same one"
        )
    last = min(one.frames, two.frames)
    wanted = np.unique(np.linspace(0, last - 1, min(last, MOST_FRAMES)).round().astype(int)).tolist()
    scale = min(1.0, _SIDE / max(one.width, one.height), _SIDE / max(two.width, two.height))
    size = (max(16, round(one.width * scale)), max(16, round(one.height * scale)))
    numbers, psnr, ssim = [], [], []
    for number, first, second in zip(wanted, _frames(one, wanted, size), _frames(two, wanted, size), strict=False):
        numbers.append(number)
        psnr.append(psnr_of(first, second))
        ssim.append(ssim_of(first, second))
    if not numbers:
        raise RequestError("no frame could be read of both videos")
    return Difference(frames=tuple(numbers), psnr=tuple(psnr), ssim=tuple(ssim), size=size)


def psnr_of(one: ndarray, two: ndarray) -> float:
    """Peak signal to noise of two pictures of 0..255, in dB, at most 100."""
    error = float(np.mean((one.astype(np.float64) - two.astype(np.float64)) ** 2))
    return min(100.0, 10 * float(np.log10(255**2 / error))) if error else 100.0


def ssim_of(one: ndarray, two: ndarray) -> float:
    """Structural similarity of the grey of two pictures of 0..255; 1 is equal."""
    import cv2

    def blurred(picture: Any) -> Any:
        return cv2.GaussianBlur(picture, (11, 11), 1.5)

    a, b = (cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float64) for picture in (one, two))
    mean_a, mean_b = blurred(a), blurred(b)
    var_a, var_b = blurred(a * a) - mean_a**2, blurred(b * b) - mean_b**2
    covariance = blurred(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    above = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return float(np.mean(above / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))))


def _frames(clip: Clip, wanted: list[int], size: tuple[int, int]) -> Iterator[ndarray]:
    import av

    left = set(wanted)
    with av.open(str(clip.path)) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number in left:
                yield frame.to_ndarray(format="rgb24", width=size[0], height=size[1])
            if number >= wanted[-1]:
                return
