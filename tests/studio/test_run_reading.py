"""Reading a run's folder: series that go on, steps that were made again, smoothing, samples and checkpoints."""

import json
from pathlib import Path

import pytest

from studio.run_reading import (
    RunLog,
    checkpoints,
    memorization_report,
    run_of,
    runs_in,
    samples,
    settings_of_run,
    smooth,
    thinned,
)
from studio.run_series import grid_of, guard_rows, loss_rows, metric_rows, seconds_left, shown_size, step_rows


def step(number, loss=1.0, **more):
    return {"event": "step", "step": number, "total_steps": 10, "losses": {"loss": loss}, "learning_rate": 0.1,
            "seconds": 2.0, "peak_bytes": 5 * number, **more}  # fmt: skip


def write(run, *events, mode="w"):
    run.mkdir(exist_ok=True)
    with (run / "events.jsonl").open(mode) as file:
        file.writelines(json.dumps(event) + "\n" for event in events)


@pytest.fixture
def run(tmp_path):
    return tmp_path / "run"


def test_a_run_that_has_not_begun_has_nothing(run):
    log = RunLog(run).read()
    assert log.step == 0 and log.losses == {} and not log.finished


def test_reading_again_takes_only_what_came_since(run):
    write(run, step(1, 3.0), step(2, 2.0))
    log = RunLog(run).read()
    at = log._at
    write(run, step(3, 1.0), mode="a")
    assert log.read().losses["loss"] == [3.0, 2.0, 1.0]
    assert log.steps == [1, 2, 3] and log._at > at and log.peak_bytes == 15


def test_a_line_that_is_not_whole_yet_is_read_when_it_is(run):
    write(run, step(1))
    with (run / "events.jsonl").open("a") as file:
        file.write(json.dumps(step(2))[:20])
    log = RunLog(run).read()
    assert log.steps == [1]
    with (run / "events.jsonl").open("a") as file:
        file.write(json.dumps(step(2))[20:] + "\n")
    assert log.read().steps == [1, 2]


def test_steps_that_a_resumed_run_makes_again_count_once(run):
    write(run, step(1, 9), step(2, 8), step(3, 7), step(2, 5), step(3, 4))
    log = RunLog(run).read()
    assert log.steps == [1, 2, 3] and log.losses["loss"] == [9, 5, 4]


def test_another_run_in_the_same_folder_is_read_from_its_beginning(run):
    write(run, step(1, 9), step(2, 8), step(3, 7))
    log = RunLog(run).read()
    write(run, step(1, 2))
    assert log.read().losses["loss"] == [2]


def test_a_loss_that_is_not_finite_or_not_there_is_a_gap(run):
    write(run, step(1, None), step(2, 1.0), step(3, losses={"loss/ti2v": 2.0}))
    log = RunLog(run).read()
    assert log.losses == {"loss": [None, 1.0, None], "loss/ti2v": [None, None, 2.0]}


def test_what_is_no_event_is_passed_over(run):
    run.mkdir()
    (run / "events.jsonl").write_text('nonsense\n[1]\n{"event": "step"}\n{"event": "new", "step": 1}\n"step"\n')
    assert RunLog(run).read().steps == []


def test_measurements_looks_notes_and_the_end_are_kept(run):
    look = {"event": "guarded", "step": 4, "copy_rate": 0.2, "low": 0.1, "high": 0.3, "background": 0.05,
            "background_high": 0.1, "loss_gap": 0.01, "action": "warn"}  # fmt: skip
    write(
        run, {"event": "note", "step": 0, "text": "trains 5", "counts": {"trainable_parameters": 5}}, step(1),
        {"event": "evaluated", "step": 4, "metrics": {"validation_loss": 0.5, "bad": None}}, look,
        {"event": "sampled", "step": 4, "path": "x", "prompts": ["a", "b"]},
        {"event": "finished", "step": 10, "complete": True, "reason": "all steps done"},
    )  # fmt: skip
    log = RunLog(run).read()
    assert metric_rows(log) == [{"step": 4, "metric": "validation_loss", "value": 0.5}]
    assert guard_rows(log)[0]["copy_rate"] == 0.2
    assert log.sampled == {4: ("a", "b")} and log.notes == ["trains 5"]
    assert log.counts == {"trainable_parameters": 5} and log.finished["complete"]


def test_smoothing_begins_at_the_first_value_and_keeps_gaps():
    assert smooth([4.0, 4.0, None, 4.0], 0.9) == pytest.approx([4.0, 4.0, None, 4.0])
    assert smooth([0.0, 1.0], 0.5) == pytest.approx([0.0, 2 / 3])
    assert smooth([3.0, 1.0], 0.0) == [3.0, 1.0]


def test_long_series_are_thinned_to_first_last_and_some_between():
    assert thinned(3, 10) == [0, 1, 2]
    assert thinned(1001, 11) == list(range(0, 1001, 100))
    assert grid_of(list(range(0, 500, 10)), 3) == [0, 240, 490]


def test_rows_are_smoothed_over_all_steps_and_thinned_after(run):
    write(run, *[step(k, float(k)) for k in range(1, 101)])
    log = RunLog(run).read()
    rows = loss_rows(log, ["loss"], 0.9, most=5)
    assert [row["step"] for row in rows] == [1, 26, 51, 75, 100]
    assert rows[-1]["smoothed"] == pytest.approx(smooth([float(k) for k in range(1, 101)], 0.9)[-1])
    assert len(step_rows(log, most=7)) == 7


def test_the_time_left_goes_by_the_last_steps(run):
    write(run, step(1), step(2))
    assert seconds_left(RunLog(run).read()) == 16.0
    assert seconds_left(RunLog(run)) is None


def test_checkpoints_and_samples_are_found_in_order(run):
    for number in (5, 20, 100):
        (run / f"checkpoint-{number}").mkdir(parents=True)
        (run / f"checkpoint-{number}" / "state.json").write_text("x" * number)
    (run / "latest").write_text("checkpoint-20")
    (run / ".checkpoint-7.tmp").mkdir()
    assert [(c.step, c.bytes, c.is_latest) for c in checkpoints(run)] == [(100, 100, False), (20, 20, True), (5, 5, False)]
    (run / "samples").mkdir()
    for name in ("step-20.png", "step-3.png", "guard-step-3.png", "step-x.png"):
        (run / "samples" / name).touch()
    assert list(samples(run)) == [3, 20]
    assert checkpoints(run / "none") == [] and samples(run / "none") == {}


def test_run_folders_are_listed_latest_first_without_those_that_have_a_job(tmp_path):
    import os

    for number, name in enumerate(("a", "b", "c")):
        write(tmp_path / name, step(1))
        os.utime(tmp_path / name / "events.jsonl", (number, number))
    (tmp_path / "other").mkdir()
    assert [one.run.name for one in runs_in(tmp_path, known=lambda run: run.name == "b")] == ["c", "a"]
    assert runs_in(tmp_path / "none") == []


def test_settings_and_reports_that_cannot_be_read_are_none(run):
    run.mkdir()
    assert settings_of_run(run) is None and memorization_report(run) is None
    (run / "config.toml").write_text("recipe = 'mini-codec'")
    assert settings_of_run(run) is None
    (run / "config.toml").write_text("[finetune]\nmethod = 'paca'")
    assert settings_of_run(run) == {"method": "paca"}


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["train", "a.toml", "--output-dir=runs/x"], "runs/x"),
        (["train", "a.toml", "--output-dir", "runs/x"], "runs/x"),
        (["resume", "runs/x", "--device=cpu"], "runs/x"),
        (["evaluate", "memorization", "runs/x"], "runs/x"),
        (["train", "a.toml"], None),
        (["data", "check", "runs/x"], None),
    ],
)
def test_the_run_folder_of_a_job_follows_from_its_words(tmp_path, words, wanted):
    from studio.jobs import Queue

    job = Queue(tmp_path).submit(words, directory=Path("/work"))
    assert run_of(job) == (None if wanted is None else Path("/work") / wanted)


def test_small_samples_grow_but_not_to_blocks(tmp_path):
    from PIL import Image

    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    assert shown_size(tmp_path / "a.png") == (256, 1.0)
    Image.new("RGB", (4096, 512)).save(tmp_path / "b.png")
    assert shown_size(tmp_path / "b.png") == (1200, 8.0)
