"""What is found in folders of pictures, and in which order it comes."""

import json
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training.finetune.config import DataSet
from training.finetune.data import DataError, Order, Wanted, bucket, find_samples, load_pixels

from .conftest import picture


def find(folder, **options):
    return find_samples([DataSet(folder=folder, **options)], {"text-to-image": Wanted()}, resolution=64, multiple=16)


def test_captions_come_from_text_files(pictures):
    assert [p.caption for p in find(pictures).samples] == [f"a red thing number {c}" for c in "abcde"]


def test_captions_come_from_metadata_files(tmp_path):
    for name in ("a.png", "sub/b.png", "sub/c.png"):
        picture(tmp_path / name, "red")
    (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": "a.png", "text": "one"}) + "\n")
    (tmp_path / "sub" / "metadata.csv").write_text("file_name,text\nb.png,two\n")
    found = find(tmp_path)
    assert [p.caption for p in found.samples] == ["one", "two", "sub"]
    assert "1 of 3 pictures have no caption" in found.notes[0]


def test_without_captions_the_folders_name_is_used_and_said(tmp_path):
    picture(tmp_path / "my_dog" / "a.png", "red")
    found = find(tmp_path / "my_dog")
    assert found.samples[0].caption == "my dog"
    assert "get their folder's name" in found.notes[0]
    assert find(tmp_path / "my_dog", caption="a dog").samples[0].caption == "a dog"


def test_one_bad_picture_among_many_is_named_and_left_out(pictures):
    whole = (pictures / "0.png").read_bytes()
    (pictures / "bad.png").write_bytes(whole[: len(whole) // 2])
    (pictures / "text.jpg").write_text("not a picture")
    found = find(pictures)
    assert len(found.samples) == 5
    assert {p.file.name for p in found.left_out} == {"bad.png", "text.jpg"}


def test_an_empty_folder_and_one_that_is_not_there_are_errors(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty has no pictures or videos"):
        find(tmp_path / "empty")
    with pytest.raises(DataError, match="no such folder"):
        find(tmp_path / "nothing")


def test_repeats_weigh_a_set(pictures):
    assert len(find(pictures, repeats=3).samples) == 15


def test_a_picture_fills_its_bucket_without_being_stretched(tmp_path):
    from PIL import Image

    wide = Image.new("RGB", (200, 100), "black")
    wide.paste((255, 0, 0), (90, 40, 110, 60))
    wide.save(tmp_path / "wide.png")
    (found,) = find(tmp_path).samples
    width, height = found.size
    assert width > height
    pixels = load_pixels(found)
    assert pixels.shape == (1, 3, height, width)
    red = (pixels[0, 0] > 0).nonzero()
    tall, broad = (red.amax(0) - red.amin(0) + 1).tolist()
    assert abs(tall - broad) <= 1
    assert torch.equal(load_pixels(found, mirrored=True), pixels.flip(-1))


@settings(max_examples=100, deadline=None)
@given(st.integers(16, 4000), st.integers(16, 4000))
def test_buckets_have_the_area_and_nearly_the_shape(width, height):
    across, down = bucket(width, height, resolution=512, multiple=16)
    assert across % 16 == down % 16 == 0
    assert 0.85 < across * down / 512**2 < 1.15
    shape = min(2.0, max(0.5, width / height))
    assert 0.9 < (across / down) / shape < 1.1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=20), st.integers(1, 5), st.integers(0, 3))
def test_every_batch_is_of_one_kind_and_every_pass_has_everything(kinds, batch_size, seed):
    order = Order(kinds, batch_size, seed)
    seen = []
    for batch in range(order.batches):
        taken = order.take(batch * batch_size, batch_size)
        assert len(taken) == batch_size and len({kinds[k] for k in taken}) == 1
        seen += taken
    assert set(seen) == set(range(len(kinds)))
    again = Order(kinds, batch_size, seed)
    last = (order.batches - 1) * batch_size
    assert again.take(last, batch_size) == seen[last:]
    assert max(Counter(seen).values()) <= batch_size


def test_passes_differ():
    order = Order([0] * 12, 4, 0)
    first, second = ([order.take(k * 4 + p * 12, 4) for k in range(3)] for p in (0, 1))
    assert first != second
