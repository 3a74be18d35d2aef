"""Videos as clips: length, rate, pieces, cut, mirror."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training.finetune.config import DataSet
from training.finetune.data import DataError, View, Wanted, find_samples, load_pixels, windows

from .conftest import brightening, picture, video

CLIP = Wanted(frames=9, factor=4, fps=12.0, stills=False)


def find(folder, wanted=CLIP, **options):
    return find_samples([DataSet(folder=folder)], {"ti2v": wanted}, resolution=32, multiple=16, **options)


def greys(sample):
    """The numbers of the frames, as `brightening` writes them."""
    return ((load_pixels(sample).mean((1, 2, 3)) + 1) * 127.5 / 8).round().int().tolist()


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 300), st.integers(0, 8), st.integers(1, 6))
def test_pieces_lie_in_the_video_and_do_not_overlap_as_long_as_they_need_not(total, k, most):
    wanted = Wanted(frames=4 * k + 1, factor=4)
    pieces = windows(total, wanted, most)
    assert len(pieces) <= most
    assert all(first >= 0 and first + frames <= total and frames % 4 == 1 for first, frames in pieces)
    assert all(a[0] + a[1] <= b[0] for a, b in pairwise(pieces))
    if total >= wanted.frames:
        assert len(pieces) == min(most, total // wanted.frames)
        assert {frames for _, frames in pieces} == {wanted.frames}
    else:
        assert pieces == ([] if total < 5 else [((total - pieces[0][1]) // 2, (total - 1) // 4 * 4 + 1)])


def test_a_long_video_gives_several_clips_at_the_models_rate(tmp_path):
    video(tmp_path / "a.mp4", brightening(24), fps=12)
    samples = find(tmp_path).samples
    assert [(s.start, s.frames) for s in samples] == [(0, 9), (15, 9)]
    assert greys(samples[0]) == list(range(9)) and greys(samples[1]) == list(range(15, 24))


def test_a_fast_video_keeps_its_speed(tmp_path):
    video(tmp_path / "a.mp4", brightening(24), fps=24)
    (sample,) = find(tmp_path).samples
    assert greys(sample) == [2 * k for k in range(sample.start, sample.start + 9)]


def test_a_short_video_gives_a_shorter_clip_and_one_too_short_is_left_out(tmp_path):
    video(tmp_path / "short.mp4", brightening(7))
    video(tmp_path / "tiny.mp4", brightening(3))
    found = find(tmp_path)
    assert [(s.path.name, s.frames) for s in found.samples] == [("short.mp4", 5)]
    assert [(p.file.name, p.kind) for p in found.left_out] == [("tiny.mp4", "too short")]
    assert "the shortest clip has 5" in found.left_out[0].why


def test_a_gif_is_a_clip(tmp_path):
    from PIL import Image

    frames = [Image.fromarray(frame) for frame in brightening(12)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=80)
    (sample,) = find(tmp_path).samples
    assert sample.frames == 9 and greys(sample) == sorted(greys(sample))


def test_a_video_gives_single_frames_to_a_task_on_pictures(tmp_path):
    video(tmp_path / "a.mp4", brightening(12))
    picture(tmp_path / "b.png", "red")
    found = find(tmp_path, Wanted(fps=12.0))
    assert [(s.path.name, s.start, s.frames) for s in found.samples] == [
        ("a.mp4", 0, 1), ("a.mp4", 4, 1), ("a.mp4", 7, 1), ("a.mp4", 11, 1), ("b.png", 0, 1),
    ]  # fmt: skip


def test_pictures_are_left_out_of_a_task_that_learns_from_motion_and_that_is_said(tmp_path):
    picture(tmp_path / "b.png", "red")
    with pytest.raises(DataError, match=r"nothing to train ti2v on .*1 pictures are left out of ti2v"):
        find(tmp_path)
    video(tmp_path / "a.mp4", brightening(9))
    found = find(tmp_path)
    assert len(found.samples) == 1 and "1 pictures are left out" in found.notes[-1]


def test_a_truncated_video_is_named_and_left_out(tmp_path):
    import numpy as np

    noise = np.random.default_rng(0).integers(0, 255, (24, 40, 48, 3), np.uint8)
    whole = video(tmp_path / "a.mkv", noise).read_bytes()
    (tmp_path / "b.mkv").write_bytes(whole[: len(whole) // 2])
    found = find(tmp_path)
    assert {s.path.name for s in found.samples} == {"a.mkv"}
    assert [(p.file.name, p.kind) for p in found.left_out] == [("b.mkv", "unreadable")]


@pytest.mark.parametrize(
    ("wanted", "frames", "words"),
    [
        (Wanted(), 5, "takes single pictures; leave num_frames out"),
        (CLIP, 8, r"num_frames 8: must be 4k \+ 1 for this model; try 5 or 9"),
        (CLIP, 1, "learns from motion; try 9"),
    ],
)
def test_a_length_that_the_model_does_not_take_is_refused_with_the_next_ones(wanted, frames, words):
    with pytest.raises(ValueError, match=words):
        wanted.asked(frames, None)


def test_a_crop_lies_where_it_is_told_and_a_mirrored_one_is_its_mirror(tmp_path):
    from PIL import Image

    wide = Image.new("RGB", (400, 100))
    for k in range(4):
        wide.paste((60 * k, 0, 0), (100 * k, 0, 100 * k + 100, 100))
    wide.save(tmp_path / "wide.png")
    (sample,) = find(tmp_path, Wanted()).samples
    left, middle, right = (load_pixels(sample, crop=crop) for crop in (0.0, 0.5, 1.0))
    assert left[0, 0].mean() < middle[0, 0].mean() < right[0, 0].mean()
    assert torch.equal(load_pixels(sample, mirrored=True, crop=1.0), right.flip(-1))
    assert left[0, 0, 0, 0] == -1


def test_a_file_that_changes_during_a_run_is_refused_and_not_taken_for_the_old_one(tmp_path):
    picture(tmp_path / "a.png", "red")
    (sample,) = find(tmp_path, Wanted()).samples
    picture(tmp_path / "a.png", "blue", size=(50, 50))
    with pytest.raises(DataError, match=r"a\.png was changed or removed"):
        View(sample=sample, caption="").pixels()
