"""Pictures and poses on the canvas."""

import pytest
import torch


@pytest.mark.parametrize(
    ("source", "canvas"),
    [((100, 100), (128, 128)), ((438, 768), (128, 224)), ((1920, 1080), (224, 128)), ((10, 1000), (128, 384))],
)
def test_the_canvas_has_the_models_short_side_and_the_pictures_shape(source, canvas):
    from studio.placement import choose_canvas

    assert choose_canvas(source, width=None, height=None, short_side=128) == canvas


def test_one_side_given_keeps_the_shape():
    from studio.placement import choose_canvas

    assert choose_canvas((400, 800), width=64, height=None, short_side=128) == (64, 128)
    assert choose_canvas((400, 800), width=None, height=64, short_side=128) == (32, 64)


@pytest.mark.parametrize("fit", ["cover", "contain"])
@pytest.mark.parametrize("size", [(40, 20), (400, 200)])
def test_picture_and_pose_move_together(fit, size):
    from pose.sequence import PoseSequence
    from studio.placement import Placement

    width, height = size
    picture = torch.zeros(height, width, 3, dtype=torch.uint8)
    left, top, side = width * 5 // 10, height * 4 // 10, width // 10
    picture[top : top + side, left : left + side] = 255  # a white square
    placement = Placement.of(size, (64, 64), fit)
    xy = torch.full((1, 18, 2), -1.0)
    xy[0, 0] = torch.tensor([left + side / 2, top + side / 2])
    confidence = torch.zeros(1, 18)
    confidence[0, 0] = 1
    pose = placement.pose(PoseSequence(xy=xy, confidence=confidence, frame_size=size, fps=1.0))
    weight = placement.picture(picture).float().mean(-1)
    rows, columns = torch.meshgrid(torch.arange(64) + 0.5, torch.arange(64) + 0.5, indexing="ij")
    centre = torch.stack([(columns * weight).sum(), (rows * weight).sum()]) / weight.sum()
    assert torch.allclose(pose.xy[0, 0], centre, atol=0.5)
    assert (pose.xy[0, 1:] == -1).all()
    assert pose.frame_size == (64, 64)


def test_nothing_is_stretched():
    from studio.placement import Placement

    placement = Placement.of((100, 200), (64, 64), "contain")
    assert placement.scale == 0.32
    assert placement.shift == (16.0, 0.0)


def test_the_figure_is_found_by_its_colour(picture):
    from pose.media import read_image
    from studio.figure import find_figure

    (left, top, right, bottom), how = find_figure(read_image(picture))
    assert how == "its colour"
    assert left == pytest.approx(18, abs=2)
    assert right == pytest.approx(30, abs=2)
    assert top == pytest.approx(6, abs=2)
    assert bottom == pytest.approx(61, abs=2)


def test_a_picture_of_one_colour_gets_the_guess():
    from studio.figure import find_figure

    box, how = find_figure(torch.full((64, 64, 3), 128, dtype=torch.uint8))
    assert "guess" in how
    assert box == (16.0, 6.4, 48.0, 57.6)
