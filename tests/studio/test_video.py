"""Written videos: what browsers need, odd sizes, colours, sound in step."""

import numpy as np
import pytest
import torch


def test_the_file_is_h264_yuv420p_with_its_index_in_front(tmp_path):
    import av

    from studio.video import write_video

    path = tmp_path / "out.mp4"
    write_video(path, torch.zeros(5, 32, 48, 3, dtype=torch.uint8), 12.0)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert (stream.width, stream.height, stream.frames, float(stream.average_rate)) == (48, 32, 5, 12.0)
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")


def test_odd_sizes_are_padded_by_one_line(tmp_path):
    import av

    from studio.video import write_video

    write_video(tmp_path / "odd.mp4", torch.full((3, 33, 47, 3), 90, dtype=torch.uint8), 23.976)
    with av.open(str(tmp_path / "odd.mp4")) as container:
        assert (container.streams.video[0].width, container.streams.video[0].height) == (48, 34)
        assert float(container.streams.video[0].average_rate) == pytest.approx(23.976, abs=1e-3)


@pytest.mark.parametrize("colour", [(200, 60, 30), (20, 180, 90), (40, 60, 220), (255, 255, 255), (0, 0, 0)])
def test_colours_come_back(colour, tmp_path):
    import av

    from studio.video import write_video

    frames = torch.tensor(colour, dtype=torch.uint8).expand(3, 32, 32, 3).contiguous()
    write_video(tmp_path / "out.mp4", frames, 12.0)
    with av.open(str(tmp_path / "out.mp4")) as container:
        picture = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert np.abs(picture.reshape(-1, 3).astype(int).mean(0) - colour).max() <= 3


def test_sound_stays_in_step_and_ends_with_the_picture(beep_video, tmp_path):
    import av

    from studio.video import write_video

    path = tmp_path / "out.mp4"
    assert write_video(path, torch.zeros(17, 32, 32, 3, dtype=torch.uint8), 12.0, audio=beep_video)
    with av.open(str(path)) as container:
        sound = np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)[0]
        rate = container.streams.audio[0].rate
    loud_s = np.flatnonzero(np.abs(sound) > 0.3) / rate
    assert loud_s[0] == pytest.approx(0, abs=0.01)
    assert loud_s[loud_s > 0.5][0] == pytest.approx(1.0, abs=0.01)
    assert len(sound) / rate == pytest.approx(17 / 12, abs=0.05)


def test_a_video_without_sound_is_silent(tmp_path):
    from studio.video import write_video

    silent = tmp_path / "silent.mp4"
    write_video(silent, torch.zeros(5, 32, 32, 3, dtype=torch.uint8), 12.0)
    assert not write_video(tmp_path / "out.mp4", torch.zeros(5, 32, 32, 3, dtype=torch.uint8), 12.0, audio=silent)


def test_metadata_comes_back(tmp_path):
    from studio.video import read_metadata, write_video

    write_video(tmp_path / "out.mp4", torch.zeros(3, 32, 32, 3, dtype=torch.uint8), 12.0, metadata={"seed": 7})
    assert read_metadata(tmp_path / "out.mp4") == {"seed": 7}


def test_a_failure_leaves_the_old_file_and_no_new_one(tmp_path):
    from studio.files import moved_in

    path = tmp_path / "out.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), moved_in(path) as beside:
        beside.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
