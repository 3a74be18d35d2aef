"""Our sparse training as a method of PEFT, on diffusers' and transformers' models."""

import json

import peft
import pytest
import torch
import torch.nn.functional as F
from peft import PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import PeftType

from training.methods.peft_tuner import SparseConfig, SparseLayer

from . import toys

CONFIGS = [
    {"fraction": 0.1},
    {"fraction": 0.1, "selector": "smallest", "per_tensor": False},
    {"fraction": 0.2, "selector": "random", "structure": "rows"},
    {"rank": 2, "selector": "random", "structure": "columns", "seed": 4},
]
TARGETS = {
    "linear": ["to_q", "to_out", "ff.0", "head"],
    "conv1": ["stem", "down", "head"],
    "conv2": ["stem", "down", "head"],
    "conv3": ["stem", "down", "head"],
}


def weights(model):
    return {
        n.replace(".base_layer.", "."): p.detach().clone() for n, p in model.state_dict().items() if "studio" not in n
    }


def equal(a, b):
    assert a.keys() == b.keys()
    return all(torch.equal(a[n], b[n]) for n in a)


def wrapped(kind, **options):
    model = toys.make(kind)
    base = weights(model)
    return get_peft_model(model, SparseConfig(target_modules=TARGETS[kind], **options)), base


def train(model, data, steps=3, lr=0.05):
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.0)
    for _ in range(steps):
        x, y = data
        F.mse_loss(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
    return optimizer


def layers(model):
    return [m for m in model.modules() if isinstance(m, SparseLayer)]


def inside(model):
    return {n.replace("base_model.model.", "").replace(".base_layer.", "."): t for n, t in weights(model).items()}


def test_this_version_of_peft_takes_a_method_from_outside():
    assert tuple(map(int, peft.__version__.split(".")[:2])) >= (0, 21)
    assert PeftType("STUDIO_SPARSE") is PeftType.STUDIO_SPARSE and PeftType.STUDIO_SPARSE in list(PeftType)
    assert "STUDIO_SPARSE" in PeftType.__members__ and PeftType.STUDIO_SPARSE == "STUDIO_SPARSE"
    # what PEFT and diffusers ask of a layer
    for name in ("merge", "unmerge", "get_delta_weight", "set_scale", "scale_layer", "unscale_layer", "set_adapter"):
        assert callable(getattr(SparseLayer, name))
    assert issubclass(SparseLayer, BaseTunerLayer)


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("options", CONFIGS, ids=str)
def test_training_moves_the_chosen_weights_alone_and_everything_goes_back(kind, options):
    model, base = wrapped(kind, **options)
    data = toys.make(kind).data(0)
    with torch.no_grad():
        plain = model(data[0])
        assert torch.equal(plain, toys.make(kind)(data[0]))
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert 0 < trained == sum(v.numel() for layer in layers(model) for v in layer.studio_sparse_values.values())
    train(model, data)
    with torch.no_grad():
        changed = model(data[0])
        assert not torch.equal(changed, plain)
        with model.disable_adapter():
            assert torch.equal(model(data[0]), plain)
        assert torch.equal(model(data[0]), changed)
        assert equal(inside(model), base)
        model.merge_adapter()
        torch.testing.assert_close(model(data[0]), changed, rtol=0, atol=0)
        model.unmerge_adapter()
        assert equal(inside(model), base)
        assert torch.equal(model(data[0]), changed)
    bare = model.unload()
    assert equal(weights(bare), base)
    with torch.no_grad():
        assert torch.equal(bare(data[0]), plain)


@pytest.mark.parametrize("kind", ["linear", "conv2"])
@pytest.mark.parametrize("options", CONFIGS, ids=str)
def test_gradients_are_those_of_a_dense_masked_reference(kind, options):
    model, _ = wrapped(kind, **options)
    dense = toys.make(kind)
    data = dense.data(0)
    masks = {}
    for path, layer in ((n, m) for n, m in model.base_model.model.named_modules() if isinstance(m, SparseLayer)):
        with torch.no_grad():
            layer.studio_sparse_values["default"].fill_(1.0)
            masks[f"{path}.weight"] = layer.get_delta_weight("default")
            layer.studio_sparse_values["default"].zero_()
    optimizer = torch.optim.AdamW(dense.parameters(), lr=0.05, weight_decay=0.0)
    for _ in range(3):
        F.mse_loss(dense(data[0]), data[1]).backward()
        for name, parameter in dense.named_parameters():
            parameter.grad = parameter.grad * masks[name] if name in masks else None
        optimizer.step()
        optimizer.zero_grad()
    train(model, data)
    with torch.no_grad():
        torch.testing.assert_close(model(data[0]), dense(data[0]), rtol=1e-5, atol=1e-6)


def test_a_saved_adapter_loads_into_a_fresh_model(tmp_path):
    for number, options in enumerate(CONFIGS):
        model, base = wrapped("conv2", **options)
        data = toys.make("conv2").data(0)
        train(model, data)
        model.save_pretrained(tmp_path / str(number))
        assert json.loads((tmp_path / str(number) / "adapter_config.json").read_text())["peft_type"] == "STUDIO_SPARSE"
        again = PeftModel.from_pretrained(toys.make("conv2"), tmp_path / str(number))
        with torch.no_grad():
            assert torch.equal(again(data[0]), model(data[0]))
            assert equal(weights(again.unload()), base)


def test_a_file_brings_its_own_choice_of_weights():
    model, _ = wrapped("linear", fraction=0.1)
    data = toys.make("linear").data(0)
    train(model, data)
    state = {n: t.clone() for n, t in get_peft_model_state_dict(model).items()}
    other, _ = wrapped("linear", fraction=0.02, selector="random")
    set_peft_model_state_dict(other, state)
    with torch.no_grad():
        assert torch.equal(other(data[0]), model(data[0]))


def test_indices_out_of_range_are_refused():
    model, _ = wrapped("linear", fraction=0.1)
    state = get_peft_model_state_dict(model)
    name = next(n for n in state if "index" in n)
    state[name] = state[name] + 10**6
    set_peft_model_state_dict(model, state)
    with pytest.raises(ValueError, match="of another model"):
        model(toys.make("linear").data(0)[0])


def test_two_adapters_add_up_and_switch():
    model, base = wrapped("linear", fraction=0.1)
    data = toys.make("linear").data(0)
    train(model, data)
    model.add_adapter("second", SparseConfig(target_modules=TARGETS["linear"], rank=2, structure="columns"))
    model.set_adapter("second")
    train(model, data)
    with torch.no_grad():
        only_second = model(data[0])
        model.base_model.set_adapter(["default", "second"])
        both = model(data[0])
        layer = layers(model)[0]
        wanted = base["blocks.0.attn.to_q.weight"] + sum(layer.get_delta_weight(n) for n in ("default", "second"))
        torch.testing.assert_close(layer.base_layer.weight, wanted)
        model.set_adapter("second")
        assert torch.equal(model(data[0]), only_second) and not torch.equal(both, only_second)
        model.delete_adapter("default")
        assert torch.equal(model(data[0]), only_second)
    assert equal(weights(model.unload()), base)


def test_an_optimizer_that_writes_past_autograd_is_noticed():
    model, _ = wrapped("linear", fraction=0.1)
    x, _ = toys.make("linear").data(0)
    before = model(x)
    layers(model)[0].studio_sparse_values["default"].data += 1.0
    assert not torch.equal(model(x), before)


def test_a_merge_of_numbers_that_are_not_finite_is_refused_and_changes_nothing():
    model, base = wrapped("linear", fraction=0.1)
    with torch.no_grad():
        layers(model)[-1].studio_sparse_values["default"][0] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        layers(model)[-1].merge(safe_merge=True)
    assert equal(inside(model), base)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_diffusers_models_take_it_with_scales_and_fusing(dtype, sd):
    from models.components import load_component

    unet = load_component(sd, "unet", dtype=dtype)
    base = {n: p.clone() for n, p in unet.named_parameters()}
    config = SparseConfig(fraction=0.1, selector="smallest", target_modules=["to_q", "to_v", "conv1", "proj_in"])
    unet.add_adapter(config, "one")
    assert sum(isinstance(m.base_layer, torch.nn.Conv2d) for m in layers(unet)) > 0
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 4, 8, 8, generator=generator).to(dtype)
    tokens = torch.randn(1, 5, 16, generator=generator).to(dtype)
    call = lambda: unet(x, torch.tensor([300]), encoder_hidden_states=tokens).sample  # noqa: E731
    with torch.no_grad():
        plain = call()
        for layer in layers(unet):
            values = layer.studio_sparse_values["one"]
            assert values.dtype == torch.float32
            values.copy_(torch.randn(values.shape, generator=generator))
        whole = call()
        unet.set_adapters(["one"], [0.0])
        assert torch.equal(call(), plain)
        unet.set_adapters(["one"], [1.0])
        unet.disable_adapters()
        assert torch.equal(call(), plain)
        unet.enable_adapters()
        assert torch.equal(call(), whole)
        unet.fuse_lora(lora_scale=0.5)
        half = call()
        assert not torch.equal(half, whole) and not torch.equal(half, plain)
        unet.unfuse_lora()
        unet.set_adapters(["one"], [1.0])
        assert torch.equal(call(), whole)
    call().float().sum().backward()
    assert all(p.grad is not None for n, p in unet.named_parameters() if p.requires_grad)
    unet.unload_lora()
    assert all(torch.equal(p, base[n]) for n, p in unet.named_parameters())


@pytest.mark.parametrize("low_cpu_mem_usage", [False, True])
def test_transformers_models_take_it(low_cpu_mem_usage, sd, tmp_path):
    from transformers import CLIPTextModel

    text = CLIPTextModel.from_pretrained(sd / "text_encoder")
    base = weights(text)
    ids = torch.tensor([[52, 3, 4, 53]])
    with torch.no_grad():
        plain = text(ids).last_hidden_state
    # transformers' own add_adapter asks for a PEFT that is not out yet
    model = get_peft_model(text, SparseConfig(rank=3, structure="rows", target_modules=["q_proj", "fc1"]))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    model(ids).last_hidden_state.square().sum().backward()
    optimizer.step()
    model.save_pretrained(tmp_path)
    other = CLIPTextModel.from_pretrained(sd / "text_encoder")
    again = PeftModel.from_pretrained(other, tmp_path, low_cpu_mem_usage=low_cpu_mem_usage)
    with torch.no_grad():
        changed = model(ids).last_hidden_state
        assert not torch.equal(changed, plain)
        assert torch.equal(again(ids).last_hidden_state, changed)
        with model.disable_adapter():
            assert torch.equal(model(ids).last_hidden_state, plain)
    assert equal(weights(model.unload()), base)


@pytest.mark.parametrize(
    "options",
    [{"fraction": 0.0}, {"fraction": 2.0}, {"rank": 3}, {"rank": 0, "structure": "rows"}, {"selector": "best"}],
)
def test_values_out_of_range_are_refused(options):
    with pytest.raises(ValueError):
        SparseConfig(target_modules=["head"], **options)


def test_layers_that_it_cannot_train_are_named():
    with pytest.raises(ValueError, match="no linear layer or convolution"):
        get_peft_model(toys.make("linear"), SparseConfig(target_modules=["embed"]))
