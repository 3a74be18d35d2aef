"""`studio train`, `studio resume` and `studio recipes`."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

SMALL = ("--set", "batch_size=2", "--set", "warmup_steps=0", "--set", "precision=fp32", "--device", "cpu")


def test_recipes_lists_every_recipe_with_its_settings(studio):
    ran = studio("recipes", "--json")
    assert ran.code == 0
    rows = {row["name"]: row for row in ran.result["recipes"]}
    assert {"mini-animator", "mini-clip", "mini-codec", "mini-pose"} <= rows.keys()
    assert rows["mini-animator"]["needs"] == ["vae", "text_encoder", "image_encoder"]
    assert rows["mini-animator"]["settings"]["epi"]["probability"] == 0.5
    assert rows["mini-codec"]["settings"]["steps"] > 100
    assert "mini-codec" in studio("recipes").out


def test_a_run_stops_at_its_time_limit_and_resume_ends_it(studio, tmp_path):
    run = tmp_path / "run"
    ran = studio(
        "train",
        "--recipe",
        "mini-clip",
        "--set",
        "steps=2",
        *SMALL,
        "--output-dir",
        run,
        "--time-limit",
        "0.001",
        "--json",
    )
    assert ran.code == 0, ran.err
    assert (ran.result["steps"], ran.result["complete"]) == (1, False)
    assert "time limit" in ran.result["reason"] and ran.result["weights"] is None
    assert f"studio resume {run}" in ran.err
    again = studio("train", "--recipe", "mini-clip", *SMALL, "--output-dir", run)
    assert again.code == 2 and f"resume it with `studio resume {run}`" in again.err
    ran = studio("resume", run, "--device", "cpu", "--export-to", tmp_path / "family", "--json")
    assert ran.code == 0, ran.err
    assert (ran.result["steps"], ran.result["complete"]) == (2, True)
    # what is minimised, not the sum of all that is shown
    assert ran.result["loss"] == ran.result["losses"]["loss"] and "top1" in ran.result["losses"]
    assert ran.result["metrics"].keys() == {"retrieval_top1", "retrieval_top5"}
    for folder in (run / "mini", tmp_path / "family"):
        assert (folder / "text_encoder").is_dir() and (folder / "image_encoder").is_dir()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--recipe", "mini-codek"), "did you mean 'mini-codec'?"),
        (("--recipe", "mini-codec", "--set", "step=3"), "no setting 'step': did you mean 'steps'?"),
        (("--recipe", "mini-codec", "--set", "steps"), "--set steps: must be NAME=VALUE"),
        (("--recipe", "mini-codec", "--set", "steps=many"), "steps = 'many'"),
        (("--recipe", "mini-codec", "--set", "num_frames=4"), "num_frames = 4: Value error, must be 4k + 1"),
        (("--recipe", "mini-codec", "--time-limit", "0"), "time-limit"),
        ((), "--recipe"),
    ],
)
def test_a_wrong_request_is_one_message_and_leaves_no_folder(words, message, studio, tmp_path):
    ran = studio("train", *words, "--output-dir", tmp_path / "run")
    assert ran.code == 2
    assert message in ran.err and "Traceback" not in ran.err
    assert not (tmp_path / "run").exists()


def test_what_is_no_run_cannot_be_resumed(studio, tmp_path):
    ran = studio("resume", tmp_path / "nowhere")
    assert ran.code == 2 and "no such folder" in ran.err
    ran = studio("resume", tmp_path)
    assert ran.code == 2 and "has no config.toml" in ran.err


@pytest.mark.slow
def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path):
    run = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-m", "studio", "train", "--recipe", "mini-clip", "--set", "steps=100000", *SMALL,
         "--output-dir", str(run), "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        log = run / "events.jsonl"
        end = time.monotonic() + 200
        while not (log.exists() and log.read_text().count('"step"') >= 2) and time.monotonic() < end:
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert "Traceback" not in err and f"go on with `studio resume {run}`" in err
    assert json.loads(out.splitlines()[-1]) == {"error": "interrupted", "exit_code": 130}
    step = json.loads(log.read_text().splitlines()[-1])["step"]
    assert f"interrupted at step {step}" in err
    assert (run / "latest").read_text() == f"checkpoint-{step}"


def test_ctrl_c_before_the_first_step_ends_at_once(tmp_path):
    from studio.cli.verbs.train import _stopped_by_ctrl_c

    with pytest.raises(KeyboardInterrupt, match="nothing is lost"), _stopped_by_ctrl_c(tmp_path, lambda: 0):
        os.kill(os.getpid(), signal.SIGINT)
    assert not (tmp_path / "stop").exists()
    with _stopped_by_ctrl_c(tmp_path, lambda: 1) as pressed:
        os.kill(os.getpid(), signal.SIGINT)
    assert pressed and (tmp_path / "stop").exists()


def test_values_are_numbers_truths_tables_or_text():
    from studio.cli.verbs.train import read_settings

    words = (
        "steps=3",
        "learning_rate=1e-3",
        "augment=false",
        "epi={probability = 0.5}",
        'init={"a": [1, 2]}',
        "precision=fp32",
    )
    assert read_settings(words) == {
        "steps": 3, "learning_rate": 1e-3, "augment": False, "epi": {"probability": 0.5}, "init": {"a": [1, 2]},
        "precision": "fp32",
    }  # fmt: skip
