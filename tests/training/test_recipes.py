"""The recipes: their settings, their run folders, and a whole run of each at the smallest size."""

import json
import tomllib
from pathlib import Path

import pytest
import torch

from training.checkpoint import CheckpointError, latest_checkpoint
from training.events import Finished, Step
from training.recipes.run import load_recipes, make_recipe, read_run, run_recipe, settings_of
from training.toml import dump_toml

NAMES = ("mini-animator", "mini-clip", "mini-codec", "mini-pose")
SMALL = {"steps": 1, "warmup_steps": 0, "precision": "fp32"}


def test_there_are_the_four_recipes_of_the_mini_family():
    from training.recipes import RECIPES

    load_recipes()
    assert set(NAMES) <= set(RECIPES)
    assert all(RECIPES[name].about for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_says_what_it_is(name):
    assert all(field.description for field in type(make_recipe(name, {})).model_fields.values())


def test_an_unknown_recipe_or_setting_is_refused_with_a_suggestion():
    with pytest.raises(ValueError, match=r"did you mean 'mini-codec'\?"):
        make_recipe("mini-codek", {})
    with pytest.raises(ValueError, match=r"mini-codec has no setting 'learning_rat': did you mean 'learning_rate'\?"):
        make_recipe("mini-codec", {"learning_rat": 1})
    with pytest.raises(ValueError, match=r"mini-animator: epi\.probabilty = 0\.5"):
        make_recipe("mini-animator", {"epi": {"probabilty": 0.5}})


@pytest.mark.parametrize(
    ("name", "setting", "value", "message"),
    [
        ("mini-codec", "steps", 0, "greater than or equal to 1"),
        ("mini-codec", "learning_rate", -1.0, "greater than 0"),
        ("mini-codec", "crop", 256, "less than or equal to 128"),
        ("mini-codec", "num_frames", 4, r"must be 4k \+ 1 .*such as 5"),
        ("mini-codec", "precision", "fp8", "'bf16' or 'fp32'"),
        ("mini-pose", "batch_size", 3, "multiple of 2"),
        ("mini-animator", "num_frames", 16, r"must be 4k \+ 1 .*such as 17"),
        ("mini-animator", "short_frames", 8, r"must be 4k \+ 1"),
        ("mini-animator", "background_weight", 1.0, "less than 1"),
        ("mini-animator", "background_trainable", "(", "is not a regular expression"),
    ],
)
def test_a_value_out_of_range_is_refused_with_its_name_and_the_bound(name, setting, value, message):
    with pytest.raises(ValueError, match=f"{name}: {setting} = .*{message}"):
        make_recipe(name, {setting: value})


def test_a_recipe_that_needs_a_part_says_which_is_not_there(tmp_path):
    with pytest.raises(
        ValueError, match=r"mini-animator needs the trained vae, which is not in .*run its recipe first"
    ):
        list(run_recipe("mini-animator", tmp_path / "run", mini=tmp_path))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", NAMES)
def test_the_settings_come_back_from_the_run_folder(name, tmp_path):
    recipe = make_recipe(name, {"steps": 12, "learning_rate": 1e-5})
    (tmp_path / "config.toml").write_text(dump_toml(settings_of(name, recipe)))
    tomllib.loads((tmp_path / "config.toml").read_text())
    found, settings = read_run(tmp_path)
    assert found == name
    assert make_recipe(found, settings) == recipe


@pytest.mark.parametrize("name", NAMES)
def test_the_fingerprint_is_the_same_after_a_trip_through_json(name):
    values = make_recipe(name, {}).model_dump(mode="json")
    assert json.loads(json.dumps(values)) == values


def test_a_folder_without_a_run_cannot_be_read(tmp_path):
    with pytest.raises(CheckpointError, match=r"not a run folder: it has no config\.toml"):
        read_run(tmp_path)


@pytest.fixture
def short_measures(monkeypatch):
    """One clip where a recipe measures dozens."""
    import training.recipes.animator as animator
    import training.recipes.codec as codec

    monkeypatch.setattr(codec, "EVALUATED_CLIPS", 1)
    monkeypatch.setattr(codec, "MEASURED_CLIPS", 2)
    monkeypatch.setattr(animator, "EVALUATED_CLIPS", 2)


CODEC = {**SMALL, "steps": 3, "batch_size": 1, "crop": 32, "image_share": 0.5, "image_factor": 1}


def run(name, folder, settings, **more):
    return list(run_recipe(name, folder, settings, device="cpu", **more))


def test_a_run_is_stopped_by_a_file_resumed_and_exported(short_measures, tmp_path):
    folder = tmp_path / "run"
    events = []
    for event in run_recipe("mini-codec", folder, CODEC, device="cpu"):
        events.append(event)
        if isinstance(event, Step):
            (folder / "stop").touch()
    assert (events[-1].step, events[-1].complete) == (1, False) and "stop was there" in events[-1].reason
    assert not (folder / "mini").exists()
    with pytest.raises(CheckpointError, match="holds a run already; resume it with `studio resume"):
        run("mini-codec", folder, CODEC)
    with pytest.raises(CheckpointError, match=r"learning_rate = 0\.005, now it is 0\.1"):
        run("mini-codec", folder, {**CODEC, "learning_rate": 0.1}, resume=True)
    name, settings = read_run(folder)  # the refused settings have not replaced those of the run
    rest = run(name, folder, settings, resume=True, export_to=tmp_path / "family")
    assert isinstance(rest[-1], Finished) and rest[-1].complete and rest[-1].metrics["psnr_db"] > 0
    lines = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["event"] == "step"] == [1, 2, 3]
    assert [line["complete"] for line in lines if line["event"] == "finished"] == [False, True]
    from diffusers import AutoencoderKLWan

    vae = AutoencoderKLWan.from_pretrained(tmp_path / "family" / "vae")
    assert len(vae.config["latents_mean"]) == 16 and min(vae.config["latents_std"]) > 0
    checkpoint = latest_checkpoint(folder)
    assert checkpoint is not None and checkpoint.name == "checkpoint-3"


def test_a_time_limit_stops_a_run_with_a_checkpoint(short_measures, tmp_path):
    events = run("mini-codec", tmp_path, {**CODEC, "steps": 50}, time_limit_s=1e-3)
    assert events[-1].reason == "the time limit of 0.001 s was reached"
    assert latest_checkpoint(tmp_path) is not None


def test_a_start_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"start_from nowhere: no such folder; name the mini folder"):
        run("mini-codec", tmp_path / "run", {**CODEC, "start_from": "nowhere"})
    assert not (tmp_path / "run").exists()


def test_clip_exports_two_towers_that_load(tmp_path):
    from models.clip import OpenCLIPTextEncoder, OpenCLIPVisionEncoder

    events = run("mini-clip", tmp_path, {**SMALL, "batch_size": 2})
    assert events[-1].metrics.keys() == {"retrieval_top1", "retrieval_top5"}
    text = OpenCLIPTextEncoder.from_pretrained(tmp_path / "mini" / "text_encoder", torch_dtype=torch.float32)
    vision = OpenCLIPVisionEncoder.from_pretrained(tmp_path / "mini" / "image_encoder", torch_dtype=torch.float32)
    assert text.encode(["a red blob"]).isfinite().all()
    assert vision(torch.zeros(1, 3, 128, 128)).pooled.shape == (1, 128)

    from training.recipes.run import make_recipe, mini_folder

    on = make_recipe("mini-clip", {"start_from": str(tmp_path / "mini")}).build(mini_folder())
    again = OpenCLIPVisionEncoder.from_pretrained(tmp_path / "mini" / "image_encoder", torch_dtype=torch.float32)
    torch.testing.assert_close(dict(on.model.visual.state_dict()), dict(again.tower.state_dict()))


def test_degraded_pictures_stay_near_their_own_and_follow_the_generator():
    from training.recipes.clip import degrade

    pixels = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    worse = degrade(pixels, 0.5, torch.Generator().manual_seed(1))
    assert torch.equal(worse, degrade(pixels, 0.5, torch.Generator().manual_seed(1)))
    changed = (worse != pixels).flatten(1).any(1)
    assert 0 < changed.sum() < 6
    assert worse.abs().max() <= 1
    assert torch.equal(degrade(pixels, 0.0, torch.Generator().manual_seed(1)), pixels)


def test_a_busy_crop_prefers_what_moves():
    from training.recipes.codec import _busy_crop

    clip = torch.zeros(3, 5, 64, 64)
    clip[:, ::2, 32:, 32:] = 1  # one quarter blinks
    generator = torch.Generator().manual_seed(0)
    shares = [_busy_crop(clip, 16, generator).diff(dim=1).abs().mean().item() for _ in range(40)]
    assert sum(shares) / 40 > 0.4  # a quarter of it moves: at random it would be 0.25


@pytest.mark.slow
def test_pose_exports_a_detector_that_onnxruntime_runs(tmp_path):
    import numpy as np
    import onnxruntime

    events = run("mini-pose", tmp_path, {**SMALL, "batch_size": 2})
    assert events[-1].metrics.keys() == {"pck_0.1", "seen", "invented", "somebody_in_empty_pictures"}
    model = onnxruntime.InferenceSession(str(tmp_path / "mini" / "pose" / "model.onnx"))
    for count in (1, 3):
        (heat,) = model.run(None, {"pixels": np.zeros((count, 3, 128, 128), np.float32)})
        assert heat.shape == (count, 18, 32, 32) and heat.min() >= 0 and heat.max() <= 1
    assert b"training/recipes" not in (tmp_path / "mini" / "pose" / "model.onnx").read_bytes()  # no paths of ours


def mini_folder(folder: Path) -> Path:
    from models.presets import mini_pipeline

    pipeline = mini_pipeline()
    for part in ("vae", "text_encoder", "image_encoder"):
        getattr(pipeline, part).save_pretrained(folder / part)
    return folder


@pytest.mark.slow
def test_the_animator_stops_resumes_and_exports_a_pipeline_that_animates(short_measures, tmp_path):
    from models.pipeline import AnimateXPipeline
    from pose.motions import make_motion

    mini = mini_folder(tmp_path / "family")
    settings = {
        **SMALL, "steps": 2, "batch_size": 1, "num_frames": 5, "short_frames": 1, "short_share": 0.5, "short_factor": 1,
        "shard_clips": 2, "pool_size": 2,
    }  # fmt: skip
    folder = tmp_path / "run"
    events = run("mini-animator", folder, settings, mini=mini, time_limit_s=1e-3)
    assert (events[-1].step, events[-1].complete) == (1, False)
    name, found = read_run(folder)
    events = run(name, folder, found, mini=mini, resume=True)
    assert events[-1].complete
    assert events[-1].metrics.keys() == {"val_animation", "val_without_pose", "val_background"}
    pipeline = AnimateXPipeline.from_pretrained(folder / "mini", torch_dtype=torch.float32)
    video = pipeline(
        reference=torch.full((128, 128, 3), 128, dtype=torch.uint8), poses=make_motion("wave", num_frames=5),
        prompt="a red blob waving", num_frames=5, num_inference_steps=1, output_type="pt",
        generator=torch.Generator().manual_seed(0),
    ).frames  # fmt: skip
    assert torch.as_tensor(video).isfinite().all()


def test_the_command_in_a_card_makes_the_same_settings(tmp_path):
    """Words as a shell would split them, nested settings and all."""
    import shlex

    from studio.cli.verbs.train import read_settings

    recipe = make_recipe(
        "mini-animator", {"learning_rate": 1e-5, "epi": {"probability": 0.25}, "background_trainable": ".*"}
    )
    changed = recipe.model_dump(mode="json", exclude_defaults=True)
    words = shlex.split(" ".join(shlex.quote(f"{key}={json.dumps(value)}") for key, value in changed.items()))
    assert make_recipe("mini-animator", read_settings(tuple(words))) == recipe


def test_exported_configs_do_not_tell_where_they_came_from(tmp_path):
    from training.recipes.run import forget_origins

    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "config.json").write_text('{"_name_or_path": "/home/somebody/mini/vae", "z_dim": 16}')
    forget_origins(tmp_path)
    assert json.loads((tmp_path / "vae" / "config.json").read_text()) == {"z_dim": 16}
