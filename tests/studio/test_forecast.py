"""Forecasts: by earlier runs where there are some, and honest where there are none."""

import json

import pytest

from studio.forecast import (
    _DEFAULTS,
    Past,
    forecast,
    matrix_speed,
    past_runs,
    shown_bytes,
    shown_time,
    trained_numbers,
)

SHAPES = {"a.weight": (8, 4), "b.weight": (4, 2, 3, 3), "b.bias": (4,)}


def past(**settings):
    return Past(name="before", settings={**_DEFAULTS, **settings}, seconds_per_step=2.0, peak_bytes=2_000_000_000)


def test_the_defaults_here_are_those_of_the_config():
    from training.finetune.config import FinetuneConfig

    assert {name: FinetuneConfig.model_fields[name].default for name in _DEFAULTS} == _DEFAULTS


def test_the_same_settings_take_what_they_took():
    found = forecast({"max_train_steps": 100}, [past(max_train_steps=7, trigger="x")])
    assert (found.basis, found.seconds, found.peak_bytes) == ("measured", 200.0, 2e9)


def test_another_size_of_the_same_model_is_scaled():
    found = forecast({"max_train_steps": 10, "resolution": 256}, [past()])
    assert found.basis == "scaled" and found.seconds == pytest.approx(80.0)
    assert found.peak_bytes is not None and found.peak_bytes > 2e9
    other = forecast({"method": "paca", "train_batch_size": 8}, [past()])
    assert other.basis == "scaled" and "which was by sara" in other.words


def test_another_model_says_nothing():
    assert forecast({"model": "other"}, [past()]).basis == "unknown"


def test_without_a_run_it_is_rough_and_grows_with_the_work():
    small = forecast({}, [], shapes=SHAPES, trained=10, flops=1e9)
    large = forecast({"resolution": 256}, [], shapes=SHAPES, trained=10, flops=1e9)
    assert small.basis == "rough" and "factor of three" in small.words
    assert large.seconds == pytest.approx(4 * small.seconds)
    assert forecast({}, [], shapes=SHAPES, trained=10).seconds is None
    assert small.disk_bytes == 10 * 16 * 2


@pytest.mark.parametrize(
    ("method", "options", "share", "count"),
    [
        ("full", {}, None, 32 + 72 + 4),
        ("bitfit", {}, None, 4),
        ("lora", {"rank": 2}, None, 2 * (8 + 4) + 2 * (4 + 18)),
        ("paca", {"rank": 3}, None, 3 * 8 + 3 * 4),
        ("svdiff", {}, None, 4 + 4),
        ("sara", {"fraction": 0.5}, None, 54),
        ("lora", {"rank": 2}, 0.25, 27),
        ("hft", {"round_steps": 5}, None, None),
    ],
)
def test_trained_numbers_follow_from_the_shapes(method, options, share, count):
    assert trained_numbers(method, options, SHAPES, share=share) == count


def test_earlier_runs_are_read_without_their_first_steps(tmp_path):
    run = tmp_path / "mine"
    run.mkdir()
    (run / "config.toml").write_text('[finetune]\nmethod = "paca"\n')
    rows = [{"event": "step", "step": k, "seconds": 9.0 if k < 4 else 1.0, "peak_bytes": 100 + k} for k in range(1, 9)]
    (run / "events.jsonl").write_text("torn\n" + "".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe" / "config.toml").write_text('recipe = "mini-codec"\n')
    (tmp_path / "recipe" / "events.jsonl").write_text("")
    (found,) = past_runs(tmp_path)
    assert (found.name, found.seconds_per_step, found.peak_bytes) == ("mine", 1.0, 108)
    assert found.settings["method"] == "paca" and found.settings["resolution"] == 128


def test_the_machines_speed_is_a_positive_number():
    assert matrix_speed() > 1e8


def test_figures_do_not_promise_more_than_is_known():
    assert [shown_time(s) for s in (4.4, 600, 7200, 300_000)] == ["4 s", "10 min", "2.0 h", "3.5 days"]
    assert [shown_bytes(b) for b in (5e3, 2.34e6, 45e9)] == ["5 kB", "2.3 MB", "45 GB"]
