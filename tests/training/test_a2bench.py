"""The benchmark, on a pipeline of random weights: its truths, its baselines, its table."""

import pytest
import torch


@pytest.fixture(scope="module")
def judge(tiny):
    from pose.detect import load_detector
    from training.metrics.judge import Judge
    from training.recipes.run import mini_folder

    detector = load_detector("mini", weights=mini_folder() / "pose" / "model.onnx")
    return Judge(image=tiny.image_encoder, text=tiny.text_encoder, detector=detector)


def test_setting_b_drives_with_the_characters_own_skeleton():
    from training.metrics.a2bench import make_suite

    suite = make_suite("b", 2, size=(64, 64), num_frames=5)
    assert torch.equal(suite.driving[1].xy, suite.clips.poses(1).xy)


def test_setting_a_drives_with_a_humans_skeleton_aligned_to_the_character():
    from training.metrics.a2bench import make_suite

    suite = make_suite("a", 2, size=(64, 64), num_frames=5)
    own, driving = suite.clips.poses(0), suite.driving[0]
    assert driving.frame_size == own.frame_size
    assert not torch.allclose(driving.xy, own.xy, atol=0.5)


def test_backgrounds_are_still_where_the_character_is_judged_and_move_in_setting_t():
    from training.metrics.a2bench import make_suite

    assert {s.scene.dynamic for s in make_suite("b", 6, size=(32, 32), num_frames=5).clips.specs} == {"still"}
    assert "still" not in {s.scene.dynamic for s in make_suite("t", 6, size=(32, 32), num_frames=5).clips.specs}


def test_the_truth_itself_is_a_perfect_result(judge):
    from training.metrics.a2bench import evaluate, make_suite

    suite = make_suite("b", 3, size=(32, 32), num_frames=5)
    row, video = evaluate(suite, "truth", lambda s, part: s.clips.video[part], judge, batch=2)
    assert row.metrics["psnr"] == pytest.approx(100)
    assert row.metrics["fd_mini"] == pytest.approx(0, abs=1e-6)
    assert torch.equal(video, suite.clips.video)


def test_every_setting_has_its_baselines_and_finite_measures(tiny, judge):
    from training.metrics.a2bench import rows

    found = [row for row, _, _ in rows(tiny, judge, ("a", "b", "t"), 2, steps=1, guidance=1.0)]
    methods = {s: [r.method for r in found if r.setting == s] for s in "abt"}
    assert methods["b"] == [
        "reference repeated", "truth through the codec", "no pose", "no explicit pose (EPI)", "no implicit pose (IPI)",
        "animator",
    ]  # fmt: skip
    assert methods["a"] == ["reference repeated", "no pose", "animator"]
    assert methods["t"] == ["reference repeated", "no text", "animator"]
    for row in found:
        assert all(torch.isfinite(torch.tensor(v)) for v in row.metrics.values()), row
    psnr = {r.method: r.metrics["psnr"] for r in found if r.setting == "b"}
    assert len(set(psnr.values())) == len(psnr), "two methods made the same video"


def test_a_batch_gives_what_single_clips_give(tiny, judge):
    from training.metrics.a2bench import animated, make_suite

    suite = make_suite("b", 2, size=(32, 32), num_frames=9)
    make = animated(tiny, steps=1, guidance=1.0)
    both = make(suite, slice(0, 2))
    assert torch.allclose(both[1:], make(suite, slice(1, 2)), atol=0.02)
