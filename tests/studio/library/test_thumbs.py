"""Small pictures are made once, outside of the page, and a damaged file does no harm."""

import pytest
from PIL import Image


@pytest.fixture
def thumbs(queue):
    from studio.library.thumbs import Thumbs

    made = Thumbs(queue.root)
    yield made
    made.close()


def only(library, kind):
    library.rescan()
    (thing,) = library.search(kinds=[kind])
    return thing


def write_a_video(path, size=(48, 64)):
    import torch

    from studio.video import write_video

    write_video(path, torch.full((3, *size, 3), 200, dtype=torch.uint8), 12.0)


def test_a_video_gets_a_small_picture_of_its_first_frame(library, make_result, thumbs):
    write_a_video(make_result())
    thing = only(library, "result")
    assert thumbs.get(thing) == (None, True)
    thumbs.wait()
    picture, coming = thumbs.get(thing)
    assert not coming
    with Image.open(picture) as small:
        assert small.size == (320, 240)
        assert all(abs(value - 200) < 12 for value in small.getpixel((160, 120)))


def test_a_small_picture_is_made_again_when_the_file_changes(library, make_result, thumbs):
    video = make_result()
    write_a_video(video)
    first = only(library, "result")
    thumbs.get(first)
    thumbs.wait()
    before = thumbs.get(first)[0]
    write_a_video(video, size=(64, 64))
    assert thumbs.get(first) == (None, True)
    thumbs.wait()
    assert thumbs.get(first)[0] != before


def test_a_damaged_video_has_none_and_is_not_tried_again(library, make_result, thumbs):
    make_result()  # no video at all
    thing = only(library, "result")
    thumbs.get(thing)
    thumbs.wait()
    assert thumbs.get(thing) == (None, False)


def test_a_picture_that_would_fill_the_memory_is_left_out(tmp_path, monkeypatch):
    from studio.library import thumbs

    monkeypatch.setattr(thumbs, "_LARGEST_PIXELS", 100)
    Image.new("RGB", (20, 20)).save(tmp_path / "large.png")
    assert not thumbs.make_thumb(tmp_path / "large.png", tmp_path / "small.jpg")


def test_a_run_is_shown_by_its_last_samples(library, make_run, thumbs):
    from studio.library.thumbs import source_of

    folder = make_run()
    Image.new("RGB", (8, 8)).save(folder / "samples" / "step-20.png")
    assert source_of(only(library, "run")) == folder / "samples" / "step-20.png"


def test_old_small_pictures_are_forgotten(queue, thumbs):
    import os

    from studio.library.thumbs import forget_old

    old = queue.root / ".thumbs" / "ab" / "abc.jpg"
    old.parent.mkdir(parents=True)
    old.touch()
    os.utime(old, (1, 1))
    assert forget_old(queue.root) == 1
    assert not old.exists()
