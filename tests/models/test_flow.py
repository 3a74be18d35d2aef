import pytest
import torch


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_noise_is_mixed_on_a_straight_line_and_the_velocity_leads_back():
    from models.flow import add_noise, predicted_latents, velocity_target

    latents, noise = torch.randn(2, 3, 4, generator=generator()), torch.randn(2, 3, 4, generator=generator(1))
    sigmas = torch.tensor([0.25, 1.0])
    noisy = add_noise(latents, noise, sigmas)
    torch.testing.assert_close(noisy[0], 0.75 * latents[0] + 0.25 * noise[0])
    torch.testing.assert_close(noisy[1], noise[1])
    torch.testing.assert_close(predicted_latents(noisy, velocity_target(latents, noise), sigmas), latents)


def test_a_shift_of_5_moves_one_half_to_five_sixths():
    from models.flow import shift_sigmas

    torch.testing.assert_close(shift_sigmas(torch.tensor([0.0, 0.5, 1.0]), 5.0), torch.tensor([0.0, 5 / 6, 1.0]))


def test_uniform_sigmas_are_the_schedulers_training_steps():
    from diffusers import FlowMatchEulerDiscreteScheduler

    from models.flow import sample_sigmas

    drawn = sample_sigmas(4000, shift=5.0, generator=generator())
    steps = FlowMatchEulerDiscreteScheduler(shift=5.0).sigmas
    nearest = (drawn[:, None] - steps[None]).abs().min(dim=1).values
    assert nearest.max() < 1e-6
    assert drawn.min() > 0 and drawn.max() <= 1
    assert abs(drawn.mean().item() - steps.mean().item()) < 0.01


def test_logit_normal_sigmas_have_their_median_at_the_shifted_half():
    from models.flow import sample_sigmas

    drawn = sample_sigmas(4001, shift=3.0, generator=generator(), density="logit_normal")
    assert abs(drawn.median().item() - 0.75) < 0.01


def test_the_same_seed_draws_the_same_sigmas():
    from models.flow import sample_sigmas

    assert torch.equal(sample_sigmas(8, generator=generator(3)), sample_sigmas(8, generator=generator(3)))


@pytest.mark.parametrize("shift", [1.0, 3.0, 5.0])
def test_loss_weights_have_mean_one_over_the_shifted_steps_and_vanish_at_their_least(shift):
    from models.flow import loss_weights, shift_sigmas

    steps = shift_sigmas(torch.arange(1, 1001) / 1000, shift)
    weights = loss_weights(steps, shift=shift)
    assert abs(weights.mean().item() - 1) < 1e-4
    assert weights.min() < 1e-6
    assert abs(steps[weights.argmax()].item() - 0.5) < 2e-3


def test_a_released_loss_weight_has_the_value_of_the_formula():
    from models.flow import loss_weights

    u = torch.arange(1, 1001, dtype=torch.float64) / 1000
    t = 1000 * 5 * u / (1 + 4 * u)
    bell = torch.exp(-2 * ((t - 500) / 1000) ** 2)
    expected = (bell - bell.min()) * (1000 / (bell - bell.min()).sum())
    torch.testing.assert_close(loss_weights((t / 1000), shift=5.0), expected)


def test_the_loss_is_reported_for_each_sample():
    from models.flow import velocity_loss

    predicted, target = torch.zeros(2, 1, 4), torch.stack([torch.ones(1, 4), torch.full((1, 4), 2.0)])
    assert velocity_loss(predicted, target).tolist() == [1.0, 4.0]
    assert velocity_loss(predicted, target, torch.tensor([3.0, 0.5])).tolist() == [3.0, 2.0]


def test_wrong_shift_and_density_are_refused():
    from models.flow import sample_sigmas

    with pytest.raises(ValueError, match="shift must be positive, got 0"):
        sample_sigmas(1, shift=0, generator=generator())
    with pytest.raises(ValueError, match="density must be"):
        sample_sigmas(1, generator=generator(), density="cosine")
