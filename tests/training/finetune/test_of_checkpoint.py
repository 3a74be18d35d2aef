"""Adapters of checkpoints: of the last one, what the run came to; of one before, what it was then."""

import json

import pytest
import torch

from training.checkpoint import CheckpointError
from training.finetune.config import FinetuneConfig
from training.finetune.of_checkpoint import write_checkpoint_adapter
from training.finetune.run import finetune
from training.methods.adapter import load_adapter


def trained(model, pictures, run, method="paca", steps=4, **options):
    told = FinetuneConfig.model_validate(
        {
            "model": str(model), "data": [{"folder": pictures}], "resolution": 32, "max_train_steps": steps,
            "train_batch_size": 2, "mixed_precision": "fp32", "checkpointing_steps": 2, "learning_rate": 1e-2,
            "checkpoints_total_limit": 9, "validation_steps": 100, "adapter_dtype": "fp32", "ema_decay": 0.9,
            "method": method, "method_options": options,
        }
    )  # fmt: skip
    list(finetune(told, run, device="cpu"))
    return told


def alike(one, two):
    a, b = load_adapter(one).delta, load_adapter(two).delta
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    ("method", "options"),
    [("sara", {"fraction": 0.1}), ("lora", {"rank": 2}), ("svdiff", {}), ("lt-sft", {"fraction": 0.1}),
     ("id3", {"rounds": 2, "fraction": 0.1})],
)  # fmt: skip
def test_that_of_the_last_checkpoint_is_the_runs_own(method, options, animator, pictures, tmp_path):
    told = trained(animator, pictures, tmp_path / "run", method, **options)
    write_checkpoint_adapter(told, tmp_path / "run", 4, tmp_path / "4.safetensors")
    assert alike(tmp_path / "4.safetensors", tmp_path / "run" / "adapter.safetensors")
    write_checkpoint_adapter(told, tmp_path / "run", 2, tmp_path / "2.safetensors")
    assert not alike(tmp_path / "2.safetensors", tmp_path / "4.safetensors")
    assert load_adapter(tmp_path / "2.safetensors").notes["step"] == "2"


def test_what_is_not_there_is_named(animator, pictures, tmp_path):
    told = trained(animator, pictures, tmp_path / "run", rank=2)
    with pytest.raises(CheckpointError, match="no checkpoint of step 3; it has 2, 4"):
        write_checkpoint_adapter(told, tmp_path / "run", 3, tmp_path / "3.safetensors")
    state = tmp_path / "run" / "checkpoint-2" / "state.json"
    other = json.loads(state.read_text())
    other["fingerprint"]["base"] = "0" * 64
    state.write_text(json.dumps(other))
    with pytest.raises(ValueError, match="is not the model that"):
        write_checkpoint_adapter(told, tmp_path / "run", 2, tmp_path / "2.safetensors")
    assert not list(tmp_path.glob("*.safetensors"))
