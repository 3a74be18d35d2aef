"""What a network says at one noise level, whatever it is trained to say."""

import pytest
import torch


def noising(prediction):
    from diffusers import DDPMScheduler

    from training.finetune.families.objectives import objective_of

    return objective_of(DDPMScheduler(prediction_type=prediction))


def flow():
    from diffusers import FlowMatchEulerDiscreteScheduler

    from training.finetune.families.objectives import objective_of

    return objective_of(FlowMatchEulerDiscreteScheduler(shift=3.0))


@pytest.mark.parametrize("level", [0.05, 0.3, 0.7])
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample", "flow"])
def test_who_says_what_training_asks_for_sees_the_clean_latents_and_the_noise(kind, level):
    objective = flow() if kind == "flow" else noising(kind)
    generator = torch.Generator().manual_seed(0)
    clean, noise = (torch.randn(2, 4, 8, 8, generator=generator) for _ in range(2))
    noisy = objective.mix(clean, noise, level)
    steps = objective.timesteps(level, 2)
    if kind == "v_prediction":
        said = objective._scheduler.get_velocity(clean, noise, steps)
    else:
        said = {"epsilon": noise, "sample": clean, "flow": noise - clean}[kind]
    found = objective.read(noisy, said, level)
    torch.testing.assert_close(found.clean, clean, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.noise, noise, atol=1e-3, rtol=1e-3)


def test_levels_are_those_of_training():
    objective = noising("epsilon")
    clean, noise = torch.ones(1, 1, 2, 2), torch.full((1, 1, 2, 2), 3.0)
    steps = torch.tensor([500])
    expected = objective._scheduler.add_noise(clean, noise, steps)
    torch.testing.assert_close(objective.mix(clean, noise, 500 / 999), expected)
    assert objective.timesteps(1.0, 1).item() == 999 and objective.timesteps(0.0, 1).item() == 0


@pytest.mark.parametrize("kind", ["stable_diffusion", "stable_diffusion_3", "pixart_alpha", "dit", "wan"])
def test_every_kind_answers_at_a_level(kind, folder_of):
    from training.finetune.families import open_family

    family = open_family(folder_of(kind))
    side = max(family.multiple, 32)
    encoded = {name: value[None] for name, value in family.encode(torch.zeros(1, 3, side, side)).items()}
    embedded = {name: value[None] for name, value in family.embed("dog").items()}
    noisy = family.mix(encoded["latents"], torch.randn_like(encoded["latents"]), 0.5)
    with torch.no_grad():
        found = family.prediction(encoded, embedded, noisy, 0.5)
    assert found.said.shape == found.clean.shape == found.noise.shape == encoded["latents"].shape
    torch.testing.assert_close(family.mix(found.clean, found.noise, 0.5), noisy, atol=1e-3, rtol=1e-3)


def test_the_animator_answers_at_a_level(animator):
    from training.finetune.families import open_family

    family = open_family(animator)
    encoded = {name: value[None] for name, value in family.encode(torch.zeros(1, 3, 32, 32)).items()}
    embedded = {name: value[None] for name, value in family.embed("dog").items()}
    noisy = family.mix(encoded["latents"], torch.ones_like(encoded["latents"]), 0.25)
    with torch.no_grad():
        found = family.prediction(encoded, embedded, noisy, 0.25)
    torch.testing.assert_close(family.mix(found.clean, found.noise, 0.25), noisy, atol=1e-4, rtol=1e-4)


def test_a_kind_whose_first_frame_has_a_level_of_its_own_says_no(folder_of):
    from training.finetune.families import open_family

    family = open_family(folder_of("wan_image_in_place"))
    latents = family.encode(torch.zeros(5, 3, 32, 32))["latents"][None]
    with pytest.raises(ValueError, match="cannot be asked at one noise level"):
        family.prediction({"latents": latents}, {"tokens": family.embed("dog")["tokens"][None]}, latents, 0.5)


def test_levels_at_which_another_network_is_asked_are_refused():
    from diffusers import FlowMatchEulerDiscreteScheduler

    from training.finetune.families import LevelError
    from training.finetune.families.objectives import objective_of

    objective = objective_of(FlowMatchEulerDiscreteScheduler(), levels=(0.9, 1.0))
    with pytest.raises(LevelError, match=r"levels of 0.9 .. 1 only, not at 0.5"):
        objective.timesteps(0.5, 1)
