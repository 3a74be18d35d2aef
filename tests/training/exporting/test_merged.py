"""Whole pipelines with an adapter folded in."""

import pytest
import torch
from safetensors.torch import load_file

from training.exporting import export_merged, open_base
from training.methods.adapter import apply_adapter, load_adapter


def export(path, output, model=None):
    adapter = load_adapter(path)
    return export_merged(adapter, open_base(adapter, model), output)


@pytest.mark.parametrize("kind", ["sd", "sdxl", "sd3", "wan", "ours"])
@pytest.mark.parametrize("method", ["sara", "lora", "difffit"])
def test_the_folder_loads_as_the_model_with_the_adapter(kind, method, pipelines, adapt, tmp_path):
    from models.components import load_component

    folder = pipelines(kind)
    path = adapt(folder, method)
    report = export(path, tmp_path / "out")
    assert report.max_error < 1e-6 and report.lost < 1e-4
    name = "unet" if kind in ("sd", "sdxl") else "transformer"
    network, wanted = load_component(tmp_path / "out", name), load_component(folder, name)
    apply_adapter(wanted, load_adapter(path)).merge()
    for key, value in network.state_dict().items():
        torch.testing.assert_close(value, wanted.state_dict()[key], rtol=1e-6, atol=1e-7)
    files = lambda place: sorted(str(p.relative_to(place)) for p in place.rglob("*") if p.is_file())  # noqa: E731
    assert files(tmp_path / "out") == files(folder)
    assert not list(tmp_path.glob(".*"))


def test_a_bfloat16_base_stays_one_and_what_rounding_takes_is_told(sd, adapt, tmp_path):
    from diffusers import StableDiffusionPipeline

    StableDiffusionPipeline.from_pretrained(sd, torch_dtype=torch.bfloat16).save_pretrained(tmp_path / "half")
    path = adapt(tmp_path / "half", "sara", size=1e-4)
    report = export(path, tmp_path / "out")
    tensors = load_file(tmp_path / "out" / "unet" / "diffusion_pytorch_model.safetensors")
    assert {t.dtype for t in tensors.values()} == {torch.bfloat16}
    assert report.max_error == 0 and 0 < report.lost < 1
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "half", torch_dtype=torch.bfloat16)
    apply_adapter(pipeline.unet, load_adapter(path), folder=tmp_path / "half" / "unet")
    for name, parameter in pipeline.unet.named_parameters():
        assert torch.equal(parameter, tensors[name])


def test_shards_stay_shards(sd, adapt, tmp_path):
    from diffusers import StableDiffusionPipeline

    StableDiffusionPipeline.from_pretrained(sd).save_pretrained(tmp_path / "many", max_shard_size="200KB")
    shards = sorted(p.name for p in (tmp_path / "many" / "unet").glob("*"))
    assert len(shards) > 3
    report = export(adapt(tmp_path / "many", "paca"), tmp_path / "out")
    assert report.max_error < 1e-6
    assert sorted(p.name for p in (tmp_path / "out" / "unet").glob("*")) == shards


def test_a_failure_leaves_no_folder(sd, adapt, tmp_path, monkeypatch):
    import training.exporting.merged as merged

    path = adapt(sd, "paca")
    write = merged.save_file
    monkeypatch.setattr(merged, "save_file", lambda t, *a: write({k: v + 1 for k, v in t.items()}, *a))
    with pytest.raises(ArithmeticError, match="loads otherwise than it was meant"):
        export(path, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["adapter.safetensors"]
