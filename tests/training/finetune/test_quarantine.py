"""Bad files: recorded by runs, moved away and put back."""

import json

import pytest

from training.finetune.data import DataError
from training.finetune.data.problems import error
from training.finetune.data.quarantine import move_away, restore, write_quarantine

from .conftest import picture


def bad(path):
    return error(path, "unreadable", f"{path} is damaged", "get another")


def test_a_run_writes_each_bad_file_down_once(tmp_path):
    for _ in range(2):
        write_quarantine(tmp_path, [bad(tmp_path / "a.png"), bad(tmp_path / "b.png")])
    rows = [json.loads(line) for line in (tmp_path / "quarantine.jsonl").read_text().splitlines()]
    assert [row["file"] for row in rows] == [str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    assert all(row["why"].endswith("is damaged") and row["when"].startswith("20") for row in rows)


def test_a_run_without_bad_files_writes_no_record(tmp_path):
    write_quarantine(tmp_path, [])
    assert not list(tmp_path.iterdir())


@pytest.fixture
def folder(tmp_path):
    for name in ("sub/a.png", "b.png"):
        picture(tmp_path / name, "red")
    (tmp_path / "sub" / "a.txt").write_text("its caption")
    return tmp_path


def everything(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_files_are_moved_with_their_captions_and_put_back(folder):
    before = everything(folder)
    moved = move_away(folder, [bad(folder / "sub" / "a.png")])
    assert {path.name for path in moved} == {"a.png", "a.txt"}
    assert everything(folder) == {
        "b.png", "_quarantine/manifest.jsonl", "_quarantine/sub/a.png", "_quarantine/sub/a.txt"
    }  # fmt: skip
    assert not restore(folder).kept
    assert everything(folder) == before and not (folder / "_quarantine").exists()


def test_what_would_overwrite_another_file_stays_and_can_be_put_back_later(folder):
    move_away(folder, [bad(folder / "b.png")])
    picture(folder / "b.png", "blue")
    new = (folder / "b.png").read_bytes()
    done = restore(folder)
    assert not done.files and done.kept[0][0].name == "b.png" and (folder / "b.png").read_bytes() == new
    (folder / "b.png").unlink()
    assert [path.name for path in restore(folder).files] == ["b.png"]


def test_a_move_that_was_cut_short_can_be_put_back(folder, monkeypatch):
    import os

    plain, moves = os.replace, []

    def once(source, goal):
        if ".tmp" not in str(source):
            moves.append(source)
        if len(moves) == 2:
            raise KeyboardInterrupt
        plain(source, goal)

    before = everything(folder)
    monkeypatch.setattr("training.finetune.data.quarantine.os.replace", once)
    with pytest.raises(KeyboardInterrupt):
        move_away(folder, [bad(folder / "sub" / "a.png")])
    monkeypatch.undo()
    assert [path.name for path in restore(folder).files] == ["a.png"]
    assert everything(folder) == before


def test_restoring_nothing_says_so(folder):
    with pytest.raises(DataError, match="nothing was moved away"):
        restore(folder)


def test_a_manifest_cannot_put_a_file_outside_of_its_folder(folder):
    move_away(folder, [bad(folder / "b.png")])
    manifest = folder / "_quarantine" / "manifest.jsonl"
    manifest.write_text(manifest.read_text().replace('"b.png"', '"../b.png"'))
    assert not restore(folder).files and not (folder.parent / "b.png").exists()
