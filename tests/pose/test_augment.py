import json
import time
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

BONES_BELOW = ((2, 3), (3, 4), (5, 6), (6, 7), (8, 9), (9, 10), (11, 12), (12, 13), (1, 2), (1, 8), (1, 0), (0, 14))


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(7)


@pytest.fixture
def only():
    """A configuration with nothing but what is asked for."""
    from pose.augment import EPIConfig

    def make(**chosen):
        off = dict.fromkeys(
            ("realign_probability", "rescale_probability", "canvas_probability", "drop_probability", "add_probability"),
            0.0,
        )
        return EPIConfig(**{"probability": 1.0, **off, **chosen})

    return make


def directions(pose):
    start, end = zip(*BONES_BELOW, strict=True)
    bones = pose.xy[:, list(end)] - pose.xy[:, list(start)]
    return torch.atan2(bones[..., 1], bones[..., 0])


def lengths(pose):
    start, end = zip(*BONES_BELOW, strict=True)
    return (pose.xy[:, list(end)] - pose.xy[:, list(start)]).norm(dim=-1)


def test_the_same_seed_gives_the_same_clip_and_record(make_pose):
    from pose.augment import EPIConfig, augment_poses

    def run(seed):
        return augment_poses(make_pose(), [make_pose(3)], EPIConfig(), torch.Generator().manual_seed(seed))

    (first, record), (second, again) = run(3), run(3)
    assert torch.equal(first.xy, second.xy) and record == again
    assert not torch.equal(first.xy, run(4)[0].xy)


def test_the_record_is_json_and_names_every_choice(make_pose, generator):
    from pose.augment import EPIConfig, augment_poses

    _, record = augment_poses(
        make_pose(), [make_pose(3, scale=1.2)], EPIConfig(probability=1, realign_probability=1), generator
    )
    written = json.loads(record.model_dump_json())
    assert written["applied"] and written["anchor"] == 0 and 0 <= written["strength"] <= 0.8
    assert set(written) == {
        "applied", "anchor", "realigned", "strength", "bone_ratios", "factors",
        "scale", "aspect", "shift", "dropped", "added",
    }  # fmt: skip


def test_realigning_keeps_the_joint_angles_and_the_neck(make_pose, only, generator):
    from pose.augment import augment_poses

    driving, anchor = make_pose(), stubby(make_pose(1))
    bent, record = augment_poses(driving, [anchor], only(realign_probability=1.0), generator)
    assert record.realigned and not torch.allclose(lengths(bent), lengths(driving), atol=0.1)
    torch.testing.assert_close(directions(bent), directions(driving), atol=1e-4, rtol=0)
    torch.testing.assert_close(bent.xy[:, 1], driving.xy[:, 1])


def test_full_realignment_takes_the_anchors_lengths_up_to_size(make_pose, only, generator):
    from pose.augment import augment_poses

    driving, anchor = make_pose(), stubby(make_pose(1, scale=3.0))
    bent, record = augment_poses(driving, [anchor], only(realign_probability=1.0, realign_mode="full"), generator)
    torch.testing.assert_close(lengths(bent)[0] * 3.0, lengths(anchor)[0], atol=1e-2, rtol=1e-3)
    assert record.strength == 1.0


def stubby(pose):
    """The same figure with short legs and long arms."""
    xy = pose.xy.clone()
    for hip, knee, ankle in ((8, 9, 10), (11, 12, 13)):
        leg, shin = pose.xy[:, knee] - pose.xy[:, hip], pose.xy[:, ankle] - pose.xy[:, knee]
        xy[:, knee] = xy[:, hip] + 0.6 * leg
        xy[:, ankle] = xy[:, knee] + 0.7 * shin
    for shoulder, elbow, wrist in ((2, 3, 4), (5, 6, 7)):
        arm, forearm = pose.xy[:, elbow] - pose.xy[:, shoulder], pose.xy[:, wrist] - pose.xy[:, elbow]
        xy[:, elbow] = xy[:, shoulder] + 1.5 * arm
        xy[:, wrist] = xy[:, elbow] + 1.4 * forearm
    return replace(pose, xy=xy)


def test_ratios_stay_between_a_half_and_two(make_pose, only, generator):
    from pose.augment import augment_poses

    anchor = make_pose(1)
    xy = anchor.xy.clone()
    xy[:, 4] = xy[:, 3] + 40 * (xy[:, 4] - xy[:, 3])
    xy[:, 7] = xy[:, 6] + 40 * (xy[:, 7] - xy[:, 6])
    config = only(realign_probability=1.0, realign_mode="full")
    _, record = augment_poses(make_pose(), [replace(anchor, xy=xy)], config, generator)
    assert record.bone_ratios["right_wrist"] == 2.0


def test_rescaling_is_one_factor_a_group_for_all_frames_and_both_sides(make_pose, only, generator):
    from pose.augment import augment_poses

    driving = make_pose()
    bent, record = augment_poses(driving, [], only(rescale_probability=1.0), generator)
    assert set(record.factors) == {"torso", "legs", "arms", "neck", "shoulders", "head", "global"}
    ratio = lengths(bent) / lengths(driving)
    expected = record.factors["arms"] * record.factors["global"]
    torch.testing.assert_close(ratio[:, :4], torch.full((5, 4), expected), atol=1e-4, rtol=0)


def test_factors_are_in_range_and_never_close_to_one(make_pose, only, generator):
    from pose.augment import augment_poses

    factors = [
        f
        for _ in range(50)
        for f in augment_poses(make_pose(1), [], only(rescale_probability=1.0), generator)[1].factors.values()
    ]
    assert all(0.7 <= f <= 1.4 for f in factors)
    assert not any(0.9 < f < 1.1 for f in factors)
    assert any(f < 1 for f in factors) and any(f > 1 for f in factors)


def test_lambda_is_the_share_of_clips_that_are_changed(make_pose, generator):
    from pose.augment import EPIConfig, augment_poses

    driving, pool = make_pose(1), [make_pose(1)]
    records = [augment_poses(driving, pool, EPIConfig(probability=0.8), generator)[1] for _ in range(120)]
    assert 0.68 < sum(r.applied for r in records) / 120 < 0.92


def test_an_unchanged_clip_is_the_same_object(make_pose, generator):
    from pose.augment import EPIConfig, augment_poses

    driving = make_pose()
    same, record = augment_poses(driving, [driving], EPIConfig(probability=0.0), generator)
    assert same is driving and not record.applied


def test_the_canvas_move_keeps_four_fifths_of_the_points_on_it(make_pose, only, generator):
    from pose.augment import augment_poses

    driving = make_pose(9)
    for _ in range(40):
        bent, _ = augment_poses(driving, [], only(canvas_probability=1.0, canvas_shift=1.0), generator)
        inside = ((bent.xy >= 0) & (bent.xy < torch.tensor([100.0, 120.0]))).all(-1)
        assert inside[bent.visible].float().mean() >= 0.8


def test_a_figure_too_large_for_the_canvas_is_made_to_fit(make_pose, only, generator):
    from pose.augment import augment_poses

    bent, record = augment_poses(make_pose(scale=9.0), [], only(canvas_probability=1.0), generator)
    assert (bent.xy >= 0).all() and (bent.xy < torch.tensor([100.0, 120.0])).all()
    assert record.scale < 0.3


def test_dropping_takes_whole_parts_for_the_whole_clip(make_pose, only, generator):
    from pose.augment import augment_poses

    bent, record = augment_poses(make_pose(extras=True), [], only(drop_probability=1.0), generator)
    assert "head" in record.dropped
    assert not bent.visible[:, [0, 14, 15, 16, 17]].any() and not (bent.face[..., 2] > 0).any()
    assert bent.visible[:, [1, 2, 5, 8, 11]].all()
    assert (bent.visible == bent.visible[:1]).all()


def test_a_limb_that_is_never_seen_is_made_from_the_anchor(make_pose, only, generator):
    from pose.augment import augment_poses

    driving, anchor = make_pose(missing=(8, 9, 10)), make_pose(1, scale=2.0)
    bent, record = augment_poses(driving, [anchor], only(add_probability=1.0), generator)
    assert record.added == ("right_leg",) and bent.visible[:, [8, 9, 10]].all()
    expected = (anchor.xy[0, 9] - anchor.xy[0, 8]).norm() / 2
    torch.testing.assert_close((bent.xy[:, 9] - bent.xy[:, 8]).norm(dim=-1), expected.expand(5), atol=0.5, rtol=0)


def test_an_anchor_of_the_other_aspect_is_never_chosen(make_pose, only, generator):
    from pose.augment import augment_poses

    wide, tall = make_pose(1, frame_size=(200, 100)), make_pose(1, frame_size=(90, 160))
    config = only(realign_probability=1.0)
    chosen = {augment_poses(make_pose(), [wide, tall, wide], config, generator)[1].anchor for _ in range(30)}
    assert chosen == {1}
    _, record = augment_poses(make_pose(), [wide], config, generator)
    assert record.anchor is None and not record.realigned


def test_an_empty_pool_is_refused_with_the_fix(make_pose, generator):
    from pose.augment import EPIConfig, augment_poses

    with pytest.raises(ValueError, match="pool is empty"):
        augment_poses(make_pose(), [], EPIConfig(), generator)


def test_switching_one_step_off_leaves_the_draws_of_the_others(make_pose, only):
    from pose.augment import augment_poses

    def factors(**chosen):
        config = only(rescale_probability=0.5, **chosen)
        return augment_poses(make_pose(), [make_pose(1)], config, torch.Generator().manual_seed(1))[1].factors

    assert factors() == factors(realign_probability=1.0, drop_probability=1.0)


def test_hands_and_feet_go_with_wrist_and_ankle(make_pose, only, generator):
    from pose.augment import augment_poses

    bent, _ = augment_poses(make_pose(extras=True), [], only(rescale_probability=1.0), generator)
    torch.testing.assert_close(bent.hands[:, 0, :2], bent.xy[:, 4], atol=1e-3, rtol=0)
    torch.testing.assert_close(bent.feet[:, 0, :2], bent.xy[:, 10], atol=1e-3, rtol=0)


@pytest.mark.parametrize("bad", [{"probability": 1.5}, {"rescale_range": (1.4, 0.7)}, {"unknown": 1}])
def test_a_wrong_configuration_is_refused(bad):
    from pydantic import ValidationError

    from pose.augment import EPIConfig

    with pytest.raises(ValidationError):
        EPIConfig(**bad)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**31), frames=st.integers(1, 4), spread=st.floats(0, 1e4), share=st.floats(0, 1))
def test_whatever_is_missing_nothing_becomes_nan(seed, frames, spread, share):
    from pose.augment import EPIConfig, augment_poses
    from pose.sequence import PoseSequence

    draw = torch.Generator().manual_seed(seed)

    def random_pose():
        found = torch.rand(frames, 18, generator=draw) < share
        xy = torch.where(found[..., None], torch.rand(frames, 18, 2, generator=draw) * spread, -1.0)
        return PoseSequence(xy=xy, confidence=found.float(), frame_size=(64, 96), fps=12.0)

    driving = random_pose()
    config = EPIConfig(probability=1, realign_probability=1, add_probability=0.5, drop_probability=0.3)
    bent, record = augment_poses(driving, [random_pose(), random_pose()], config, draw)
    assert torch.isfinite(bent.xy).all() and torch.isfinite(bent.confidence).all()
    assert (bent.xy[~bent.visible] == -1).all()
    json.loads(record.model_dump_json())
    assert "NaN" not in record.model_dump_json() and len(bent) == frames


@pytest.mark.parametrize("case", ["same", "nobody", "neck_missing", "one_joint"])
def test_poor_poses_come_through(make_pose, generator, case):
    from pose.augment import EPIConfig, augment_poses

    missing = {"same": (), "nobody": range(18), "neck_missing": (1,), "one_joint": range(1, 18)}[case]
    bent, _ = augment_poses(
        make_pose(missing=missing), [make_pose(1)], EPIConfig(probability=1, add_probability=0), generator
    )
    assert not bent.visible[:, list(missing)].any()


def test_augmenting_a_clip_costs_milliseconds_only(make_pose, generator):
    from pose.augment import EPIConfig, augment_poses

    if hasattr(augment_poses, "__wrapped__"):
        pytest.skip("the shape checks are switched on, and they cost more than the work")
    driving, pool = make_pose(17), [make_pose(17) for _ in range(20)]
    best = float("inf")
    for _ in range(5):
        start = time.process_time()
        for _ in range(20):
            augment_poses(driving, pool, EPIConfig(), generator)
        best = min(best, (time.process_time() - start) / 20)
    assert best < 10e-3  # about 1.2 ms on a quiet core; shared ones take longer
