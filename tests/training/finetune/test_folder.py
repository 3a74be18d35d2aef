"""Layouts of data folders, and the captions that belong to the files in them."""

import json

import pytest

from training.finetune.config import DataSet
from training.finetune.data import DataError, Wanted, find_samples
from training.finetune.data.captions import Captions
from training.finetune.data.folder import list_files

from .conftest import brightening, picture, video


def find(folder, **options):
    return find_samples([DataSet(folder=folder, **options)], {"text-to-image": Wanted()}, resolution=64, multiple=16)


def told(found):
    return {sample.path.name: sample.captions for sample in found.samples}


def test_class_folders_below_train_are_captions_and_other_splits_are_left_out(tmp_path):
    folder = tmp_path / "my_pets"
    for name in ("train/golden_dog/a.png", "train/cat/b.png", "train/c.png", "test/cat/d.png", "validation/e.png"):
        picture(folder / name, "red")
    found = find(folder)
    assert told(found) == {"a.png": ("golden dog",), "b.png": ("cat",), "c.png": ("my pets",)}
    assert any("train is used, and test, validation not" in note for note in found.notes)


def test_a_class_may_be_called_test_where_there_are_no_splits(tmp_path):
    picture(tmp_path / "test" / "a.png", "red")
    assert told(find(tmp_path)) == {"a.png": ("test",)}


def test_the_video_folder_layout_is_read_like_that_of_pictures(tmp_path):
    video(tmp_path / "train" / "running" / "a.mp4", brightening(5))
    video(tmp_path / "train" / "b.mp4", brightening(5))
    (tmp_path / "train" / "metadata.jsonl").write_text(json.dumps({"file_name": "b.mp4", "text": "it brightens"}))
    assert told(find(tmp_path)) == {"a.mp4": ("running",), "b.mp4": ("it brightens",)}


def test_a_list_in_metadata_gives_several_captions(tmp_path):
    picture(tmp_path / "a.png", "red")
    (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": "./a.png", "text": ["one", " two "]}))
    assert told(find(tmp_path)) == {"a.png": ("one", "two")}


def test_metadata_goes_before_the_text_file_and_both_before_the_sets_caption(tmp_path):
    for name in ("a.png", "b.png", "c.png"):
        picture(tmp_path / name, "red")
    (tmp_path / "a.txt").write_text("file")
    (tmp_path / "b.txt").write_text("file")
    (tmp_path / "metadata.csv").write_text("file_name,text\na.png,row\nc.png,\n")
    assert told(find(tmp_path, caption="set")) == {"a.png": ("row",), "b.png": ("file",), "c.png": ("set",)}


def test_a_folder_that_is_a_file_is_named(tmp_path):
    picture(tmp_path / "a.png", "red")
    with pytest.raises(DataError, match=r"a\.png: is a file; name the folder"):
        find(tmp_path / "a.png")


def test_hidden_files_and_the_quarantine_are_not_read(tmp_path):
    for name in (".hidden.png", "_quarantine/b.png", "a.png"):
        picture(tmp_path / name, "red")
    assert [path.name for path in list_files(tmp_path).files] == ["a.png"]


def kinds(folder):
    captions = Captions(list_files(folder))
    return {(p.file.name, p.kind) for p in [*captions.problems, *captions.orphans()]}


def test_captions_that_belong_to_nothing_are_found(tmp_path):
    picture(tmp_path / "a.png", "red")
    (tmp_path / "b.txt").write_text("of nothing")
    (tmp_path / "README.txt").write_text("no caption")
    (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": "c.png", "text": "of nothing"}))
    assert kinds(tmp_path) == {("b.txt", "orphan caption"), ("metadata.jsonl", "caption of no file")}


@pytest.mark.parametrize(
    "text",
    ['{"file_name": "a.png", "text": 3}', '{"text": "no name"}', "[1]", '{"file_name": "a.png", "text": []}', "{"],
)
def test_metadata_that_cannot_be_understood_is_named(text, tmp_path):
    picture(tmp_path / "a.png", "red")
    (tmp_path / "metadata.jsonl").write_text(text)
    assert kinds(tmp_path) == {("metadata.jsonl", "unreadable metadata")}


def test_rows_of_files_that_are_left_out_or_in_quarantine_are_no_trouble(tmp_path):
    for name in ("train/a.png", "test/b.png", "_quarantine/train/c.png"):
        picture(tmp_path / name, "red")
    rows = [{"file_name": name, "text": "x"} for name in ("train/a.png", "test/b.png", "train/c.png")]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert kinds(tmp_path) == set()


def test_metadata_in_another_format_is_told_and_not_passed_over(tmp_path):
    picture(tmp_path / "a.png", "red")
    (tmp_path / "metadata.parquet").write_bytes(b"PAR1")
    assert kinds(tmp_path) == {("metadata.parquet", "unread metadata")}


def test_a_caption_that_is_not_utf8_leaves_its_file_out_and_is_not_mangled(tmp_path):
    for name in ("a", "b"):
        picture(tmp_path / f"{name}.png", "red")
        (tmp_path / f"{name}.txt").write_bytes("ein Bär".encode("latin-1" if name == "b" else "utf-8"))
    found = find(tmp_path)
    assert told(found) == {"a.png": ("ein Bär",)}
    assert [(p.file.name, p.kind) for p in found.left_out] == [("b.png", "unreadable caption")]
