"""The measures, against numbers that can be worked out by hand."""

import pytest
import torch


def test_psnr_of_a_known_error_is_known():
    from training.metrics.quality import psnr_star

    video = torch.full((3, 3, 16, 16), 0.4)
    assert psnr_star(video, video + 0.1) == pytest.approx(20.0, abs=1e-4)


def test_psnr_averages_over_frames_and_does_not_overflow():
    from training.metrics.quality import psnr_star

    truth = torch.zeros(2, 3, 8, 8)
    video = torch.stack([torch.full((3, 8, 8), 1.0), torch.full((3, 8, 8), 0.1)])
    assert psnr_star(video, truth) == pytest.approx((0.0 + 20.0) / 2, abs=1e-4)


def test_the_same_video_has_a_similarity_of_one_and_noise_lowers_it():
    from training.metrics.quality import ssim

    video = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    noisy = (video + 0.2 * torch.randn(video.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
    assert ssim(video, video) == pytest.approx(1.0, abs=1e-5)
    assert ssim(noisy, video) < 0.95


def test_frechet_distance_of_shifted_sets_is_the_shift_squared():
    from training.metrics.quality import frechet_distance

    features = torch.randn(400, 6, generator=torch.Generator().manual_seed(0))
    assert frechet_distance(features, features) == pytest.approx(0.0, abs=1e-6)
    assert frechet_distance(features, features + 0.5) == pytest.approx(6 * 0.25, rel=1e-4)


def test_frechet_distance_of_scaled_sets_is_that_of_their_deviations():
    from training.metrics.quality import frechet_distance

    features = torch.randn(4000, 3, generator=torch.Generator().manual_seed(0))
    features = features - features.mean(0)
    # for C2 = 4 C1 and equal means: tr(C1 + 4 C1 - 2 * 2 C1) = tr(C1)
    assert frechet_distance(features, 2 * features) == pytest.approx(float(features.var(0).sum()), rel=1e-3)


def test_frechet_distance_is_finite_with_fewer_samples_than_dimensions():
    from training.metrics.quality import frechet_distance

    generator = torch.Generator().manual_seed(0)
    value = frechet_distance(torch.randn(5, 64, generator=generator), torch.randn(7, 64, generator=generator))
    assert 0 < value < 1e4


def test_frechet_distance_refuses_a_single_sample():
    from training.metrics.quality import frechet_distance

    with pytest.raises(ValueError, match="two samples"):
        frechet_distance(torch.zeros(1, 4), torch.zeros(5, 4))


def test_motion_energy_counts_only_what_the_mask_shows():
    from training.metrics.quality import motion_energy

    video = torch.zeros(3, 3, 4, 4)
    video[1, :, 0, 0] = 1.0  # one of sixteen pixels blinks
    everywhere = torch.ones(3, 1, 4, 4)
    hidden = everywhere.clone()
    hidden[:, :, 0, 0] = 0
    assert motion_energy(video, everywhere) == pytest.approx(255 / 16)
    assert motion_energy(video, hidden) == 0


def test_pck_counts_joints_that_are_near_and_seen():
    from training.metrics.quality import pck

    truth = torch.tensor([[[0.0, 0.0], [100.0, 0.0], [0.0, 100.0]]])
    found = truth + torch.tensor([[[5.0, 0.0], [15.0, 0.0], [0.0, 0.0]]])
    exists = torch.tensor([[True, True, True]])
    assert pck(found, truth, exists) == (2, 3)
    assert pck(found, truth, exists, seen=torch.tensor([[False, True, True]])) == (1, 3)
    assert pck(found, truth, torch.tensor([[True, True, False]])) == (1, 2)


def test_sharpness_is_below_one_for_blur_and_above_for_noise():
    from training.metrics.quality import sharpness

    truth = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert sharpness(truth, truth) == pytest.approx(1)
    assert sharpness(truth.mean((2, 3), keepdim=True).expand_as(truth), truth) == 0
    smooth = torch.linspace(0, 1, 16).expand(2, 3, 16, 16)
    assert sharpness(smooth + truth / 10, smooth) > 1


def test_frechet_distance_of_gaussians_is_that_of_their_moments():
    from training.metrics.quality import full_rank_frechet_distance

    points = torch.randn(50, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    points = points - points.mean(0)
    white = points @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(points.T)).T)
    # of independent axes: the shifts squared, and (s1 - s2)^2 for every axis
    assert full_rank_frechet_distance(white, white * torch.tensor([2.0, 0.5]) + 1) == pytest.approx(2 * 1 + 1 + 0.25)
    # C1 = 1, C2 = ((5, 4), (4, 5)) with eigenvalues 9 and 1: tr(1 + C2 - 2 C2^1/2) = (3 - 1)^2 + (1 - 1)^2
    turned = white @ (torch.tensor([[2.0, 1.0], [1.0, 2.0]], dtype=torch.float64))
    assert full_rank_frechet_distance(white, turned) == pytest.approx(4)


def test_frechet_distance_needs_more_than_twice_as_many_pictures_as_dimensions():
    from training.metrics.memorization import TooFewError
    from training.metrics.quality import full_rank_frechet_distance

    generator = torch.Generator().manual_seed(0)
    full_rank_frechet_distance(torch.randn(9, 4, generator=generator), torch.randn(9, 4, generator=generator))
    with pytest.raises(
        TooFewError, match=r"of 4 dimensions needs 9 pictures a side, there are 30 and 8; use the kernel"
    ):
        full_rank_frechet_distance(torch.randn(30, 4, generator=generator), torch.randn(8, 4, generator=generator))


@pytest.mark.parametrize("shift", [0.0, 0.7])
def test_the_error_of_a_kernel_distance_is_its_spread_and_it_is_the_same_number(shift):
    from training.metrics.quality import kernel_distance, kernel_estimate

    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(200):
        first, second = torch.randn(30, 4, generator=generator) + shift, torch.randn(50, 4, generator=generator)
        found.append(kernel_estimate(first, second))
    assert kernel_distance(first, second) == found[-1].value
    spread = float(torch.tensor([e.value for e in found]).std())
    told = sum(e.error for e in found) / len(found)
    # where the sets are of one kind the spread is of the second order, and the jackknife errs on the safe side
    assert spread * 0.85 < told < spread * (1.2 if shift else 1.7)


def test_two_samples_have_a_kernel_distance_without_an_error():
    from training.metrics.quality import kernel_estimate

    found = kernel_estimate(torch.eye(4)[:2], torch.eye(4))
    assert found.error is None and found.value == pytest.approx(1 + 1 - 2 * (2 * 8 + 6 * 1) / 8)
