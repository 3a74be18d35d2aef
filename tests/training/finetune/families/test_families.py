"""Every kind's loss against a few lines with its own network; that it can be learned, scoped, loaded in half."""

from dataclasses import replace

import pytest
import torch

from training.finetune.families import FAMILIES, Clip, draw, open_family
from training.methods import METHODS, find_scope
from training.methods.scope import KINDS

from . import makers

CPU = torch.device("cpu")


def length(family):
    """Frames of the shortest thing that it can be trained on."""
    want = family.wants(family.tasks[0])
    return 1 if want.stills else want.factor + 1


def encode(family, pixels):
    """All that the loss needs of a clip, as the learner gathers it."""
    clip = Clip(pixels=pixels, reference=0, poses=None)
    return {**family.encode(pixels), **family.conditions(family.tasks[0], clip)}


def seen(family, captions=("dog", ""), seed=3):
    """Encoded pictures (clips where there must be), embedded captions and draws."""
    side = family.multiple if family.multiple >= 32 else 16
    generator = torch.Generator().manual_seed(seed)
    pixels = [torch.rand(length(family), 3, side, side, generator=generator) * 2 - 1 for _ in captions]
    rows = [encode(family, p) for p in pixels], [family.embed(caption) for caption in captions]
    encoded, embedded = ({name: torch.stack([r[name] for r in part]) for name in part[0]} for part in rows)
    return encoded, embedded, draw(encoded["latents"].shape[1:], range(len(captions)), CPU)


def noised(family, latents, draws):
    """Noisy latents, timesteps and target by the formulas of the pipeline's scheduler."""
    config = family.pipeline.scheduler.config
    wide = (-1, *(1,) * (latents.ndim - 1))
    if "beta_start" in config and not config.get("use_flow_sigmas"):
        steps = (draws.uniform * 1000).long()
        root = config.beta_schedule == "scaled_linear"
        first, last = (b**0.5 if root else b for b in (config.beta_start, config.beta_end))
        betas = torch.linspace(first, last, 1000) ** (2 if root else 1)
        if config.get("rescale_betas_zero_snr"):
            alphas = family.pipeline.scheduler.alphas_cumprod
        else:
            alphas = torch.cumprod(1 - betas, 0)
        alphas = alphas[steps].reshape(wide)
        noisy = alphas.sqrt() * latents + (1 - alphas).sqrt() * draws.noise
        velocity = alphas.sqrt() * draws.noise - (1 - alphas).sqrt() * latents
        return noisy, steps, velocity if config.prediction_type == "v_prediction" else draws.noise
    even = 1 - (draws.normal.sigmoid() * 1000).floor() / 1000
    sigmas = 3 * even / (1 + 2 * even)
    level = sigmas.reshape(wide)
    return (1 - level) * latents + level * draws.noise, sigmas * 1000, draws.noise - latents


def said(kind, network, noisy, steps, encoded, embedded):
    """What the network says, called as the kind's pipeline calls it."""
    text = embedded.get("tokens")
    if kind == "stable_diffusion":
        return network(noisy, steps, encoder_hidden_states=text).sample
    if kind == "stable_diffusion_xl":
        added = {"text_embeds": embedded["pooled"], "time_ids": torch.tensor([[16.0, 16, 0, 0, 16, 16]] * 2)}
        return network(noisy, steps, encoder_hidden_states=text, added_cond_kwargs=added).sample
    if kind == "stable_diffusion_3":
        return network(noisy, text, embedded["pooled"], steps).sample
    if kind.startswith("pixart"):
        added = {"resolution": torch.tensor([[16.0, 16.0]] * 2), "aspect_ratio": torch.ones(2, 1)}
        added = added if kind == "pixart_alpha" else {"resolution": None, "aspect_ratio": None}
        whole = network(noisy, text, steps, added, encoder_attention_mask=embedded["mask"]).sample
        assert whole.shape[1] == 8
        return whole[:, :4]
    if kind == "dit":
        return network(noisy, steps, torch.tensor([1, 1000])).sample[:, :4]
    if kind == "wan":
        return network(noisy, steps, text).sample
    if kind == "wan_image":
        return network(torch.cat([noisy, encoded["reference"]], 1), steps, text, encoded["image"]).sample
    assert kind == "wan_image_in_place"
    clean = torch.cat([encoded["latents"][:, :, :1], noisy[:, :, 1:]], 2)
    tokens = noisy[0, 0, 0].numel() // 4  # of a frame
    each = torch.cat([torch.zeros(2, tokens), steps[:, None].expand(2, tokens)], 1)
    return network(clean, each, text).sample


@torch.no_grad()
def test_the_loss_is_that_of_the_models_own_scheduler(kind, family):
    encoded, embedded, draws = seen(family)
    noisy, steps, target = noised(family, encoded["latents"], draws)
    error = said(kind, family.network, noisy, steps, encoded, embedded) - target
    if kind == "wan_image_in_place":
        error = error[:, :, 1:]
    wanted = error.square().flatten(1).mean(1)
    torch.testing.assert_close(family.loss(encoded, embedded, draws, None), wanted, rtol=1e-4, atol=1e-5)


def test_what_is_learned_lowers_the_loss_at_fixed_noise(kind, family):
    family.network.train()
    batch = seen(family)
    method = METHODS["sara"].model_validate({"fraction": 0.2})
    tuner = method.attach(family.network, find_scope(family.network), torch.Generator().manual_seed(0), None)
    optimizer = torch.optim.Adam([p for group in tuner.parameters() for p in group.parameters], lr=2e-2)
    losses = []
    for step in range(12):
        loss = family.loss(*batch, None).mean()
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        tuner.after_step(step + 1)
    assert losses[-1] < 0.9 * losses[0], losses


def test_the_loss_needs_no_chance_of_its_own(family):
    family.network.train()  # as it is in the loop
    batch = seen(family)
    with torch.no_grad():
        first, second = (family.loss(*batch, None) for _ in range(2))
    assert torch.equal(first, second)


def test_min_snr_weighs_or_is_refused(kind, family):
    encoded, embedded, draws = seen(family)
    if kind in ("stable_diffusion_3", "wan", *makers.CLIPS):
        with pytest.raises(ValueError, match="flow matching"):
            family.loss(encoded, embedded, draws, 5.0)
    else:
        light = replace(draws, uniform=draws.uniform / 10)  # where the signal is many times the noise
        with torch.no_grad():
            plain, weighted = (family.loss(encoded, embedded, light, gamma) for gamma in (None, 5.0))
        assert (weighted < plain).all()


def test_scope_words_name_parts_that_methods_can_train(kind, folder_of):
    missing = set()
    for word in KINDS:
        network = open_family(folder_of(kind)).network
        try:
            scope = find_scope(network, [word])
        except ValueError:
            missing.add(word)
            continue
        tuner = METHODS["sara"].model_validate({"fraction": 0.2}).attach(network, scope, torch.Generator(), None)
        assert tuner.count > 0, word
    # Stable Diffusion 3 has text and picture in one stream, DiT has no text
    assert missing == ({"cross-attention"} if kind in ("dit", "stable_diffusion_3") else set())


def test_a_network_in_half_precision_is_told_in_half_precision(kind, family):
    batch = seen(family)
    with torch.no_grad():
        whole = family.loss(*batch, None)
        family.network.to(torch.bfloat16)
        half = family.loss(*batch, None)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, whole, rtol=0.1, atol=0.05)


def test_a_sample_is_a_picture_of_the_asked_size(kind, family):
    side = family.multiple if family.multiple >= 32 else 16
    across = side if kind == "dit" else 2 * side
    assert family.sample("dog", (across, side), seed=1).shape == (length(family), side, across, 3)


def test_every_kind_has_unrelated_prompts_that_it_understands(family):
    prompts = family.unrelated
    assert len(set(prompts)) == len(prompts) == 8
    for prompt in prompts:
        family.embed(prompt)


def test_every_kind_is_registered_with_one_line_for_the_docs():
    kinds = {type(make()).__name__ for make in {**makers.PICTURES, **makers.CLIPS}.values()}
    assert kinds | {"AnimateXPipeline"} == set(FAMILIES)
    assert all(kind.about and kind.component in ("unet", "transformer") for kind in map(FAMILIES.__getitem__, FAMILIES))


def test_frames_come_in_the_codecs_fours_where_a_kind_makes_clips(kind, family):
    want = family.wants(family.tasks[0])
    assert want.stills == (kind not in makers.CLIPS)
    if kind.startswith("wan"):
        assert (want.factor, want.frames) == (4, 17) and want.fps == (24 if kind == "wan_image_in_place" else 16)
        clip = torch.zeros(9, 3, 16, 16)
        assert family.encode(clip)["latents"].shape == (16, 3, 2, 2)
        with pytest.raises(ValueError, match="4k \\+ 1"):
            family.encode(clip[:8])
    else:
        side = max(16, family.multiple)
        with pytest.raises(ValueError, match="a clip of 5 frames"):
            family.encode(torch.zeros(5, 3, side, side))


@pytest.mark.parametrize("kind", ["wan", *makers.CLIPS])
def test_wan_makes_clips_as_long_as_the_one_that_is_shown(kind, family):
    clip = Clip(pixels=torch.zeros(5, 3, 16, 16), reference=0, poses=None)
    assert family.sample_task(family.tasks[0], clip, "dog", seed=1).shape == (5, 16, 16, 3)


def test_captions_are_counted_as_their_encoders_read_them(kind, family):
    long = " ".join("abcdefghijklmnopqrstuvwxyz" for _ in range(30))
    read = {"pixart_alpha": 120, "pixart_sigma": 300, "wan": 512, "wan_image": 512, "wan_image_in_place": 512}.get(
        kind, 77
    )
    whole = 0 if kind == "dit" else len(family.pipeline.tokenizer(long).input_ids)
    assert family.num_tokens_cut(long) == max(0, whole - read)
    assert family.num_tokens_cut("dog") == 0


def test_the_high_noise_transformer_of_two_is_trained_at_its_own_levels():
    family = FAMILIES["WanPipeline"](makers.wan(boundary_ratio=0.875))
    many = draw(torch.Size([16, 1, 2, 2]), range(200), CPU)
    steps = family.objective.ask(torch.zeros(200, 16, 1, 2, 2), many, None).timesteps
    assert steps.min() >= 875


def test_the_low_noise_transformer_of_two_is_trained_when_it_is_named():
    family = FAMILIES["WanPipeline"](makers.wan_two(), "transformer_2")
    assert family.network is family.pipeline.transformer_2
    many = draw(torch.Size([16, 1, 2, 2]), range(200), CPU)
    steps = family.objective.ask(torch.zeros(200, 16, 1, 2, 2), many, None).timesteps
    assert steps.min() > 0 and 800 < steps.max() < 875


def test_the_transformer_that_is_not_trained_stays_out_of_the_way():
    family = FAMILIES["WanPipeline"](makers.wan_two(), "transformer_2")
    assert family.idle == [family.pipeline.transformer]
    family.to(torch.device("meta"), stay=family.idle)
    devices = {n: p.device.type for n, part in family.pipeline.components.items() if isinstance(part, torch.nn.Module)
               for p in part.parameters()}  # fmt: skip
    assert devices == {"text_encoder": "meta", "transformer": "cpu", "transformer_2": "meta", "vae": "meta"}


@pytest.mark.parametrize(("make", "name"), [(makers.wan, "transformer_2"), (makers.wan_two, "vae")])
def test_a_part_that_is_not_there_or_not_trained_is_refused(make, name):
    with pytest.raises(ValueError, match=f"component {name}: .* has no such part to train; it has transformer"):
        FAMILIES["WanPipeline"](make(), name)


@torch.no_grad()
def test_wans_latents_decode_to_the_clip_by_the_pipelines_rule(folder_of):
    family = open_family(folder_of("wan"))
    vae = family.pipeline.vae
    clip = torch.rand(5, 3, 16, 16) * 2 - 1
    raw = vae.encode(clip.permute(1, 0, 2, 3)[None]).latent_dist.mode()
    mean, std = (torch.tensor(v).reshape(1, 16, 1, 1, 1) for v in (vae.config.latents_mean, vae.config.latents_std))
    torch.testing.assert_close(family.encode(clip)["latents"][None] * std + mean, raw)


@torch.no_grad()
def test_the_first_frame_is_told_as_the_pipeline_tells_it(folder_of):
    family = open_family(folder_of("wan_image"))
    clip = torch.rand(5, 3, 16, 32) * 2 - 1
    _, told = family.pipeline.prepare_latents(
        clip[:1], 1, height=16, width=32, num_frames=5, dtype=torch.float32, device=CPU
    )
    torch.testing.assert_close(encode(family, clip)["reference"][None], told)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["stable_diffusion_3", "stable_diffusion_xl"])
def test_pictures_latents_decode_by_the_pipelines_rule(kind, family):
    vae = family.pipeline.vae
    picture = torch.rand(1, 3, 16, 16) * 2 - 1
    latents = family.encode(picture)["latents"][None] / vae.config.scaling_factor + (vae.config.shift_factor or 0)
    torch.testing.assert_close(latents, vae.encode(picture).latent_dist.mode())


def test_many_pictures_are_encoded_as_each_alone_is(family):
    side = family.multiple if family.multiple >= 32 else 16
    pictures = torch.rand(3, 3, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1
    alone = [family.encode(picture[None])["latents"] for picture in pictures]
    torch.testing.assert_close(family.encode_pictures(pictures), torch.stack(alone), rtol=1e-4, atol=1e-5)


def test_sd3_is_told_zeros_where_t5_is_absent(tmp_path):
    folder = makers.save(lambda: makers.stable_diffusion_3(with_t5=False), tmp_path / "sd3")
    family = open_family(folder)
    tokens = family.embed("dog")["tokens"]
    assert tokens.shape == (77 + 256, 32) and not tokens[77:].any() and tokens[:77].any()
    assert family.loss(*seen(family), None).isfinite().all()


@pytest.mark.parametrize("zeros", [True, False])
def test_sdxl_is_told_for_no_caption_what_its_pipeline_guides_by(zeros):
    pipeline = makers.stable_diffusion_xl()
    pipeline.register_to_config(force_zeros_for_empty_prompt=zeros)
    family = FAMILIES["StableDiffusionXLPipeline"](pipeline)
    _, tokens, _, pooled = pipeline.encode_prompt("dog", do_classifier_free_guidance=True)
    told = family.embed("")
    torch.testing.assert_close(told["tokens"], tokens[0])
    torch.testing.assert_close(told["pooled"], pooled[0])
    assert family.embed("dog")["pooled"].any()


def test_a_distilled_unet_is_refused():
    pipeline = makers.stable_diffusion()
    pipeline.unet.register_to_config(time_cond_proj_dim=8)
    with pytest.raises(ValueError, match="distilled for few steps"):
        FAMILIES["StableDiffusionPipeline"](pipeline)


def test_pixart_does_not_read_what_is_no_token(folder_of):
    family = open_family(folder_of("pixart_sigma"))
    encoded, embedded, draws = seen(family)
    assert 0 < embedded["mask"][0].sum() < 300
    other = {**embedded, "tokens": embedded["tokens"] + 100 * (1 - embedded["mask"].float())[..., None]}
    with torch.no_grad():
        torch.testing.assert_close(
            family.loss(encoded, embedded, draws, None), family.loss(encoded, other, draws, None)
        )


def test_dit_takes_a_class_by_name_or_number(folder_of):
    family = open_family(folder_of("dit"))
    names = {"dog": 1, "Dog ": 1, "house cat": 0, "cat": 0, "7": 7, "": 1000}
    assert {name: int(family.embed(name)["label"]) for name in names} == names


def test_dit_names_the_classes_when_a_caption_is_none(folder_of):
    family = open_family(folder_of("dit"))
    with pytest.raises(ValueError, match=r"'dogg' is no class .* mean 'dog'\?\); known are cat, dog, house cat, and"):
        family.embed("dogg")
    with pytest.raises(ValueError, match=r"'1000' is no class of this model; known"):
        family.embed("1000")
    with pytest.raises(ValueError, match="32x32 px only, got 64x32; set resolution to 32"):
        family.encode(torch.zeros(1, 3, 32, 64))
