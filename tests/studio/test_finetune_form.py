"""From the form to settings, TOML and a command, and back."""

import tomllib
from pathlib import Path

import pytest

from studio.errors import RequestError
from studio.finetune_form import (
    FOR_SEVERAL,
    GROUPS,
    OWN,
    check_settings,
    run_folder,
    settings_of,
    suggest_name,
    toml_of,
    train_words,
    widget_values,
)


@pytest.fixture
def folder(tmp_path):
    from PIL import Image

    (tmp_path / "red things").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "red things" / "a.png")
    return tmp_path / "red things"


def settings(folder, guard=None, options=None, **values):
    return settings_of(values, sets=[{"folder": str(folder), "repeats": 1}], options=options or {}, guard=guard)


def test_every_setting_of_a_run_stands_in_the_form_once():
    from training.finetune.config import FinetuneConfig

    drawn = [name for group in GROUPS for name in group] + [*OWN, *FOR_SEVERAL]
    assert sorted(drawn) == sorted(FinetuneConfig.model_fields)


def test_what_is_a_default_is_not_written(folder):
    assert settings(folder, method="sara", max_train_steps=500, trigger="", learning_rate=None) == {
        "model": "mini", "method": "sara", "data": [{"folder": str(folder)}],
    }  # fmt: skip


def test_options_guard_and_lists_are_written_and_read_back_by_the_trainer(folder):
    told = settings(
        folder, guard={"action": "stop", "samples": 64, "limit": 0.2}, method="sara", scope=("attention", "!norms"),
        options={"threshold": 2e-3, "cap": 0.5}, trigger='sks "dog" \\ é', validation_share=0.3,
    )  # fmt: skip
    assert told["method_options"] == {"threshold": 2e-3}
    assert told["guard"] == {"action": "stop", "limit": 0.2}
    config = check_settings(tomllib.loads(toml_of(told)))
    assert config.scope == ("attention", "!norms") and config.trigger == 'sks "dog" \\ é'
    assert config.guard is not None and config.guard.action == "stop"
    assert config.tuning().threshold == 2e-3


def test_the_trainer_reads_the_file_as_the_form_meant_it(folder, tmp_path):
    from studio.cli.verbs.train import finetune_config

    told = settings(folder, method="paca", options={"rank": 4}, max_train_steps=7)
    path = tmp_path / "run.toml"
    path.write_text(toml_of(told))
    assert finetune_config(path, {}) == check_settings(told)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"data": []}, "no data yet"),
        ({"data": [{"folder": "/nowhere"}]}, "/nowhere: no such folder"),
        ({"method": "sarra"}, "did you mean 'sara'"),
        ({"method_options": {"fraction": 0.1, "budget": 5}}, "give one of fraction, threshold and budget"),
        ({"guard": {"action": "warn", "limit": 0.01}}, "below the quantile"),
        ({"resolution": 33}, "multiple of 16"),
    ],
)
def test_what_is_wrong_is_told_before_anything_starts(folder, change, words):
    with pytest.raises(RequestError, match=words):
        check_settings({**settings(folder), **change})


def test_the_command_has_the_flags_that_were_chosen_and_can_be_parsed():
    from studio.cli.run import check_words

    words = train_words(Path("a b/run.toml"), Path("runs/x"), {"time_limit": 60.0, "device": "auto"})
    assert words == ["train", "a b/run.toml", "--output-dir=runs/x", "--time-limit=60.0"]
    check_words(words)


def test_names_are_free_and_made_of_method_and_folder():
    assert suggest_name("sara", "/data/Red Things!", []) == "sara-red-things"
    assert suggest_name("sara", "/data/red", ["sara-red", "sara-red-2"]) == "sara-red-3"
    assert suggest_name("sara", "", []) == "sara"


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "", "x" * 81, "jobs", "nul\0", "a\nb", "a."])
def test_a_name_cannot_lead_out_of_the_runs_folder(tmp_path, name):
    with pytest.raises(RequestError):
        run_folder(tmp_path, name)


def test_a_name_that_is_taken_is_refused(tmp_path):
    (tmp_path / "x").mkdir()
    with pytest.raises(RequestError, match="there already"):
        run_folder(tmp_path, "x")
    assert run_folder(tmp_path, "my run-2") == tmp_path / "my run-2"


def test_settings_go_back_into_the_form(folder):
    told = settings(folder, method="sara", guard={"samples": 32}, options={"threshold": 1e-3}, scope=("norms",))
    assert widget_values({**told, "task": {"ti2v": 1}}) == {
        "model": "mini", "method": "sara", "scope": ["norms"], "sara.threshold": 1e-3, "guard.on": True,
        "guard.action": "warn", "guard.samples": 32, "sets": 1, "data.0.folder": str(folder),
    }  # fmt: skip
