"""Adapter files from outside."""

import pickle

import numpy as np
import pytest
import torch
from safetensors.numpy import save

from studio.errors import RequestError
from studio.uploads import Limits, keep_adapter

GOOD = save({"a": np.zeros((2, 3), np.float32)})


class Evil:
    def __reduce__(self):
        raise AssertionError("a pickle was opened")


def refused(content, tmp_path, name="style.safetensors", limits=None):
    with pytest.raises(RequestError) as caught:
        keep_adapter(name, content, tmp_path, limits=limits)
    assert list(tmp_path.iterdir()) == []
    return str(caught.value)


def test_an_adapter_keeps_its_bytes_under_our_name(tmp_path):
    kept = keep_adapter("../../style.bin", GOOD, tmp_path)
    assert kept.name.startswith("adapter-") and kept.suffix == ".safetensors" and kept.parent == tmp_path
    assert kept.read_bytes() == GOOD


def test_half_precision_is_fine(tmp_path):
    from safetensors.torch import save as save_torch

    keep_adapter("a", save_torch({"a": torch.zeros(3, dtype=torch.bfloat16)}), tmp_path)


def test_a_header_length_that_looks_like_a_pickle_is_none(tmp_path):
    for length in range(128, 1000):
        content = save({"a" * (length - 60): np.zeros(1, np.float32)})
        if content[0] == 0x80:
            keep_adapter("a", content, tmp_path)
            return
    raise AssertionError("no header of such a length")


@pytest.mark.parametrize("name", ["style.ckpt", "style.pt", "style.safetensors"])
def test_pickles_are_refused_with_the_reason_and_never_opened(name, tmp_path):
    torch.save({"a": torch.zeros(2)}, tmp_path / "x")
    content = (tmp_path / "x").read_bytes()
    (tmp_path / "x").unlink()
    for pickled in (content, pickle.dumps({"a": 1})):
        message = refused(pickled, tmp_path, name)
        assert (
            "is pickled" in message
            and "can run any program" in message
            and "save the adapter as .safetensors" in message
        )


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "is empty, 0 bytes"),
        (b"abc", "is not a safetensors file, or cut off"),
        (b"<html>" * 100, "is not a safetensors file, or cut off"),
        (GOOD[:-4], "is damaged"),
        (GOOD + b"xxxx", "is damaged"),
        ((2**62).to_bytes(8, "little") + b"{}", "is not a safetensors file, or cut off"),
        ((2).to_bytes(8, "little") + b"{}", "has no tensors in it"),
        ((4).to_bytes(8, "little") + b"[[]]", "is not a safetensors file"),
        (GOOD.replace(b"F32", b"X32"), "is damaged"),
    ],
)
def test_what_is_no_adapter_is_refused(content, part, tmp_path):
    assert part in refused(content, tmp_path)


def test_too_large_or_too_many_tensors_are_refused(tmp_path):
    assert "is larger than 1 MB" in refused(bytes(1_100_000), tmp_path, limits=Limits(adapter_mb=1))
    many = save({f"{k}": np.zeros(1, np.float32) for k in range(5)})
    assert "has 5 tensors, and the most is 4" in refused(many, tmp_path, limits=Limits(adapter_tensors=4))
