"""Drawing primitives against areas and distances that can be worked out by hand."""

import math

import pytest
import torch

from training.data.drawing import PATTERNS, Paint, paint_block, paint_limb

WHITE = torch.ones(1, 3)


def paint(pattern: str = "solid", *, outline: float = 0.0, second: tuple[float, float, float] = (0, 0, 0)) -> Paint:
    return Paint(
        base=WHITE,
        second=torch.tensor([second], dtype=torch.float32),
        pattern=torch.tensor([PATTERNS[pattern]]),
        outline=torch.tensor([[outline]]),
        shade=torch.zeros(1, 1),
    )


def limb(start, end, radius, end_radius=None, *, size=64, visible=1.0, look=None):
    canvas = torch.zeros(1, 1, 3, size, size)
    at = [torch.tensor([[point]], dtype=torch.float32) for point in (start, end)]
    radii = [torch.tensor([float(r)]) for r in (radius, radius if end_radius is None else end_radius)]
    paint_limb(canvas, *at, *radii, look or paint(), torch.tensor([[visible]]))
    return canvas[0, 0]


def block(half_width, half_height, roundness, taper=0.0, *, angle=0.0, size=64, look=None):
    canvas = torch.zeros(1, 1, 3, size, size)
    up = torch.tensor([[[math.sin(angle), -math.cos(angle)]]])
    paint_block(
        canvas, torch.full((1, 1, 2), size / 2), up, torch.tensor([[half_width]]), torch.tensor([[half_height]]),
        torch.tensor([roundness]), torch.tensor([taper]), look or paint(), torch.ones(1, 1),
    )  # fmt: skip
    return canvas[0, 0]


def area(picture: torch.Tensor) -> float:
    return float(picture[0].sum())


def test_a_ball_has_the_area_of_a_disc():
    assert area(limb((30.3, 31.8), (30.3, 31.8), 11)) == pytest.approx(math.pi * 11**2, rel=0.01)


def test_a_limb_has_the_area_of_a_capsule_at_any_angle():
    for end in ((45, 20), (20, 45), (37.7, 37.7)):
        length = math.dist((20, 20), end)
        assert area(limb((20, 20), end, 5)) == pytest.approx(2 * 5 * length + math.pi * 25, rel=0.01)


def test_a_limb_covers_the_pixels_that_a_loop_over_all_of_them_finds():
    start, end, r0, r1 = (14.0, 40.0), (50.0, 22.0), 9.0, 4.0
    drawn = limb(start, end, r0, r1)[0]
    for y in range(0, 64, 3):
        for x in range(0, 64, 3):
            px, py = x + 0.5 - start[0], y + 0.5 - start[1]
            bx, by = end[0] - start[0], end[1] - start[1]
            t = min(1.0, max(0.0, (px * bx + py * by) / (bx * bx + by * by)))
            distance = math.hypot(px - t * bx, py - t * by) - (r0 + (r1 - r0) * t)
            # sigmoid(8) instead of 1 is what "solid" mixes
            assert float(drawn[y, x]) == pytest.approx(min(1.0, max(0.0, 0.5 - distance)), abs=2e-3), (x, y)


def test_a_limb_outside_of_the_canvas_draws_nothing_and_one_at_the_edge_is_cut():
    assert area(limb((-40, 10), (-20, 10), 5)) == 0
    assert area(limb((0, 32), (0, 32), 10)) == pytest.approx(math.pi * 100 / 2, rel=0.02)


def test_what_is_not_visible_is_not_drawn():
    assert area(limb((20, 20), (40, 40), 5, visible=0.0)) == 0


def test_a_square_block_has_the_area_of_a_rectangle_and_a_round_one_of_a_disc():
    assert area(block(12.0, 18.0, 0.0)) == pytest.approx(4 * 12 * 18, rel=0.01)
    assert area(block(12.0, 18.0, 0.0, angle=0.6)) == pytest.approx(4 * 12 * 18, rel=0.01)
    assert area(block(15.0, 15.0, 1.0)) == pytest.approx(math.pi * 15**2, rel=0.01)


def test_a_positive_taper_makes_the_upper_end_narrower():
    rows = block(12.0, 18.0, 0.0, 0.4)[0].sum(1)
    widths = [float(rows[32 + dy]) for dy in (-14, 0, 14)]
    assert widths[0] < widths[1] < widths[2]
    assert widths[1] == pytest.approx(24, abs=1)
    assert widths[0] == pytest.approx(24 * (1 - 0.4 * 13.5 / 18), abs=1)


def test_an_outline_darkens_the_rim_and_not_the_middle():
    plain, lined = limb((32, 32), (32, 32), 15), limb((32, 32), (32, 32), 15, look=paint(outline=2.0))
    assert lined[0, 32, 32] == plain[0, 32, 32]
    assert lined[0, 32, 32 + 13] < 0.3 < plain[0, 32, 32 + 13]


@pytest.mark.parametrize("name", list(PATTERNS))
def test_every_pattern_but_solid_shows_both_colours(name):
    inside = block(28.0, 28.0, 0.0, look=paint(name, second=(0.0, 0.0, 0.0)))[0, 8:56, 8:56]
    assert inside.max() > 0.85
    assert bool(inside.min() < 0.3) == (name != "solid")


def test_each_clip_of_a_batch_is_drawn_with_its_own_numbers():
    canvas = torch.zeros(2, 1, 3, 32, 32)
    look = paint()
    both = Paint(**{name: value.expand(2, *value.shape[1:]).clone() for name, value in vars(look).items()})
    both.base[1] = torch.tensor([0.0, 1.0, 0.0])
    at = torch.tensor([[[8.0, 8.0]], [[24.0, 24.0]]])
    paint_limb(canvas, at, at, torch.tensor([3.0, 5.0]), torch.tensor([3.0, 5.0]), both, torch.ones(2, 1))
    assert area(canvas[0, 0]) == pytest.approx(math.pi * 9, rel=0.03)
    assert float(canvas[1, 0, 1].sum()) == pytest.approx(math.pi * 25, rel=0.03)
    assert area(canvas[1, 0]) < 0.1
