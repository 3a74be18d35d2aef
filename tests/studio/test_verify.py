"""`studio verify-resume`."""

import json

import pytest
from PIL import Image


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A tiny model and pictures beside a config."""
    from models.presets import tiny_pipeline

    folder = tmp_path_factory.mktemp("verify")
    tiny_pipeline().save_pretrained(folder / "model")
    (folder / "things").mkdir()
    for k in range(3):
        Image.new("RGB", (40, 40), (60 * k, 0, 0)).save(folder / "things" / f"{k}.png")
    return folder


def config(place, name="run.toml", **changes):
    values = {"model": str(place / "model"), "resolution": 32, "max_train_steps": 20, "train_batch_size": 2, **changes}
    options = values.pop("method_options", {})
    text = "".join(f"{k} = {json.dumps(v)}\n" for k, v in values.items())
    text += "[method_options]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in options.items())
    path = place / name
    path.write_text(text + "[[data]]\nfolder = 'things'\n")
    return path


@pytest.mark.parametrize(
    "changes",
    [
        # chooses anew at step 2, in fp16, with everything that has a state
        {
            "method": "sara", "method_options": {"fraction": 0.1, "reselect_step": 2}, "ema_decay": 0.9,
            "mixed_precision": "fp16", "lr_scheduler": "power", "adam_kernel": "fused", "flip": True,
        },
        {"method": "lora", "method_options": {"rank": 2, "dropout": 0.3}, "gradient_accumulation_steps": 2},
    ],
    ids=["sara", "lora"],
)  # fmt: skip
def test_a_config_is_verified(changes, studio, place):
    done = studio("verify-resume", config(place, **changes), "--steps", 4, "--device", "cpu", "--json")
    assert done.code == 0, done.err
    told = done.result
    assert told["identical"] and told["steps"] == 4 and told["stopped_at"] == 2
    assert {"model", "optimizer", "average", "steps", "batches"} <= told["compared"].keys()
    assert told["compared"]["optimizer"] > told["compared"]["average"] > 0
    assert not (place / "run").exists()


def test_a_run_that_does_not_go_on_the_same_is_found_out_and_the_first_difference_is_named(studio, place, monkeypatch):
    import training.going

    monkeypatch.setattr(training.going, "restore_optimizer", lambda optimizer, tensors, names: None)
    done = studio("verify-resume", config(place, method="paca"), "--steps", 4, "--device", "cpu", "--json")
    assert done.code == 1
    told = done.result
    assert told["identical"] is False and told["exit_code"] == 1
    # with a fresh optimizer step 3 is still made of the right weights and data, and step 4 of others
    assert told["differences"][0].startswith("loss of step 4")
    assert any(d.startswith("model ") for d in told["differences"])
    assert any(d.startswith("optimizer ") for d in told["differences"])
    assert "loss of step 4" in done.err and "Traceback" not in done.err


def test_another_order_of_the_data_is_found_out(studio, place, monkeypatch):
    from training.finetune.learner import FinetuneLearner

    plain = FinetuneLearner.batch
    runs = []

    def forgetful(self, task, first, count, generator):
        if self not in runs:
            runs.append(self)
        return plain(self, task, first if len(runs) < 3 else first - 4, count, generator)

    monkeypatch.setattr(FinetuneLearner, "batch", forgetful)
    done = studio("verify-resume", config(place, method="paca"), "--steps", 4, "--device", "cpu", "--json")
    assert done.code == 1 and done.result["differences"][0] == "data of step 3: another batch"


def test_a_recipe_is_verified(studio):
    small = [f"--set={v}" for v in ("batch_size=2", "warmup_steps=0", "precision=fp32", "steps=8")]
    done = studio("verify-resume", "--recipe", "mini-pose", *small, "--steps", 2, "--device", "cpu", "--json")
    assert done.code == 0, done.err
    assert done.result["identical"] and done.result["config"] == "mini-pose"


def test_the_config_of_a_runs_folder_is_verified_too(studio, place, tmp_path):
    run = tmp_path / "run"
    words = ("--max-train-steps", 3, "--output-dir", run, "--time-limit", 0.001)
    assert studio("train", config(place, method="paca"), *words).code == 0
    done = studio("verify-resume", run / "config.toml", "--steps", 2, "--device", "cpu", "--json")
    assert done.code == 0 and done.result["identical"], done.err


def test_what_is_wrong_with_the_request_is_told(studio, place):
    for words, message in (
        ((), "one of the two"),
        ((config(place), "--steps", 21), "--steps 21: the run has 20"),
        ((config(place, "odd.toml", seeed=1),), "seeed"),
        ((place / "nothing.toml",), "nothing.toml"),
    ):
        done = studio("verify-resume", *words)
        assert done.code == 2 and message in done.err and "Traceback" not in done.err, done.err
