"""Adapter files: small, exact where they must be, and refused where they do not fit."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training.methods import METHODS, Scope
from training.methods.adapter import Adapter, AdapterError, apply_adapter, load_adapter, save_adapter, weights_hash
from training.methods.packing import pack_gaps, unpack_gaps

from . import toys
from .test_conformance import UNKNOWN, attach, equal, train, weights


def sizes_of(model):
    return {n: p.numel() for n, p in model.named_parameters()}


def trained(method, kind, path, **save):
    model = toys.make(kind)
    sizes, base = sizes_of(model), weights_hash(model)
    tuner = attach(method, model)
    train(model, tuner, 3)
    config = attach_config(method)
    adapter = Adapter(
        method=method, config=config, scope=Scope(), base=base, delta=tuner.delta(), notes={"base": "toy"}
    )
    save_adapter(path, adapter, sizes, **save)
    return model


def attach_config(method):
    from .test_conformance import OPTIONS

    return METHODS[method](**OPTIONS.get(method, {}))


@pytest.mark.parametrize("pair", [(m, k) for m in METHODS for k in toys.KINDS if (m, k) not in UNKNOWN], ids="-".join)
def test_a_file_makes_a_fresh_model_what_was_trained_and_comes_off_again(pair, tmp_path):
    method, kind = pair
    model = trained(method, kind, tmp_path / "a.safetensors", dtype="fp32")
    other = toys.make(kind)
    base = weights(other)
    x, _ = model.data(0)
    tuner = apply_adapter(other, load_adapter(tmp_path / "a.safetensors"))
    with torch.no_grad():
        torch.testing.assert_close(other(x), model(x), rtol=1e-5, atol=1e-6)
    tuner.unload()
    equal(weights(other), base)


def test_a_model_with_other_weights_is_refused(tmp_path):
    trained("sara", "linear", tmp_path / "a.safetensors")
    other = toys.make("linear")
    with torch.no_grad():
        other.head.bias[0] += 1e-6
    before = weights(other)
    with pytest.raises(AdapterError, match=r"trained on a model with the hash .*; use toy"):
        apply_adapter(other, load_adapter(tmp_path / "a.safetensors"))
    equal(weights(other), before)


def test_a_truncated_file_is_named(tmp_path):
    path = tmp_path / "a.safetensors"
    trained("sara", "linear", path)
    whole = path.read_bytes()
    for length in (0, 7, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(AdapterError, match=r"a\.safetensors cannot be read"):
            load_adapter(path)


def test_another_programs_file_is_named(tmp_path):
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(2)}, tmp_path / "b.safetensors")
    with pytest.raises(AdapterError, match="not an adapter of this studio"):
        load_adapter(tmp_path / "b.safetensors")


def test_one_percent_of_a_large_network_takes_at_most_3_2_bytes_a_value(tmp_path):
    model = torch.nn.Sequential(*[torch.nn.Linear(512, 512) for _ in range(4)])
    torch.manual_seed(0)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.03)
    sizes, base = sizes_of(model), weights_hash(model)
    config = METHODS["sara"](fraction=0.01)
    tuner = config.attach(model, Scope(), torch.Generator().manual_seed(0))
    adapter = Adapter(method="sara", config=config, scope=Scope(), base=base, delta=tuner.delta())
    path = tmp_path / "a.safetensors"
    save_adapter(path, adapter, sizes)
    assert path.stat().st_size / tuner.count <= 3.2


@settings(max_examples=50, deadline=None)
@given(st.sets(st.integers(0, 300_000), max_size=400))
def test_positions_come_back(found):
    positions = torch.tensor(sorted(found), dtype=torch.int64)
    code, size = pack_gaps(positions)
    assert torch.equal(unpack_gaps(code, size), positions)


def test_unsorted_positions_are_refused():
    with pytest.raises(ValueError, match="sorted"):
        pack_gaps(torch.tensor([3, 2]))
    with pytest.raises(ValueError, match="sorted"):
        pack_gaps(torch.tensor([2, 2]))
