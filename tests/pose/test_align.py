from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st


def limb(pose, start, end):
    return (pose.xy[:, end] - pose.xy[:, start]).norm(dim=-1)


def test_a_clip_aligned_to_itself_stays(make_pose):
    from pose.align import align_poses

    pose = make_pose()
    torch.testing.assert_close(align_poses(pose, pose.frame(0)).xy, pose.xy, atol=1e-3, rtol=0)


def test_the_result_has_the_references_place_size_and_canvas(make_pose):
    from pose.align import align_poses

    driving, reference = make_pose(), make_pose(1, scale=2.0, shift=(30.0, 40.0), frame_size=(300, 400))
    aligned = align_poses(driving, reference)
    assert aligned.frame_size == (300, 400) and aligned.fps == driving.fps and len(aligned) == len(driving)
    torch.testing.assert_close(aligned.xy[0], reference.xy[0], atol=1e-2, rtol=0)
    # two px a frame to the right become four
    torch.testing.assert_close(aligned.xy[3, 10] - aligned.xy[0, 10], torch.tensor([12.0, 0.0]), atol=1e-2, rtol=0)


def test_bones_take_the_references_lengths_and_keep_their_angles(make_pose):
    from pose.align import align_poses

    driving, reference = make_pose(), make_pose(1)
    xy = reference.xy.clone()
    for wrist, elbow in ((4, 3), (7, 6)):
        xy[:, wrist] = xy[:, elbow] + 1.7 * (xy[:, wrist] - xy[:, elbow])
    aligned = align_poses(driving, replace(reference, xy=xy))
    torch.testing.assert_close(limb(aligned, 3, 4), 1.7 * limb(driving, 3, 4), atol=1e-3, rtol=0)
    torch.testing.assert_close(limb(aligned, 2, 3), limb(driving, 2, 3), atol=1e-3, rtol=0)
    old, new = (pose.xy[:, 4] - pose.xy[:, 3] for pose in (driving, aligned))
    torch.testing.assert_close(torch.atan2(old[:, 1], old[:, 0]), torch.atan2(new[:, 1], new[:, 0]), atol=1e-4, rtol=0)


def test_one_foreshortened_frame_does_not_bend_the_body(make_pose):
    from pose.align import align_poses

    driving, reference = make_pose(), make_pose(1)
    xy = driving.xy.clone()
    xy[0, 4] = xy[0, 3] + 0.1 * (xy[0, 4] - xy[0, 3])
    aligned = align_poses(replace(driving, xy=xy), reference)
    torch.testing.assert_close(limb(aligned, 3, 4)[1:], limb(driving, 3, 4)[1:], atol=1e-3, rtol=0)


def test_a_squat_keeps_the_feet_of_short_legs_on_the_ground(make_pose):
    from pose.align import align_poses

    driving = make_pose(3)
    xy = driving.xy[:1].repeat(3, 1, 1)
    xy[1:, :9, 1] += 10  # everything above the knees comes down while the knees go out
    xy[1:, 11, 1] += 10
    xy[1:, 14:, 1] += 10
    xy[1:, 9] = torch.tensor([44 - 300**0.5, 85 + 5.0])
    xy[1:, 12] = torch.tensor([56 + 300**0.5, 85 + 5.0])
    reference = make_pose(1)
    short = reference.xy.clone()
    for hip, knee, ankle in ((8, 9, 10), (11, 12, 13)):
        short[:, knee, 1] = short[:, hip, 1] + 12
        short[:, ankle, 1] = short[:, knee, 1] + 12
    aligned = align_poses(replace(driving, xy=xy), replace(reference, xy=short))
    ground = aligned.xy[:, [10, 13], 1]
    assert (ground - ground[0]).abs().max() < 3.0
    assert (aligned.xy[1, 1, 1] - aligned.xy[0, 1, 1] - 6.0).abs() < 1.0


def test_missing_joints_stay_missing_and_the_rest_is_moved(make_pose):
    from pose.align import align_poses

    aligned = align_poses(make_pose(missing=(9, 16)), make_pose(1, scale=0.5, missing=(4, 13)))
    assert not aligned.visible[:, [9, 16]].any() and (aligned.xy[:, [9, 16]] == -1).all()
    assert aligned.visible[:, [4, 13]].all() and torch.isfinite(aligned.xy).all()


def test_a_limb_the_reference_hides_takes_the_mean_ratio(make_pose):
    from pose.align import align_poses

    driving = make_pose()
    aligned = align_poses(driving, make_pose(1, scale=0.5, missing=(9, 10, 12, 13)))
    torch.testing.assert_close(limb(aligned, 9, 10), 0.5 * limb(driving, 9, 10), atol=1e-2, rtol=0)


def test_ratios_are_clamped_around_the_whole_body(make_pose):
    from pose.align import align_poses

    driving, reference = make_pose(), make_pose(1)
    xy = reference.xy.clone()
    xy[:, 4], xy[:, 7] = xy[:, 3] + 9 * (xy[:, 4] - xy[:, 3]), xy[:, 6] + 9 * (xy[:, 7] - xy[:, 6])
    aligned = align_poses(driving, replace(reference, xy=xy))
    torch.testing.assert_close(limb(aligned, 3, 4), 2 * limb(driving, 3, 4), atol=1e-2, rtol=0)


def test_too_few_joints_are_not_alignable(make_pose):
    from pose.align import NotAlignableError, align_poses

    with pytest.raises(NotAlignableError, match="the reference 0"):
        align_poses(make_pose(), make_pose(1, missing=range(1, 18)))
    with pytest.raises(NotAlignableError):
        align_poses(make_pose(missing=range(18)), make_pose(1))


def test_a_reference_of_several_frames_is_refused(make_pose):
    from pose.align import align_poses

    with pytest.raises(ValueError, match="1 frame, got 5"):
        align_poses(make_pose(), make_pose())


def test_hands_face_and_feet_go_along(make_pose):
    from pose.align import align_poses

    aligned = align_poses(make_pose(extras=True), make_pose(1, scale=2.0))
    torch.testing.assert_close(aligned.hands[:, 21, :2], aligned.xy[:, 7], atol=1e-2, rtol=0)
    torch.testing.assert_close(aligned.face[:, 0, :2], aligned.xy[:, 0], atol=1e-2, rtol=0)


def test_fitting_to_a_box_fills_it_from_crown_to_sole(make_pose):
    from pose.align import fit_to_box

    fitted = fit_to_box(make_pose(1), (40.0, 100.0, 240.0, 300.0), (256, 320))
    assert fitted.frame_size == (256, 320)
    assert abs(float(fitted.xy[..., 1].max()) - 290) < 1e-2 and abs(float(fitted.xy[..., 1].min()) - 116) < 1e-2
    assert abs(float(fitted.xy[..., 0].min() + fitted.xy[..., 0].max()) / 2 - 140) < 1e-2


def test_an_empty_box_or_nobody_is_refused(make_pose):
    from pose.align import NotAlignableError, fit_to_box

    with pytest.raises(ValueError, match="box must be"):
        fit_to_box(make_pose(), (10.0, 10.0, 10.0, 50.0), (64, 64))
    with pytest.raises(NotAlignableError):
        fit_to_box(make_pose(missing=range(18)), (0.0, 0.0, 10.0, 50.0), (64, 64))


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 2**31), share=st.floats(0.1, 1), spread=st.floats(0, 1e5))
def test_alignment_is_finite_or_refused(seed, share, spread):
    from pose.align import NotAlignableError, align_poses, fit_to_box
    from pose.sequence import PoseSequence

    draw = torch.Generator().manual_seed(seed)

    def random_pose(frames):
        found = torch.rand(frames, 18, generator=draw) < share
        xy = torch.where(found[..., None], torch.rand(frames, 18, 2, generator=draw) * spread, -1.0)
        return PoseSequence(xy=xy, confidence=found.float(), frame_size=(64, 96), fps=12.0)

    driving, reference = random_pose(4), random_pose(1)
    for make in (
        lambda: align_poses(driving, reference),
        lambda: fit_to_box(driving, (0.0, 0.0, 64.0, 96.0), (64, 96)),
    ):
        try:
            result = make()
        except NotAlignableError:
            continue
        assert torch.isfinite(result.xy).all()
        assert torch.equal(result.visible, driving.visible)


def test_real_dances_align_to_each_other(driving_folder):
    from pose.align import align_poses
    from pose.readers import read_keypoints

    clips = [read_keypoints(path) for path in sorted(driving_folder.glob("*.json"))]
    assert len(clips) == 5
    for driving in clips:
        for reference in clips:
            aligned = align_poses(driving, reference.frame(0))
            torch.testing.assert_close(aligned.xy[0, 1], reference.xy[0, 1], atol=1e-2, rtol=0)
            assert aligned.frame_size == reference.frame_size
