"""Videos from outside: decoded to the end, written again as H.264 MP4, or refused in words."""

import av
import numpy as np
import pytest

from studio.errors import RequestError
from studio.uploads import Limits, keep_video


def refused(content, tmp_path, limits=None):
    with pytest.raises(RequestError) as caught:
        keep_video("dance.mov", content, tmp_path, limits=limits)
    assert list(tmp_path.iterdir()) == []
    assert str(caught.value).startswith("video dance.mov: ")
    return str(caught.value)


def made(path, codec="libx264", size=(64, 48), frames=12, pix_fmt="yuv420p", rate=12):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        for index in range(frames):
            picture = np.full((size[1], size[0], 3), 20 * index % 256, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pix_fmt)))
        container.mux(stream.encode(None))
    return path.read_bytes()


def test_a_video_is_kept_as_h264_with_its_sound(tmp_path, beep_video):
    shares = []
    kept = keep_video("../x.avi", beep_video.read_bytes(), tmp_path / "kept", tell=shares.append)
    assert kept.path.parent == tmp_path / "kept" and kept.path.name.startswith("video-")
    assert (kept.width, kept.height, kept.frames, kept.has_audio) == (64, 64, 48, True)
    assert kept.duration_s == pytest.approx(2, abs=0.06)
    assert shares[-1] == 1.0 and shares == sorted(shares)
    with av.open(str(kept.path)) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        assert container.streams.audio[0].codec_context.name == "aac"
        sound = np.concatenate([f.to_ndarray()[0] for f in container.decode(audio=0)])
    loud = np.flatnonzero(np.abs(sound) > 0.3)
    assert loud[0] < 0.03 * 48_000  # the beeps stay where they were, at 0 s and 1 s
    assert abs(loud[loud > 24_000][0] - 48_000) < 0.03 * 48_000


@pytest.mark.parametrize(
    ("ending", "codec", "pix_fmt"),
    [("gif", "gif", "rgb8"), ("webm", "libvpx", "yuv420p"), ("mkv", "libx264", "yuv420p"), ("avi", "mpeg4", "yuv420p")],
)
def test_other_formats_are_converted(ending, codec, pix_fmt, tmp_path):
    content = made(tmp_path / f"in.{ending}", codec, pix_fmt=pix_fmt)
    kept = keep_video("in", content, tmp_path / "kept")
    assert (kept.frames, kept.width, kept.height, kept.has_audio) == (12, 64, 48, False)
    assert kept.duration_s == pytest.approx(1, abs=0.1)


def test_a_varying_frame_rate_keeps_its_times(tmp_path):
    from pose.media import read_video

    path = tmp_path / "in.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for pts, grey in ((0, 0), (1, 80), (9, 240)):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), grey, np.uint8), format="rgb24")
            frame.pts = pts
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    kept = keep_video("in", path.read_bytes(), tmp_path / "kept")
    greys = read_video(kept.path, fps=10)[:, 16, 16, 0].tolist()
    assert [round(g / 80) for g in greys[:10]] == [0, 1, 1, 1, 1, 1, 3, 3, 3, 3]


def test_odd_and_large_sizes_become_even_and_smaller(tmp_path):
    content = made(tmp_path / "in.mkv", "ffv1", size=(201, 101))
    kept = keep_video("in", content, tmp_path / "kept", limits=Limits(video_kept_side_px=100))
    assert (kept.width, kept.height) == (100, 50)
    assert kept.notes == ("201x101 px were scaled to 100x50",)


def test_the_same_video_is_converted_once(tmp_path, beep_video):
    first = keep_video("a.mp4", beep_video.read_bytes(), tmp_path)
    stamp = first.path.stat().st_mtime_ns
    assert keep_video("b.mp4", beep_video.read_bytes(), tmp_path).path.stat().st_mtime_ns == stamp


def test_an_empty_video_is_refused(tmp_path):
    assert "is empty, 0 bytes" in refused(b"", tmp_path)


def test_a_cut_off_video_is_refused(tmp_path, beep_video):
    whole = beep_video.read_bytes()
    assert "cut off" in refused(whole[: len(whole) // 2], tmp_path)


@pytest.mark.parametrize(
    ("limits", "part"),
    [
        (Limits(video_duration_s=0.5), "is 2 s long, and the most is 0.5 s"),
        (Limits(video_duration_s=1.5), "is longer than 1.5 s"),
        (Limits(video_frames=10), "has 48 frames, and the most is 10"),
        (Limits(video_side_px=32), "is 64x64 px, and the longest side may be 32"),
        (Limits(video_convert_s=0.0001), "takes longer than 0.0001 s"),
    ],
)
def test_what_is_too_long_or_large_is_refused(limits, part, tmp_path, beep_video):
    assert part in refused(beep_video.read_bytes(), tmp_path, limits)


def test_a_length_that_the_header_hides_is_found_while_decoding(tmp_path):
    content = made(tmp_path / "in.mkv", frames=30)  # Matroska does not count its frames
    (tmp_path / "in.mkv").unlink()
    assert "has more than 20 frames" in refused(content, tmp_path, Limits(video_frames=20))


@pytest.mark.parametrize(
    "content",
    [
        b"plain text",
        b"<html>" + b"x" * 2000,
        b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        b"<?xml version='1.0'?><MPD xmlns='urn:mpeg:dash:schema:mpd:2011'></MPD>",
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        bytes(5000),
    ],
)
def test_playlists_and_other_files_are_no_videos(content, tmp_path):
    assert "is not a video, or cut off; use MP4, MOV, WebM, MKV, AVI or GIF" in refused(content, tmp_path)


def test_sound_alone_is_no_video(tmp_path):
    path = tmp_path / "in.m4a"
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=44100, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 44100), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    content = path.read_bytes()
    path.unlink()
    assert "has no pictures in it" in refused(content, tmp_path)
