"""Writes H.264 MP4 files that browsers play, with the driving video's sound in step when asked."""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av
import av.container
import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor

from studio.errors import RequestError

_AUDIO_RATE: Final = 48_000
_AUDIO_CHANNELS: Final = 2
_BT709: Final = 1  # matrix, primaries and transfer are all number 1 in ITU-T H.273


def write_video(
    path: Path,
    frames: UInt8[Tensor, "frames height width 3"],
    fps: float,
    *,
    audio: Path | None = None,
    metadata: Mapping[str, object] | None = None,
) -> bool:
    """Writes an MP4: H.264 yuv420p in BT.709, index in front, odd sizes padded by one repeated line of pixels.

    `audio` is a video whose sound is kept from time 0 for the length of the frames; `metadata` goes into the
    file's comment as JSON. Returns whether there was sound to keep.
    """
    pixels = np.pad(
        frames.cpu().numpy(), ((0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)), mode="edge"
    )
    rate = Fraction(fps).limit_denominator(1001)
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        if metadata:
            container.metadata["comment"] = json.dumps(metadata, default=str)
        video = add_video_stream(container, (pixels.shape[2], pixels.shape[1]), rate)
        sound = None
        if audio is not None and _has_audio(audio):
            sound = container.add_stream("aac", rate=_AUDIO_RATE, layout="stereo")
        for index, picture in enumerate(pixels):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(
                format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG"
            )
            frame.pts, frame.time_base = index, 1 / rate
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if sound is not None:
            assert audio is not None
            add_sound(container, sound, audio, len(pixels) / rate)
    return sound is not None


def add_video_stream(
    container: av.container.OutputContainer, size: tuple[int, int], rate: Fraction, *, preset: str = "medium"
) -> Any:
    """Adds a stream for H.264 yuv420p in BT.709; `size` is (width, height), even."""
    # PyAV's types know a stream's kind only for literal codec names
    video: Any = container.add_stream(_encoder(), rate=rate, options={"crf": "17", "preset": preset})
    video.width, video.height = size
    video.pix_fmt = "yuv420p"
    context = video.codec_context
    context.colorspace = context.color_primaries = context.color_trc = _BT709
    context.color_range = 1  # "tv": 16..235, what players expect of yuv420p
    context.time_base = 1 / rate
    return video


def add_sound(container: av.container.OutputContainer, stream: Any, audio: Path, duration_s: Fraction) -> None:
    """Writes the sound of a video, from its first picture on and at most `duration_s` long."""
    for frame in _audio_frames(audio, duration_s):
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def _encoder() -> str:
    """Picks the H.264 encoder of this PyAV.

    Raises:
        RequestError: it was built without one.
    """
    for name in ("libx264", "libopenh264", "h264_videotoolbox", "h264_mf"):
        if name in av.codecs_available:
            with suppress(ValueError):
                av.Codec(name, "w")
                return name
    raise RequestError("this PyAV has no H.264 encoder; the wheel from PyPI has: pip install --force-reinstall av")


def _open(path: Path) -> av.container.InputContainer:
    return av.open(f"file:{path}", options={"protocol_whitelist": "file"})  # a playlist could name other machines


def _has_audio(path: Path) -> bool:
    with _open(path) as container:
        return bool(container.streams.audio)


def _audio_frames(path: Path, duration_s: Fraction) -> Iterator[av.AudioFrame]:
    """Decodes the sound that belongs to the first `duration_s` seconds after the first picture, without gaps."""
    wanted, sent = round(duration_s * _AUDIO_RATE), 0
    buffer = np.zeros((_AUDIO_CHANNELS, 0), np.float32)
    size = 1024  # samples of an AAC frame
    for piece in _sound_after_first_picture(path):
        buffer = np.concatenate([buffer, piece], axis=1)[:, : wanted - sent]
        while buffer.shape[1] >= size:
            yield _audio_frame(buffer[:, :size], sent)
            buffer, sent = buffer[:, size:], sent + size
        if sent + buffer.shape[1] >= wanted:
            break
    if buffer.shape[1]:
        yield _audio_frame(buffer, sent)


def _sound_after_first_picture(path: Path) -> Iterator[Float[ndarray, "2 samples"]]:
    """Decodes and resamples sound; a late start becomes silence, an early one is cut."""
    resampler = av.AudioResampler(format="fltp", layout="stereo", rate=_AUDIO_RATE)
    with _open(path) as container:
        start_s = _start_s(container.streams.video[0]) if container.streams.video else 0.0
        cut: int | None = None
        for frame in container.decode(audio=0):
            if cut is None:
                begins_s = float(frame.pts * frame.time_base) if frame.pts is not None and frame.time_base else 0.0
                cut = round((start_s - begins_s) * _AUDIO_RATE)
                while cut < 0:  # a second at a time: the reader stops when it has enough, the file may claim a year
                    silence = min(-cut, _AUDIO_RATE)
                    yield np.zeros((_AUDIO_CHANNELS, silence), np.float32)
                    cut += silence
            for resampled in resampler.resample(frame):
                samples = resampled.to_ndarray()
                dropped = min(cut, samples.shape[1])
                cut -= dropped
                yield samples[:, dropped:]


def _start_s(stream: av.VideoStream) -> float:
    if stream.start_time is None or stream.time_base is None:
        return 0.0
    return float(stream.start_time * stream.time_base)


def _audio_frame(samples: Float[ndarray, "2 samples"], pts: int) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout="stereo")
    frame.sample_rate, frame.pts, frame.time_base = _AUDIO_RATE, pts, Fraction(1, _AUDIO_RATE)
    return frame


def read_metadata(path: Path) -> dict[str, Any]:
    """Reads back what `write_video` put into the comment; {} when the file has none of ours."""
    with av.open(str(path)) as container, suppress(json.JSONDecodeError):
        found = json.loads(container.metadata.get("comment", "{}"))
        return found if isinstance(found, dict) else {}
    return {}
