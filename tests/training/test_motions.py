"""The bundled motions and the choreography beneath them."""

import math

import pytest
import torch

from pose.choreography import CHANNELS, HUMAN, MOVES, choreograph, improvise, joint_positions, proportions, rest
from pose.motions import MOTIONS, make_motion


def test_a_dozen_motions_are_bundled_each_with_its_own_line():
    assert len(MOTIONS) >= 12
    assert len(set(MOTIONS.values())) == len(MOTIONS)


@pytest.mark.parametrize("name", sorted(MOTIONS))
@pytest.mark.parametrize("size", [(128, 128), (480, 832)])
def test_every_motion_moves_and_stays_on_the_canvas(name, size):
    motion = make_motion(name, num_frames=49, frame_size=size)
    assert motion.xy.shape == (49, 18, 2) and motion.frame_size == size and motion.fps == 12.0
    assert (motion.confidence == 1).all()
    assert (motion.xy >= 0).all() and (motion.xy < torch.tensor(size)).all()
    assert (motion.xy[1:] - motion.xy[:-1]).norm(dim=-1).max() > 0.01 * min(size)


def test_no_two_motions_are_the_same():
    motions = torch.stack([make_motion(name).xy for name in sorted(MOTIONS)]).flatten(1)
    apart = torch.cdist(motions, motions) + 1e9 * torch.eye(len(motions))
    assert apart.min() > 10


def test_a_motion_is_the_same_every_time():
    for name in ("walk", "dance-1"):
        assert torch.equal(make_motion(name).xy, make_motion(name).xy)


def test_more_frames_a_second_show_the_same_motion_at_the_same_times():
    for name in ("jump", "dance-2"):
        slow, fast = make_motion(name, num_frames=9, fps=12.0), make_motion(name, num_frames=17, fps=24.0)
        torch.testing.assert_close(fast.xy[::2], slow.xy, atol=1e-3, rtol=0)


def test_an_unknown_motion_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"no bundled motion 'wlak'; known are .*walk"):
        make_motion("wlak")


@pytest.mark.parametrize("name", list(MOVES))
def test_bones_keep_their_length_and_feet_stay_on_or_above_the_ground(name):
    angles = choreograph(name, torch.arange(24) / 12)
    turn = angles[:, CHANNELS.index("turn")]
    frontal = angles.clone()
    frontal[:, CHANNELS.index("turn")] = 0
    xy = joint_positions(frontal[None], proportions(HUMAN))[0]
    lengths = {(2, 3): "upper_arm", (3, 4): "forearm", (8, 9): "thigh", (12, 13): "shin"}
    for (parent, child), part in lengths.items():
        torch.testing.assert_close(
            (xy[:, child] - xy[:, parent]).norm(dim=-1), torch.full((24,), HUMAN[part]), atol=1e-5, rtol=0
        )
    lowest = xy[:, (10, 13), 1].amax(1)
    leg = HUMAN["thigh"] + HUMAN["shin"]
    torch.testing.assert_close(lowest, -angles[:, CHANNELS.index("jump")] * leg, atol=1e-5, rtol=0)
    assert (lowest <= 1e-6).all()
    assert turn.isfinite().all()


def test_a_turned_body_is_narrower_and_as_tall():
    angles = rest(2)
    angles[1, CHANNELS.index("turn")] = 1.0
    front, turned = joint_positions(angles[None], proportions(HUMAN))[0]
    narrow = (turned[5, 0] - turned[2, 0]) / (front[5, 0] - front[2, 0])
    assert float(narrow) == pytest.approx(math.cos(1.0), abs=1e-5)
    torch.testing.assert_close(front[:, 1], turned[:, 1], atol=1e-6, rtol=0)


def test_an_improvised_dance_follows_its_generator_alone():
    time_s = torch.arange(24) / 12
    one, again, other = (improvise(time_s, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert torch.equal(one, again) and not torch.equal(one, other)
    assert (one[:, CHANNELS.index("jump")] >= 0).all()
    # the path is a function of time: more samples of it do not change it
    torch.testing.assert_close(improvise(time_s[:5], torch.Generator().manual_seed(3)), one[:5])
