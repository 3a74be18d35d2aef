import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st


def limb(pose, start, end):
    return (pose.xy[:, end] - pose.xy[:, start]).norm(dim=-1)


def test_no_adjustment_gives_the_same_poses(make_pose):
    from pose.adjustment import NOT_ADJUSTED
    from pose.align import adjust_poses

    pose = make_pose()
    assert adjust_poses(pose, NOT_ADJUSTED) is pose


@pytest.mark.parametrize(
    ("name", "bones"),
    [
        ("shoulders", [(1, 2), (1, 5)]), ("arms", [(2, 3), (5, 6)]), ("forearms", [(3, 4), (6, 7)]),
        ("torso", [(1, 8), (1, 11)]), ("thighs", [(8, 9), (11, 12)]), ("shins", [(9, 10), (12, 13)]),
        ("neck", [(1, 0)]), ("head", [(0, 14), (14, 16), (0, 15), (15, 17)]),
    ],
)  # fmt: skip
def test_a_factor_changes_its_bones_and_no_other(make_pose, name, bones):
    from pose.adjustment import Adjustment
    from pose.align import adjust_poses
    from pose.skeleton import BONES

    pose = make_pose()
    adjusted = adjust_poses(pose, Adjustment(**{name: 1.5}))
    for start, end in BONES:
        factor = 1.5 if (start, end) in bones else 1.0
        torch.testing.assert_close(limb(adjusted, start, end), factor * limb(pose, start, end), atol=1e-3, rtol=0)
    torch.testing.assert_close(adjusted.xy[:, 1], pose.xy[:, 1])


def test_a_longer_arm_moves_the_hand_with_it(make_pose):
    from pose.adjustment import Adjustment
    from pose.align import adjust_poses

    pose = make_pose(extras=True)
    adjusted = adjust_poses(pose, Adjustment(arms=1.5))
    moved = adjusted.xy[:, 4] - pose.xy[:, 4]
    torch.testing.assert_close(moved, adjusted.xy[:, 3] - pose.xy[:, 3], atol=1e-3, rtol=0)
    torch.testing.assert_close(adjusted.hands[:, :21, :2] - pose.hands[:, :21, :2], moved[:, None].expand(-1, 21, -1))


def test_the_scale_keeps_the_feet_on_the_ground(make_pose):
    from pose.adjustment import Adjustment
    from pose.align import adjust_poses

    pose = make_pose()
    half = adjust_poses(pose, Adjustment(scale=0.5))
    torch.testing.assert_close(half.xy[0, [10, 13], 1], pose.xy[0, [10, 13], 1])
    torch.testing.assert_close(limb(half, 1, 8), 0.5 * limb(pose, 1, 8))


def test_the_shift_is_a_share_of_the_picture(make_pose):
    from pose.adjustment import Adjustment
    from pose.align import adjust_poses

    pose = make_pose(frame_size=(100, 120))
    shifted = adjust_poses(pose, Adjustment(shift_x=0.1, shift_y=-0.5))
    torch.testing.assert_close(shifted.xy - pose.xy, torch.tensor([10.0, -60.0]).expand_as(pose.xy))


@settings(max_examples=30, deadline=None)
@given(
    factors=st.fixed_dictionaries(
        {n: st.floats(0.5, 2) for n in ("scale", "arms", "torso", "shins", "head")}
        | {n: st.floats(-1, 1) for n in ("shift_x", "shift_y")}
    ),
    missing=st.sets(st.integers(0, 17)),
)
def test_missing_joints_stay_missing_and_nothing_is_nan(factors, missing):
    from pose.adjustment import Adjustment
    from pose.align import adjust_poses
    from pose.motions import make_motion

    pose = make_motion("wave", num_frames=3)
    pose.confidence[:, sorted(missing)] = 0.0
    adjusted = adjust_poses(pose, Adjustment(**factors))
    assert (adjusted.visible == pose.visible).all() and torch.isfinite(adjusted.xy).all()
    assert (adjusted.xy[~adjusted.visible] == -1).all()


def test_texts_are_read_as_they_are_written():
    from pose.adjustment import Adjustment, read_adjustment, written

    adjustment = Adjustment(arms=1.2, shift_x=-0.05)
    assert written(adjustment) == ("shift_x=-0.05", "arms=1.2")
    assert Adjustment(**read_adjustment(written(adjustment))) == adjustment
    assert read_adjustment("arms=1.2, shift-x=0.1") == {"arms": 1.2, "shift_x": 0.1}


@pytest.mark.parametrize("text", ["arms", "arms=", "=1,x", "arms=long"])
def test_a_text_that_is_no_adjustment_is_refused(text):
    from pose.adjustment import read_adjustment

    with pytest.raises(ValueError, match="NAME=NUMBER"):
        read_adjustment((text,))
