import pytest
import torch


@pytest.fixture
def people_of():
    """The people of each frame, from clips of one person each."""
    from pose.track import Person

    def make(*clips):
        return [[Person.from_joints(c.xy[k], c.confidence[k]) for c in clips] for k in range(len(clips[0]))]

    return make


def follow(frames, person=None):
    from pose.track import Tracker

    tracker = Tracker()
    for people in frames:
        tracker.update(people)
    return tracker.sequence(tracker.choose(person, source="the clip"), frame_size=(500, 120), fps=12.0)


def test_a_person_is_followed_when_the_order_flips(make_pose, people_of):
    left, right = make_pose(10), make_pose(10, shift=(150.0, 0.0))
    frames = [people if k % 3 else people[::-1] for k, people in enumerate(people_of(left, right))]
    torch.testing.assert_close(follow(frames, 1).xy, left.xy)
    torch.testing.assert_close(follow(frames, 2).xy, right.xy)


def test_a_frame_without_the_person_is_missing_and_the_track_goes_on(make_pose, people_of):
    pose = make_pose(8)
    frames = people_of(pose)
    frames[3] = frames[4] = []
    read = follow(frames)
    assert len(read) == 8 and not read.visible[3:5].any()
    torch.testing.assert_close(read.xy[5:], pose.xy[5:])


def test_someone_out_of_sight_among_others_is_found_again(make_pose, people_of):
    left, right = make_pose(12), make_pose(12, shift=(200.0, 0.0))
    frames = people_of(left, right)
    for k in (4, 5, 6, 7):
        frames[k] = frames[k][1:]
    read = follow(frames, 1)
    assert not read.visible[4:8].any()
    torch.testing.assert_close(read.xy[8:], left.xy[8:])


def test_a_brief_sighting_and_a_tiny_figure_are_no_second_person(make_pose, people_of):
    main, other, far = make_pose(20), make_pose(20, shift=(250.0, 0.0)), make_pose(20, scale=0.1, shift=(400.0, 0.0))
    frames = people_of(main, far)
    frames[6].append(people_of(other)[6][0])
    torch.testing.assert_close(follow(frames).xy, main.xy)


def test_people_who_cross_keep_their_names(make_pose, people_of):
    from dataclasses import replace

    first, second = make_pose(30), make_pose(30)
    step = torch.arange(30.0)[:, None]
    ahead, back = first.xy.clone(), second.xy.clone()
    ahead[..., 0] += 10 * step
    back[..., 0] += 300 - 10 * step
    frames = people_of(replace(first, xy=ahead), replace(second, xy=back))
    read = follow([people if k % 2 else people[::-1] for k, people in enumerate(frames)], 1)
    torch.testing.assert_close(read.xy[[0, 10, 29]], ahead[[0, 10, 29]])


def test_real_dancers_are_told_apart_when_the_order_flips(driving_folder, people_of):
    from dataclasses import replace

    from pose.readers import read_keypoints

    one = read_keypoints(driving_folder / "dance_1.keypoints.json")[:150]
    two = read_keypoints(driving_folder / "dance_3.keypoints.json")[:150]
    moved = two.xy.clone()
    moved[..., 0] = torch.where(two.confidence > 0, moved[..., 0] + 250, -1.0)
    frames = people_of(one, replace(two, xy=moved))
    order = torch.randint(2, (150,), generator=torch.Generator().manual_seed(0)).tolist()
    read = follow([people[::-1] if flip else people for people, flip in zip(frames, order, strict=True)], 1)
    torch.testing.assert_close(read.xy, one.xy)
