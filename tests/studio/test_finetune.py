"""`studio train` on pictures, as a user types it, and what it says when something is wrong."""

import json

import pytest
from PIL import Image

VIDEO = ("animate", "--reference", "rabbit", "--driving", "wave", "--num-frames", 5, "--num-inference-steps", 1)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    from models.presets import tiny_pipeline

    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "red things"
    folder.mkdir()
    for k in range(3):
        Image.new("RGB", (40, 40), (60 * k, 0, 0)).save(folder / f"{k}.png")
    return folder


@pytest.fixture
def flags(model, pictures, tmp_path):
    return (
        "train", "--pretrained-model-name-or-path", model, "--train-data-dir", pictures, "--max-train-steps", 3,
        "--train-batch-size", 2, "--resolution", 32, "--output-dir", tmp_path / "run", "--json",
    )  # fmt: skip


def test_flags_train_and_the_last_line_says_what_came_of_it(studio, flags, tmp_path):
    done = studio(*flags, "--method", "sara", "--set", "method_options.fraction=0.1")
    assert done.code == 0, done.err
    told = done.result
    wanted = {"run", "steps", "loss", "trainable_parameters", "total_parameters", "seconds", "seconds_per_step",
              "peak_memory_bytes", "adapter"}  # fmt: skip
    assert wanted <= told.keys()
    assert told["steps"] == 3 and told["trainable_parameters"] == round(0.1 * told["total_parameters"])
    assert "3 of 3 pictures have no caption and get their folder's name" in done.err
    assert (tmp_path / "run" / "adapter.safetensors").is_file()


def test_a_toml_file_says_the_same_and_flags_go_before_it(studio, model, pictures, tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(
        f"model = {json.dumps(str(model))}\nmethod = 'paca'\nresolution = 32\nmax_train_steps = 50\n"
        "train_batch_size = 1\n[method_options]\nrank = 2\n[[data]]\nfolder = 'red things'\n"
    )
    done = studio("train", path, "--max-train-steps", 2, "--output-dir", tmp_path / "run", "--json")
    assert done.code == 0, done.err
    assert done.result["steps"] == 2 and done.result["method"] == "paca"


def test_a_stopped_run_goes_on(studio, flags, tmp_path):
    stopped = studio(*flags, "--time-limit", 0.001)
    assert stopped.code == 0 and not stopped.result["complete"] and stopped.result["adapter"] is None
    done = studio("resume", tmp_path / "run", "--json")
    assert done.code == 0, done.err
    assert done.result["complete"] and done.result["steps"] == 3 and done.result["adapter"]


def test_the_adapter_is_used_by_animate(studio, flags, model, tmp_path):
    assert studio(*flags).code == 0
    video = (*VIDEO, "--model", model)
    adapter = tmp_path / "run" / "adapter.safetensors"
    done = studio(*video, "--adapter", f"{adapter}:0.5", "--output", tmp_path / "a.mp4")
    assert done.code == 0, done.err
    whole = adapter.read_bytes()
    adapter.write_bytes(whole[: len(whole) // 2])
    cut = studio(*video, "--adapter", adapter, "--output", tmp_path / "b.mp4")
    assert cut.code == 2 and "--adapter" in cut.err and "Traceback" not in cut.err


def test_an_adapter_of_another_model_is_refused(studio, flags, tmp_path):
    assert studio(*flags).code == 0
    adapter = tmp_path / "run" / "adapter.safetensors"
    done = studio(*VIDEO, "--adapter", adapter, "--output", tmp_path / "b.mp4")
    assert done.code == 2
    assert "was trained on a model with the hash" in done.err
    assert not (tmp_path / "b.mp4").exists()


def refused(done, *words):
    assert done.code == 2, done.err
    assert "Traceback" not in done.err
    for word in words:
        assert word in done.err, done.err


def test_what_is_wrong_is_named_with_its_fix(studio, flags, pictures, tmp_path):
    refused(studio("train"), "--train-data-dir", "--recipe")
    refused(studio(*flags, "--method", "sarra"), "method sarra: no such method", "sara")
    refused(studio(*flags, "--set", "method_options.fracton=0.1"), "fracton", "fraction")
    refused(studio(*flags, "--set", "max_train_step=3"), "max_train_step", "max_train_steps")
    refused(studio(*flags, "--scope", "attnetion"), "attnetion", "attention")
    refused(studio(*flags, "--recipe", "mini-clip"), "--recipe", "give one of the two")
    (tmp_path / "empty").mkdir()
    refused(studio(*flags, "--train-data-dir", tmp_path / "empty"), "has no pictures")
    refused(studio(*flags, "--train-data-dir", tmp_path / "nowhere"), "no such folder")
    (tmp_path / "bad.toml").write_text("model = = 3")
    refused(studio("train", tmp_path / "bad.toml"), "cannot be read as TOML")
    assert not (tmp_path / "run").exists()


def test_one_corrupt_picture_is_named_and_the_others_are_trained(studio, flags, pictures):
    (pictures / "broken.png").write_bytes((pictures / "0.png").read_bytes()[:40])
    done = studio(*flags)
    assert done.code == 0
    assert "left out" in done.err and "broken.png" in done.err


def test_the_folder_of_another_run_is_refused(studio, flags):
    assert studio(*flags).code == 0
    refused(studio(*flags), "holds a run already", "studio resume")


def test_methods_lists_them_all_with_their_options(studio):
    from training.methods import METHODS

    done = studio("methods", "--json")
    rows = {row["name"]: row for row in done.result["methods"]}
    assert rows.keys() == set(METHODS)
    assert rows["sara"]["options"]["fraction"]["default"] == 0.02
    assert all(row["about"] and row["paper"] for row in rows.values())
