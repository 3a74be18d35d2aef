"""Trackers: what the run's events become in the programs that show them."""

import json

import numpy as np
import pytest
from PIL import Image

from training.events import Evaluated, Finished, Guarded, Note, Sampled, Skipped, Step
from training.run_folder import record
from training.trackers import check_trackers, numbers_of

PROMPTS = ("a red thing", "a blue thing")


def step(number, loss):
    return Step(
        step=number, total_steps=9, task="denoise", losses={"loss": loss, "penalty": 0.5}, learning_rate=1e-3,
        seconds=0.25, peak_bytes=2**30,
    )  # fmt: skip


def events(folder, numbers):
    yield Note(step=0, text="begins")
    for number in numbers:
        yield step(number, 1 / number)
    path = folder / "sample.png"
    Image.fromarray(np.full((8, 16, 3), 90, np.uint8)).save(path)
    last = numbers[-1]
    yield Skipped(step=last, scale=1024.0, skipped=2)
    yield Evaluated(step=last, metrics={"validation_loss": 0.75})
    yield Sampled(step=last, path=str(path), prompts=PROMPTS)
    yield Finished(step=last, complete=True, reason="done", seconds=1.0)


def read(run):
    """The curves, as TensorBoard's own reader finds them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    return found.Reload()


def test_tensorboard_reads_losses_rate_validation_and_samples(tmp_path):
    pytest.importorskip("tensorboard")
    run = tmp_path / "run"
    passed = list(record(run, {"finetune": {"seed": 3}}, events(tmp_path, [1, 2, 4]), report_to=("tensorboard",)))
    assert [e.kind for e in passed] == ["note", "step", "step", "step", "skipped", "evaluated", "sampled", "finished"]
    found = read(run)
    assert [(e.step, e.value) for e in found.Scalars("train/loss")] == [(1, 1.0), (2, 0.5), (4, 0.25)]
    assert [e.value for e in found.Scalars("train/penalty")] == [0.5] * 3
    assert found.Scalars("train/learning_rate")[0].value == pytest.approx(1e-3)
    assert found.Scalars("train/peak_memory_gib")[0].value == 1.0
    assert [(e.step, e.value) for e in found.Scalars("validation/validation_loss")] == [(4, 0.75)]
    assert found.Scalars("train/skipped_steps")[0].value == 2
    (sample,) = found.Images("samples")
    assert (sample.step, sample.width, sample.height) == (4, 16, 8)
    texts = [t.tensor_proto.string_val[0].decode() for t in found.Tensors("samples/prompts/text_summary")]
    assert all(prompt in texts[0] for prompt in PROMPTS)
    assert "seed = 3" in found.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()


def test_steps_that_are_made_again_after_a_crash_are_shown_once(tmp_path):
    pytest.importorskip("tensorboard")
    run = tmp_path / "run"
    list(record(run, {}, events(tmp_path, [1, 2, 3]), report_to=("tensorboard",)))
    list(record(run, {}, events(tmp_path, [3, 4]), resume=True, report_to=("tensorboard",)))
    assert [e.step for e in read(run).Scalars("train/loss")] == [1, 2, 3, 4]


def test_nothing_is_tracked_unless_it_is_asked_for(tmp_path):
    list(record(tmp_path / "run", {}, events(tmp_path, [1])))
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["config.toml", "events.jsonl"]


def test_wandb_writes_its_files_without_a_network(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    run = tmp_path / "run"
    list(record(run, {"finetune": {"seed": 3}}, events(tmp_path, [1, 2]), report_to=("wandb",)))
    assert list((run / "wandb").glob("offline-run-*/*.wandb"))


def test_trackio_keeps_its_numbers_on_this_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio")
    list(record(tmp_path / "run", {"finetune": {"seed": 3}}, events(tmp_path, [1, 2]), report_to=("trackio",)))
    assert (tmp_path / "trackio" / "animatex-studio.db").stat().st_size > 0


def test_a_tracker_that_is_not_installed_is_refused_with_the_line_that_installs_it(monkeypatch):
    import training.trackers

    monkeypatch.setattr(training.trackers, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"report_to wandb: .*pip install 'animatex-studio\[wandb\]'"):
        check_trackers(("wandb",))


def test_an_event_that_has_no_numbers_adds_no_point():
    assert numbers_of(Note(step=1, text="x")) == {}


def test_a_line_that_a_killed_process_left_unfinished_is_taken_off(tmp_path):
    run = tmp_path / "run"
    list(record(run, {}, events(tmp_path, [1])))
    log = run / "events.jsonl"
    whole = log.read_text()
    log.write_text(whole + '{"event": "st')
    list(record(run, {}, events(tmp_path, [2]), resume=True))
    lines = log.read_text().splitlines()
    assert log.read_text().startswith(whole) and len(lines) == 2 * len(whole.splitlines())
    assert all(json.loads(line) for line in lines)


def test_what_a_guard_saw_is_curves_and_a_picture(tmp_path):
    pytest.importorskip("tensorboard")
    Image.fromarray(np.full((8, 16, 3), 90, np.uint8)).save(tmp_path / "pairs.png")
    seen = Guarded(
        step=3, features="latents", samples=64, copy_rate=0.25, low=0.125, high=0.5, background=0.0625,
        background_high=0.1, loss_gap=-0.5, action="warn", path=str(tmp_path / "pairs.png"),
    )  # fmt: skip
    list(record(tmp_path / "run", {}, (event for event in [seen]), report_to=("tensorboard",)))
    found = read(tmp_path / "run")
    for name in ("copy_rate", "low", "high", "background", "loss_gap"):
        assert [(e.step, e.value) for e in found.Scalars(f"guard/{name}")] == [(3, getattr(seen, name))]
    (picture,) = found.Images("guard")
    assert (picture.step, picture.width) == (3, 16)
