"""Opens pictures and videos from users: upright, RGB, at a steady rate, or one clear message."""

import struct
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
import av.container
import av.error
import av.video.stream
import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

MIN_SIDE: Final = 8
MAX_MEGAPIXELS: Final = 50
MAX_PLAUSIBLE_FPS: Final = 240
"""Containers with millisecond clocks report rates of 1000 and more; above this we count frames instead."""

_NOT_VIDEO: Final = {"tty", "image2", "concat", "ffmetadata", "lavfi", "rawvideo"}
"""FFmpeg reads text files as terminal art and lists as recipes; neither is a user's video."""


class MediaError(ValueError):
    """A picture or video that cannot be used; the message names the file and the fix."""


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """What a video file says about itself."""

    width: int
    """px, upright (after the rotation that phones write)."""
    height: int
    fps: float
    """Mean frames a second."""
    num_frames_estimate: int
    """From the header or the duration; decoding may find a few more or less."""
    duration_s: float
    has_audio: bool


def read_image(
    path: str | Path, *, background: tuple[int, int, int] = (255, 255, 255)
) -> UInt8[Tensor, "height width 3"]:
    """Reads a picture of any mode: EXIF rotation applied, transparency laid over `background`, 16 bit cut to 8.

    Of an animated picture, the first frame.

    Raises:
        MediaError: Not a picture, damaged, smaller than 8x8 px or larger than 50 megapixels.
    """
    path = _existing(path, "picture")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large and odd files; the size is checked below
            with Image.open(path) as image:
                _check_size(path, image.width, image.height)
                image.load()
                upright = ImageOps.exif_transpose(image)
                return torch.from_numpy(np.array(_flatten(path, upright, background)))
    except MediaError:
        raise
    except Image.DecompressionBombError as error:
        raise MediaError(f"{path} is larger than {MAX_MEGAPIXELS} megapixels; make it smaller first") from error
    except (OSError, SyntaxError, ValueError, EOFError, KeyError, IndexError, TypeError, struct.error) as error:
        reason = "not a picture" if isinstance(error, UnidentifiedImageError) else str(error) or "damaged"
        raise MediaError(f"cannot read {path} as a picture ({reason}); save it as PNG or JPEG and try again") from error


def probe_video(path: str | Path) -> VideoInfo:
    """Reads what a video is, without decoding more than its first frame.

    Raises:
        MediaError: Not a video, or no frame can be decoded.
    """
    path = _existing(path, "video")
    with _open(path) as container:
        stream = container.streams.video[0]
        fps = _frame_rate(path, stream)
        frame = _first_frame(path, container, stream)
        turned = frame.rotation % 180 != 0
        duration_s = _stated_duration_s(container, stream)
        count = stream.frames or (round(duration_s * fps) if duration_s else 0)
        if not count:
            count = _count_packets(path)
        return VideoInfo(
            width=frame.height if turned else frame.width,
            height=frame.width if turned else frame.height,
            fps=float(fps),
            num_frames_estimate=count,
            duration_s=duration_s or count / float(fps),
            has_audio=bool(container.streams.audio),
        )


def iter_video(
    path: str | Path, *, fps: float | None = None, max_frames: int | None = None
) -> Iterator[UInt8[Tensor, "height width 3"]]:
    """Decodes a video frame by frame, upright, at a steady rate; holds two frames at a time.

    Frame k of the result is the frame whose presentation time is nearest to k / fps, so a variable frame rate keeps
    its speed. `fps=None` keeps the video's mean rate. A size change within the video is scaled to the first size.

    Raises:
        MediaError: Not a video, no frames, or the file ends too early.
        ValueError: `fps` or `max_frames` is not positive.
    """
    if fps is not None and not 0 < fps < float("inf"):
        raise ValueError(f"fps must be positive, got {fps}")
    if max_frames is not None and max_frames < 1:
        raise ValueError(f"max_frames must be at least 1, got {max_frames}")
    return _iter_video(_existing(path, "video"), fps, max_frames)


def read_frame(path: str | Path, time_s: float) -> UInt8[Tensor, "height width 3"]:
    """Decodes the one frame that is nearest to a time from the first frame, upright; the last one after the end.

    Seeks to the key frame before it, so that the cost does not grow with the video's length.

    Raises:
        MediaError: Not a video, or no frame can be decoded.
        ValueError: `time_s` is negative or no number.
    """
    if not 0 <= time_s < float("inf"):
        raise ValueError(f"time_s must be 0 or more, got {time_s}")
    path = _existing(path, "video")
    with _open(path) as container:
        stream = container.streams.video[0]
        begin_s = float(stream.start_time * stream.time_base) if stream.start_time and stream.time_base else 0.0
        wanted_s = begin_s + time_s
        nearest: av.VideoFrame | None = None
        try:
            if stream.time_base and time_s > 0:
                container.seek(int(wanted_s / stream.time_base), stream=stream)
            for frame in container.decode(stream):
                _check_size(path, frame.width, frame.height)
                at_s = frame.time if frame.time is not None else wanted_s
                if nearest is None or abs(at_s - wanted_s) <= abs((nearest.time or 0.0) - wanted_s):
                    nearest = frame
                if at_s >= wanted_s:
                    break
        except (av.error.FFmpegError, OSError) as error:
            if nearest is None:
                raise MediaError(f"cannot decode {path} at {time_s:.2f} s ({error}); it may be cut off") from error
        if nearest is None:
            raise MediaError(f"{path} has no frame at {time_s:.2f} s; use a whole copy of it")
        return _upright(nearest, (nearest.width, nearest.height))


def read_video(
    path: str | Path, *, fps: float | None = None, max_frames: int | None = None
) -> UInt8[Tensor, "frames height width 3"]:
    """Reads a whole video into memory; see `iter_video`.

    Raises:
        MediaError: Not a video, no frames, or the file ends too early.
    """
    return torch.stack(list(iter_video(path, fps=fps, max_frames=max_frames)))


def to_uint8(pictures: Float[Tensor, "*batch 3 height width"]) -> UInt8[Tensor, "*batch height width 3"]:
    """From RGB in 0..1, colours first, to the bytes that files and detectors take; what is outside is clipped."""
    return rearrange((pictures.float().clamp(0, 1) * 255).round().byte(), "... c h w -> ... h w c").contiguous()


def _existing(path: str | Path, kind: str) -> Path:
    path = Path(path)
    if path.is_dir():
        raise MediaError(f"{path} is a folder; name a {kind} file in it")
    if not path.exists():
        raise MediaError(f"{kind} {path} does not exist; check the path")
    return path


def _check_size(path: Path, width: int, height: int) -> None:
    if min(width, height) < MIN_SIDE:
        raise MediaError(f"{path} is {width}x{height} px; each side must be at least {MIN_SIDE} px: use a larger one")
    if width * height > MAX_MEGAPIXELS * 1_000_000:
        raise MediaError(
            f"{path} is {width}x{height} px ({width * height / 1e6:.0f} megapixels); "
            f"the most is {MAX_MEGAPIXELS}: make it smaller, 2048 px on the long side are plenty"
        )


def _flatten(path: Path, image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    """Turns any mode into RGB."""
    if image.mode == "F":
        raise MediaError(f"{path} holds float pixels, whose range is not written in the file; save it as 8-bit PNG")
    if image.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion would clip it at 255
        grey = np.asarray(image).astype(np.int64)
        grey = grey // 257 if image.mode.startswith("I;16") or grey.max() > 255 else grey
        return Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        ground = Image.new("RGBA", image.size, (*background, 255))
        return Image.alpha_composite(ground, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _open(path: Path) -> av.container.InputContainer:
    """Opens a container; only local files, since a playlist could name addresses on the network."""
    try:
        container = av.open(f"file:{path}", options={"protocol_whitelist": "file"})
    except (av.error.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise MediaError(f"cannot read {path} as a video ({reason}); it may be cut off, or no video at all") from error
    names = set(container.format.name.split(","))
    if names & _NOT_VIDEO or any(name.endswith("_pipe") for name in names):
        container.close()
        raise MediaError(f"{path} is not a video (read as {container.format.name}); use MP4, WebM, MOV, MKV or GIF")
    if not container.streams.video:
        container.close()
        raise MediaError(f"{path} has no video track; use a file with pictures in it")
    return container


def _frame_rate(path: Path, stream: av.video.stream.VideoStream) -> Fraction:
    """Finds the mean rate; counts packets where the header is silent or absurd."""
    for rate in (stream.average_rate, stream.guessed_rate):
        if rate and 0 < rate <= MAX_PLAUSIBLE_FPS:
            return Fraction(rate)
    with _open(path) as container:
        times = [p.pts * p.time_base for p in container.demux(video=0) if p.pts is not None and p.time_base is not None]
    if len(times) > 1 and max(times) > min(times):
        return (Fraction(len(times) - 1) / (max(times) - min(times))).limit_denominator(1001)
    raise MediaError(f"{path} does not say its frame rate and has no times to find it from; convert it to MP4")


def _count_packets(path: Path) -> int:
    with _open(path) as container:
        return sum(packet.size > 0 for packet in container.demux(video=0))


def _stated_duration_s(container: av.container.InputContainer, stream: av.video.stream.VideoStream) -> float:
    """Reads the video's length from the header; 0 where it is unknown or belongs to the sound as well."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    if container.duration and len(container.streams) == 1:
        return container.duration / av.time_base
    return 0.0


def _first_frame(
    path: Path, container: av.container.InputContainer, stream: av.video.stream.VideoStream
) -> av.VideoFrame:
    try:
        frame = next(container.decode(stream), None)
    except (av.error.FFmpegError, OSError) as error:
        raise MediaError(f"cannot decode {path} ({error}); it may be cut off; convert it to H.264 MP4") from error
    if frame is None:
        raise MediaError(f"{path} has no frames; use a video with at least one")
    return frame


def _frames_in_time(path: Path) -> Iterator[tuple[float, float, av.VideoFrame]]:
    """Decodes (start in s from the first frame, length in s, frame); raises where the file ends too early."""
    with _open(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        step = 1 / float(_frame_rate(path, stream))
        first: float | None = None
        start = end = 0.0
        count, damaged = 0, None
        try:
            for packet in container.demux(stream):
                damaged = damaged or ("a damaged packet" if packet.is_corrupt else None)
                for frame in packet.decode():
                    time = frame.time if frame.time is not None else count * step + (first or 0.0)
                    first = time if first is None else first
                    start = max(time - first, start)
                    length = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else step
                    end, count = start + length, count + 1
                    yield start, length, frame
        except (av.error.FFmpegError, OSError) as error:
            damaged = str(error)
        if not count:
            raise MediaError(f"{path} has no frames{f' ({damaged})' if damaged else ''}; use a video with at least one")
        stated = _stated_duration_s(container, stream)
        if damaged or end < stated - max(0.5, 0.1 * stated):
            reason = damaged or f"{end:.1f} s of {stated:.1f} s are there"
            raise MediaError(f"{path} is cut off or damaged after {count} frames ({reason}); get a whole copy of it")


def _iter_video(path: Path, fps: float | None, max_frames: int | None) -> Iterator[Tensor]:
    if fps is None:
        with _open(path) as container:
            fps = float(_frame_rate(path, container.streams.video[0]))
    size: tuple[int, int] | None = None
    held: tuple[float, Tensor] | None = None
    made, end = 0, 0.0
    for start, length, frame in _frames_in_time(path):
        if held is not None:  # the held frame is the nearest until half way to this one
            while made / fps <= (held[0] + start) / 2 and made != max_frames:
                yield held[1]
                made += 1
        if made == max_frames:
            return
        if size is None:
            _check_size(path, frame.width, frame.height)
            size = (frame.width, frame.height)
        held = (start, _upright(frame, size))
        end = start + length
    assert held is not None
    total = max(1, round(end * fps), made)
    for _ in range(made, total if max_frames is None else min(total, max_frames)):
        yield held[1]


def _upright(frame: av.VideoFrame, size: tuple[int, int]) -> Tensor:
    """Converts to RGB and applies the rotation written in the file."""
    pixels = frame.to_ndarray(format="rgb24", width=size[0], height=size[1])
    quarter_turns = round(frame.rotation / 90) % 4
    return torch.from_numpy(np.ascontiguousarray(np.rot90(pixels, quarter_turns)))
