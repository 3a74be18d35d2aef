"""`studio evaluate quality`, as a user types it."""

import json

import pytest
from PIL import Image


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    from models.presets import tiny_pipeline
    from studio.__main__ import main

    place = tmp_path_factory.mktemp("scored")
    tiny_pipeline().save_pretrained(place / "tiny")
    for name, channel in (("red things", 0), ("blue things", 2)):
        (place / "data" / name).mkdir(parents=True)
        for k in range(8):
            colour = [0, 0, 0]
            colour[channel] = 60 + 20 * k
            Image.new("RGB", (32, 32), tuple(colour)).save(place / "data" / name / f"{k}.png")
    (place / "run.toml").write_text(
        f"model = {json.dumps(str(place / 'tiny'))}\nmethod = 'norms'\nresolution = 32\nmax_train_steps = 1\n"
        "train_batch_size = 2\n[[data]]\nfolder = 'data'\n"
    )
    assert main(["train", str(place / "run.toml"), "--output-dir", str(place / "run"), "--device", "cpu"]) == 0
    return place / "run"


def test_scores_in_several_spaces_say_their_space_their_number_and_their_floor(studio, run):
    done = studio(
        "evaluate", "quality", run, "--features", "pixels", "--features", "mini-clip", "--samples", 8,
        "--num-inference-steps", 1, "--device", "cpu", "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    rows = done.result["metrics"]
    assert rows == json.loads((run / "scores.json").read_text())
    found = {row["label"]: row for row in rows}
    for space in ("pixels", "mini-clip"):
        kd, coverage = found[f"kd({space}, N=8)"], found[f"coverage({space}, N=8, k=3)"]
        assert (kd["name"], kd["features"], kd["samples"], kd["better"]) == ("kd", space, 8, "less")
        assert kd["floor"] < kd["value"] and kd["floor_samples"] == 8 and kd["error"] > 0
        assert coverage["floor"] > 0.4 and coverage["better"] == "more"
    # what `studio compare` and the docs read
    assert {"kd", "identity", "retrieval", "nearest", "drift"} <= {row["name"] for row in rows}
    assert "caption-retrieval(mini-clip, N=8)" in found and "caption-retrieval(pixels, N=8)" not in found
    fd = next(one for one in done.result["refused"] if one["features"] == "pixels")
    assert fd["name"] == "fd" and "of 768 dimensions needs 1537 pictures a side" in fd["reason"]
    assert [space["name"] for space in done.result["spaces"]] == ["pixels", "mini-clip"]
    assert "seen pictures like those" in done.result["spaces"][1]["about"]
    assert Image.open(run / "scores.png").size[0] > 200


def test_the_lines_show_floors_and_what_was_refused_once(studio, run):
    done = studio("evaluate", "quality", run, "--features", "pixels", "--samples", 6, "--num-inference-steps", 1)
    assert done.code == 0, done.err
    line = next(line for line in done.out.splitlines() if line.startswith("kd(pixels, N=6)"))
    assert "±" in line and "floor" in line and line.endswith("less is better")
    told = [line for line in done.out.splitlines() if line.startswith("no ")]
    assert any(line.startswith("no precision, recall, density, coverage in pixels: ") for line in told)


@pytest.mark.parametrize(
    ("features", "told"),
    [
        ("inception", "known are efficientnet-lite0, mini-clip"),
        ("open_clip:ViT-B-32", "must be written open_clip:MODEL@PATH"),
        ("torchvision:resnet18@nowhere.pt", "there is no file nowhere.pt"),
    ],
)
def test_a_wrong_space_is_told_before_anything_is_generated(studio, run, features, told):
    done = studio("evaluate", "quality", run, "--features", "pixels", "--features", features)
    assert done.code == 2 and told in done.err and "Traceback" not in done.err and "generating" not in done.err


def test_a_table_shows_the_first_space_of_a_run_that_was_scored_in_two(run, tmp_path):
    from shutil import copytree

    from studio.comparison import Comparison, Variant

    copytree(run, tmp_path / "norms")
    (tmp_path / "norms" / "result.json").write_text("{}")
    (tmp_path / "norms" / "scores.json").write_text(
        json.dumps([{"name": "kd", "value": 1.0}, {"name": "kd", "value": 2.0}, {"name": "drift", "value": 3.0}])
    )
    (tmp_path / "norms" / "scored_by.json").write_text("[]")
    comparison = Comparison({}, tmp_path, device="cpu", score=(), on_progress=lambda name, share: None)
    assert comparison.scored(Variant(method="norms", share=None, rate=None)).scores == {"kd": 1.0, "drift": 3.0}
