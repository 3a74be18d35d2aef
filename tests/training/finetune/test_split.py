"""Runs whose frozen weights are split over processes."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from training.events import Evaluated, Step
from training.finetune.config import FinetuneConfig
from training.finetune.of_checkpoint import write_checkpoint_adapter
from training.finetune.run import finetune
from training.methods import quantized, split
from training.methods.adapter import load_adapter

from .conftest import picture
from .test_run import LORA, SARA, config

METHODS = {
    "sara": SARA, "lora": LORA, "dora": {**LORA, "method": "dora"},
    "paca": {"method": "paca", "method_options": {"rank": 4}, "gradient_checkpointing": True},
}  # fmt: skip


def told(animator, pictures, method, **changes):
    return config(
        animator, pictures, **METHODS[method], train_batch_size=4, split_weights=True, lr_scheduler="constant",
        validation_share=0.2, **changes,
    )  # fmt: skip


@pytest.fixture(scope="module")
def module_pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures") / "things"
    for k in range(6):
        picture(folder / f"{k}.png", (40 * k, 200 - 30 * k, 90))
    return folder


@pytest.fixture(scope="module")
def two(animator, module_pictures, tmp_path_factory):
    """What two processes did, and said."""
    folder = tmp_path_factory.mktemp("two")
    for method in METHODS:
        (folder / f"{method}.json").write_text(told(animator, module_pictures, method).model_dump_json())
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
         "-m", "tests.training.finetune.split_worker", folder],
        capture_output=True, text=True, timeout=280, check=False, cwd=Path(__file__).parents[3],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_two_processes_with_half_of_the_weights_each_learn_what_one_does(
    method, two, animator, module_pictures, tmp_path, monkeypatch
):
    monkeypatch.setattr(quantized, "SMALLEST", 64)
    folder, said = two
    settings = told(animator, module_pictures, method)
    events = list(finetune(settings, tmp_path / "one", device="cpu"))
    first, second = (load_adapter(f / "adapter.safetensors").delta for f in (tmp_path / "one", folder / method))
    assert first.keys() == second.keys()
    learned = [name for name in first if not name.endswith((".scattered", ".columns"))]
    moved, other = (torch.cat([d[name].flatten().float() for name in learned]) for d in (first, second))
    assert (moved - other).norm() < 0.02 * moved.norm()
    # a checkpoint's adapter is made by one process alone
    write_checkpoint_adapter(settings, folder / method, 6, tmp_path / "six.safetensors")
    alone = load_adapter(tmp_path / "six.safetensors").delta
    assert all(torch.equal(alone[name], value) for name, value in second.items())
    assert f"{method} evaluated" in said
    assert [e for e in events if isinstance(e, Step)] and [e for e in events if isinstance(e, Evaluated)]


@pytest.mark.slow
def test_each_process_holds_about_half(two):
    shares = [int(held) / int(total) for held, total in re.findall(r"holds (\d+) of (\d+)", two[1])]
    assert len(shares) == 2 * 2 * len(METHODS)
    assert all(0.45 < share < 0.65 for share in shares), shares


def test_what_cannot_be_split_is_refused(animator, pictures, tmp_path):
    with pytest.raises(ValueError, match=r"split_weights: full writes to the layers' weights.*use one of .*lora"):
        list(finetune(config(animator, pictures, method="full", split_weights=True), tmp_path / "run", device="cpu"))
    assert not (tmp_path / "run").exists()
    values = config(animator, pictures, **SARA).model_dump(mode="json")
    with pytest.raises(ValueError, match="split_weights: weights of the type nf4 stay whole"):
        FinetuneConfig.model_validate({**values, "split_weights": True, "weights_dtype": "nf4"})
    with pytest.raises(
        ValueError, match=r'fp32 weights every process would keep a copy in bf16.* weights_dtype = "bf16"'
    ):
        FinetuneConfig.model_validate({**values, "split_weights": True, "mixed_precision": "bf16"})
    with pytest.raises(ValueError, match="split_weights: the guard makes its pictures in one process"):
        FinetuneConfig.model_validate({**values, "split_weights": True, "guard": {}})


def test_a_network_without_known_blocks_is_not_split():
    with pytest.raises(ValueError, match="split_weights: a Linear does not say what its blocks are"):
        split._shard(torch.nn.Linear(2, 2), set(), torch.device("cpu"))
