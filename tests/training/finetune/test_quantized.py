"""Runs whose frozen linear layers are quantized: torchao's 8 bits, bitsandbytes' 4."""

import pytest
import torch
from torch import nn

from training.events import Note
from training.finetune.families import open_family
from training.finetune.of_checkpoint import write_checkpoint_adapter
from training.finetune.run import finetune
from training.finetune.workbench import Workbench
from training.methods import METHODS as TUNERS
from training.methods import Scope, quantized
from training.methods.adapter import apply_adapter, load_adapter
from training.methods.sara import learning_rate_of
from training.verify import verify_resume

from .test_run import LORA, SARA, config, losses

PACKAGES = {"int8": "torchao", "nf4": "bitsandbytes"}
METHODS = {
    "sara": SARA, "paca": {"method": "paca", "method_options": {"rank": 4}}, "lora": LORA,
    "norms": {"method": "norms"},
}  # fmt: skip


@pytest.fixture(params=PACKAGES)
def kind(request, monkeypatch):
    pytest.importorskip(PACKAGES[request.param])
    monkeypatch.setattr(quantized, "SMALLEST", 64)  # the tests' models are tiny
    return request.param


@pytest.mark.parametrize("method", METHODS)
def test_losses_are_nearly_those_of_single_precision_and_the_adapter_fits_the_model(
    method, kind, animator, pictures, tmp_path
):
    told = METHODS[method]
    single = losses(config(animator, pictures, **told), tmp_path / "single")
    found = losses(
        config(animator, pictures, **told, weights_dtype=kind, mixed_precision="bf16"), tmp_path / "quantized"
    )
    assert found == pytest.approx(single, rel=0.1)
    assert found != pytest.approx(single, rel=1e-6)
    family = open_family(animator)
    apply_adapter(family.network, load_adapter(tmp_path / "quantized" / "adapter.safetensors"))


def test_a_unet_learns_with_its_convolutions_in_place(kind, stable_diffusion, pictures, tmp_path):
    told = config(stable_diffusion, pictures, **SARA, weights_dtype=kind, mixed_precision="bf16")
    notes = [e.text for e in finetune(told, tmp_path / "run", device="cpu") if isinstance(e, Note)]
    assert any(
        "beside weights that cannot be written, so without the low-rank term and the choice anew halfway" in t
        for t in notes
    )
    changed = load_adapter(tmp_path / "run" / "adapter.safetensors").delta
    shapes = {n: p.ndim for n, p in open_family(stable_diffusion).network.named_parameters()}
    moved = {shapes[n.rpartition(".")[0]] for n, v in changed.items() if n.endswith(".change") and v.abs().max() > 0}
    assert moved == {1, 2, 4}  # biases and norms, linear layers, filters


def test_it_is_the_same_numbers_in_less_memory(kind, animator, pictures, tmp_path):
    sizes, chosen = {}, {}
    for dtype in ("fp32", kind):
        told = config(animator, pictures, **SARA, weights_dtype=dtype, mixed_precision="bf16")
        bench = Workbench(told)
        plan = bench.plan(told)
        bench.load(tmp_path / dtype, "cpu")
        tuner = bench.attach(told, *plan)
        chosen[dtype] = {n: v for n, v in tuner.delta().items() if n.endswith(".scattered")}
        linear = [m.weight for m in bench.network.modules() if isinstance(m, nn.Linear) or hasattr(m, "quant_state")]
        sizes[dtype] = sum(stored(weight) for weight in linear)
        assert bench.usual_rate == pytest.approx(learning_rate_of(0.1), rel=1e-3)
    assert sizes[kind] < sizes["fp32"] / (3 if kind == "int8" else 5)
    assert chosen[kind].keys() == chosen["fp32"].keys()
    assert all(torch.equal(chosen[kind][n], v) for n, v in chosen["fp32"].items())


def stored(weight):
    """Bytes of a weight, however it is packed."""
    parts = [getattr(weight, name) for name in ("qdata", "scale") if hasattr(weight, name)] or [weight]
    return sum(part.numel() * part.element_size() for part in parts)


@pytest.mark.parametrize("method", ["sara", "lora"])
def test_it_goes_on_bit_for_bit(method, kind, animator, pictures, tmp_path):
    told = config(animator, pictures, **METHODS[method], weights_dtype=kind, mixed_precision="bf16", ema_decay=0.5)
    verdict = verify_resume(lambda run, **how: finetune(told, run, device="cpu", **how), tmp_path, 6)
    assert verdict.identical, verdict.differences


def test_a_checkpoint_gives_its_adapter(kind, animator, pictures, tmp_path):
    told = config(animator, pictures, **SARA, weights_dtype=kind, mixed_precision="bf16", checkpointing_steps=3)
    list(finetune(told, tmp_path / "run", device="cpu"))
    write_checkpoint_adapter(told, tmp_path / "run", 6, tmp_path / "six.safetensors")
    wanted = load_adapter(tmp_path / "run" / "adapter.safetensors").delta
    found = load_adapter(tmp_path / "six.safetensors").delta
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], value) for name, value in wanted.items())


def test_what_writes_to_the_weights_is_refused_before_the_data_is_read(kind, animator, pictures, tmp_path):
    for method in ("full", "id3", "hra"):
        told = config(animator, pictures, method=method, weights_dtype=kind, mixed_precision="bf16")
        with pytest.raises(ValueError, match=f"{kind}: {method} writes to the layers' weights.*use one of .*sara"):
            list(finetune(told, tmp_path / "run", device="cpu"))
    told = config(
        animator, pictures, method="sparse", method_options={"selector": "snip"}, weights_dtype=kind,
        mixed_precision="bf16",
    )  # fmt: skip
    with pytest.raises(ValueError, match="sparse chooses by gradients of the whole model"):
        list(finetune(told, tmp_path / "run", device="cpu"))
    assert not (tmp_path / "run").exists()


def test_a_missing_package_is_named(animator, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(quantized, "find_spec", lambda name: None)
    told = config(animator, pictures, **SARA, weights_dtype="nf4", mixed_precision="bf16")
    with pytest.raises(ValueError, match=r"bitsandbytes is not installed; pip install 'animatex-studio\[quantized\]'"):
        list(finetune(told, tmp_path / "run", device="cpu"))


def test_no_copy_of_a_quantized_weight_is_kept_for_the_backward_pass(kind):
    model = nn.Sequential(*(nn.Linear(256, 256) for _ in range(4)))
    method = TUNERS["sparse"](structure="columns", fraction=0.02)
    tuner = method.attach(model, Scope(), torch.Generator().manual_seed(0))
    plain = [layer.weight.detach().clone() for layer in model]
    quantized.quantized(tuner, kind, torch.bfloat16, torch.device("cpu"))
    x = torch.randn(2, 8, 256, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        y = model(x.bfloat16())
    assert not [size for size in kept if size >= 256 * 256]
    y.float().square().sum().backward()
    wanted = x.detach()
    for weight, layer in zip(plain, model, strict=True):
        wanted = nn.functional.linear(wanted, weight, layer.bias.float())
    assert nn.functional.cosine_similarity(y.float().flatten(), wanted.flatten(), dim=0) > 0.98
    assert x.grad.abs().sum() > 0


def test_gradients_of_inputs_and_biases_pass_a_layer_of_8_bits():
    pytest.importorskip("torchao")
    layer = quantized._int8(nn.Linear(64, 96), torch.float32, torch.device("cpu"))
    layer.bias.requires_grad_(True)
    weight = layer.weight.dequantize()
    x = torch.randn(3, 5, 64, requires_grad=True)
    layer(x).square().sum().backward()
    found, x.grad = (x.grad.clone(), layer.bias.grad.clone()), None
    bias = layer.bias.detach().clone().requires_grad_(True)
    nn.functional.linear(x, weight, bias).square().sum().backward()
    torch.testing.assert_close(found, (x.grad, bias.grad), rtol=1e-4, atol=1e-4)
