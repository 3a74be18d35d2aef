"""A run's folder: one process at a time, and what is asked of it by files."""

import pytest

from training.checkpoint import CheckpointError
from training.run_folder import held, record


def events():
    yield from ()


def test_a_folder_is_of_one_process_at_a_time(tmp_path):
    with held(tmp_path / "run"):
        (tmp_path / "run" / "config.toml").touch()
        with pytest.raises(CheckpointError, match="another process trains in this folder"), held(tmp_path / "run"):
            pass
    with held(tmp_path / "run"):
        pass


def test_what_an_earlier_run_was_asked_for_is_forgotten_and_what_comes_while_it_loads_is_not(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "stop").touch(), (run / "save").touch()
    with held(run):
        assert not (run / "stop").exists() and not (run / "save").exists()
        (run / "stop").touch()
        list(record(run, {}, events()))
        assert (run / "stop").exists()


def test_a_folder_that_was_made_for_nothing_is_taken_away(tmp_path):
    with pytest.raises(ValueError, match="wrong"), held(tmp_path / "run"):
        raise ValueError("wrong")
    assert not (tmp_path / "run").exists()


def test_a_run_that_begins_forgets_the_events_of_one_without_a_checkpoint(tmp_path):
    (tmp_path / "events.jsonl").write_text('{"event": "step"}\n')
    list(record(tmp_path, {}, events(), resume=True))
    assert (tmp_path / "events.jsonl").read_text()
    list(record(tmp_path, {}, events()))
    assert not (tmp_path / "events.jsonl").read_text()
