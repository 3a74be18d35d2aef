"""The guard and what helps at inference, as a user types them."""

import json
import tomllib

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "squares"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for k in range(24):
        rough = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(rough).resize((32, 32)).save(folder / f"{k}.png")
    return folder


@pytest.fixture
def flags(tiny_model, squares, tmp_path):
    return (
        "train", "--pretrained-model-name-or-path", tiny_model, "--train-data-dir", squares, "--max-train-steps", 2,
        "--train-batch-size", 2, "--resolution", 32, "--device", "cpu", "--output-dir", tmp_path / "run", "--json",
    )  # fmt: skip


SMALL = ("--set", "guard.samples=16", "--set", "guard.num_inference_steps=2", "--set", "validation_share=0.9")


def test_the_guard_is_one_flag_and_its_options_are_settings(studio, flags, tmp_path):
    done = studio(*flags, *SMALL, "--guard", "warn")
    assert done.code == 0, done.err
    seen = done.result["guard"]
    assert seen["event"] == "guarded" and seen["step"] == 2 and seen["samples"] == 16
    assert "step 0: copy rate" in done.err and "step 2: copy rate" in done.err
    kept = tomllib.loads((tmp_path / "run" / "config.toml").read_text())["finetune"]["guard"]
    assert (kept["action"], kept["samples"]) == ("warn", 16)
    assert (tmp_path / "run" / "samples" / "guard-step-2.png").is_file()
    resumed = studio("resume", tmp_path / "run", "--device", "cpu", "--json")
    assert resumed.code == 0 and resumed.result["guard"]["copy_rate"] == seen["copy_rate"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--guard", "warn"), "needs 20 held-out pictures, and 0 of 24 are; set validation_share = 0.834"),
        (("--guard", "panic"), "--guard panic: must be 'warn', 'lower-rate' or 'stop'"),
        ((*SMALL, "--set", "guard.limit=0.01"), "limit 0.01 is below the quantile 0.05"),
        ((*SMALL, "--set", "guard.sample=3"), "guard.sample is not an option (did you mean 'samples'?)"),
        ((*SMALL, "--set", "guard.features=clip"), "'clip'"),
        (("--recipe", "mini-clip", "--guard", "warn"), "is for fine-tuning"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_before_anything_is_trained(more, message, studio, flags, tmp_path):
    done = studio(*flags, *more)
    assert done.code == 2 and message in done.err and "Traceback" not in done.err
    assert not (tmp_path / "run" / "events.jsonl").exists()


def video(studio, picture, model, output, *more):
    return studio(
        "animate", "--reference", picture, "--driving", "wave", "--model", model, "--num-frames", 5, "--prompt",
        "a red figure waves", "--guidance-scale", 4, "--num-inference-steps", 4, "--output", output, *more,
    )  # fmt: skip


def test_the_sidecar_of_a_video_says_what_was_done_against_copies(studio, picture, tiny_model, tmp_path):
    words = ("--prompt-noise", 0.2, "--prompt-random-words", 2, "--guidance-start", "auto", "--guidance-before", -1)
    assert video(studio, picture, tiny_model, tmp_path / "a.mp4", *words).code == 0
    assert video(studio, picture, tiny_model, tmp_path / "b.mp4", "--guidance-start", "0.5").code == 0
    assert video(studio, picture, tiny_model, tmp_path / "c.mp4").code == 0
    a, b, c = (json.loads((tmp_path / f"{name}.json").read_text()) for name in "abc")
    names = ("prompt_noise", "prompt_random_words", "guidance_start", "guidance_before")
    assert [a["request"][name] for name in names] == [0.2, 2, "auto", -1]
    assert "guidance_began" in a and b["guidance_began"] == 2 and "guidance_began" not in c
    assert len({side["output"]["sha256"] for side in (a, b, c)}) == 3


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--guidance-start", "soon"), "--guidance-start soon: must be a share of the steps from 0 to 1, or auto"),
        (("--guidance-start", 1.5), "--guidance-start 1.5: must be a share of the steps from 0 to 1, or auto"),
        (("--guidance-before", 2), "--guidance-before 2: must be less than or equal to 1"),
        (("--prompt-noise", -1), "--prompt-noise -1: must be greater than or equal to 0"),
        (("--prompt-random-words", 1.5), "--prompt-random-words 1.5: must be a whole number"),
        (("--guidance-start", 0.5, "--guidance-scale", 1), "there is no guidance at guidance_scale 1"),
    ],
)  # fmt: skip
def test_values_out_of_range_are_told_by_their_flag(more, message, studio, picture, tiny_model, tmp_path):
    done = video(studio, picture, tiny_model, tmp_path / "a.mp4", *more)
    assert done.code == 2 and message in done.err, done.err
    assert not (tmp_path / "a.mp4").exists()
