"""LoRA files of every format, read back by diffusers' own loaders, on every kind of pipeline."""

import pytest
import torch
from safetensors.torch import load_file

from models.components import load_component
from training.exporting import export_lora, open_base
from training.exporting.factors import factor, relative_error
from training.exporting.names import naming
from training.methods.adapter import load_adapter
from training.methods.changes import Change, dense_change, sparse_change

FORMATS = {
    "sd": ("diffusers", "lora", "comfyui"),
    "sdxl": ("diffusers", "lora", "comfyui"),
    "sd3": ("diffusers", "comfyui"),
    "wan": ("diffusers", "lora", "comfyui"),
    "ours": ("diffusers", "lora", "comfyui"),
}
PAIRS = [(kind, form) for kind, forms in FORMATS.items() for form in forms]


def export(path, output, form, **options):
    adapter = load_adapter(path)
    return export_lora(adapter, open_base(adapter), output, form, **options)


@pytest.mark.parametrize(("kind", "form"), PAIRS)
@pytest.mark.parametrize("method", ["paca", "lora"])
def test_columns_and_loras_are_exact_on_every_pipeline(kind, form, method, pipelines, adapt, tmp_path):
    words = {"sd": (), "sdxl": (), "sd3": ("attention", "feed-forward")}.get(kind, ("blocks.*",))
    path = adapt(pipelines(kind), method, words, rank=2)
    report = export(path, tmp_path / "out.safetensors", form)
    assert report.max_error < 1e-5 and report.lost < 1e-5 and not report.approximate and not report.dropped
    assert report.output.is_file()


@pytest.mark.parametrize("form", FORMATS["ours"])
def test_layers_of_zeros_that_diffusers_adds_to_an_image_to_video_network_do_no_harm(form, ours, adapt, tmp_path):
    path = adapt(ours, "paca", ("blocks.*.attn2.to_q", "blocks.*.attn2.to_k"), rank=2)
    report = export(path, tmp_path / "out.safetensors", form)
    assert report.max_error < 1e-6


def test_rows_are_exact_and_a_convolution_has_a_wide_a_and_a_pointwise_b(sd, adapt, tmp_path):
    path = adapt(sd, "sparse", structure="rows", fraction=0.1)
    report = export(path, tmp_path / "out.safetensors", "diffusers", drop_rest=True)
    assert report.max_error < 1e-6
    tensors = load_file(report.output)
    a = tensors["unet.down_blocks.0.resnets.0.conv1.lora_A.weight"]
    b = tensors["unet.down_blocks.0.resnets.0.conv1.lora_B.weight"]
    assert a.shape[1:] == (16, 3, 3) and b.shape == (16, len(a), 1, 1)


def test_a_file_makes_the_pipeline_what_the_adapter_does(sd, adapt, tmp_path):
    from diffusers import StableDiffusionPipeline

    from training.methods.adapter import apply_adapter

    path = adapt(sd, "paca", rank=2, size=0.2)
    export(path, tmp_path / "out.safetensors", "lora")
    pipeline = StableDiffusionPipeline.from_pretrained(sd)
    plain = StableDiffusionPipeline.from_pretrained(sd)
    apply_adapter(plain.unet, load_adapter(path))
    pipeline.load_lora_weights(str(tmp_path), weight_name="out.safetensors")
    x, t = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([300])
    tokens = torch.randn(1, 5, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = plain.unet(x, t, encoder_hidden_states=tokens).sample
        torch.testing.assert_close(pipeline.unet(x, t, encoder_hidden_states=tokens).sample, wanted)


def test_scattered_changes_need_a_rank_and_the_error_is_told(sd, adapt, tmp_path):
    path = adapt(sd, "sara", ("attention",), fraction=0.05)
    with pytest.raises(ValueError, match=r"no product of thin matrices .* --rank .*exact from \d+ on"):
        export(path, tmp_path / "out.safetensors", "diffusers", drop_rest=True)
    errors = []
    for rank in (1, 4, 64):
        report = export(path, tmp_path / f"{rank}.safetensors", "diffusers", rank=rank, drop_rest=True)
        errors.append(report.lost)
        if rank < 64:
            assert report.approximate and report.max_error == max(report.approximate.values())
    assert 1 > errors[0] > errors[1] > errors[2]
    assert not report.approximate and errors[2] == pytest.approx(report.dropped_share**0.5)


def test_what_has_no_place_is_named_and_dropped_only_when_asked(sd, adapt, tmp_path):
    path = adapt(sd, "difffit")
    with pytest.raises(ValueError, match=r"no place for \d+ of \d+ changed tensors \(.*bias.* of the change's energy"):
        export(path, tmp_path / "out.safetensors", "diffusers", rank=8)
    assert not list(tmp_path.glob("*out*"))
    report = export(path, tmp_path / "out.safetensors", "diffusers", rank=32, drop_rest=True)
    assert "conv_in.bias" in report.dropped and 0 < report.dropped_share < 1
    assert report.lost == pytest.approx(report.dropped_share**0.5, rel=1e-3)


def test_a_type_of_16_bits_is_near_and_says_how_near(sd, adapt, tmp_path):
    path = adapt(sd, "lora", rank=2)
    report = export(path, tmp_path / "out.safetensors", "diffusers", dtype=torch.bfloat16)
    assert 1e-5 < report.max_error < 2e-2
    assert load_file(report.output)["unet.conv_in.lora_A.weight"].dtype == torch.bfloat16


def test_a_file_that_reads_otherwise_is_not_kept(sd, adapt, tmp_path, monkeypatch):
    import training.exporting.lora as lora

    path = adapt(sd, "paca", rank=2)
    write = lora.save_file
    monkeypatch.setattr(lora, "save_file", lambda t, *a: write({k: v * 1.01 for k, v in t.items()}, *a))
    with pytest.raises(ArithmeticError, match="otherwise than it was meant"):
        export(path, tmp_path / "out.safetensors", "diffusers")
    assert [p.name for p in tmp_path.iterdir()] == ["adapter.safetensors"]


def test_names_that_a_format_does_not_have_are_refused():
    with pytest.raises(ValueError, match="no names for a SD3Transformer2DModel"):
        naming("lora", "transformer", "SD3Transformer2DModel")
    assert naming("comfyui", "transformer", "WanTransformer3DModel").name("patch_embedding") is None


@pytest.mark.parametrize("shape", [(6, 9), (9, 6), (4, 3, 3, 3), (5, 2, 2, 2, 2)])
def test_the_nearest_product_is_that_of_the_singular_value_decomposition(shape):
    change = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, s, vh = torch.linalg.svd(change.flatten(1), full_matrices=False)
    best = ((u[:, :2] * s[:2]) @ vh[:2]).view(shape)
    found = factor(dense_change(change), 2)
    assert found.rank == 2
    torch.testing.assert_close(found.product(), best, rtol=1e-4, atol=1e-5)


def test_few_rows_or_columns_are_exact_below_the_rank():
    change = torch.zeros(8, 10)
    change[[1, 5]] = torch.randn(2, 10, generator=torch.Generator().manual_seed(0))
    change[:, 3] = 0
    found = factor(sparse_change(change), 4)
    assert found.rank == 2 and torch.equal(found.product(), change)
    columns = Change(shape=change.shape, kind="columns", index=torch.tensor([2, 7]), values=torch.arange(16.0))
    assert factor(columns).rank == 2 and relative_error(factor(columns).product(), columns.dense()) == 0


def test_open_base_finds_the_network_and_refuses_another_model(sd, sdxl, adapt):
    adapter = load_adapter(adapt(sd, "paca"))
    assert open_base(adapter).component == "unet"
    with pytest.raises(ValueError, match=r"nothing in .*sdxl .*has those weights"):
        open_base(adapter, str(sdxl))
    with pytest.raises(ValueError, match="say where it is now with --model"):
        open_base(type(adapter)(**{**adapter.__dict__, "notes": {"base": "no/where/at/all"}}))
    assert type(load_component(sd, "unet")).__name__ == "UNet2DConditionModel"
