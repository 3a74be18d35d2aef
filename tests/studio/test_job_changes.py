"""A job once more with changes, and the list of jobs."""

import pytest

from studio.errors import RequestError
from studio.job_changes import as_lines, config_of, diff, free_name, from_lines, rehomed
from studio.job_list import ago, length, pages, rows
from studio.jobs import Queue


@pytest.fixture
def queue(tmp_path):
    return Queue(tmp_path / "runs")


def test_words_survive_being_edited():
    words = ["animate", "--prompt=-- a 'red' thing", "--reference", "a b.png"]
    assert from_lines(as_lines(words)) == words
    assert from_lines("studio train # not this\n --seed=1") == ["train", "--seed=1"]
    with pytest.raises(RequestError, match="close the quotes"):
        from_lines("train 'x")


def test_results_go_to_the_new_folder_and_inputs_stay(queue, tmp_path):
    folder = queue.new_folder()
    words = ["animate", f"--reference={folder}/up.png", f"--output={folder}/animation.mp4", "--seed=1"]
    job = queue.submit(words, folder=folder)
    made = rehomed(job, job.words, tmp_path / "new")
    assert f"--reference={folder}/up.png" in made and f"--output={tmp_path}/new/animation.mp4" in made


def test_a_training_once_more_gets_a_run_folder_that_is_free(queue, tmp_path):
    (tmp_path / "x").mkdir()
    job = queue.submit(["train", "a.toml", "--output-dir", str(tmp_path / "x")])
    assert rehomed(job, job.words, tmp_path / "new") == ["train", "a.toml", f"--output-dir={tmp_path}/x-2"]
    (tmp_path / "x-2").mkdir()
    assert free_name(tmp_path / "x-2") == tmp_path / "x-3"
    assert free_name(tmp_path / "y") == tmp_path / "y"


def test_a_difference_has_only_what_differs():
    assert diff("a\n--seed=1\nb", "a\n--seed=2\nb") == "- --seed=1\n+ --seed=2"
    assert diff("a", "a") == ""


def test_the_toml_of_a_training_is_found(queue, tmp_path):
    (tmp_path / "run.toml").write_text("")
    job = queue.submit(["train", "run.toml", "--output-dir=x"], directory=tmp_path)
    assert config_of(job) == tmp_path / "run.toml"
    assert config_of(queue.submit(["train", "gone.toml"], directory=tmp_path)) is None
    assert config_of(queue.submit(["animate", "--reference=run.toml"], directory=tmp_path)) is None


def test_a_row_says_what_a_job_waits_for_and_how_long_ago_it_was_made(queue):
    first = queue.submit(["motions"], title="first")
    second = queue.submit(["motions"], title="second", needs=[first.id])
    found = {row["what"]: row for row in rows(queue.jobs(), now=first.created + 600)}
    assert found["second"]["now"] == f"after {first.id}" and second.needs == (first.id,)
    assert found["first"]["made"] == "10 min ago" and found["first"]["done"] is None and found["first"]["took"] == ""


def test_times_are_short():
    assert [length(s) for s in (5, 119, 600, 7200, 200_000)] == ["5 s", "119 s", "10 min", "2 h", "2 d"]
    assert ago(3) == "just now" and pages(0) == 1 and pages(51) == 2
