from dataclasses import replace

import numpy as np
import torch


def test_a_limb_is_as_sure_as_the_mean_of_its_joints(make_pose):
    from pose.timeline import confidence_over_time

    pose = make_pose(4)
    pose.confidence[1, 4] = 0.0
    names, values = confidence_over_time(pose)
    assert values.shape == (6, 4)
    assert values[names.index("right arm")].tolist() == [1.0, 0.5, 1.0, 1.0]


def test_joints_have_a_row_each(make_pose):
    from pose.timeline import confidence_over_time

    names, values = confidence_over_time(make_pose(4, missing=(9,)), by="joints")
    assert values.shape == (18, 4) and (values[names.index("right_knee")] == 0).all()


def test_every_joint_is_in_one_limb():
    from pose.timeline import LIMBS

    assert sorted(joint for joints in LIMBS.values() for joint in joints) == list(range(18))


def test_gaps_are_listed_with_their_first_and_last_frame(make_pose):
    from pose.timeline import gaps

    pose = make_pose(6)
    pose.confidence[2:4, 4] = 0.0
    pose.confidence[5, 4] = 0.2
    assert gaps(pose) == [("right_wrist", 2, 3), ("right_wrist", 5, 5)]


def test_a_steady_clip_has_no_doubtful_frame(make_pose):
    from pose.timeline import doubtful_frames

    assert doubtful_frames(make_pose(12)) == []


def test_bundled_motions_have_no_joint_that_jumps():
    from pose.motions import MOTIONS, make_motion
    from pose.timeline import doubtful_frames

    found = {name: doubtful_frames(make_motion(name, num_frames=48)) for name in MOTIONS}
    assert {name: [d.why for d in doubts if "jumps" in d.why] for name, doubts in found.items()} == {
        name: [] for name in MOTIONS
    }


def test_an_empty_frame_a_lost_joint_and_a_jump_are_doubtful(make_pose):
    from pose.timeline import doubtful_frames

    pose = make_pose(12)
    xy, confidence = pose.xy.clone(), pose.confidence.clone()
    confidence[3], confidence[5, 10] = 0.0, 0.0
    xy[8, 4] += torch.tensor([80.0, 0.0])
    doubts = doubtful_frames(replace(pose, xy=xy, confidence=confidence))
    assert [(d.frame, d.joint, d.why) for d in doubts] == [
        (3, None, "nobody is seen"), (5, "right_ankle", "is lost"), (8, "right_wrist", "jumps away and back"),
    ]  # fmt: skip


def test_a_joint_that_stays_too_far_out_is_doubtful(make_pose):
    from pose.timeline import doubtful_frames

    pose = make_pose(12)
    pose.xy[8:10, 10, 1] += 40
    assert {(d.frame, d.joint) for d in doubtful_frames(pose)} == {(8, "right_ankle"), (9, "right_ankle")}


def test_a_joint_that_is_never_seen_is_no_loss(make_pose):
    from pose.timeline import doubtful_frames

    assert doubtful_frames(make_pose(5, missing=(9, 10, 12, 13))) == []


def test_the_overlay_has_the_canvas_shape_and_draws_what_is_seen(make_pose):
    from pose.overlay import draw_overlay

    pose = make_pose(2, missing=(4,))
    light = np.full((60, 50, 3), 250, np.uint8)
    image = draw_overlay(light, pose, 1, longest_side=240)
    assert image.shape == (240, 200, 3) and image.dtype == np.uint8
    assert (image != draw_overlay(light, make_pose(2), 1, longest_side=240)).any()
    ringed = draw_overlay(light, pose, 1, marked={"nose"}, longest_side=240)
    assert (ringed != image).any()


def test_the_overlay_needs_no_picture_and_survives_joints_far_outside(make_pose):
    from pose.overlay import draw_overlay

    pose = make_pose(1)
    pose.xy[0, 4] = 1e7
    assert draw_overlay(None, pose).shape == (720, 600, 3)
