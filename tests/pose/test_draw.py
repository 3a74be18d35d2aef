from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.mark.parametrize("size", [(100, 120), (128, 128), (480, 832)])
def test_the_drawing_style_is_frozen(make_pose, size):
    from pose.draw import draw_poses

    drawn = draw_poses(make_pose(3, extras=True)[2:3], size=size)[0].numpy()
    golden = np.asarray(Image.open(GOLDEN / f"pose_{size[0]}x{size[1]}.png"))
    # OpenCV builds may round an edge pixel differently; colours and shapes may not differ.
    assert (drawn != golden).any(-1).mean() < 1e-3


def test_drawing_makes_rgb_with_the_neck_orange(make_pose):
    from pose.draw import draw_poses

    drawn = draw_poses(make_pose(1))
    assert drawn.shape == (1, 120, 100, 3)
    assert drawn[0, 35, 50].tolist() == [255, 85, 0]
    assert drawn[0, 0, 0].tolist() == [0, 0, 0]


def test_a_missing_joint_takes_its_sticks_with_it(make_pose):
    from pose.draw import draw_poses

    whole, lost = draw_poses(make_pose(1)), draw_poses(make_pose(1, missing=(4,)))
    assert whole[0, 58, 32].any()
    assert not lost[0, 58, 32].any()


def test_nobody_is_a_black_picture(make_pose):
    from pose.draw import draw_poses

    assert not draw_poses(make_pose(2, missing=range(18))).any()


def test_joints_far_outside_the_canvas_do_no_harm(make_pose):
    from pose.draw import draw_poses

    pose = make_pose(1)
    xy = pose.xy.clone()
    xy[0, 4] = torch.tensor([1e30, -1e30])
    assert draw_poses(replace(pose, xy=xy)).any()


def test_the_toes_are_drawn_where_there_are_feet(make_pose):
    from pose.draw import draw_poses

    pose = make_pose(1)
    feet = torch.full((1, 6, 3), -1.0)
    feet[0, 0] = torch.tensor([30.0, 110.0, 1.0])
    with_toe = draw_poses(replace(pose, feet=feet))
    assert with_toe[0, 107, 37].any() and not draw_poses(pose)[0, 107, 37].any()


def test_an_empty_canvas_is_refused(make_pose):
    from pose.draw import draw_poses

    with pytest.raises(ValueError, match="at least 1x1"):
        draw_poses(make_pose(1), size=(0, 10))


@pytest.mark.parametrize(("size", "width"), [((480, 832), 4), ((832, 480), 4), ((128, 128), 2), ((960, 1664), 8)])
def test_sticks_are_as_wide_as_the_canvas_asks(size, width):
    from pose.draw import stick_width

    assert stick_width(size) == width
