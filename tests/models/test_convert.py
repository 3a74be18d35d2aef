import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

SET = "animate-x-plusplus"


@pytest.fixture(scope="module")
def parity():
    folder = Path(__file__).parents[3] / "shared" / "parity" / SET
    if not folder.is_dir():
        pytest.skip("the parity set is not on this machine (shared/parity beside the repository)")
    return folder


@pytest.fixture(scope="module")
def converted(parity, tmp_path_factory):
    from models.convert import convert_animate_x_plusplus

    output = tmp_path_factory.mktemp("converted") / "model"
    return convert_animate_x_plusplus(parity / "wan_base.safetensors", parity / "animate-x++.ckpt", output)


def test_no_key_is_unused_or_missing(converted):
    assert converted.unused_keys == ()
    assert converted.missing_keys == ()


def test_every_stored_output_is_reproduced(converted, parity):
    from models.convert import verify_conversion

    errors = verify_conversion(converted.output, parity)
    assert errors.keys() == load_file(parity / "outputs.safetensors").keys()
    assert max(errors.values()) < 1e-4


def test_the_position_table_is_the_formula(converted):
    from pose.implicit import ImplicitPoseIndicator

    stored = load_file(converted.output / "ipi" / "diffusion_pytorch_model.safetensors")
    computed = ImplicitPoseIndicator.from_config(converted.output / "ipi").keypoint_encoder.position_table
    torch.testing.assert_close(stored["keypoint_encoder.position_table"], computed, atol=1e-5, rtol=0)


def test_the_folder_names_the_classes_and_what_is_still_missing(converted):
    index = json.loads((converted.output / "model_index.json").read_text())
    assert index["_class_name"] == "AnimateXPipeline"
    assert index["transformer"] == ["models.dit", "AnimateXTransformer3DModel"]
    assert index["epi"] == ["pose.explicit", "ExplicitPoseIndicator"]
    assert index["ipi"] == ["pose.implicit", "ImplicitPoseIndicator"]
    assert {"vae", "text_encoder", "ipi_image_encoder"} <= set(converted.missing_components)
    assert not list(converted.output.parent.glob(".*"))


@torch.no_grad()
def test_the_merged_lora_agrees_with_diffusers_own_wan(converted, parity):
    from diffusers import WanTransformer3DModel

    wan = WanTransformer3DModel.from_pretrained(converted.output / "transformer").eval()
    inputs, outputs = (load_file(parity / f"{name}.safetensors") for name in ("inputs", "outputs"))
    wan.patch_embedding.register_forward_hook(
        lambda module, args, tokens: tokens + outputs["pose_tokens"].transpose(1, 2).reshape(tokens.shape)
    )
    latents = torch.cat([inputs["latents"], inputs["y"] + outputs["reference_pose"]], dim=1)
    velocity = wan(latents, inputs["timestep"], inputs["text"], inputs["image_embeds"]).sample
    expected = outputs["velocity_no_implicit"]
    assert (velocity - expected).norm() / expected.norm() < 1e-4


# From here on: a small synthetic set in the released names, of other sizes than the parity set.


def released_base(num_layers=3, dim=24):
    """A base transformer in Wan's own key names."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return 0.1 * torch.randn(*shape, generator=generator)

    linears = {
        "time_embedding.0": (dim, 16),
        "time_embedding.2": (dim, dim),
        "time_projection.1": (6 * dim, dim),
        "text_embedding.0": (dim, 10),
        "text_embedding.2": (dim, dim),
        "head.head": (4 * 16, dim),
    }
    tensors = {"patch_embedding.weight": normal(dim, 36, 1, 2, 2), "patch_embedding.bias": normal(dim)}
    tensors["head.modulation"] = normal(1, 2, dim)
    linears |= {"img_emb.proj.1": (14, 14), "img_emb.proj.3": (dim, 14)}
    for index, width in ((0, 14), (4, dim)):
        tensors[f"img_emb.proj.{index}.weight"] = 1 + normal(width)
        tensors[f"img_emb.proj.{index}.bias"] = normal(width)
    for i in range(num_layers):
        block = f"blocks.{i}."
        for attention in ("self_attn", "cross_attn"):
            linears |= {f"{block}{attention}.{part}": (dim, dim) for part in "qkvo"}
            tensors |= {f"{block}{attention}.norm_{part}.weight": 1 + normal(dim) for part in "qk"}
        linears |= {f"{block}cross_attn.{part}_img": (dim, dim) for part in "kv"}
        tensors[f"{block}cross_attn.norm_k_img.weight"] = 1 + normal(dim)
        linears |= {f"{block}ffn.0": (40, dim), f"{block}ffn.2": (dim, 40)}
        tensors[f"{block}modulation"] = normal(1, 6, dim)
        tensors |= {f"{block}norm3.weight": 1 + normal(dim), f"{block}norm3.bias": normal(dim)}
    for name, (rows, columns) in linears.items():
        tensors |= {f"{name}.weight": normal(rows, columns), f"{name}.bias": normal(rows)}
    return tensors


def released_checkpoint(num_layers=3, dim=24, rank=2):
    """A checkpoint in the released key names, made from our indicators with their names turned back."""
    from pose.explicit import ExplicitPoseIndicator

    torch.manual_seed(1)
    epi = ExplicitPoseIndicator(hidden_channels=5, dim=dim, reference_hidden_channels=3)
    names = {"pose_encoder": "dwpose_embedding", "reference_encoder": "randomref_embedding_pose"}
    tensors = {}
    for name, tensor in epi.state_dict().items():
        head, rest = name.split(".", 1)
        tensors[f"{names[head]}.{rest}"] = tensor
    shapes = {f"{a}.{p}": (dim, dim) for a in ("self_attn", "cross_attn") for p in "qkvo"}
    shapes |= {"ffn.0": (40, dim), "ffn.2": (dim, 40)}
    for i in range(num_layers):
        for layer, (rows, columns) in shapes.items():
            prefix = f"pipe.dit.blocks.{i}.{layer}"
            tensors[f"{prefix}.lora_A.default.weight"] = torch.randn(rank, columns)
            tensors[f"{prefix}.lora_B.default.weight"] = torch.randn(rows, rank)
    return tensors


@pytest.fixture
def released(tmp_path):
    """Writes the small set and returns (base, checkpoint) paths."""
    folder = tmp_path / "released"
    folder.mkdir()
    save_file(released_base(), folder / "base.safetensors")
    torch.save(released_checkpoint(), folder / "simple.ckpt")
    (folder / "config.json").write_text(json.dumps({"num_heads": 2}))
    return folder / "base.safetensors", folder / "simple.ckpt"


def convert(released, output, **options):
    from models.convert import convert_animate_x_plusplus

    return convert_animate_x_plusplus(*released, output, **options)


def test_the_simple_checkpoint_gives_no_implicit_indicator(released, tmp_path):
    report = convert(released, tmp_path / "out")
    assert report.unused_keys == report.missing_keys == ()
    assert not (report.output / "ipi").exists()
    assert "ipi" not in json.loads((report.output / "model_index.json").read_text())


def test_sizes_come_from_the_weights(released, tmp_path):
    from models.dit import AnimateXTransformer3DModel

    convert(released, tmp_path / "out")
    config = AnimateXTransformer3DModel.load_config(tmp_path / "out" / "transformer")
    sizes = dict(num_layers=3, num_attention_heads=2, attention_head_dim=12, ffn_dim=40, text_dim=10, freq_dim=16)
    sizes |= dict(in_channels=36, out_channels=16, image_dim=14, added_kv_proj_dim=24, cross_attn_norm=True)
    assert {name: config[name] for name in sizes} == sizes


def test_the_lora_is_folded_in_at_scale_one(released, tmp_path):
    convert(released, tmp_path / "out")
    merged = load_file(tmp_path / "out" / "transformer" / "diffusion_pytorch_model.safetensors")
    base, checkpoint = released_base(), torch.load(released[1], weights_only=True)
    for theirs, ours in {"self_attn.q": "attn1.to_q", "cross_attn.o": "attn2.to_out.0", "ffn.2": "ffn.net.2"}.items():
        up, down = (checkpoint[f"pipe.dit.blocks.1.{theirs}.lora_{half}.default.weight"] for half in "BA")
        expected = base[f"blocks.1.{theirs}.weight"] + up @ down
        torch.testing.assert_close(merged[f"blocks.1.{ours}.weight"], expected)


@torch.no_grad()
def test_a_kept_lora_loads_through_peft_and_equals_the_folded_one(released, tmp_path):
    from models.dit import AnimateXTransformer3DModel

    convert(released, tmp_path / "folded")
    convert(released, tmp_path / "kept", keep_lora=True)
    folded, kept = (
        AnimateXTransformer3DModel.from_pretrained(tmp_path / name / "transformer").eval()
        for name in ("folded", "kept")
    )
    inputs = (torch.randn(1, 36, 2, 4, 4), torch.tensor([500.0]), torch.randn(1, 6, 10), torch.randn(1, 5, 14))
    assert not torch.allclose(folded(*inputs).sample, kept(*inputs).sample, atol=1e-3)
    kept.load_lora_adapter(load_file(tmp_path / "kept" / "pytorch_lora_weights.safetensors"), prefix="transformer")
    torch.testing.assert_close(kept(*inputs).sample, folded(*inputs).sample, atol=1e-4, rtol=1e-4)


def released_implicit(clip_dim):
    """The implicit indicator in the released key names."""
    from pose.implicit import ImplicitPoseIndicator

    ipi = ImplicitPoseIndicator(
        clip_dim=clip_dim, keypoint_lift_dim=8, dim=16, out_dim=24, keypoint_layers=1, keypoint_ffn_dim=16,
        max_frames=8, resampler_layers=1, resampler_heads=1, num_frames=5, num_latent_frames=2,
    )  # fmt: skip
    names = {
        "keypoint_encoder.lift": "before.increase_embed_dim", "keypoint_encoder.layers": "before.encoder.layers",
        "keypoint_encoder.position_table": "before.pos_embed.pos_table", "query": "after.latents",
        "keypoint_encoder.head": "before.pre_image_condition_p", "image_in": "after.proj_in", "out": "after.proj_out",
        "norm_out": "after.norm_out", "to_motion": "after.proj_out2", "frame_map": "after.proj_conv",
        "layers.0.norm_image": "after.layers.0.0.norm1", "layers.0.norm_query": "after.layers.0.0.norm2",
        "layers.0.ffn": "after.layers.0.1", "layers.0": "after.layers.0.0",
    }  # fmt: skip
    tensors = {}
    for name, tensor in ipi.state_dict().items():
        ours = next(head for head in names if f"{name}.".startswith(f"{head}."))
        tensors[f"pose_embedding_{names[ours]}{name.removeprefix(ours)}"] = tensor
    return tensors


@torch.no_grad()
def test_the_second_clip_becomes_what_the_implicit_indicator_sees_with(released, tmp_path):
    import open_clip

    from models.clip import CLIP_MEAN, CLIP_STD, OpenCLIPVisionEncoder

    theirs = open_clip.create_model("ViT-S-32", pretrained=None).half().eval()
    torch.save(theirs.state_dict(), tmp_path / "clip.bin")
    torch.save(released_checkpoint() | released_implicit(clip_dim=384), released[1])
    report = convert(released, tmp_path / "out", clip=tmp_path / "clip.bin")
    assert report.unused_keys == report.missing_keys == ()
    assert "ipi_image_encoder" not in report.missing_components
    index = json.loads((report.output / "model_index.json").read_text())
    assert index["ipi_image_encoder"] == ["models.clip", "OpenCLIPVisionEncoder"]
    ours = OpenCLIPVisionEncoder.from_pretrained(report.output / "ipi_image_encoder", torch_dtype=torch.float32)
    mean, std = (torch.tensor(c).view(3, 1, 1) for c in (CLIP_MEAN, CLIP_STD))
    pixels = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0)) * 2 - 1
    expected = theirs.float().encode_image(((pixels + 1) / 2 - mean) / std)
    torch.testing.assert_close(ours(pixels).pooled, expected, rtol=1e-4, atol=1e-4)

    torch.save(released_checkpoint() | released_implicit(clip_dim=32), released[1])
    with pytest.raises(ValueError, match=r"clip\.bin has shape \(384,\).*\(32,\).*do not match"):
        convert(released, tmp_path / "other", clip=tmp_path / "clip.bin")
    torch.save(released_checkpoint(), released[1])
    with pytest.raises(ValueError, match=r"clip\.bin: the checkpoint has no implicit indicator"):
        convert(released, tmp_path / "other", clip=tmp_path / "clip.bin")
    torch.save(released_checkpoint() | released_implicit(clip_dim=384), released[1])
    for state, message in [
        ({"text.weight": torch.zeros(1)}, "no open_clip model"),
        ({n: t for n, t in theirs.state_dict().items() if "resblocks.3." not in n}, "no vision transformer with"),
    ]:
        torch.save(state, tmp_path / "clip.bin")
        with pytest.raises(ValueError, match=message):
            convert(released, tmp_path / "other", clip=tmp_path / "clip.bin")
    assert not (tmp_path / "other").exists()


def test_another_alpha_in_the_config_is_honoured(released, tmp_path):
    convert(released, tmp_path / "one")
    (released[0].parent / "config.json").write_text(json.dumps({"num_heads": 2, "lora_alpha": 1, "lora_rank": 2}))
    convert(released, tmp_path / "half")
    one, half = (
        load_file(tmp_path / name / "transformer" / "diffusion_pytorch_model.safetensors") for name in ("one", "half")
    )
    base = released_base()["blocks.0.ffn.0.weight"]
    name = "blocks.0.ffn.net.0.proj.weight"
    torch.testing.assert_close(half[name] - base, 0.5 * (one[name] - base))


def test_a_strange_key_is_reported_and_a_lost_one_too(released, tmp_path):
    base = released_base()
    base["blocks.0.extra.weight"] = torch.zeros(1)
    del base["head.head.bias"]
    save_file(base, released[0])
    checkpoint = released_checkpoint() | {"optimizer_step": torch.zeros(1), "dwpose_embedding.99.bias": torch.zeros(1)}
    checkpoint["pipe.dit.blocks.9.ffn.0.lora_A.default.weight"] = torch.zeros(2, 24)
    torch.save(checkpoint, released[1])
    report = convert(released, tmp_path / "out")
    assert report.missing_keys == ("transformer.proj_out.bias",)
    assert report.unused_keys == (
        "blocks.0.extra.weight",
        "dwpose_embedding.99.bias",
        "optimizer_step",
        "pipe.dit.blocks.9.ffn.0.lora_A.default.weight",
    )


def test_shards_and_prefixes_of_the_base_are_read(released, tmp_path):
    folder = tmp_path / "sharded"
    folder.mkdir()
    tensors = {f"model.diffusion_model.{name}": tensor for name, tensor in released_base().items()}
    names = sorted(tensors)
    for index, part in enumerate((names[::2], names[1::2])):
        save_file({name: tensors[name] for name in part}, folder / f"model-0000{index + 1}-of-00002.safetensors")
    convert(released, tmp_path / "whole")
    convert((folder, released[1]), tmp_path / "out")
    whole, out = (
        load_file(tmp_path / name / "transformer" / "diffusion_pytorch_model.safetensors") for name in ("whole", "out")
    )
    assert whole.keys() == out.keys()
    assert all(torch.equal(whole[name], out[name]) for name in whole)


def test_a_diffusers_folder_gives_its_other_components(released, tmp_path):
    convert(released, tmp_path / "first", keep_lora=True)  # writes the plain base in diffusers' names
    base = tmp_path / "base"
    (tmp_path / "first").rename(base)
    (base / "scheduler").mkdir()
    (base / "scheduler" / "scheduler_config.json").write_text("{}")
    entry = ["diffusers", "FlowMatchEulerDiscreteScheduler"]
    (base / "model_index.json").write_text(json.dumps({"scheduler": entry, "vae": [None, None]}))
    report = convert((base, released[1]), tmp_path / "out")
    assert report.unused_keys == report.missing_keys == ()
    assert json.loads((report.output / "model_index.json").read_text())["scheduler"] == entry
    assert (report.output / "scheduler" / "scheduler_config.json").is_file()
    assert "vae" in report.missing_components


@torch.no_grad()
def test_large_outputs_are_sharded_and_load(tmp_path):
    from models.convert import ShardWriter
    from models.dit import AnimateXTransformer3DModel

    torch.manual_seed(0)
    model = AnimateXTransformer3DModel(
        num_attention_heads=1, attention_head_dim=12, in_channels=4, text_dim=8, freq_dim=8, ffn_dim=16, num_layers=2
    )
    writer = ShardWriter(tmp_path / "model", max_bytes=4000)
    for name, tensor in model.state_dict().items():
        writer.add(name, tensor)
    writer.close()
    model.save_config(tmp_path / "model")
    files = sorted(path.name for path in (tmp_path / "model").glob("*.safetensors"))
    assert len(files) > 2
    assert files[0] == f"diffusion_pytorch_model-00001-of-{len(files):05d}.safetensors"
    loaded = AnimateXTransformer3DModel.from_pretrained(tmp_path / "model").state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in model.state_dict().items())


def test_bad_input_is_one_message_and_leaves_nothing_behind(released, tmp_path):
    base, checkpoint = released
    output = tmp_path / "out"
    broken = tmp_path / "broken.ckpt"
    broken.write_bytes(b"not a checkpoint")
    other = tmp_path / "other.ckpt"
    torch.save({"weight": torch.zeros(1)}, other)
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "file").touch()
    for files, target, message in [
        ((tmp_path / "no.safetensors", checkpoint), output, "does not exist"),
        ((base, tmp_path / "no.ckpt"), output, "does not exist"),
        ((base, broken), output, "cannot read"),
        ((broken, checkpoint), output, "cannot read"),
        ((base, other), output, "not an Animate-X"),
        ((base, checkpoint), taken, "is taken"),
    ]:
        with pytest.raises(ValueError, match=message):
            convert(files, target)
    torch.save(released_checkpoint(dim=26), other)
    with pytest.raises(ValueError, match="do not match"):
        convert((base, other), output)
    (base.parent / "config.json").unlink()
    with pytest.raises(ValueError, match=r"cannot tell num_heads from a width of 24"):
        convert((base, checkpoint), output)
    assert not output.exists()
    assert not list(tmp_path.glob(".*.partial"))


def test_code_in_a_pickle_is_never_run(released, tmp_path):
    class Payload:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"dwpose_embedding.0.weight": Payload()}, released[1])
    with pytest.raises(ValueError, match="cannot read"):
        convert(released, tmp_path / "out")
    assert not (tmp_path / "ran").exists()
