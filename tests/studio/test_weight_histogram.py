"""Counting weights by size, from files, against counting them one by one."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from studio.errors import RequestError
from studio.threshold import chosen, layer_shares, spread
from studio.weight_histogram import cached_histogram, layer_of, network_of, read_entries, read_histogram


@pytest.fixture
def weights(tmp_path):
    generator = torch.Generator().manual_seed(0)
    tensors = {
        "blocks.0.attn1.to_q.weight": torch.randn(64, 64, generator=generator) * 0.02,
        "blocks.0.ff.net.weight": (torch.randn(128, 64, generator=generator) * 0.1).bfloat16(),
        "blocks.1.norm.bias": (torch.randn(64, generator=generator) * 0.01).half(),
        "blocks.1.conv.weight": torch.zeros(16, 8, 3, 3),
    }
    folder = tmp_path / "transformer"
    folder.mkdir()
    save_file(tensors, folder / "diffusion_pytorch_model.safetensors")
    return folder, {name: tensor.float().abs().flatten() for name, tensor in tensors.items()}


def test_counts_below_a_threshold_are_those_of_the_weights(weights):
    folder, tensors = weights
    found = read_histogram(folder)
    assert found.total == sum(len(values) for values in tensors.values()) and not found.is_sampled
    for threshold in (1e-4, 2e-3, 0.05, 10.0):
        for name, count in zip(found.names, found.below(threshold), strict=True):
            exact = int((tensors[name] < threshold).sum())
            assert count == pytest.approx(exact, abs=0.03 * exact + 2), (name, threshold)
    assert found.below(0.0).sum() == 0


def test_the_threshold_of_a_count_lets_so_many_through(weights):
    folder, tensors = weights
    found = read_histogram(folder)
    every = torch.cat(list(tensors.values()))
    for share in (0.2, 0.5, 0.9):
        threshold = found.threshold_for(share * found.total)
        assert float((every < threshold).float().mean()) == pytest.approx(share, abs=0.01)


def test_the_cap_is_of_each_matrix_and_not_of_vectors(weights):
    folder, _ = weights
    found = read_histogram(folder)
    trained = dict(zip(found.names, found.trained(10.0, cap=0.25), strict=True))
    assert trained["blocks.1.conv.weight"] == 16 * 8 * 9 // 4
    assert trained["blocks.1.norm.bias"] == 64


def test_a_large_network_is_counted_by_an_even_sample(weights):
    folder, tensors = weights
    whole, part = read_histogram(folder), read_histogram(folder, limit=3000)
    assert part.is_sampled is (part.read < whole.read)
    big = torch.randn(1 << 18, generator=torch.Generator().manual_seed(1))
    save_file({"a": big}, folder / "diffusion_pytorch_model.safetensors")
    part = read_histogram(folder, limit=30_000)
    assert part.is_sampled and part.read < 40_000 and part.total == len(big)
    assert part.below(0.5).sum() / part.total == pytest.approx(float((big.abs() < 0.5).float().mean()), abs=0.02)


def test_it_is_kept_until_the_files_change_and_made_again_when_damaged(weights, tmp_path):
    folder, _ = weights
    cache = tmp_path / "cache"
    made = cached_histogram(folder, cache)
    (kept,) = cache.iterdir()
    again = cached_histogram(folder, cache)
    assert again.names == made.names and np.array_equal(again.counts, made.counts)
    kept.write_bytes(b"damaged")
    assert np.array_equal(cached_histogram(folder, cache).counts, made.counts)


def test_sara_chooses_as_many_as_the_histogram_says(weights):
    from training.methods import METHODS, find_scope

    folder, tensors = weights
    network = torch.nn.ModuleDict({"a": torch.nn.Linear(64, 64, bias=False), "b": torch.nn.Linear(64, 128, bias=False)})
    with torch.no_grad():
        network["a"].weight.copy_(tensors["blocks.0.attn1.to_q.weight"].view(64, 64))
        network["b"].weight.copy_(tensors["blocks.0.ff.net.weight"].view(128, 64))
    save_file({"a.weight": network["a"].weight.detach(), "b.weight": network["b"].weight.detach()}, folder / "x.safetensors")
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    found = read_histogram(folder)
    for options in ({"fraction": 0.1}, {"threshold": 0.02}, {"budget": 700}, {"threshold": 0.05, "cap": 0.3}):
        tuner = METHODS["sara"](**options).attach(network, find_scope(network), torch.Generator().manual_seed(0))
        assert chosen(found, found.inside(), options).count == pytest.approx(tuner.count, rel=0.02, abs=3), options
        tuner.unload()


def test_a_scope_takes_tensors_by_their_names(weights):
    found = read_histogram(weights[0])

    def names(*words):
        return {name for name, held in zip(found.names, found.inside(words), strict=True) if held}

    assert names() == set(found.names)
    assert names("attention") == {"blocks.0.attn1.to_q.weight"}
    assert names("feed-forward") == {"blocks.0.ff.net.weight"}
    assert names("blocks.1") == {"blocks.1.norm.bias", "blocks.1.conv.weight"}
    assert names("blocks.*", "!norms") == set(found.names) - {"blocks.1.norm.bias"}
    assert names("convolutions") == {"blocks.1.conv.weight"}


def test_layers_are_summed_in_the_networks_order(weights):
    found = read_histogram(weights[0])
    everything = chosen(found, found.inside(), {"threshold": 100.0, "cap": 1.0})
    rows = layer_shares(found, found.inside(), everything)
    assert [(row["layer"], row["share"]) for row in rows] == [("blocks.0", 1.0), ("blocks.1", 1.0)]
    assert layer_of("down.10.x.3.y") == "down.10" and layer_of("proj_out.weight") == "proj_out"
    low, high = spread(found)
    assert 0 < low < high


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"\xff" * 40)
    with pytest.raises(RequestError, match=r"a\.safetensors is damaged"):
        read_entries(tmp_path)
    (tmp_path / "a.safetensors").unlink()
    with pytest.raises(RequestError, match="nothing can be counted"):
        read_histogram(tmp_path)
    with pytest.raises(RequestError, match="no pipeline"):
        network_of(tmp_path)
