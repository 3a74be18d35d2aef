import subprocess
import sys
from pathlib import Path

import pytest
import torch

SIZES = dict(
    num_attention_heads=2,
    attention_head_dim=12,
    in_channels=36,
    out_channels=16,
    text_dim=10,
    freq_dim=16,
    ffn_dim=32,
    num_layers=4,
    image_dim=8,
    added_kv_proj_dim=24,
    rope_max_seq_len=32,
)
FRAMES, ROWS, COLUMNS, DIM = 3, 2, 4, 24


def make_transformer(**changes):
    from models.dit import AnimateXTransformer3DModel

    torch.manual_seed(0)
    return AnimateXTransformer3DModel(**(SIZES | changes)).eval()


@pytest.fixture
def transformer():
    return make_transformer()


def make_inputs(batch=2, text_tokens=7, image_tokens=5, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    return dict(
        hidden_states=normal(batch, 36, FRAMES, 2 * ROWS, 2 * COLUMNS),
        timestep=torch.tensor([900.0, 20.0])[:batch],
        encoder_hidden_states=normal(batch, text_tokens, 10),
        encoder_hidden_states_image=normal(batch, image_tokens, 8),
        pose_tokens=normal(batch, FRAMES * ROWS * COLUMNS, DIM),
        motion_tokens=normal(batch, FRAMES, DIM),
    )


def without(inputs, *names):
    return {name: value for name, value in inputs.items() if name not in names}


@torch.no_grad()
def run(model, inputs):
    return model(**inputs).sample


def make_wan():
    from diffusers import WanTransformer3DModel

    torch.manual_seed(1)
    return WanTransformer3DModel(**SIZES).eval()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_without_pose_the_output_is_that_of_wan_bit_for_bit(dtype, tmp_path):
    from diffusers import WanTransformer3DModel

    from models.dit import AnimateXTransformer3DModel

    make_wan().save_pretrained(tmp_path)
    wan = WanTransformer3DModel.from_pretrained(tmp_path, torch_dtype=dtype).eval()
    ours = AnimateXTransformer3DModel.from_wan(wan)
    inputs = without(make_inputs(text_tokens=512), "pose_tokens", "motion_tokens")
    inputs = {name: value.to(dtype) for name, value in inputs.items()}
    assert torch.equal(run(ours, inputs), run(wan, inputs))


def test_zero_tokens_from_fresh_indicators_leave_wan_bit_for_bit():
    from models.dit import AnimateXTransformer3DModel
    from pose.explicit import ExplicitPoseIndicator
    from pose.implicit import ImplicitPoseIndicator

    wan = make_wan()
    ours = AnimateXTransformer3DModel.from_wan(wan)
    epi = ExplicitPoseIndicator(hidden_channels=4, dim=DIM, reference_hidden_channels=4, zero_init_pose=True)
    ipi = ImplicitPoseIndicator(
        clip_dim=6,
        keypoint_lift_dim=8,
        dim=16,
        out_dim=DIM,
        keypoint_layers=1,
        keypoint_heads=2,
        keypoint_ffn_dim=16,
        resampler_layers=1,
        resampler_heads=2,
        resampler_head_dim=8,
        time_map="mean",
        max_frames=9,
    ).eval()
    frames = 4 * (FRAMES - 1) + 1
    inputs = without(make_inputs(text_tokens=512), "pose_tokens", "motion_tokens")
    pose = torch.rand(2, 3, frames, 16 * ROWS, 16 * COLUMNS)
    with torch.no_grad():
        reference_pose = epi.encode_reference_pose(pose[:, :, 0])
        latents, y = inputs["hidden_states"].split([16, 20], dim=1)
        ours_inputs = inputs | dict(
            hidden_states=torch.cat([latents, y + reference_pose], dim=1),
            pose_tokens=epi.encode_pose(pose),
            motion_tokens=ipi(torch.randn(2, frames, 6), torch.rand(2, frames, 36)),
        )
    assert torch.equal(run(ours, ours_inputs), run(wan, inputs))


def test_per_token_timesteps_agree_with_wan():
    from models.dit import AnimateXTransformer3DModel

    wan = make_wan()
    ours = AnimateXTransformer3DModel.from_wan(wan)
    inputs = without(make_inputs(text_tokens=512), "pose_tokens", "motion_tokens")
    inputs["timestep"] = 1000 * torch.rand(2, FRAMES * ROWS * COLUMNS)
    assert torch.equal(run(ours, inputs), run(wan, inputs))


def test_from_wan_keeps_keys_mode_and_trainable_flags():
    from models.dit import AnimateXTransformer3DModel

    wan = make_wan()
    wan.proj_out.requires_grad_(False)
    ours = AnimateXTransformer3DModel.from_wan(wan)
    assert ours.state_dict().keys() == wan.state_dict().keys()
    assert not ours.training
    assert not ours.proj_out.weight.requires_grad
    assert ours.blocks[0].attn1.to_q.weight.requires_grad
    assert not any(tensor.is_meta for tensor in (*ours.parameters(), *ours.buffers()))


def test_a_wan_folder_loads_without_leaving_weights_on_the_meta_device(tmp_path):
    from models.dit import AnimateXTransformer3DModel

    wan = make_wan()
    wan.save_pretrained(tmp_path)
    ours = AnimateXTransformer3DModel.from_pretrained(tmp_path)
    assert not any(tensor.is_meta for tensor in (*ours.parameters(), *ours.buffers()))
    inputs = without(make_inputs(text_tokens=512), "pose_tokens", "motion_tokens")
    assert torch.equal(run(ours, inputs), run(wan, inputs))


def test_saving_and_loading_gives_the_same_output(transformer, tmp_path):
    from models.dit import AnimateXTransformer3DModel

    inputs = make_inputs()
    transformer.save_pretrained(tmp_path)
    loaded = AnimateXTransformer3DModel.from_pretrained(tmp_path).eval()
    assert torch.equal(run(loaded, inputs), run(transformer, inputs))


def test_a_batch_of_two_equals_two_runs(transformer):
    inputs = make_inputs()
    both = run(transformer, inputs)
    each = [run(transformer, {name: value[i : i + 1] for name, value in inputs.items()}) for i in range(2)]
    torch.testing.assert_close(both, torch.cat(each), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("text_tokens", [1, 7, 512, 600])
def test_text_of_any_length_is_told_from_image_tokens(transformer, text_tokens):
    inputs = make_inputs(text_tokens=text_tokens)
    seen = []
    hook = transformer.blocks[0].attn2.add_k_proj.register_forward_hook(
        lambda module, args, output: seen.append(args[0].shape[1])
    )
    moved = inputs | dict(encoder_hidden_states=torch.zeros_like(inputs["encoder_hidden_states"]))
    assert not torch.equal(run(transformer, inputs), run(transformer, moved))
    hook.remove()
    assert seen == [5, 5]


def test_repeating_the_text_changes_nothing(transformer):
    # Softmax over k equal copies of every key is the softmax over one: true only if no text token counts as image.
    inputs = make_inputs()
    repeated = inputs | dict(encoder_hidden_states=inputs["encoder_hidden_states"].repeat(1, 3, 1))
    torch.testing.assert_close(run(transformer, repeated), run(transformer, inputs), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("left_out", [(), ("encoder_hidden_states_image",)])
def test_a_text_that_several_are_told_is_given_once(transformer, left_out):
    inputs = without(make_inputs(), *left_out)
    once = inputs["encoder_hidden_states"][:1]
    shared = inputs | dict(encoder_hidden_states=once, text_of=torch.tensor([0, 0]))
    each = inputs | dict(encoder_hidden_states=once.expand(2, -1, -1))
    torch.testing.assert_close(run(transformer, shared), run(transformer, each), atol=1e-6, rtol=1e-6)
    transformer.fuse_qkv_projections()
    torch.testing.assert_close(run(transformer, shared), run(transformer, each), atol=1e-6, rtol=1e-6)


def test_fewer_texts_than_samples_are_refused(transformer):
    inputs = make_inputs()
    with pytest.raises(ValueError, match="2 samples need a text each, or text_of for each; got 1"):
        run(transformer, inputs | dict(encoder_hidden_states=inputs["encoder_hidden_states"][:1]))


def test_without_an_image_the_image_attention_is_left_out(transformer):
    inputs = without(make_inputs(), "encoder_hidden_states_image")
    with torch.no_grad():
        for block in transformer.blocks:
            block.attn2.add_v_proj.weight.normal_()
    output = run(transformer, inputs)
    with torch.no_grad():
        for block in transformer.blocks:
            block.attn2.add_v_proj.weight.zero_()
    assert torch.isfinite(output).all()
    assert torch.equal(output, run(transformer, inputs))


def test_one_frame_works(transformer):
    inputs = make_inputs()
    inputs["hidden_states"] = inputs["hidden_states"][:, :, :1]
    inputs["pose_tokens"] = inputs["pose_tokens"][:, : ROWS * COLUMNS]
    inputs["motion_tokens"] = inputs["motion_tokens"][:, :1]
    assert run(transformer, inputs).shape == (2, 16, 1, 2 * ROWS, 2 * COLUMNS)


@pytest.mark.parametrize(
    ("num_layers", "changes", "expected"),
    [
        (4, {}, [2]),
        (8, {}, [2, 3, 4]),
        (5, {}, [2]),
        (4, {"motion_inject_start": 0, "motion_inject_end": 3}, [0, 1, 2, 3]),
    ],
)
def test_motion_enters_blocks_two_to_half_inclusive(num_layers, changes, expected):
    transformer = make_transformer(num_layers=num_layers, **changes)
    received = []
    for index, block in enumerate(transformer.blocks):
        block.register_forward_pre_hook(
            lambda module, args, index=index: received.append(index) if args[5] is not None else None
        )
    run(transformer, make_inputs())
    assert received == expected


def test_a_motion_token_reaches_all_places_of_its_frame_and_no_other():
    from models.dit import MotionBroadcast

    motion = torch.arange(3.0).reshape(1, 3, 1)
    assert MotionBroadcast()(motion, 2).flatten().tolist() == [0, 0, 1, 1, 2, 2]


def test_pose_tokens_are_added_once_after_the_patch_embedding(transformer):
    inputs = make_inputs()
    seen = []
    transformer.blocks[0].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    run(transformer, inputs)
    run(transformer, without(inputs, "pose_tokens"))
    torch.testing.assert_close(seen[0] - seen[1], inputs["pose_tokens"], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("context", ["cond", "uncond"])
def test_first_block_cache_that_always_hits_keeps_the_motion_counted_once(transformer, context):
    from diffusers.hooks import FirstBlockCacheConfig

    inputs = make_inputs()
    plain = run(transformer, inputs)
    blocks_run = []
    transformer.blocks[1].ffn.register_forward_hook(lambda *_: blocks_run.append(1))
    transformer.enable_cache(FirstBlockCacheConfig(threshold=1e9))
    with transformer.cache_context(context):
        first, cached = run(transformer, inputs), run(transformer, inputs)
    transformer.disable_cache()
    assert len(blocks_run) == 1  # the second run came from the cache
    torch.testing.assert_close(first, plain, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(cached, plain, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(run(transformer, inputs), plain, atol=0, rtol=0)


def test_first_block_cache_also_holds_when_the_first_block_takes_motion():
    from diffusers.hooks import FirstBlockCacheConfig

    transformer = make_transformer(motion_inject_start=0, motion_inject_end=3)
    inputs = make_inputs()
    plain = run(transformer, inputs)
    transformer.enable_cache(FirstBlockCacheConfig(threshold=1e9))
    with transformer.cache_context("cond"):
        run(transformer, inputs)
        cached = run(transformer, inputs)
    torch.testing.assert_close(cached, plain, atol=1e-5, rtol=1e-5)


def test_the_cache_needs_a_context(transformer):
    from diffusers.hooks import FirstBlockCacheConfig

    transformer.enable_cache(FirstBlockCacheConfig(threshold=0.1))
    with pytest.raises(ValueError, match="context"):
        run(transformer, make_inputs())


def gradients(transformer, inputs):
    transformer.zero_grad()
    transformer(**inputs).sample.square().mean().backward()
    return {name: parameter.grad.clone() for name, parameter in transformer.named_parameters()}


def test_gradient_checkpointing_gives_the_same_gradients(transformer):
    inputs = make_inputs()
    plain = gradients(transformer, inputs)
    transformer.enable_gradient_checkpointing()
    checkpointed = gradients(transformer, inputs)
    assert all(torch.equal(plain[name], checkpointed[name]) for name in plain)


def test_every_weight_gets_a_gradient(transformer):
    assert all(gradient.abs().sum() > 0 for gradient in gradients(transformer, make_inputs()).values())


def test_lora_through_peft_starts_as_the_identity_with_scale_one(transformer):
    from peft import LoraConfig

    inputs = make_inputs()
    plain = run(transformer, inputs)
    targets = ["to_q", "to_k", "to_v", "to_out.0", "ffn.net.0.proj", "ffn.net.2"]
    transformer.add_adapter(LoraConfig(r=4, lora_alpha=4, target_modules=targets))
    # not bit for bit: the wrapped layers' memory may be aligned differently, and a kernel may then sum in another order
    torch.testing.assert_close(run(transformer, inputs), plain, atol=1e-5, rtol=1e-5)
    layer = transformer.blocks[1].attn2.to_q
    assert layer.scaling == {"default": 1.0}
    with torch.no_grad():
        for name, parameter in transformer.named_parameters():
            if "lora_B" in name:
                parameter.normal_(generator=torch.Generator().manual_seed(0))
    changed = run(transformer, inputs)
    assert not torch.allclose(changed, plain)
    halved = run(transformer, inputs | dict(attention_kwargs={"scale": 0.0}))
    torch.testing.assert_close(halved, plain, atol=1e-5, rtol=1e-5)
    transformer.disable_adapters()
    torch.testing.assert_close(run(transformer, inputs), plain, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("backend", ["native", "_native_math"])
def test_attention_backends_agree(transformer, backend):
    inputs = make_inputs()
    plain = run(transformer, inputs)
    transformer.set_attention_backend(backend)
    torch.testing.assert_close(run(transformer, inputs), plain, atol=1e-5, rtol=1e-5)


def test_fused_projections_agree(transformer):
    inputs = make_inputs()
    plain = run(transformer, inputs)
    transformer.fuse_qkv_projections()
    torch.testing.assert_close(run(transformer, inputs), plain, atol=1e-5, rtol=1e-5)


def test_bf16_training_on_the_cpu_agrees_with_inference(transformer):
    # Training takes plain matrix products there, inference the fused kernel.
    inputs = make_inputs()
    with torch.autocast("cpu", torch.bfloat16):
        trained = transformer(**inputs).sample
        with torch.no_grad():
            sampled = transformer(**inputs).sample
    exact = run(transformer, inputs)
    scale = exact.abs().mean()
    assert (trained.float() - exact).abs().mean() < 0.03 * scale
    assert (sampled.float() - exact).abs().mean() < 0.03 * scale


def test_repeated_blocks_compile_without_a_graph_break(transformer):
    if hasattr(type(transformer.blocks[0]).forward, "__wrapped__"):
        pytest.skip("shape checks are on, and those cannot be compiled")
    inputs = make_inputs()
    plain = run(transformer, inputs)
    transformer.compile_repeated_blocks(fullgraph=True, backend="eager")
    torch.testing.assert_close(run(transformer, inputs), plain, atol=1e-5, rtol=1e-5)


def test_offloading_groups_of_blocks_gives_the_same_output(transformer):
    inputs = make_inputs()
    plain = run(transformer, inputs)
    cpu = torch.device("cpu")
    transformer.enable_group_offload(
        onload_device=cpu, offload_device=cpu, offload_type="block_level", num_blocks_per_group=1
    )
    assert torch.equal(run(transformer, inputs), plain)


def test_layerwise_casting_keeps_norms_and_embeddings_in_higher_precision(transformer):
    inputs = make_inputs()
    plain = run(transformer, inputs)
    transformer.enable_layerwise_casting(storage_dtype=torch.bfloat16, compute_dtype=torch.float32)
    assert transformer.blocks[0].attn1.to_q.weight.dtype == torch.bfloat16
    assert transformer.blocks[0].attn1.norm_q.weight.dtype == torch.float32
    assert transformer.patch_embedding.weight.dtype == torch.float32
    assert (run(transformer, inputs) - plain).abs().mean() < 0.05 * plain.abs().mean()


def test_half_precision_loading_keeps_the_sensitive_parts_in_float32(transformer, tmp_path):
    from models.dit import AnimateXTransformer3DModel

    transformer.save_pretrained(tmp_path)
    half = AnimateXTransformer3DModel.from_pretrained(tmp_path, torch_dtype=torch.bfloat16)
    assert half.blocks[0].scale_shift_table.dtype == torch.float32
    assert half.blocks[0].attn1.to_q.weight.dtype == torch.bfloat16


def test_a_wrong_condition_is_refused_by_name(transformer):
    inputs = make_inputs()
    with pytest.raises(ValueError, match="pose_tokens"):
        run(transformer, inputs | dict(pose_tokens=inputs["pose_tokens"][:, 1:]))
    with pytest.raises(ValueError, match="motion_tokens"):
        run(transformer, inputs | dict(motion_tokens=inputs["motion_tokens"][:, 1:]))
    with pytest.raises(ValueError, match="height must be a multiple of 2"):
        run(transformer, inputs | dict(hidden_states=inputs["hidden_states"][:, :, :, 1:]))
    with pytest.raises(ValueError, match="rope_max_seq_len"):
        run(transformer, inputs | dict(hidden_states=torch.zeros(2, 36, 33, 4, 4)))
    with pytest.raises(ValueError, match="no image attention"):
        run(make_transformer(image_dim=None, added_kv_proj_dim=None), inputs)


@pytest.mark.slow
def test_tokens_and_motion_are_sharded_alike_over_two_processes(tmp_path):
    worker = Path(__file__).with_name("sharded_worker.py")
    ranks = [
        subprocess.Popen(
            [sys.executable, str(worker), str(rank), str(tmp_path / "rendezvous")],
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        for rank in range(2)
    ]
    try:
        errors = [rank.communicate(timeout=200)[1] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0, 0], errors
