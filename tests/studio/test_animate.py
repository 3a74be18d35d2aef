"""`studio animate`, `studio background` and `from studio import animate` with the tiny pipeline."""

import hashlib
import inspect
import json

import numpy as np
import pytest
import torch
from PIL import Image


def frames_of(path):
    import av

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        rate = float(stream.average_rate)
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]), rate


def test_animate_writes_a_video_a_sidecar_and_a_contact_sheet(studio, picture, tiny_model, tmp_path):
    output = tmp_path / "made" / "out.mp4"
    ran = studio("animate", "--reference", picture, "--driving", "wave", "--model", tiny_model, "--num-frames", 5,
                 "--prompt", "a red figure waves", "--seed", 3, "--preview", "--output", output, "--json")  # fmt: skip
    assert ran.code == 0, ran.err
    frames, fps = frames_of(output)
    assert frames.shape == (5, 48, 32, 3)
    assert fps == 12.0
    result = ran.result
    assert {"output", "frames", "height", "width", "fps", "seconds", "peak_memory_bytes", "seed", "model"} <= set(
        result
    )
    assert (result["frames"], result["height"], result["width"], result["seed"]) == (5, 48, 32, 3)
    sidecar = json.loads(output.with_suffix(".json").read_text())
    assert sidecar["request"]["prompt"] == "a red figure waves"
    assert sidecar["inputs"]["reference"]["sha256"] == hashlib.sha256(picture.read_bytes()).hexdigest()
    assert sidecar["output"]["sha256"] == hashlib.sha256(output.read_bytes()).hexdigest()
    assert any("transformer" in name for name in sidecar["weights"])
    assert sidecar["software"]["torch"]
    assert output.with_suffix(".png").is_file()
    assert sorted(path.name for path in output.parent.iterdir()) == ["out.json", "out.mp4", "out.png"]


def test_the_video_says_that_it_is_generated_and_by_what(studio, picture, tiny_model, tmp_path):
    from studio.video import read_metadata

    output = tmp_path / "out.mp4"
    assert studio("animate", "--reference", picture, "--driving", "wave", "--model", tiny_model, "--num-frames", 5,
                  "--output", output).code == 0  # fmt: skip
    metadata = read_metadata(output)
    assert metadata["ai_generated"] is True
    assert metadata["software"].startswith("animatex-studio")


def test_the_same_seed_gives_the_same_video_and_another_another(picture, tiny_model):
    from studio import animate

    def make(seed):
        return animate(picture, "wave", model=str(tiny_model), num_frames=5, seed=seed).frames

    assert (make(1) == make(1)).all()
    assert (make(1) != make(2)).any()


def test_another_motion_gives_another_video(picture, tiny_model):
    from studio import animate

    def make(motion):
        return animate(picture, motion, model=str(tiny_model), num_frames=5).frames

    assert (make("wave") != make("squat")).any()


def test_keypoints_play_at_their_own_speed(studio, picture, keypoints, tiny_model, tmp_path):
    output = tmp_path / "out.mp4"
    ran = studio("animate", "--reference", picture, "--driving", keypoints, "--model", tiny_model, "--output", output)
    assert ran.code == 0, ran.err
    frames, fps = frames_of(output)
    assert (len(frames), fps) == (6, 6.0)  # one second at 6 fps, which is below the model's 12


def test_another_frame_rate_keeps_the_duration(studio, picture, keypoints, tiny_model, tmp_path):
    output = tmp_path / "out.mp4"
    ran = studio("animate", "--reference", picture, "--driving", keypoints, "--model", tiny_model, "--fps", 12,
                 "--output", output)  # fmt: skip
    assert ran.code == 0, ran.err
    frames, fps = frames_of(output)
    assert (len(frames), fps) == (12, 12.0)


def test_a_reference_without_a_skeleton_is_fitted_by_its_figure_and_says_so(studio, tiny_model, tmp_path):
    picture = tmp_path / "plain.png"
    Image.new("RGB", (48, 64), (90, 120, 160)).save(picture)
    ran = studio("animate", "--reference", picture, "--driving", "wave", "--model", tiny_model, "--num-frames", 5,
                 "--output", tmp_path / "out.mp4")  # fmt: skip
    assert ran.code == 0
    assert "fitted to the figure" in ran.err


def test_keypoints_of_the_reference_are_used_instead_of_detecting(studio, picture, keypoints, tiny_model, tmp_path):
    ran = studio("animate", "--reference", picture, "--driving", "wave", "--reference-pose", keypoints,
                 "--model", tiny_model, "--num-frames", 5, "--output", tmp_path / "out.mp4")  # fmt: skip
    assert ran.code == 0, ran.err
    assert "fitted to the figure" not in ran.err


def test_alignment_puts_the_motion_on_the_body_and_none_leaves_it(picture, keypoints, tiny_model):
    from studio import animate

    aligned = animate(picture, "wave", model=str(tiny_model), num_frames=5)
    as_it_is = animate(picture, "wave", model=str(tiny_model), num_frames=5, align="none")
    assert aligned.poses is not None and as_it_is.poses is not None
    assert aligned.poses.frame_size == as_it_is.poses.frame_size == (32, 48)
    assert not (aligned.poses.xy - as_it_is.poses.xy).abs().max() < 0.5


def test_an_adjustment_by_hand_moves_the_skeleton_and_stands_in_the_sidecar(studio, picture, tiny_model, tmp_path):
    from studio import animate

    def poses(adjust):
        return animate(picture, "wave", model=str(tiny_model), num_frames=5, adjust=adjust).poses.xy

    torch.testing.assert_close(poses({"shift_x": 0.25}) - poses({}), torch.tensor([8.0, 0.0]).expand(5, 18, 2))
    output = tmp_path / "out.mp4"
    ran = studio("animate", "--reference", picture, "--driving", "wave", "--model", tiny_model, "--num-frames", 5,
                 "--adjust", "arms=1.2,shins=0.8", "--adjust", "shift_x=0.25", "--output", output)  # fmt: skip
    assert ran.code == 0, ran.err
    adjust = json.loads(output.with_suffix(".json").read_text())["request"]["adjust"]
    assert (adjust["arms"], adjust["shins"], adjust["shift_x"], adjust["torso"]) == (1.2, 0.8, 0.25, 1.0)


def test_an_indicator_that_sees_nothing_is_left_out_with_a_note(picture, tiny_model, monkeypatch):
    from models.pipeline import AnimateXPipeline
    from studio import animate

    monkeypatch.setattr(AnimateXPipeline, "sees_driving_frames", property(lambda self: False))
    made = animate(picture, "wave", model=str(tiny_model), num_frames=5, num_inference_steps=1)
    assert len(made.frames) == 5
    assert any("no" in note and "ipi_image_encoder" in note for note in made.notes)


def test_what_would_look_bad_is_told(studio, picture, tiny_model, tmp_path):
    output = tmp_path / "out.mp4"
    ran = studio("animate", "--reference", picture, "--driving", "wave", "--model", tiny_model, "--num-frames", 5,
                 "--adjust", "shift_x=0.9", "--output", output)  # fmt: skip
    assert ran.code == 0, ran.err
    assert "note: the motion leaves the picture in 5 of 5 frames" in ran.err
    assert any("leaves the picture" in note for note in json.loads(output.with_suffix(".json").read_text())["notes"])


@pytest.mark.parametrize(
    ("text", "message"),
    [("arms=3", "adjust.arms 3.0: must be less"), ("armz=1", "did you mean 'arms'"), ("arms", "must be NAME=NUMBER")],
)
def test_an_adjustment_that_cannot_be_is_refused(studio, picture, text, message):
    ran = studio("animate", "--reference", picture, "--driving", "wave", "--adjust", text)
    assert ran.code == 2
    assert message in ran.err


def test_a_prompt_longer_than_the_model_reads_is_cut_and_says_so(studio, picture, tiny_model, tmp_path):
    ran = studio("animate", "--reference", picture, "--driving", "wave", "--model", tiny_model, "--num-frames", 5,
                 "--prompt", "walk " * 100, "--output", tmp_path / "out.mp4")  # fmt: skip
    assert ran.code == 0
    assert "--prompt is longer than this model reads" in ran.err


def test_background_needs_no_pose_and_takes_any_length(studio, picture, tiny_model, tmp_path):
    output = tmp_path / "out.mp4"
    ran = studio("background", "--image", picture, "--prompt", "snow falls", "--model", tiny_model, "--num-frames", 6,
                 "--output", output, "--preview", "--json")  # fmt: skip
    assert ran.code == 0, ran.err
    assert frames_of(output)[0].shape == (6, 48, 32, 3)
    assert ran.result["frames"] == 6


@pytest.mark.parametrize("scheduler", ["euler", "unipc"])
def test_both_samplers_work(scheduler, picture, tiny_model):
    from studio import animate

    frames = animate(picture, "wave", model=str(tiny_model), num_frames=5, scheduler=scheduler).frames
    assert frames.shape == (5, 48, 32, 3)


def test_a_clip_longer_than_the_model_is_made_in_windows(picture, tiny_model):
    from studio import animate

    assert len(animate(picture, "walk", model=str(tiny_model), num_frames=30, num_inference_steps=1).frames) == 30


def test_an_open_pipeline_is_used_as_it_is(picture, tiny_model):
    from studio import AnimateXPipeline, animate

    pipeline = AnimateXPipeline.from_pretrained(tiny_model)
    pipeline.set_progress_bar_config(disable=True)
    animation = animate(picture, "wave", pipeline=pipeline, num_frames=5)
    assert animation.frames.shape == (5, 48, 32, 3)


def test_a_saved_animation_is_what_was_made(picture, tiny_model, tmp_path):
    from studio import animate

    animation = animate(picture, "wave", model=str(tiny_model), num_frames=5)
    animation.save(tmp_path / "out.mp4")
    frames, _ = frames_of(tmp_path / "out.mp4")
    luma = np.array([0.2126, 0.7152, 0.0722])  # H.264 halves the colours, so only brightness can be compared
    assert np.abs(frames @ luma - animation.frames.numpy() @ luma).mean() < 4


@pytest.mark.parametrize(("door", "kind"), [("animate", "AnimateRequest"), ("background", "BackgroundRequest")])
def test_python_offers_the_options_and_defaults_of_the_command(door, kind):
    from studio import api, requests

    fields = getattr(requests, kind).model_fields
    options = inspect.signature(getattr(api, door)).parameters
    assert set(fields) == set(options) - {"pipeline", "on_progress", "on_note"}
    for name, field in fields.items():
        default = inspect.Parameter.empty if field.is_required() else field.default
        assert options[name].default == default, name


def test_an_unknown_option_value_is_a_value_error_that_names_it(picture):
    from studio import animate

    with pytest.raises(ValueError, match="height 100: must be a multiple of 16"):
        animate(picture, "wave", height=100)


def test_importing_studio_does_not_import_torch():
    import subprocess
    import sys

    subprocess.run(
        [sys.executable, "-c", "import studio, sys; assert 'torch' not in sys.modules; dir(studio)"], check=True
    )


def test_real_characters_dance_at_the_speed_of_the_clip(studio, shared_data, tiny_model, tmp_path):
    clip = shared_data / "driving" / "dance_1.keypoints.json"
    content = json.loads(clip.read_text())
    for character in sorted((shared_data / "characters").iterdir())[:2]:
        output = tmp_path / f"{character.stem}.mp4"
        ran = studio("animate", "--reference", character, "--driving", clip, "--model", tiny_model,
                     "--num-inference-steps", 1, "--output", output)  # fmt: skip
        assert ran.code == 0, ran.err
        frames, fps = frames_of(output)
        assert len(frames) / fps == pytest.approx(len(content["frames"]) / content["fps"], abs=0.1)
        assert frames.shape[1] > frames.shape[2] >= 32
