"""What networks are asked, against the schedulers' own formulas."""

from dataclasses import replace

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EDMEulerScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    HeunDiscreteScheduler,
    LCMScheduler,
    UniPCMultistepScheduler,
)

from training.finetune.families import LevelError, draw
from training.finetune.families.objectives import objective_of

LATENTS = torch.randn(6, 4, 3, 5, generator=torch.Generator().manual_seed(1))
DRAWS = draw(LATENTS.shape[1:], range(6), torch.device("cpu"))


def per_sample(values):
    return values[:, None, None, None]


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize(
    "scheduler",
    [
        DDIMScheduler(beta_schedule="scaled_linear"), EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012),
        DDIMScheduler(rescale_betas_zero_snr=True), DPMSolverMultistepScheduler(beta_schedule="squaredcos_cap_v2"),
        HeunDiscreteScheduler(),  # whose default betas are others than DDPM's
    ],
)  # fmt: skip
def test_noise_is_added_with_the_betas_of_the_models_scheduler(scheduler, prediction):
    scheduler.register_to_config(prediction_type=prediction)
    question = objective_of(scheduler).ask(LATENTS, DRAWS, None)
    alphas = per_sample(scheduler.alphas_cumprod[question.timesteps])
    if isinstance(scheduler, EulerDiscreteScheduler):  # it keeps sigmas instead
        alphas = per_sample(torch.cumprod(1 - torch.linspace(0.00085, 0.012, 1000), 0)[question.timesteps])
    signal, noise = alphas.sqrt(), (1 - alphas).sqrt()
    torch.testing.assert_close(question.noisy, signal * LATENTS + noise * DRAWS.noise)
    wanted = {
        "epsilon": DRAWS.noise, "v_prediction": signal * DRAWS.noise - noise * LATENTS, "sample": LATENTS,
    }[prediction]  # fmt: skip
    torch.testing.assert_close(question.target, wanted)
    assert question.timesteps.tolist() == [int(u * 1000) for u in DRAWS.uniform]


@pytest.mark.parametrize("zero_snr", [False, True])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_min_snr_is_the_papers_weight(prediction, zero_snr):
    scheduler = DDIMScheduler(prediction_type=prediction, rescale_betas_zero_snr=zero_snr)
    question = objective_of(scheduler).ask(LATENTS, DRAWS, 5.0)
    alphas = scheduler.alphas_cumprod[question.timesteps]
    snr = alphas / (1 - alphas)
    least = snr.clamp(max=5)
    wanted = {"epsilon": least / snr, "v_prediction": least / (snr + 1), "sample": least}[prediction]
    predicted = torch.zeros_like(LATENTS)
    wanted = wanted * question.target.square().mean((1, 2, 3))
    torch.testing.assert_close(question.loss(predicted), wanted)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_min_snr_is_a_number_at_pure_noise(prediction):
    scheduler = DDIMScheduler(prediction_type=prediction, rescale_betas_zero_snr=True)
    question = objective_of(scheduler).ask(LATENTS, replace(DRAWS, uniform=torch.full((6,), 0.9999)), 5.0)
    assert question.timesteps.tolist() == [999] * 6
    assert question.loss(torch.zeros_like(LATENTS)).isfinite().all()


def test_flow_matching_is_diffusers_sd3_recipe():
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    question = objective_of(scheduler).ask(LATENTS, DRAWS, None)
    steps = scheduler.timesteps[(DRAWS.normal.sigmoid() * 1000).long()]
    torch.testing.assert_close(question.timesteps, steps)
    torch.testing.assert_close(question.noisy, scheduler.scale_noise(LATENTS, steps, DRAWS.noise))
    torch.testing.assert_close(question.target, DRAWS.noise - LATENTS)
    torch.testing.assert_close(question.loss(LATENTS), (DRAWS.noise - 2 * LATENTS).square().mean((1, 2, 3)))


def test_a_multistep_scheduler_that_samples_flows_is_asked_flows_with_its_shift():
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0)
    question = objective_of(scheduler).ask(LATENTS, DRAWS, None)
    even = 1 - (DRAWS.normal.sigmoid() * 1000).floor() / 1000
    torch.testing.assert_close(question.timesteps, 1000 * 5 * even / (1 + 4 * even))


@pytest.mark.parametrize("levels", [(0.875, 1.0), (0.0, 0.875)], ids=["high", "low"])
def test_a_network_of_some_noise_levels_meets_no_others(levels):
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    many = draw(torch.Size([1]), range(4000), torch.device("cpu"))
    objective = objective_of(scheduler, levels=levels)
    steps = objective.ask(torch.zeros(4000, 1), many, None).timesteps
    drawn = many.normal.sigmoid()
    # the shifted level is 0.875 at the place 3/10
    if levels[1] == 1.0:
        assert 875 <= steps.min() < 880
        rest = drawn[drawn < 0.3]
    else:
        assert 870 < steps.max() < 875
        rest = drawn[drawn > 0.3]
    for level, asked in ((0.875, levels[1] == 1.0), (0.874, levels[1] < 1), (1.0, levels[1] == 1.0)):
        if asked:
            assert float(objective.timesteps(level, 1)) == pytest.approx(1000 * level)
        else:
            with pytest.raises(LevelError, match="this network is asked at noise levels of"):
                objective.timesteps(level, 1)
    even = 1 - rest
    assert float(steps.mean()) == pytest.approx(float((3000 * even / (1 + 2 * even)).mean()), abs=2)


def test_min_snr_is_refused_for_flows():
    with pytest.raises(ValueError, match="snr_gamma is for models that predict noise or v"):
        objective_of(FlowMatchEulerDiscreteScheduler()).ask(LATENTS, DRAWS, 5.0)


def test_other_schedulers_are_refused_by_name():
    with pytest.raises(ValueError, match=r"EDMEulerScheduler .* cannot be trained here; known are"):
        objective_of(EDMEulerScheduler())
    with pytest.raises(ValueError, match="'thing'"):
        objective_of(LCMScheduler(prediction_type="thing"))
