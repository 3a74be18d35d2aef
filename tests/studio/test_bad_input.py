"""What users really send: one clear message, exit 2, no traceback, nothing half-written."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def refused(studio, picture, tiny_model, tmp_path):
    """Runs `animate` with some flags changed; it must refuse, and leave nothing behind."""

    def run(code=2, **changed):
        place = tmp_path / "place"
        place.mkdir(exist_ok=True)
        flags = {"reference": picture, "driving": "wave", "model": tiny_model, "num-frames": 5,
                 "num-inference-steps": 1, "output": place / "out.mp4"} | changed  # fmt: skip
        words = [word for name, value in flags.items() for word in (f"--{name}", value)]
        ran = studio("animate", *words)
        assert ran.code == code, ran.err
        assert "Traceback" not in ran.err + ran.out
        assert ran.err.count("error:") == 1
        assert not list(place.iterdir())
        return ran.err

    return run


def test_a_reference_that_is_no_picture(refused, tmp_path):
    file = tmp_path / "notes.png"
    file.write_text("these are notes")
    message = refused(reference=file)
    assert str(file) in message
    assert "picture" in message


def test_a_reference_that_is_not_there(refused):
    assert "--reference nowhere.png: no such file" in refused(reference="nowhere.png")


def test_a_reference_that_is_a_folder(refused, tmp_path):
    assert "is a folder" in refused(reference=tmp_path)


@pytest.mark.parametrize(("size", "part"), [((1, 1), "1x1"), ((8000, 8000), "8000x8000")])
def test_a_picture_too_small_or_too_large(size, part, refused, tmp_path):
    file = tmp_path / "size.png"
    Image.new("L", size).save(file)
    assert part in refused(reference=file)


def test_a_truncated_video(refused, beep_video, tmp_path):
    file = tmp_path / "cut.mp4"
    whole = beep_video.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    assert str(file) in refused(driving=file)


def test_a_driving_file_that_is_no_video(refused, tmp_path):
    file = tmp_path / "text.mp4"
    file.write_text("no video")
    assert str(file) in refused(driving=file)


def test_a_video_without_frames(refused, tmp_path):
    import av

    file = tmp_path / "empty.mp4"
    with av.open(str(file), "w") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        container.start_encoding()
    refused(driving=file)


def test_a_motion_that_does_not_exist(refused):
    assert "did you mean 'wave'?" in refused(driving="wawe")


def test_a_video_without_a_person(refused, beep_video, needs_detector):
    assert "no person" in refused(driving=beep_video).lower()


def keypoint_file(path: Path, frames: list, **changed: object) -> Path:
    content = {"source": "test", "width": 64, "height": 64, "fps": 12.0,
               "format": "openpose18 (x px, y px, confidence)", "frames": frames} | changed  # fmt: skip
    path.write_text(json.dumps(content))
    return path


def test_keypoints_with_nan(refused, tmp_path):
    file = keypoint_file(tmp_path / "nan.json", [[[float("nan"), 3.0, 1.0]] * 18])
    assert "finite" in refused(driving=file) or "NaN" in refused(driving=file)


def test_keypoints_with_the_wrong_number_of_joints(refused, tmp_path):
    file = keypoint_file(tmp_path / "seventeen.json", [[[3.0, 3.0, 1.0]] * 17])
    assert "17" in refused(driving=file)


def test_keypoints_without_frames(refused, tmp_path):
    file = keypoint_file(tmp_path / "none.json", [])
    assert "frame" in refused(driving=file)


def test_keypoints_without_a_person(refused, tmp_path):
    file = keypoint_file(tmp_path / "nobody.json", [[[-1.0, -1.0, 0.0]] * 18])
    refused(driving=file)


def test_keypoints_that_are_no_json(refused, tmp_path):
    file = tmp_path / "broken.json"
    file.write_text("{")
    assert str(file) in refused(driving=file)


def test_several_people_in_an_openpose_folder(refused, tmp_path):
    folder = tmp_path / "openpose"
    folder.mkdir()
    bodies = [np.stack([x + np.arange(18.0), 2 * np.arange(18.0), np.ones(18)], axis=1) for x in (10.0, 200.0)]
    people = [{"pose_keypoints_2d": body.ravel().tolist()} for body in bodies]
    (folder / "clip_000000000000_keypoints.json").write_text(json.dumps({"version": 1.3, "people": people}))
    assert "--person" in refused(driving=folder)


def test_a_prompt_of_5000_words(refused):
    assert "--prompt has" in refused(prompt="word " * 5000)


def test_an_output_below_a_file(refused, picture):
    assert "--output" in refused(output=picture / "out.mp4")


def test_an_output_that_cannot_be_written(refused):
    assert "cannot write in /proc" in refused(output="/proc/out.mp4")


def test_an_output_that_is_a_folder(refused, tmp_path):
    folder = tmp_path / "clip.mp4"
    folder.mkdir()
    assert "is a folder" in refused(output=folder)


def test_an_output_that_is_no_mp4(refused, tmp_path):
    assert "must end in .mp4" in refused(output=tmp_path / "place" / "out.avi")


@pytest.mark.parametrize(
    "missing",
    ["model_index.json", "transformer", "transformer/config.json", "vae/diffusion_pytorch_model.safetensors",
     "scheduler"],
)  # fmt: skip
def test_a_model_folder_with_a_missing_file(missing, refused, tiny_model, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(tiny_model, broken)
    path = broken / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert f"lacks {missing}" in refused(model=broken)


def test_a_model_file_that_is_cut_off(refused, tiny_model, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(tiny_model, broken)
    file = broken / "transformer" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    assert str(broken) in refused(model=broken)


def test_a_model_that_does_not_exist(refused):
    assert "there is no model" in refused(model="./nothing-here")


def test_a_hub_model_without_a_network(refused, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in refused(model="somebody/some-model-that-is-not-cached")


def test_a_gpu_that_is_not_there(refused):
    assert "--device cuda:99" in refused(device="cuda:99")


def test_an_adapter_that_is_not_there(refused):
    assert "--adapter nothing.safetensors: no such file" in refused(adapter="nothing.safetensors")


def test_an_adapter_with_a_wrong_scale(refused):
    assert "'strong' is not a number" in refused(adapter="a.safetensors:strong")


def test_sound_from_a_motion_that_has_none(studio, picture, tiny_model, tmp_path):
    ran = studio("animate", "--reference", picture, "--driving", "wave", "--model", tiny_model, "--audio",
                 "--output", tmp_path / "out.mp4")  # fmt: skip
    assert ran.code == 2
    assert "has no sound" in ran.err


def test_the_real_process_refuses_in_the_same_way(tmp_path):
    words = ["animate", "--reference", "no.png", "--driving", "wave", "--output", str(tmp_path / "o.mp4"), "--json"]
    done = subprocess.run([sys.executable, "-m", "studio", *words], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "error: --reference no.png: no such file\n"
    assert json.loads(done.stdout) == {"error": "--reference no.png: no such file", "exit_code": 2}
