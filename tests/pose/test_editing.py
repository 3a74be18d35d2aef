from dataclasses import replace

import numpy as np
import pytest
import torch


def without(pose, frames, joint):
    xy, confidence = pose.xy.clone(), pose.confidence.clone()
    xy[frames, joint], confidence[frames, joint] = -1.0, 0.0
    return replace(pose, xy=xy, confidence=confidence)


def test_a_joint_set_by_hand_is_there_and_sure_and_the_rest_stays(make_pose):
    from pose.editing import fix_joint
    from pose.fixes import JointFix

    pose = without(make_pose(5), [2, 3], 4)
    fixed = fix_joint(pose, JointFix(first=2, last=3, joint="right_wrist", xy=(12.0, 34.0)))
    assert fixed.xy[2:4, 4].tolist() == [[12.0, 34.0]] * 2 and (fixed.confidence[2:4, 4] == 1).all()
    others = torch.ones(5, 18, dtype=torch.bool)
    others[2:4, 4] = False
    assert (fixed.xy[others] == pose.xy[others]).all()


def test_a_joint_marked_missing_takes_its_points_along(make_pose):
    from pose.editing import fix_joint
    from pose.fixes import JointFix

    fixed = fix_joint(make_pose(3, extras=True), JointFix(first=1, last=1, joint="left_wrist", xy=None))
    assert not fixed.visible[1, 7] and fixed.visible[0, 7]
    assert (fixed.hands[1, 21:, 2] == 0).all() and (fixed.hands[1, :21, 2] == 1).all()


def test_a_hand_moves_with_its_wrist(make_pose):
    from pose.editing import fix_joint
    from pose.fixes import JointFix

    pose = make_pose(3, extras=True)
    x, y = pose.xy[1, 4].tolist()
    fixed = fix_joint(pose, JointFix(first=1, last=1, joint="right_wrist", xy=(x + 3, y - 2)))
    torch.testing.assert_close(fixed.hands[1, :21, :2], pose.hands[1, :21, :2] + torch.tensor([3.0, -2.0]))
    assert (fixed.hands[1, 21:] == pose.hands[1, 21:]).all() and (fixed.hands[0] == pose.hands[0]).all()


def test_the_whole_body_of_a_frame_can_be_marked_missing(make_pose):
    from pose.editing import fix_joint
    from pose.fixes import JointFix

    fixed = fix_joint(make_pose(3), JointFix(first=0, last=1, joint="all", xy=None))
    assert fixed.visible.any(1).tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"joint": "right_paw"}, "no joint 'right_paw'"),
        ({"first": 3, "last": 2}, "no range"),
        ({"joint": "all"}, "name one joint"),
        ({"last": 9}, "frames 0 to 4"),
        ({"xy": (float("nan"), 1.0)}, "far outside"),
        ({"xy": (1.0, 1e9)}, "far outside"),
    ],
)
def test_a_fix_that_cannot_be_is_refused(make_pose, values, message):
    from pose.editing import fix_joint
    from pose.fixes import JointFix

    given = {"first": 1, "last": 1, "joint": "nose", "xy": (1.0, 1.0)} | values
    with pytest.raises(ValueError, match=message):
        fix_joint(make_pose(5), JointFix(**given))


def test_a_short_gap_becomes_a_straight_line_with_the_lower_confidence(make_pose):
    from pose.editing import fill_gaps

    pose = without(make_pose(5), [2, 3], 10)
    pose.confidence[4, 10] = 0.5
    filled = fill_gaps(pose, 2)
    start, end = pose.xy[1, 10], pose.xy[4, 10]
    torch.testing.assert_close(filled.xy[2, 10], start + (end - start) / 3)
    torch.testing.assert_close(filled.confidence[2:4, 10], torch.tensor([0.5, 0.5]))


def test_long_gaps_and_the_ends_stay_open(make_pose):
    from pose.editing import fill_gaps

    pose = without(without(make_pose(8), [2, 3, 4], 4), [0, 7], 10)
    filled = fill_gaps(pose, 2)
    assert not filled.visible[2:5, 4].any() and not filled.visible[[0, 7], 10].any()
    assert (filled.xy[2:5, 4] == -1).all()


def test_hands_are_filled_too(make_pose):
    from pose.editing import fill_gaps

    pose = make_pose(3, extras=True)
    hands = pose.hands.clone()
    hands[1] = torch.tensor([-1.0, -1.0, 0.0])
    filled = fill_gaps(replace(pose, hands=hands), 1)
    torch.testing.assert_close(filled.hands[1, :, :2], (hands[0, :, :2] + hands[2, :, :2]) / 2)


def test_smoothing_is_savitzky_golay_and_keeps_confidence(make_pose):
    from scipy.signal import savgol_filter

    from pose.editing import smooth

    pose = make_pose(20)
    pose = replace(pose, xy=pose.xy + torch.randn(pose.xy.shape, generator=torch.Generator().manual_seed(0)))
    smoothed = smooth(pose, 7)
    expected = savgol_filter(pose.xy.double().numpy(), 7, 2, axis=0)
    np.testing.assert_allclose(smoothed.xy.numpy(), expected, atol=1e-4)
    assert (smoothed.confidence == pose.confidence).all()


def test_smoothing_takes_jitter_away_and_keeps_the_motion(make_pose):
    from pose.editing import smooth

    pose = make_pose(30)
    noise = torch.randn(pose.xy.shape, generator=torch.Generator().manual_seed(0))
    smoothed = smooth(replace(pose, xy=pose.xy + noise), 7)
    assert (smoothed.xy - pose.xy).std() < 0.75 * noise.std()
    torch.testing.assert_close(smooth(pose, 5).xy[:, 0], pose.xy[:, 0], atol=1e-3, rtol=0)  # a straight line stays


def test_smoothing_stops_at_a_gap(make_pose):
    from pose.editing import smooth

    pose = without(make_pose(11), [5], 4)
    xy = pose.xy.clone()
    xy[6:, 4] += 50
    smoothed = smooth(replace(pose, xy=xy), 5)
    assert not smoothed.visible[5, 4] and (smoothed.xy[5, 4] == -1).all()
    assert (smoothed.xy[:5, 4] - pose.xy[:5, 4]).abs().max() < 1.0
    assert (smoothed.xy[6:, 4] - xy[6:, 4]).abs().max() < 1.0


def test_a_clip_of_one_frame_can_be_smoothed_and_filled(make_pose):
    from pose.editing import fill_gaps, smooth

    pose = make_pose(1)
    assert (smooth(fill_gaps(pose, 5), 9).xy == pose.xy).all()


@pytest.mark.parametrize("window", [0, -3, 4])
def test_an_even_window_is_refused_with_the_next_odd_one(make_pose, window):
    from pose.editing import smooth

    with pytest.raises(ValueError, match="odd number"):
        smooth(make_pose(5), window)


def test_trimming_keeps_both_ends_that_are_named(make_pose):
    from pose.editing import trim

    pose = make_pose(6)
    assert (trim(pose, 1, 4).xy == pose.xy[1:5]).all()
    assert len(trim(pose, 2)) == 4 and len(trim(pose)) == 6
    with pytest.raises(ValueError, match="frames 0 to 5"):
        trim(pose, 1, 6)


@pytest.mark.parametrize("text", ["12:right_wrist=120,88.5", "12-15:nose=missing", "3:all=missing", "0:neck=-4,1e-07"])
def test_a_fix_is_read_as_it_is_written(text):
    from pose.fixes import JointFix

    assert str(JointFix.parse(text)) == text


@pytest.mark.parametrize(
    "text", ["", "12:right_wrist", "x:nose=1,2", "1:nose=1", "1:nose=1,b", "-1:nose=1,2", "1:nose=1,2,3"]
)
def test_a_text_that_is_no_fix_is_refused_with_an_example(text):
    from pose.fixes import JointFix

    with pytest.raises(ValueError, match="12:right_wrist=120,88"):
        JointFix.parse(text)
