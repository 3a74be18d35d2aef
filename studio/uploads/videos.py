"""Videos from outside: opened by a few demuxers only, decoded to the end within limits, written again as H.264 MP4."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av
import av.container
import av.error
import numpy as np

from studio.uploads.limits import Limits, limits_of_settings
from studio.uploads.spool import Clock, Source, Tell, placed, refusal, spooled

DEMUXERS: Final = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif"
"""Playlists (HLS, concat, DASH) and text art are not among them: they would read other files of this machine."""
_OPTIONS: Final = {"protocol_whitelist": "file", "format_whitelist": DEMUXERS, "enable_drefs": "0"}
_WAIT_S: Final = (10.0, 30.0)
_BROKEN: Final = (av.error.FFmpegError, OSError, ValueError, MemoryError)
_CLOCK: Final = Fraction(1, 90_000)
_MIN_SIDE: Final = 16
_USE: Final = "use MP4, MOV, WebM, MKV, AVI or GIF"


class VideoError(ValueError):
    """What is wrong with a video; `fix` says what to do."""

    def __init__(self, problem: str, fix: str) -> None:
        super().__init__(problem)
        self.fix = fix


@dataclass(frozen=True, kw_only=True)
class KeptVideo:
    """A video of ours."""

    path: Path
    width: int
    """px, even, upright."""
    height: int
    frames: int
    duration_s: float
    has_audio: bool
    notes: tuple[str, ...] = ()
    """What was changed or left out, in words."""


def keep_video(
    name: str, source: Source, folder: Path, *, limits: Limits | None = None, tell: Tell = lambda share: None
) -> KeptVideo:
    """Keeps a video as `video-DIGEST.mp4`: H.264 with its own times, upright, sound as AAC, without metadata.

    Takes as long as decoding and encoding do, so it is not for the thread that draws a page; it ends after
    `limits.video_convert_s`. `tell` hears the share done. The same upload is converted once.

    Raises:
        RequestError: empty, too large, too long, no video, damaged, or the time is over.
    """
    limits = limits or limits_of_settings()
    clock = Clock("video", name, limits.video_convert_s)
    with spooled("video", name, source, folder, limit_mb=limits.video_mb) as upload:
        kept = folder / f"video-{upload.digest}.mp4"
        try:
            if kept.is_file():
                return _describe(kept)
            notes: list[str] = []
            with placed(kept) as beside:
                _convert(upload.path, beside, limits, clock, tell, notes)
            tell(1.0)
            return _describe(kept, tuple(notes))
        except VideoError as error:
            raise refusal("video", name, str(error), error.fix) from None


def check_video(path: Path, limits: Limits, clock: Clock) -> int:
    """Decodes a video to its end; returns its frames.

    Raises:
        VideoError: no video, too large, too long, damaged.
        RequestError: the time is over.
    """
    return sum(1 for _ in _frames(path, limits, clock, lambda share: None))


def _convert(path: Path, goal: Path, limits: Limits, clock: Clock, tell: Tell, notes: list[str]) -> None:
    from studio.video import add_sound, add_video_stream

    size: tuple[int, int] | None = None
    end = Fraction(0)
    with av.open(str(goal), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        # streams of a container are fixed once the first packet is written
        sound = container.add_stream("aac", rate=48_000, layout="stereo") if _has_sound(path, notes) else None
        video: Any = None
        for start, length, decoded in _frames(path, limits, clock, tell):
            size = size or _kept_size(decoded, limits.video_kept_side_px, notes)
            picture = decoded.to_ndarray(format="rgb24", width=size[0], height=size[1])
            picture = np.ascontiguousarray(np.rot90(picture, round(decoded.rotation / 90) % 4))
            if video is None:
                rate = Fraction(round(1 / length) if length else 30, 1)
                video = add_video_stream(container, (picture.shape[1], picture.shape[0]), rate, preset="veryfast")
                video.codec_context.time_base = _CLOCK
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(
                format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG"
            )
            frame.pts, frame.time_base = round(start / _CLOCK), _CLOCK
            container.mux(video.encode(frame))
            end = start + length
        container.mux(video.encode(None))
        if sound is not None:
            try:
                add_sound(container, sound, path, end)
            except _BROKEN:
                notes.append("its sound is damaged and may be cut")
                container.mux(sound.encode(None))


def _frames(path: Path, limits: Limits, clock: Clock, tell: Tell) -> Iterator[tuple[Fraction, Fraction, Any]]:
    """Decodes (start from the first frame and length in s, frame); every limit is checked on what comes out."""
    count, last, first = 0, Fraction(-1), None
    try:
        with _opened(path) as (container, stream):
            stated = _check_header(container, stream, limits)
            step = 1 / Fraction(stream.average_rate or stream.guessed_rate or 30)
            for frame in container.decode(stream):
                clock.check()
                count += 1
                _check_side(frame.width, frame.height, limits)
                at = frame.pts * frame.time_base if frame.pts is not None and frame.time_base else count * step
                first = at if first is None else first
                start = max(at - first, last + _CLOCK)  # players stumble over times that stand still
                last = start
                if count > limits.video_frames:
                    raise VideoError(f"has more than {limits.video_frames} frames", "cut it shorter")
                if start > limits.video_duration_s:
                    raise VideoError(f"is longer than {limits.video_duration_s:g} s", "cut it shorter")
                length = frame.duration * frame.time_base if frame.duration and frame.time_base else step
                yield start, length, frame
                tell(min(0.99, float(start) / stated if stated else count / limits.video_frames))
    except VideoError:
        raise
    except av.error.FFmpegError as error:
        problem = "is cut off or damaged" if count else "cannot be decoded"
        raise VideoError(f"{problem} after {count} frames ({error.strerror})", "export it again as MP4") from None
    if not count:
        raise VideoError("has no frames", "choose another")
    if stated and float(last) < 0.9 * stated - 0.5:
        raise VideoError(f"is cut off: {float(last):.1f} s of {stated:.1f} s are there", "get a whole copy of it")


@contextmanager
def _opened(path: Path) -> Iterator[tuple[av.container.InputContainer, Any]]:
    try:
        container = av.open(f"file:{path}", options=_OPTIONS, timeout=_WAIT_S)
    except _BROKEN:
        raise VideoError("is not a video, or cut off", _USE) from None
    with container:
        if not container.streams.video:
            raise VideoError("has no pictures in it", _USE)
        stream: Any = container.streams.video[0]
        if stream.codec_context is None:
            raise VideoError("has a codec that cannot be decoded here", "convert it to H.264 MP4")
        stream.thread_type = "AUTO"
        yield container, stream


def _check_header(container: av.container.InputContainer, stream: Any, limits: Limits) -> float:
    """Refuses by what the file says, before it is decoded; returns the length in s, 0 where it is unknown."""
    _check_side(stream.codec_context.width, stream.codec_context.height, limits)
    stated = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0
    if stated > limits.video_duration_s + 1:
        raise VideoError(f"is {stated:.0f} s long, and the most is {limits.video_duration_s:g} s", "cut it shorter")
    if stream.frames > limits.video_frames:
        raise VideoError(f"has {stream.frames} frames, and the most is {limits.video_frames}", "cut it shorter")
    return stated


def _check_side(width: int, height: int, limits: Limits) -> None:
    if max(width, height) > limits.video_side_px:
        raise VideoError(f"is {width}x{height} px, and the longest side may be {limits.video_side_px}",
                         "make it smaller: 1280 px are plenty")  # fmt: skip
    if 0 < min(width, height) < _MIN_SIDE:
        raise VideoError(f"is {width}x{height} px, and each side must be at least {_MIN_SIDE}", "use a larger one")


def _kept_size(frame: Any, longest: int, notes: list[str]) -> tuple[int, int]:
    """The even size, before it is turned upright, that a video is kept at."""
    scale = min(1.0, longest / max(frame.width, frame.height))
    width, height = (max(2, round(side * scale / 2) * 2) for side in (frame.width, frame.height))
    if (width, height) != (frame.width, frame.height):
        notes.append(f"{frame.width}x{frame.height} px were scaled to {width}x{height}")
    return width, height


def _has_sound(path: Path, notes: list[str]) -> bool:
    with _opened(path) as (container, _):
        if not container.streams.audio:
            return False
        try:
            next(container.decode(audio=0))
        except (StopIteration, *_BROKEN):
            notes.append("its sound cannot be decoded and is left out")
            return False
        return True


def _describe(path: Path, notes: tuple[str, ...] = ()) -> KeptVideo:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.duration is not None and stream.time_base is not None
        return KeptVideo(
            path=path, width=stream.width, height=stream.height, frames=stream.frames,
            duration_s=float(stream.duration * stream.time_base), has_audio=bool(container.streams.audio), notes=notes,
        )  # fmt: skip
