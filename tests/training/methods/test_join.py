"""Adapters of every method joined with one another, as files."""

import json

import pytest
import torch

from training.merging import MergeOptions, join, save_merged
from training.merging.greedy import greedy
from training.merging.join import check_bases
from training.methods import METHODS, Scope
from training.methods.adapter import Adapter, AdapterError, apply_adapter, load_adapter, save_adapter, weights_hash
from training.methods.changes import Change, changes_of

from . import toys
from .test_conformance import OPTIONS, UNKNOWN, attach, train, weights


def sizes_of(model):
    return {n: p.numel() for n, p in model.named_parameters()}


def saved(method, kind, path, steps=3, **options):
    model = toys.make(kind)
    sizes, base = sizes_of(model), weights_hash(model)
    tuner = attach(method, model, **options)
    train(model, tuner, steps)
    config = METHODS[method](**{**OPTIONS.get(method, {}), **options})
    save_adapter(
        path,
        Adapter(method=method, config=config, scope=Scope(), base=base, delta=tuner.delta(), notes={"base": kind}),
        sizes,
        dtype="fp32",
    )
    return model


@pytest.mark.parametrize("pair", [(m, k) for m in METHODS for k in toys.KINDS if (m, k) not in UNKNOWN], ids="-".join)
def test_changes_of_a_file_are_what_merging_the_tuner_does(pair, tmp_path):
    method, kind = pair
    saved(method, kind, tmp_path / "a.safetensors")
    adapter = load_adapter(tmp_path / "a.safetensors")
    model = toys.make(kind)
    before = weights(model)
    flags = {n: p.requires_grad for n, p in model.named_parameters()}
    changes = changes_of(model, adapter)
    assert all(torch.equal(value, before[name]) for name, value in weights(model).items())
    assert {n: p.requires_grad for n, p in model.named_parameters()} == flags
    apply_adapter(model, adapter).merge()
    for name, after in weights(model).items():
        expected = before[name] + changes[name].dense() if name in changes else before[name]
        torch.testing.assert_close(after, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "methods",
    [("sara", "sara"), ("sara", "sparse"), ("paca", "paca"), ("sara", "paca"), ("paca", "lora"), ("svdiff", "sara"),
     ("full", "bitfit"), ("dora", "loha"), ("difffit", "paca")],
    ids="-".join,
)  # fmt: skip
@pytest.mark.parametrize("kind", ["linear", "conv2"])
def test_any_two_methods_make_one_file_that_a_fresh_model_takes(methods, kind, tmp_path):
    parts, sources = [], {}
    for number, method in enumerate(methods):
        path = tmp_path / f"{number}.safetensors"
        saved(method, kind, path, steps=2 + number)
        sources[path] = load_adapter(path)
        parts.append(changes_of(toys.make(kind), sources[path]))
    model = toys.make(kind)
    before = weights(model)
    merged = join(parts, [0.5, 2.0], MergeOptions(rule="linear"))
    out = tmp_path / "m.safetensors"
    save_merged(out, merged, sources, [0.5, 2.0], MergeOptions(rule="linear"), sizes_of(model), dtype="fp32")
    tuner = apply_adapter(model, load_adapter(out))
    for name, after in weights(model).items():
        expected = before[name]
        for weight, part in zip((0.5, 2.0), parts, strict=True):
            if name in part:
                expected = expected + weight * part[name].dense()
        torch.testing.assert_close(after, expected, rtol=1e-5, atol=1e-6)
    tuner.unload()
    assert all(torch.equal(value, before[name]) for name, value in weights(model).items())


def test_the_same_support_stays_and_its_values_are_averaged(tmp_path):
    for number in range(2):
        saved("sara", "linear", tmp_path / f"{number}.safetensors", steps=1 + number, reselect_step=None)
    model = toys.make("linear")
    adapters = [load_adapter(tmp_path / f"{number}.safetensors") for number in range(2)]
    one, two = (changes_of(model, adapter) for adapter in adapters)
    merged = join([one, two], [1.0, 1.0], MergeOptions())
    assert merged.keys() == one.keys()
    for name, change in merged.items():
        assert torch.equal(one[name].index, two[name].index)
        torch.testing.assert_close(change.dense(), (one[name].dense() + two[name].dense()) / 2)
        assert set(change.positions().tolist()) <= set(one[name].positions().tolist())


def test_columns_stay_columns_on_their_union():
    shape = torch.Size((3, 4))
    one = Change(shape=shape, kind="columns", index=torch.tensor([0, 2]), values=torch.arange(6.0) + 1)
    two = Change(shape=shape, kind="columns", index=torch.tensor([2, 3]), values=torch.ones(6))
    merged = join([{"w": one}, {"w": two}], [1.0, 1.0], MergeOptions(rule="linear"))["w"]
    assert merged.kind == "columns" and merged.index.tolist() == [0, 2, 3]
    assert merged.dense().tolist() == [[1, 0, 3, 1], [3, 0, 5, 1], [5, 0, 7, 1]]


@pytest.mark.parametrize(
    ("kind", "index", "where"),
    [
        ("scattered", [1, 5, 47], None),
        ("columns", [1, 3], (slice(None), [1, 3])),
        ("rows", [0, 2], ([0, 2],)),
        ("dense", [], (...,)),
    ],
)
def test_positions_and_the_dense_form_are_what_the_kind_says(kind, index, where):
    shape = torch.Size((3, 4, 2, 2))
    whole = torch.zeros(shape)
    if where is None:
        whole.view(-1)[index] = torch.tensor([1.0, 2.0, 3.0])
        values = torch.tensor([1.0, 2.0, 3.0])
    else:
        values = torch.arange(1.0, whole[where].numel() + 1)
        whole[where] = values.view_as(whole[where])
    change = Change(shape=shape, kind=kind, index=torch.tensor(index, dtype=torch.int64), values=values)
    assert torch.equal(change.dense(), whole)
    positions = change.positions()
    assert bool((positions.diff() > 0).all()) and torch.equal(whole.flatten()[positions], values)


def test_a_density_too_low_says_so():
    change = Change(shape=torch.Size((2, 2)), kind="scattered", index=torch.tensor([1]), values=torch.ones(1))
    with pytest.raises(ValueError, match="leaves nothing"):
        join([{"w": change}, {"w": change}], [1.0, 1.0], MergeOptions(rule="ties", density=0.1))


def test_adapters_of_other_bases_are_both_named(tmp_path):
    for kind in ("linear", "conv2"):
        saved("sara", kind, tmp_path / f"{kind}.safetensors")
    adapters = {k: load_adapter(tmp_path / f"{k}.safetensors") for k in ("linear", "conv2")}
    with pytest.raises(AdapterError, match=r"linear was trained on linear \(.*conv2 on conv2 \(.*same base"):
        check_bases(adapters)


def test_the_file_says_what_it_was_made_of(tmp_path):
    for method in ("sara", "paca"):
        saved(method, "linear", tmp_path / f"{method}.safetensors")
    sources = {tmp_path / f"{m}.safetensors": load_adapter(tmp_path / f"{m}.safetensors") for m in ("sara", "paca")}
    model = toys.make("linear")
    parts = [changes_of(model, adapter) for adapter in sources.values()]
    options = MergeOptions(rule="dare", density=0.7, seed=5)
    save_merged(tmp_path / "m.safetensors", join(parts, [1, 2], options), sources, [1, 2], options, sizes_of(model))
    read = load_adapter(tmp_path / "m.safetensors")
    assert read.method == "merged" and read.config.rule == "dare" and read.config.weights == (1.0, 2.0)
    told = read.notes["merged"]
    assert "sara.safetensors (sara, sha256 " in told and "2 x paca.safetensors" in told
    assert json.loads(told.split(" of ")[0])["seed"] == 5
    with pytest.raises(ValueError, match="merged adapter is used as it is"):
        read.config.attach(model, Scope(), torch.Generator())


def test_the_greedy_soup_leaves_out_what_does_not_help():
    def at(value):
        return {"w": Change(shape=torch.Size((1,)), kind="dense", index=torch.zeros(0, dtype=torch.int64),
                            values=torch.tensor([value]))}  # fmt: skip

    parts = {"far": at(9.0), "below": at(0.5), "above": at(1.25)}
    chosen, losses, best = greedy(parts, lambda changes: abs(float(changes["w"].values) - 1.0))
    assert chosen == ["above", "below"]
    assert losses == {"far": 8.0, "below": 0.5, "above": 0.25}
    assert best == pytest.approx(0.125)
