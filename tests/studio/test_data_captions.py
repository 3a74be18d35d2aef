"""Captions to be read and changed, and what the doctor said, for a page."""

import json

import pytest
from PIL import Image

from studio.data_captions import captioned, look_at, write_caption
from studio.data_problems import problem_rows, quarantines, summary
from studio.errors import RequestError


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "red_things"
    (folder / "more").mkdir(parents=True)
    for name in ("a", "b", "c", "more/d"):
        Image.new("RGB", (8, 8)).save(folder / f"{name}.png")
    (folder / "a.txt").write_text("a red thing\n")
    (folder / "metadata.jsonl").write_text(json.dumps({"file_name": "b.png", "text": ["one", "two"]}) + "\n")
    (folder / "c.txt").write_bytes(b"caf\xe9")
    return folder


def test_captions_are_those_that_training_reads(folder):
    listing = look_at(folder)
    found = {one.name: (one.caption, one.source) for one in captioned(listing, listing.files)}
    assert found["a.png"] == ("a red thing", "text")
    assert found["b.png"] == ("one | two", "metadata")
    assert found["c.png"][1] == "unreadable"
    assert found["more/d.png"] == ("more", "folder")
    (named,) = captioned(listing, [folder / "more" / "d.png"], set_caption="a thing")
    assert (named.caption, named.source) == ("a thing", "set")


def test_a_changed_caption_is_what_is_read_then(folder):
    write_caption(folder, "more/d.png", "  a new\nthing ")
    write_caption(folder, "c.png", "café")
    listing = look_at(folder)
    found = {one.name: one for one in captioned(listing, listing.files)}
    assert found["more/d.png"].caption == "a new thing" and found["c.png"].caption == "café"
    assert not found["b.png"].is_editable and found["a.png"].is_editable
    assert not [path for path in folder.rglob(".caption-*")]


@pytest.mark.parametrize("name", ["../outside.png", "none.png", "/etc/passwd"])
def test_a_caption_outside_of_the_folder_is_refused(folder, name):
    (folder.parent / "outside.png").touch()
    with pytest.raises(RequestError, match="is not in"):
        write_caption(folder, name, "x")
    assert not (folder.parent / "outside.txt").exists()


def test_a_caption_longer_than_any_model_reads_is_refused(folder):
    with pytest.raises(RequestError, match="4000 at most"):
        write_caption(folder, "a.png", "x" * 5000)


def test_a_folder_that_is_not_there_is_told(tmp_path):
    with pytest.raises(RequestError, match="no such folder"):
        look_at(tmp_path / "none")


def problem(file, severity="error", why="is cut off"):
    return {"file": str(file), "kind": "k", "why": why, "fix": "mend it", "severity": severity}


def test_problems_are_rows_and_notes_of_one_kind_are_one(tmp_path):
    result = {"files": 5, "samples": 3, "problems": [
        problem(tmp_path / "x" / "a.png"), problem(tmp_path / "b.png", "warning", "is small"),
        *[problem(tmp_path / f"{k}.png", "note", "is not RGB") for k in range(3)],
    ]}  # fmt: skip
    rows = problem_rows(result, [tmp_path])
    assert [(row["severity"], row["file"]) for row in rows] == [
        ("error", "x/a.png"), ("warning", "b.png"), ("note", "0.png and 2 more"),
    ]  # fmt: skip
    assert summary(result) == ("5 files, 3 samples, 1 error, 1 warning.", 1)
    assert summary({"files": 1, "samples": 1, "problems": []}) == ("1 file, 1 sample; nothing is wrong.", 0)


def test_what_lies_in_quarantine_is_counted(tmp_path):
    (tmp_path / "_quarantine").mkdir()
    (tmp_path / "_quarantine" / "manifest.jsonl").write_text('{"file": "a"}\n{"file": "b"}\n')
    assert quarantines([tmp_path, tmp_path / "none"]) == {tmp_path: 2}
