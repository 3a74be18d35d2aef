from dataclasses import replace

import pytest


def whats(findings):
    return " | ".join(finding.what for finding in findings)


def test_a_clip_of_a_whole_body_has_nothing_wrong(make_pose):
    from pose.checks import check_aligned, check_driving, check_reference, check_shapes

    pose = make_pose(12, shift=(-5, 5), scale=0.9)
    assert check_driving(pose) == check_reference(pose.frame(0)) == check_aligned(pose) == []
    assert check_shapes((512, 768), (480, 832)) == []


def test_every_bundled_motion_is_a_good_driving_clip():
    from pose.checks import check_driving
    from pose.motions import MOTIONS, make_motion

    assert {name: check_driving(make_motion(name, num_frames=36)) for name in MOTIONS} == {name: [] for name in MOTIONS}


def test_nobody_stops_a_render(make_pose):
    from pose.checks import check_driving

    (finding,) = check_driving(make_pose(missing=range(18)))
    assert finding.stops and "nobody" in finding.what
    assert str(finding) == f"{finding.what}: {finding.why}; {finding.fix}"


def test_several_people_are_a_choice_to_make(make_pose):
    from pose.checks import check_driving

    (finding,) = check_driving(make_pose(), num_people=3)
    assert "3 people" in finding.what and "--person" in finding.fix and not finding.stops


def test_empty_frames_are_counted_with_the_first(make_pose):
    from pose.checks import check_driving

    pose = make_pose(10)
    pose.confidence[6:9] = 0.0
    assert "3 of 10 frames, first in 6" in whats(check_driving(pose))


def test_few_joints_are_told(make_pose):
    from pose.checks import check_driving

    assert "only 4 of 18 joints" in whats(check_driving(make_pose(missing=range(4, 18))))


def test_a_clip_of_a_bust_says_that_the_legs_are_cut_off(make_pose):
    from pose.checks import check_driving

    assert "both legs" in whats(check_driving(make_pose(missing=(9, 10, 12, 13))))


def test_a_foot_at_the_border_is_cut_off(make_pose):
    from pose.checks import check_driving

    pose = make_pose()
    pose.xy[:, 10, 1] = 120.0
    found = whats(check_driving(pose))
    assert "right foot" in found and "left" not in found


def test_flicker_is_told_with_the_repair(make_pose):
    from pose.checks import check_driving

    pose = make_pose(10)
    pose.confidence[[2, 5], 4] = 0.0
    (finding,) = check_driving(pose)
    assert "2 of 10 frames, first in 2" in finding.what and "--fill-gaps" in finding.fix


def test_a_reference_without_a_skeleton_or_with_an_odd_one_is_told(make_pose):
    from pose.checks import check_reference

    assert "no skeleton" in whats(check_reference(None))
    upside_down = make_pose(1)
    upside_down = replace(upside_down, xy=120 - upside_down.xy)
    assert "cannot be a body" in whats(check_reference(upside_down))


def test_shapes_that_differ_much_are_told_with_both_sizes():
    from pose.checks import check_shapes

    (finding,) = check_shapes((1920, 1080), (480, 832))
    assert "1920x1080" in finding.what and "480x832" in finding.what


@pytest.mark.parametrize(("shift", "outside"), [((0, 0), False), ((60, 0), True), ((0, -60), True)])
def test_a_motion_that_leaves_the_picture_is_told(make_pose, shift, outside):
    from pose.checks import check_aligned

    found = check_aligned(make_pose(10, shift=shift))
    assert bool(found) == outside
    if outside:
        assert "leaves the picture" in found[0].what and "--adjust" in found[0].fix
