import struct
import warnings
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image


def frame_of(value, width=64, height=48):
    """A picture whose left upper quarter is bright and whose grey tells its number."""
    pixels = np.full((height, width, 3), value, np.uint8)
    pixels[: height // 2, : width // 2] = 250
    return pixels


@pytest.fixture
def make_video(tmp_path):
    def make(name="clip.mp4", *, num_frames=12, rate=12, width=64, height=48, times=None, codec="libx264", audio=False):
        path = tmp_path / name
        with av.open(path, "w") as container:
            stream = container.add_stream(codec, rate=rate)
            stream.width, stream.height = width, height
            if codec == "libx264":
                stream.pix_fmt = "yuv420p" if width % 2 == 0 and height % 2 == 0 else "yuv444p"
                stream.options = {"crf": "10"}
            elif codec == "mpeg4":
                stream.pix_fmt = "yuv420p"
            if codec != "mpeg4":  # AVI has no times but the rate
                stream.time_base = stream.codec_context.time_base = Fraction(1, 1200)
            sound = container.add_stream("aac", rate=16000, layout="mono") if audio else None
            for index in range(num_frames):
                frame = av.VideoFrame.from_ndarray(frame_of(10 * (index % 24 + 1), width, height), format="rgb24")
                frame.time_base = Fraction(1, 1200)
                frame.pts = round(1200 * (times[index] if times else index / rate))
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
            if sound is not None:
                silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
                silence.sample_rate = 16000
                container.mux(sound.encode(silence))
                container.mux(sound.encode())
        return path

    return make


def numbers(frames):
    """Which frame of `make_video` each picture is, from its grey in the lower right."""
    return [round(float(frame[-8:, -8:].float().mean()) / 10) - 1 for frame in frames]


@pytest.fixture
def save(tmp_path):
    def make(image, name="picture.png", **options):
        path = tmp_path / name
        image.save(path, **options)
        return path

    return make


# Pictures


def test_transparency_is_laid_over_the_background(save):
    from pose.media import read_image

    image = Image.new("RGBA", (16, 16), (200, 0, 0, 0))
    image.putpixel((0, 0), (200, 0, 0, 255))
    path = save(image)
    assert read_image(path)[5, 5].tolist() == [255, 255, 255]
    assert read_image(path, background=(0, 0, 9))[5, 5].tolist() == [0, 0, 9]
    assert read_image(path)[0, 0].tolist() == [200, 0, 0]


def test_the_rotation_that_cameras_write_is_applied(save):
    from pose.media import read_image

    image = Image.new("RGB", (20, 10))
    image.putpixel((0, 0), (255, 255, 255))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter to the right
    pixels = read_image(save(image, exif=exif))
    assert pixels.shape == (20, 10, 3)
    assert pixels[0, 9].tolist() == [255, 255, 255]


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr", "HSV", "I;16"])
def test_every_mode_becomes_rgb(save, mode):
    from pose.media import read_image

    if mode == "I;16":
        image = Image.fromarray(np.full((12, 10), 65535, np.uint16))
    else:
        image = Image.new("RGB", (10, 12), (255, 255, 255)).convert("RGBA" if mode == "LA" else "RGB").convert(mode)
    name = "picture.tif" if mode in ("CMYK", "YCbCr", "HSV") else "picture.png"
    if mode == "HSV":
        image, name = image.convert("RGB"), "picture.bmp"
    pixels = read_image(save(image, name))
    assert pixels.shape == (12, 10, 3)
    assert pixels.float().mean() > 250


def test_a_palette_with_transparency_is_laid_over_the_background(save):
    from pose.media import read_image

    image = Image.new("P", (16, 16), 0)
    image.putpalette([10, 20, 30] + [0] * 765)
    assert read_image(save(image, "picture.gif", transparency=0))[3, 3].tolist() == [255, 255, 255]


def test_sixteen_bits_become_eight_by_dividing(save):
    from pose.media import read_image

    path = save(Image.fromarray(np.full((10, 10), 128 * 257, np.uint16)))
    assert read_image(path)[0, 0].tolist() == [128, 128, 128]


@pytest.mark.parametrize(
    ("size", "message"),
    [((1, 1), "each side must be at least 8"), ((8000, 8000), "64 megapixels.*make it smaller"), ((7, 100), "7x100")],
)
def test_a_picture_of_unusable_size_is_refused_with_the_fix(save, size, message):
    from pose.media import MediaError, read_image

    with warnings.catch_warnings(), pytest.raises(MediaError, match=message):
        warnings.simplefilter("error")
        read_image(save(Image.new("L", size)))


def test_what_is_no_picture_is_refused(tmp_path, save):
    from pose.media import MediaError, read_image

    text = tmp_path / "notes.png"
    text.write_text("hello")
    whole = save(Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)), "whole.png")
    cut = tmp_path / "cut.png"
    cut.write_bytes(whole.read_bytes()[:2000])
    empty = tmp_path / "empty.jpg"
    empty.write_bytes(b"")
    for path, message in (
        (text, "not a picture"),
        (cut, "cannot read"),
        (empty, "not a picture"),
        (tmp_path / "none.png", "does not exist"),
        (tmp_path, "is a folder"),
    ):
        with pytest.raises(MediaError, match=message):
            read_image(path)


# Videos


def test_a_steady_video_comes_back_frame_by_frame(make_video):
    from pose.media import probe_video, read_video

    path = make_video()
    frames = read_video(path)
    assert frames.shape == (12, 48, 64, 3)
    assert numbers(frames) == list(range(12))
    info = probe_video(path)
    assert (info.width, info.height, info.fps, info.num_frames_estimate) == (64, 48, 12.0, 12)
    assert info.duration_s == pytest.approx(1.0, abs=0.01) and not info.has_audio


def test_half_the_rate_takes_every_second_frame(make_video):
    from pose.media import read_video

    assert numbers(read_video(make_video(), fps=6.0)) == [0, 2, 4, 6, 8, 10]


def test_twice_the_rate_keeps_the_speed(make_video):
    from pose.media import read_video

    frames = numbers(read_video(make_video(num_frames=4), fps=24.0))
    assert len(frames) == 8 and frames == sorted(frames) and set(frames) == {0, 1, 2, 3}


def test_frames_and_poses_resample_to_the_same_moments(make_video, make_pose):
    from pose.media import read_video

    pose = make_pose(12, fps=12.0)
    for fps in (4.0, 6.0, 12.0):
        moments = (pose.at_rate(fps).xy[:, 1, 0] - 50) / 2
        assert numbers(read_video(make_video(), fps=fps)) == moments.int().tolist()


def test_a_variable_frame_rate_keeps_its_time(make_video):
    from pose.media import read_video

    times = [0, 0.1, 0.2, 0.3, 0.8, 0.9]
    frames = numbers(read_video(make_video("vfr.mkv", num_frames=6, rate=10, times=times), fps=10.0))
    assert frames[:4] == [0, 1, 2, 3]
    assert frames[5:10] == [3, 4, 4, 4, 5] or frames[4:10] == [3, 3, 4, 4, 4, 5]
    assert len(frames) in (10, 11)


@pytest.mark.parametrize(("width", "height"), [(33, 35), (64, 35), (101, 48)])
def test_odd_sizes_are_kept(make_video, width, height):
    from pose.media import read_video

    assert read_video(make_video(num_frames=3, width=width, height=height)).shape == (3, height, width, 3)


@pytest.mark.parametrize(("degrees", "bright"), [(90, (0, -1)), (180, (-1, -1)), (270, (-1, 0))])
def test_the_rotation_that_phones_write_is_applied(make_video, degrees, bright):
    from pose.media import probe_video, read_video

    path = make_video(num_frames=2)
    turn_track(path, degrees)
    frames = read_video(path)
    info = probe_video(path)
    assert frames.shape[1:3] == ((64, 48) if degrees != 180 else (48, 64)) == (info.height, info.width)
    rows, cols = bright
    assert frames[0][rows, cols].float().mean() > 200  # the bright corner was at the left top


def turn_track(path, degrees):
    """Writes a clockwise rotation into the MP4's track header."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    one, minus = 0x10000, 0xFFFF0000
    a, b, c, d = {90: (0, one, minus, 0), 180: (minus, 0, 0, minus), 270: (0, minus, one, 0)}[degrees]
    data[at : at + 36] = struct.pack(">9I", a, b, 0, c, d, 0, 0, 0, 0x40000000)
    path.write_bytes(bytes(data))


def test_sound_is_noticed_and_does_not_disturb(make_video):
    from pose.media import probe_video, read_video

    path = make_video(audio=True)
    assert probe_video(path).has_audio
    assert len(read_video(path)) == 12


@pytest.mark.parametrize(("name", "codec"), [("clip.webm", "libvpx-vp9"), ("clip.gif", "gif"), ("clip.avi", "mpeg4")])
def test_other_containers_work(make_video, name, codec):
    from pose.media import read_video

    if codec == "gif":
        pytest.importorskip("PIL")
        frames = [Image.fromarray(frame_of(10 * (k + 1))) for k in range(6)]
        path = make_video(num_frames=1).with_name(name)
        frames[0].save(path, save_all=True, append_images=frames[1:], duration=100)
        assert len(read_video(path)) == 6
    else:
        assert len(read_video(make_video(name, num_frames=6, codec=codec))) == 6


def test_max_frames_stops_early(make_video):
    from pose.media import read_video

    assert numbers(read_video(make_video(), max_frames=5)) == [0, 1, 2, 3, 4]
    assert len(read_video(make_video(), fps=24.0, max_frames=3)) == 3


def test_frames_are_decoded_only_as_they_are_taken(make_video):
    from pose.media import iter_video

    frames = iter_video(make_video())
    assert next(frames).shape == (48, 64, 3)
    frames.close()


def test_a_truncated_video_is_refused(make_video, tmp_path):
    from pose.media import MediaError, probe_video, read_video

    data = make_video(num_frames=40).read_bytes()
    no_index = tmp_path / "no_index.mp4"
    no_index.write_bytes(data[: len(data) // 2])
    with pytest.raises(MediaError, match="cut off"):
        read_video(no_index)
    with pytest.raises(MediaError, match="cut off"):
        probe_video(no_index)


def test_a_video_that_ends_early_is_refused_when_its_end_is_reached(make_video, tmp_path):
    from pose.media import MediaError, iter_video

    early = tmp_path / "early.mp4"
    with av.open(make_video(num_frames=60)) as source, av.open(early, "w", options={"movflags": "faststart"}) as target:
        copy = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = copy
                target.mux(packet)
    data = early.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    early.write_bytes(data[: data.index(b"mdat") + (len(data) - data.index(b"mdat")) // 2])
    with pytest.raises(MediaError, match="cut off or damaged after"):
        list(iter_video(early))


def test_a_video_without_frames_is_refused(tmp_path):
    from pose.media import MediaError, probe_video, read_video

    path = tmp_path / "none.mkv"
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=12)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.start_encoding()
    for read in (read_video, probe_video):
        with pytest.raises(MediaError):
            read(path)


def test_what_is_no_video_is_refused(tmp_path, save):
    from pose.media import MediaError, iter_video, probe_video

    text = tmp_path / "notes.txt"
    text.write_text("hello " * 500)
    playlist = tmp_path / "list.m3u8"
    playlist.write_text("#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n")
    for path in (
        text,
        playlist,
        save(Image.new("RGB", (32, 32))),
        save(Image.new("RGB", (32, 32)), "photo.jpg"),
        tmp_path,
    ):
        for read in (probe_video, lambda path: next(iter_video(path))):
            with pytest.raises(MediaError):
                read(path)


def test_only_sound_is_refused(tmp_path):
    from pose.media import MediaError, probe_video

    path = tmp_path / "sound.m4a"
    with av.open(path, "w") as container:
        sound = container.add_stream("aac", rate=16000, layout="mono")
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 16000
        container.mux(sound.encode(silence))
        container.mux(sound.encode())
    with pytest.raises(MediaError, match="no video track"):
        probe_video(path)


@pytest.mark.parametrize("options", [{"fps": 0.0}, {"fps": -1.0}, {"fps": float("nan")}, {"max_frames": 0}])
def test_impossible_wishes_are_refused_at_once(make_video, options):
    from pose.media import iter_video

    with pytest.raises(ValueError, match="must be"):
        iter_video(make_video(num_frames=1), **options)


def test_real_dances_have_as_many_frames_as_keypoints(driving_folder):
    from pose.media import iter_video, probe_video
    from pose.readers import read_keypoints

    for path in sorted(driving_folder.glob("*.mp4")):
        poses = read_keypoints(path.with_suffix(".keypoints.json"))
        info = probe_video(path)
        assert info.num_frames_estimate == len(poses) and info.fps == poses.fps
        assert (info.width, info.height) == poses.frame_size
    assert sum(1 for _ in iter_video(driving_folder / "dance1_right.mp4")) == 32


@pytest.mark.parametrize("index", [0, 1, 7, 23, 24])
def test_one_frame_is_the_one_that_decoding_all_gives(tmp_path, index):
    import torch

    from pose.media import read_frame, read_video

    path = tmp_path / "counting.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=12, options={"g": "8"})
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for level in range(25):
            picture = np.full((32, 32, 3), level * 10, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    assert torch.equal(read_frame(path, index / 12), read_video(path)[index])
    assert torch.equal(read_frame(path, 99.0), read_video(path)[-1])
