import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def reference():
    return torch.randint(0, 256, (32, 32, 3), generator=generator(1), dtype=torch.uint8)


@pytest.fixture(scope="module")
def motion():
    from pose.motions import make_motion

    return lambda num_frames=9, size=32: make_motion("wave", num_frames=num_frames, frame_size=(size, size))


@pytest.fixture
def animate(tiny, reference, motion):
    def call(pipe=tiny, **changes):
        poses = motion()
        request = {
            "reference": reference,
            "poses": poses,
            "reference_pose": poses.frame(0),
            "driving_frames": torch.arange(9 * 32 * 32 * 3).remainder(256).to(torch.uint8).reshape(9, 32, 32, 3),
            "prompt": "a red jelly dances",
            "generator": generator(),
            "output_type": "latent",
        }
        return pipe(**(request | changes)).frames

    return call


@pytest.fixture
def spy(tiny, monkeypatch):
    """Records what the transformer is given."""
    calls = []
    forward = tiny.transformer.forward

    def record(**inputs):
        calls.append(inputs)
        return forward(**inputs)

    monkeypatch.setattr(tiny.transformer, "forward", record)
    return calls


# guidance


def test_the_negative_pass_keeps_image_reference_pose_and_implicit_motion_and_drops_the_explicit_pose(animate, spy):
    animate(num_inference_steps=1, negative_prompt="blurry")
    positive, negative = spy
    assert positive["pose_tokens"] is not None and negative["pose_tokens"] is None
    assert torch.equal(positive["hidden_states"], negative["hidden_states"])
    assert torch.equal(positive["encoder_hidden_states_image"], negative["encoder_hidden_states_image"])
    assert torch.equal(positive["motion_tokens"], negative["motion_tokens"])
    assert positive["motion_tokens"].abs().max() > 0
    assert not torch.equal(positive["encoder_hidden_states"], negative["encoder_hidden_states"])


def test_guidance_is_negative_plus_scale_times_the_difference(animate, tiny, spy):
    velocities = []
    step = tiny.scheduler.step

    def record(velocity, *args, **kwargs):
        velocities.append(velocity)
        return step(velocity, *args, **kwargs)

    tiny.scheduler.step = record
    try:
        animate(num_inference_steps=1, guidance_scale=3.0)
    finally:
        del tiny.scheduler.step
    with torch.no_grad():
        positive, negative = (tiny.transformer(**inputs)[0] for inputs in list(spy))
    torch.testing.assert_close(velocities[0], negative + 3 * (positive - negative))


@pytest.mark.parametrize("scale", [1.0, 0.0])
def test_guidance_at_or_below_one_is_a_single_pass_a_step(animate, spy, scale):
    animate(num_inference_steps=3, guidance_scale=scale)
    assert len(spy) == 3
    assert all(call["pose_tokens"] is not None for call in spy)


# conditions


def test_without_poses_all_pose_parts_are_absent_and_the_picture_stays(animate, spy, tiny, motion):
    poses = motion()
    ti2v = animate(poses=None, reference_pose=poses.frame(0), num_inference_steps=1)
    for call in spy:
        assert call["pose_tokens"] is None and call["motion_tokens"] is None
        assert call["encoder_hidden_states_image"] is not None
    plain = animate(poses=None, reference_pose=None, driving_frames=None, num_inference_steps=1)
    assert torch.equal(ti2v, plain)
    assert ti2v.shape[2] == 3  # the model's own 9 frames


def test_the_reference_pose_is_added_to_every_channel_after_the_noise_mask_included(animate, spy, tiny, motion):
    from models.conditioning import pose_pixels

    animate(num_inference_steps=1, guidance_scale=1.0)
    animate(num_inference_steps=1, guidance_scale=1.0, reference_pose=None)
    with_pose, without = (call["hidden_states"] for call in spy)
    feature = tiny.epi.encode_reference_pose(pose_pixels(motion().frame(0), (32, 32))[:, :, 0]).detach()
    difference = (with_pose - without).float()
    assert torch.equal(difference[:, :16], torch.zeros_like(difference[:, :16]))
    torch.testing.assert_close(difference[:, 16:], feature.expand(-1, -1, 3, -1, -1), atol=1e-6, rtol=0)


@pytest.mark.parametrize("mode", ["first", "every"])
def test_the_mask_marks_latent_frame_0_alone(tiny, reference, mode):
    from models.codecs import reference_latents
    from models.conditioning import to_pixels

    with torch.no_grad():
        y = reference_latents(tiny.vae, to_pixels(reference, (32, 32))[None], num_frames=9, mode=mode)
    assert y.shape == (1, 20, 3, 4, 4)
    assert (y[:, :4, 0] == 1).all() and (y[:, :4, 1:] == 0).all()
    same = torch.equal(y[:, 4:, 0], y[:, 4:, 2])
    assert same == (mode == "every")


def test_explicit_pose_implicit_motion_and_text_each_change_the_result(animate, motion):
    from dataclasses import replace

    base = animate()
    poses = motion()
    assert not torch.equal(base, animate(poses=replace(poses, xy=poses.xy + 3), driving_poses=poses))
    assert not torch.equal(base, animate(driving_frames=None))
    assert not torch.equal(base, animate(prompt="rain"))


def test_the_implicit_indicator_sees_the_keypoints_of_the_driving_video_not_the_aligned_ones(animate, motion, spy):
    from dataclasses import replace

    aligned = replace(motion(), xy=motion().xy * 0.5)
    animate(num_inference_steps=1)
    animate(num_inference_steps=1, poses=aligned, driving_poses=motion())
    assert torch.equal(spy[0]["motion_tokens"], spy[2]["motion_tokens"])
    assert not torch.equal(spy[0]["pose_tokens"], spy[2]["pose_tokens"])


def test_the_implicit_indicator_is_optional(reference, animate):
    from models.presets import tiny_pipeline

    pipe = tiny_pipeline()
    pipe.set_progress_bar_config(disable=True)
    pipe.register_modules(ipi=None)
    assert torch.equal(animate(pipe), animate(pipe, driving_frames=None))


def test_two_references_at_once_give_what_each_gives_alone(animate, reference, motion):
    other = 255 - reference
    latents = torch.randn(2, 16, 3, 4, 4, generator=generator(5))
    poses = [motion(), motion()[torch.arange(8, -1, -1)]]
    together = animate(reference=[reference, other], poses=poses, prompt=["rain", "a jelly"], latents=latents)
    alone = [
        animate(reference=r, poses=p, prompt=t, latents=latents[k : k + 1])
        for k, (r, p, t) in enumerate(zip([reference, other], poses, ["rain", "a jelly"], strict=True))
    ]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-4, rtol=1e-4)


# sampling


def test_the_same_seed_gives_the_same_video_and_another_seed_another(animate):
    assert torch.equal(animate(generator=generator(7)), animate(generator=generator(7)))
    assert not torch.equal(animate(generator=generator(7)), animate(generator=generator(8)))


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("name", ["euler", "unipc"])
def test_euler_and_unipc_solve_a_straight_flow_exactly(name, steps):
    from models import sampling

    scheduler = getattr(sampling, name)(shift=3.0)
    clean, noise = torch.randn(1, 2, 3, generator=generator()), torch.randn(1, 2, 3, generator=generator(1))
    sample = noise
    for timestep in sampling.set_flow_timesteps(scheduler, steps, torch.device("cpu")):
        sample = scheduler.step(noise - clean, timestep, sample, return_dict=False)[0]
    torch.testing.assert_close(sample, clean, atol=1e-4, rtol=1e-4)


def test_the_euler_schedule_is_the_released_one():
    from models.sampling import euler, set_flow_timesteps

    scheduler = euler(shift=5.0)
    timesteps = set_flow_timesteps(scheduler, 50, torch.device("cpu"))
    u = torch.linspace(1, 0, 51)
    torch.testing.assert_close(scheduler.sigmas, 5 * u / (1 + 4 * u))
    torch.testing.assert_close(timesteps, 1000 * scheduler.sigmas[:-1])


def test_unipc_makes_a_video_too_and_other_schedulers_are_refused(animate):
    from diffusers import DDIMScheduler, UniPCMultistepScheduler

    from models.presets import tiny_pipeline
    from models.sampling import unipc

    pipe = tiny_pipeline()
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = unipc(shift=3.0)
    assert animate(pipe, num_inference_steps=3).isfinite().all()
    pipe.scheduler = UniPCMultistepScheduler()
    with pytest.raises(ValueError, match="UniPC needs prediction_type='flow_prediction'"):
        animate(pipe)
    pipe.scheduler = DDIMScheduler()
    with pytest.raises(ValueError, match="DDIMScheduler is not one for flow matching"):
        animate(pipe)


def test_a_callback_sees_every_step_and_may_replace_the_latents(animate):
    seen = []

    def callback(pipe, step, timestep, tensors):
        seen.append((step, sorted(tensors), pipe.num_timesteps))
        return {"latents": torch.zeros_like(tensors["latents"])}

    result = animate(
        num_inference_steps=2,
        callback_on_step_end=callback,
        callback_on_step_end_tensor_inputs=["latents", "prompt_embeds"],
    )
    assert seen == [(0, ["latents", "prompt_embeds"], 2), (1, ["latents", "prompt_embeds"], 2)]
    assert not result.any()


def test_interrupting_in_a_callback_skips_the_rest(animate, spy):
    def callback(pipe, step, timestep, tensors):
        pipe._interrupt = step == 1
        return {}

    animate(num_inference_steps=5, callback_on_step_end=callback)
    assert len(spy) == 2 * 2
    animate(num_inference_steps=2)
    assert len(spy) == 2 * 2 + 2 * 2  # the next call starts afresh


def test_embeddings_may_be_given_instead_of_prompts(animate, tiny):
    with torch.no_grad():
        embeds = tiny.text_encoder.encode(["a red jelly dances"])
        empty = tiny.text_encoder.encode([""])
    assert torch.equal(animate(), animate(prompt="ignored", prompt_embeds=embeds, negative_prompt_embeds=empty))


# output


def test_output_types(animate, reference):
    pt = animate(output_type="pt")
    assert pt.shape == (1, 9, 3, 32, 32) and pt.min() >= 0 and pt.max() <= 1
    array = animate(output_type="np")
    assert array.shape == (1, 9, 32, 32, 3)
    np.testing.assert_allclose(array, pt.permute(0, 1, 3, 4, 2).numpy())
    pictures = animate(output_type="pil")
    assert len(pictures[0]) == 9 and pictures[0][0].size == (32, 32)
    assert animate(output_type="latent").shape == (1, 16, 3, 4, 4)


def test_a_picture_of_any_size_and_kind_is_taken(animate, reference):
    tensor = animate()
    assert torch.equal(tensor, animate(reference=Image.fromarray(reference.numpy())))
    assert torch.equal(tensor, animate(reference=reference.numpy()))
    assert animate(reference=Image.new("L", (50, 20))).isfinite().all()


def test_another_size_than_the_trained_one_works(animate, motion):
    assert animate(height=48, width=64).shape == (1, 16, 3, 6, 8)


# requests that do not fit


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_frames": 8}, r"num_frames must be 4k \+ 1 for this codec, got 8; try 5 or 9"),
        ({"num_frames": 0}, r"num_frames must be 4k \+ 1"),
        ({"num_frames": 13}, "num_frames is 13 but there are only 9 poses"),
        ({"height": 40}, "height must be a multiple of 16 px, got 40; try 32 or 48"),
        ({"width": 8}, "width must be a multiple of 16 px, got 8; try 16 or 32"),
        ({"num_inference_steps": 0}, "num_inference_steps must be at least 1"),
        ({"latents": torch.zeros(1, 16, 2, 4, 4)}, r"latents must have shape \(1, 16, 3, 4, 4\)"),
        ({"prompt": ["a", "b"]}, "prompt must be one text or 1"),
        ({"generator": [generator(), generator()]}, "generator must be one or 1"),
        ({"reference": torch.zeros(3, 32, 32)}, "a picture must be a PIL image or uint8 RGB"),
        ({"callback_on_step_end_tensor_inputs": ["noise"]}, "may name latents, prompt_embeds"),
        ({"window_overlap": 4}, r"window_overlap must be 4k \+ 1 frames, got 4; try 5"),
        ({"driving_frames": torch.zeros(3, 32, 32, 3, dtype=torch.uint8)}, "driving_frames has 3 frames"),
        ({"driving_frames": []}, "driving_frames is empty"),
    ],
)
def test_a_request_that_does_not_fit_is_refused_with_the_fix(animate, changes, message):
    with pytest.raises(ValueError, match=message):
        animate(**changes)


# the folder


@pytest.fixture(scope="module")
def folder(tiny, tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny")
    tiny.save_pretrained(path)
    return path


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def test_a_saved_pipeline_loads_by_our_class_by_diffusers_and_by_load_pipeline(folder, tiny, animate):
    from diffusers import DiffusionPipeline

    from models.pipeline import AnimateXPipeline, load_pipeline

    expected = animate()
    for load in (AnimateXPipeline.from_pretrained, DiffusionPipeline.from_pretrained, load_pipeline):
        pipe = load(folder)
        pipe.set_progress_bar_config(disable=True)
        assert type(pipe) is AnimateXPipeline
        assert dict(pipe.config)["fps"] == 12.0
        torch.testing.assert_close(animate(pipe), expected, atol=1e-5, rtol=1e-5)


def test_a_pipeline_saved_in_half_precision_loads_in_float32_on_the_cpu(folder, tmp_path, animate):
    from models.pipeline import load_pipeline

    half = load_pipeline(folder, dtype=torch.float16)
    assert half.transformer.dtype == torch.float16 and half.vae.dtype == torch.float32
    half.save_pretrained(tmp_path / "half")
    pipe = load_pipeline(tmp_path / "half")
    pipe.set_progress_bar_config(disable=True)
    assert pipe.transformer.proj_out.weight.dtype == torch.float32
    torch.testing.assert_close(animate(pipe), animate(), atol=0.05, rtol=0.05)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_pipeline_runs_in_half_precision(folder, animate, dtype):
    from models.pipeline import load_pipeline

    pipe = load_pipeline(folder, dtype=dtype)
    pipe.set_progress_bar_config(disable=True)
    result = animate(pipe)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, animate(), atol=0.2, rtol=0.2)


@pytest.mark.parametrize(
    "file",
    [
        "model_index.json",
        "transformer/config.json",
        "transformer/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/config.json",
        "scheduler/scheduler_config.json",
        "epi/diffusion_pytorch_model.safetensors",
        "ipi/config.json",
    ],
)
def test_a_missing_file_of_a_model_folder_is_named(copy, file):
    from models.pipeline import load_pipeline

    (copy / file).unlink()
    with pytest.raises(ValueError, match=f"lacks {file}"):
        load_pipeline(copy)


def test_a_damaged_file_of_a_model_folder_is_named(copy):
    from models.pipeline import load_pipeline

    weights = copy / "epi" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"epi.diffusion_pytorch_model\.safetensors is damaged"):
        load_pipeline(copy)
    (copy / "model_index.json").write_text("{")
    with pytest.raises(ValueError, match=r"model_index\.json is not valid JSON"):
        load_pipeline(copy)


def test_weights_that_lack_a_tensor_or_have_other_sizes_are_refused(copy):
    from safetensors.torch import load_file, save_file

    from models.pipeline import load_pipeline

    file = copy / "transformer" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    save_file({k: v for k, v in weights.items() if k != "proj_out.weight"}, file)
    with pytest.raises(ValueError, match=r"transformer.*proj_out\.weight|proj_out\.weight"):
        load_pipeline(copy)
    save_file(weights | {"proj_out.weight": torch.zeros(2, 2)}, file)
    with pytest.raises(ValueError, match=r"proj_out\.weight"):
        load_pipeline(copy)


def test_a_folder_of_another_pipeline_is_refused(copy):
    from models.pipeline import load_pipeline

    index = json.loads((copy / "model_index.json").read_text())
    (copy / "model_index.json").write_text(json.dumps(index | {"_class_name": "WanPipeline"}))
    with pytest.raises(ValueError, match="is of a WanPipeline, not of an AnimateXPipeline"):
        load_pipeline(copy)


def test_an_unknown_model_and_a_file_are_refused(folder):
    from models.pipeline import load_pipeline

    with pytest.raises(ValueError, match="there is no model 'maxi'; give 'mini'"):
        load_pipeline("maxi")
    with pytest.raises(ValueError, match="is a file; name the folder"):
        load_pipeline(folder / "model_index.json")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused(folder):
    from models.pipeline import load_pipeline

    with pytest.raises(ValueError, match="torch finds no GPU here; use device='cpu'"):
        load_pipeline(folder, device="cuda")


def test_a_hub_model_that_is_not_cached_is_refused_offline_without_asking_the_network(monkeypatch):
    from huggingface_hub import constants

    from models.pipeline import load_pipeline

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="'owner/absent' is neither a folder nor in the hub cache, and HF_HUB_OFFLINE"):
        load_pipeline("owner/absent")


# diffusers' features


def test_the_offload_sequence_names_every_component_with_weights(tiny):
    order = tiny.model_cpu_offload_seq.split("->")
    modules = {name for name, component in tiny.components.items() if isinstance(component, torch.nn.Module)}
    assert modules <= set(order)
    assert set(order) - modules == {"ipi_image_encoder"}


def test_offloading_hooks_every_component_that_is_used_and_changes_nothing(folder, animate, monkeypatch):
    """The hooks, with the CPU as the execution device: no component is used behind the back of its hook."""
    from models.pipeline import load_pipeline

    pipe = load_pipeline(folder)
    pipe.set_progress_bar_config(disable=True)
    plain = animate(pipe, output_type="pt")
    pipe.enable_model_cpu_offload(device="cpu")
    used = set()
    for name, component in pipe.components.items():
        if isinstance(component, torch.nn.Module):
            before = component._hf_hook.pre_forward
            monkeypatch.setattr(
                component._hf_hook, "pre_forward", lambda *a, n=name, f=before, **k: used.add(n) or f(*a, **k)
            )
    torch.testing.assert_close(animate(pipe, output_type="pt"), plain, atol=1e-5, rtol=1e-5)
    assert used == {name for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}


def test_block_by_block_gives_the_same_video(folder, animate):
    """The hooks, with the CPU as the device where the work is done."""
    from models.offload import block_by_block
    from models.pipeline import load_pipeline

    pipe = load_pipeline(folder)
    pipe.set_progress_bar_config(disable=True)
    plain = animate(pipe, output_type="pt")
    block_by_block(pipe, torch.device("cpu"))
    torch.testing.assert_close(animate(pipe, output_type="pt"), plain, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("fits", [True, False])
def test_a_transformer_that_does_not_fit_comes_block_by_block(fits, folder, monkeypatch):
    from models import offload
    from models.pipeline import AnimateXPipeline, load_pipeline

    ways = []
    monkeypatch.setattr(AnimateXPipeline, "enable_model_cpu_offload", lambda self, device: ways.append("whole"))
    monkeypatch.setattr(offload, "block_by_block", lambda pipeline, device: ways.append("blocks"))
    pipe = load_pipeline(folder)
    size = sum(p.numel() * p.element_size() for p in pipe.transformer.parameters())
    told = offload.offload(pipe, torch.device("cuda:0"), memory_bytes=2 * size if fits else size)
    assert ways == ["whole" if fits else "blocks"]
    assert (told is None) if fits else "blocks come one after another" in told


def test_offloading_leaves_the_transformer_alone_while_steps_are_made(folder, animate):
    """Also for pictures on the way, for which the codec comes beside it."""
    from models.pipeline import load_pipeline

    pipe = load_pipeline(folder)
    pipe.set_progress_bar_config(disable=True)
    pipe.enable_model_cpu_offload(device="cpu")
    sent = []
    for hook in pipe._all_hooks:
        hook.offload = lambda model=hook.model, plain=hook.offload: sent.append(model) or plain()
    # as if each part were on another device than main memory, and so had to go when the next one comes
    vae_hook, away = pipe.vae._hf_hook, []
    before = vae_hook.prev_module_hook

    def look(pipe, step, timestep, tensors):
        if step == 0:
            away.append(list(sent))
            sent.clear()
        seen = []
        plain = vae_hook.pre_forward
        vae_hook.pre_forward = lambda *a, **k: seen.append(vae_hook.prev_module_hook) or plain(*a, **k)
        pipe.stills(tensors["latents"], tensors["velocity"], step)
        vae_hook.pre_forward = plain
        assert seen and set(seen) == {None} and vae_hook.prev_module_hook is before
        return {}

    animate(pipe, num_inference_steps=2, callback_on_step_end=look,
            callback_on_step_end_tensor_inputs=["latents", "velocity"])  # fmt: skip
    rested = {id(model) for model in away[0]}
    modules = {n: part for n, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
    assert {n for n, part in modules.items() if id(part) in rested} == set(modules) - {"transformer"}


def test_driving_frames_are_of_use_where_something_sees_them(tiny):
    from diffusers import AnimateXPipeline

    assert tiny.sees_driving_frames
    assert not AnimateXPipeline(**{**tiny.components, "ipi": None}).sees_driving_frames
    blind = {**tiny.components, "image_encoder": torch.nn.Linear(1, 1)}
    assert not AnimateXPipeline(**blind).sees_driving_frames


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_offloading_to_the_cpu_gives_the_same_video(folder, animate):
    from models.pipeline import load_pipeline

    resident = load_pipeline(folder, device="cuda", dtype=torch.float32)
    offloaded = load_pipeline(folder, dtype=torch.float32)
    offloaded.enable_model_cpu_offload()
    for pipe in (resident, offloaded):
        pipe.set_progress_bar_config(disable=True)
    torch.testing.assert_close(animate(resident).cpu(), animate(offloaded).cpu(), atol=1e-4, rtol=1e-4)
    assert all(p.device.type == "cpu" for p in offloaded.transformer.parameters())


def test_a_lora_is_saved_loaded_scaled_and_switched_off(animate, tmp_path):
    from diffusers import AnimateXPipeline
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    from models.presets import tiny_pipeline

    pipe = tiny_pipeline()
    pipe.set_progress_bar_config(disable=True)
    base = animate(pipe)
    torch.manual_seed(0)
    pipe.transformer.add_adapter(
        LoraConfig(r=2, lora_alpha=2, target_modules=["to_q", "to_out.0"], init_lora_weights=False)
    )
    adapted = animate(pipe)
    assert not torch.equal(base, adapted)
    AnimateXPipeline.save_lora_weights(tmp_path, transformer_lora_layers=get_peft_model_state_dict(pipe.transformer))
    fresh = tiny_pipeline()
    fresh.set_progress_bar_config(disable=True)
    fresh.load_lora_weights(tmp_path)
    torch.testing.assert_close(animate(fresh), adapted)
    torch.testing.assert_close(animate(fresh, attention_kwargs={"scale": 0.0}), base)
    fresh.unload_lora_weights()
    torch.testing.assert_close(animate(fresh), base)


def test_block_caching_works_with_guidance_and_windows_and_starts_afresh_each_call(animate, motion):
    from diffusers import FirstBlockCacheConfig

    from models.presets import tiny_pipeline

    pipe = tiny_pipeline()
    pipe.set_progress_bar_config(disable=True)
    long = {"poses": motion(21), "driving_frames": None, "num_inference_steps": 4}
    plain = animate(pipe, **long)
    pipe.transformer.enable_cache(FirstBlockCacheConfig(threshold=1e-9))
    torch.testing.assert_close(animate(pipe, **long), plain)
    pipe.transformer.disable_cache()
    pipe.transformer.enable_cache(FirstBlockCacheConfig(threshold=10.0))
    cached = animate(pipe, **long)
    assert not torch.equal(cached, plain)
    assert torch.equal(cached, animate(pipe, **long))
