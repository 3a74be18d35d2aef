"""`load_adapter`: one call for any pipeline, and off again bit for bit."""

import pytest
import torch

KINDS = ("sd", "sdxl", "sd3", "wan", "ours")


def opened(folder, **options):
    import diffusers

    import models.pipeline  # noqa: F401
    from models.loading import component_names

    name = component_names(folder)[0]
    index = diffusers.DiffusionPipeline.load_config(str(folder))
    none = {part: None for part, told in index.items() if isinstance(told, list) and told[0] is None}
    pipeline = getattr(diffusers, index["_class_name"]).from_pretrained(str(folder), **none, **options)
    return pipeline, getattr(pipeline, name)


def weights(network):
    return {name: p.detach().clone() for name, p in network.named_parameters()}


def equal(network, wanted):
    found = dict(network.named_parameters())
    assert found.keys() == wanted.keys()
    return all(torch.equal(found[name], value) for name, value in wanted.items())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_goes_on_any_pipeline_in_any_type_and_comes_off(kind, dtype, pipelines, adapt):
    from studio import load_adapter
    from training.methods.adapter import apply_adapter
    from training.methods.adapter import load_adapter as read

    folder = pipelines(kind)
    file = adapt(folder, "sara", size=0.05)
    pipeline, network = opened(folder, torch_dtype=dtype)
    base = weights(network)
    adapter = load_adapter(pipeline, file)
    assert adapter.component == ("unet" if kind in ("sd", "sdxl") else "transformer")
    changed = weights(network)
    assert not equal(network, base)
    adapter.unload()
    assert equal(network, base)
    apply_adapter(network, read(file), folder=folder / adapter.component)
    assert equal(network, changed)


@pytest.mark.parametrize("method", ["paca", "lora", "dora", "svdiff", "difffit", "oft"])
def test_scale_disabling_and_unloading_are_exact(method, ours, adapt):
    from studio import load_adapter

    words = ("attention",)
    pipeline, network = opened(ours)
    base = weights(network)
    with load_adapter(pipeline, adapt(ours, method, words)) as adapter:
        whole = weights(network)
        adapter.set_scale(0.0)
        assert equal(network, base)
        adapter.set_scale(0.5)
        half = dict(network.named_parameters())
        for name, value in half.items():
            torch.testing.assert_close(value, (base[name] + whole[name]) / 2, rtol=1e-4, atol=1e-6)
        adapter.set_scale(1.0)
        with adapter.disabled():
            assert equal(network, base)
        assert equal(network, whole) and adapter.scale == 1.0
    assert equal(network, base)
    with pytest.raises(ValueError, match="was unloaded"):
        adapter.set_scale(1.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_several_add_up_and_come_off_in_any_order(dtype, sd, adapt):
    from studio import load_adapter

    pipeline, network = opened(sd, torch_dtype=dtype)
    base = weights(network)
    files = [adapt(sd, method, name=method, size=0.1) for method in ("sara", "paca", "lora")]
    alone = []
    for file in files:
        with load_adapter(pipeline, file):
            alone.append(weights(network))
    first, second, third = (
        load_adapter(pipeline, file, scale=s) for file, s in zip(files, (1.0, 0.5, 2.0), strict=True)
    )
    if dtype == torch.float32:
        for name, value in network.named_parameters():
            changes = [one[name] - base[name] for one in alone]
            expected = base[name] + changes[0] + 0.5 * changes[1] + 2 * changes[2]
            torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)
    second.unload()
    first.set_scale(0.0)
    third.set_scale(1.0)
    assert equal(network, alone[2])
    third.unload()
    assert equal(network, base)
    first.set_scale(1.0)
    assert equal(network, alone[0])
    first.unload()
    assert equal(network, base)


def test_channels_last_weights_are_written_in_logical_order(sd, adapt):
    from studio import load_adapter

    file = adapt(sd, "sara")
    pipeline, network = opened(sd)
    load_adapter(pipeline, file)
    wanted = weights(network)
    other, same = opened(sd)
    same.to(memory_format=torch.channels_last)
    load_adapter(other, file)
    assert equal(same, wanted)


def test_another_model_is_refused_and_left_alone(sd, sdxl, ours, adapt):
    from studio import load_adapter

    file = adapt(sd, "bitfit")
    pipeline, network = opened(ours)
    with pytest.raises(ValueError, match=r"trained on a model with the hash .*no part of this AnimateXPipeline"):
        load_adapter(pipeline, file)
    pipeline, network = opened(sd)
    with torch.no_grad():
        network.conv_in.bias[0] += 1
    before = weights(network)
    with pytest.raises(ValueError, match=r"with the hash \w{12}; unet has \w{12}; use .*sd"):
        load_adapter(pipeline, file)
    assert equal(network, before)


def test_rounded_weights_of_an_unknown_folder_ask_for_it(sd, adapt):
    from studio import load_adapter

    file = adapt(sd, "paca")
    pipeline, network = opened(sd)
    network.to(torch.bfloat16)
    network._internal_dict = {**network.config, "_name_or_path": ""}
    pipeline._internal_dict = {**pipeline.config, "_name_or_path": ""}
    with pytest.raises(ValueError, match="give the pipeline's folder"):
        load_adapter(pipeline, file)
    load_adapter(pipeline, file, folder=sd).unload()


@pytest.mark.parametrize("scale", [float("nan"), float("inf")])
def test_a_scale_that_is_no_number_is_refused(scale, sd, adapt):
    from studio import load_adapter

    pipeline, _ = opened(sd)
    with pytest.raises(ValueError, match="must be a number"):
        load_adapter(pipeline, adapt(sd, "paca"), scale=scale)


def test_our_adapter_works_beside_another_programs_lora(sd, adapt):
    from studio import load_adapter
    from training.exporting import export_lora, open_base
    from training.methods.adapter import load_adapter as read

    lora, sparse = adapt(sd, "lora", name="lora", rank=2), adapt(sd, "sara", name="sara")
    out = lora.with_name("kohya.safetensors")
    export_lora(read(lora), open_base(read(lora)), out, "lora")
    pipeline, network = opened(sd)
    pipeline.load_lora_weights(str(out.parent), weight_name=out.name)
    before = weights(network)
    adapter = load_adapter(pipeline, sparse)
    assert not equal(network, before)
    adapter.unload()
    assert equal(network, before)


def test_it_goes_on_a_quantized_pipeline(sd, adapt):
    from studio import load_adapter

    torchao = pytest.importorskip("torchao.quantization")
    pipeline, network = opened(sd)
    torchao.quantize_(network, torchao.Int8WeightOnlyConfig())
    call = lambda: network(torch.ones(1, 4, 8, 8), torch.tensor([300]), torch.ones(1, 5, 16)).sample  # noqa: E731
    with torch.no_grad():
        before = call()
        with load_adapter(pipeline, adapt(sd, "sara", size=0.1)):
            assert not torch.equal(call(), before)
        assert torch.equal(call(), before)
        with pytest.raises(ValueError, match="the model is quantized"):
            load_adapter(pipeline, adapt(sd, "lora"))


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_a_lora_folded_into_half_weights_is_what_load_adapter_makes_of_them(scale, ours, adapt):
    from studio import load_adapter
    from studio.adapters import fold_lora

    file = adapt(ours, "lora", ("attention", "feed-forward"), rank=2, size=0.3)
    pipeline, network = opened(ours, torch_dtype=torch.bfloat16)
    base = weights(network)
    with load_adapter(pipeline, file, scale=scale):
        wanted = weights(network)
    assert equal(network, base)
    assert fold_lora(pipeline, file, scale=scale, folder=ours)
    assert not equal(network, base)
    for name, value in network.named_parameters():
        torch.testing.assert_close(value.float(), wanted[name].float(), rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize(
    ("method", "dtype"), [("lora", torch.float32), ("dora", torch.bfloat16), ("sara", torch.bfloat16)]
)
def test_other_adapters_and_whole_weights_are_not_folded(method, dtype, ours, adapt):
    from studio.adapters import fold_lora

    file = adapt(ours, method, ("attention",))
    pipeline, network = opened(ours, torch_dtype=dtype)
    base = weights(network)
    assert not fold_lora(pipeline, file, scale=1.0, folder=ours)
    assert equal(network, base)


def test_a_lora_of_another_model_is_not_folded(ours, pipelines, adapt):
    from studio.adapters import fold_lora

    pipeline, _ = opened(ours, torch_dtype=torch.bfloat16)
    with pytest.raises(ValueError, match="was trained on a model with the hash"):
        fold_lora(pipeline, adapt(pipelines("wan"), "lora", ("blocks.*",)), scale=1.0, folder=ours)
