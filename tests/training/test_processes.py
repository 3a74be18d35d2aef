"""Where each of several processes computes."""

import pytest
import torch

from training.processes import device_of, refuse_plugins, several_processes


@pytest.mark.parametrize(
    ("environment", "gpu", "asked", "wanted"),
    [
        ({}, False, None, "cpu"),
        ({}, True, None, "cuda"),
        ({}, True, "cpu", "cpu"),
        ({}, True, "cuda:1", "cuda:1"),
        ({"WORLD_SIZE": "2", "LOCAL_RANK": "1"}, True, None, "cuda:1"),
        ({"WORLD_SIZE": "2", "LOCAL_RANK": "1"}, True, "cuda", "cuda:1"),
        ({"WORLD_SIZE": "2", "LOCAL_RANK": "1"}, False, None, "cpu"),
        ({"WORLD_SIZE": "2", "LOCAL_RANK": "1", "ACCELERATE_USE_CPU": "true"}, True, None, "cpu"),
        ({"ACCELERATE_USE_CPU": "true"}, True, None, "cpu"),
    ],
)
def test_each_has_its_own_device(environment, gpu, asked, wanted, monkeypatch):
    for name in ("WORLD_SIZE", "LOCAL_RANK", "ACCELERATE_USE_CPU"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    assert device_of(asked) == torch.device(wanted)
    assert several_processes() == ("WORLD_SIZE" in environment)


def test_what_would_split_the_trained_numbers_is_refused(monkeypatch):
    refuse_plugins()
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(ValueError, match="DeepSpeed: launch without it"):
        refuse_plugins()
