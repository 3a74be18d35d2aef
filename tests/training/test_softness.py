"""Softness: how it is measured, and how real pictures are brought to that of generated ones."""

import pytest
import torch


def noise(side=24):
    return torch.rand(3, 3, side, side, generator=torch.Generator().manual_seed(0))


def test_the_mean_step_of_stripes_by_hand():
    from training.metrics.softness import mean_step

    stripes = torch.zeros(1, 3, 4, 4)
    stripes[..., ::2] = 0.5  # a step of 0.5 between all columns, none between rows
    assert mean_step(stripes) == pytest.approx(0.25)
    assert mean_step(torch.full((1, 3, 4, 4), 0.3)) == 0


def test_a_blur_keeps_flat_pictures_and_spreads_a_point_as_a_gaussian():
    from training.metrics.softness import blurred

    flat = torch.full((1, 3, 9, 9), 0.4)
    torch.testing.assert_close(blurred(flat, 2.0), flat)
    point = torch.zeros(1, 3, 15, 15)
    point[..., 7, 7] = 1
    spread = blurred(point, 1.0)
    assert float(spread.sum()) == pytest.approx(3, rel=1e-4)
    assert float(spread[0, 0, 7, 8] / spread[0, 0, 7, 7]) == pytest.approx(0.6065, rel=1e-3)  # exp(-1/2)


@pytest.mark.parametrize("share", [0.7, 0.3, 0.05])
def test_pictures_are_blurred_to_the_wanted_softness(share):
    from training.metrics.softness import blurred, mean_step, softening

    pictures = noise()
    wanted = share * mean_step(pictures)
    assert mean_step(blurred(pictures, softening(pictures, wanted))) == pytest.approx(wanted, rel=0.02)


def test_pictures_that_are_soft_enough_stay_as_they_are():
    from training.metrics.softness import blurred, mean_step, softening

    pictures = noise()
    assert softening(pictures, mean_step(pictures)) == 0
    assert blurred(pictures, 0.0) is pictures
