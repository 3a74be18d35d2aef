"""What happens when memory runs out in a step."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from training.checkpoint import load_checkpoint
from training.memory import Ladder, is_out_of_memory


class Frugal:
    """A learner that says what it was asked for."""

    def __init__(self, *, can=True):
        self.asked, self.can = [], can

    def checkpoint_activations(self):
        self.asked.append("checkpointing")
        return self.can

    def offload(self):
        self.asked.append("offload")
        return self.can


def climbed(ladder):
    said = []
    while (remedy := ladder.climb()) is not None:
        said.append(remedy)
    return said


def test_the_rungs_come_in_order_and_end():
    learner = Frugal()
    said = climbed(Ladder(learner, share=6, parts=1))
    assert said == [
        "gradient checkpointing is on",
        "a batch goes through the network in 2 parts of 3 of its samples",
        "a batch goes through the network in 6 parts of 1 of its samples",
        "encoders wait in main memory",
    ]
    assert learner.asked == ["checkpointing", "offload"]


def test_what_cannot_be_done_is_not_said_to_be():
    assert climbed(Ladder(Frugal(can=False), share=1, parts=1)) == []
    assert climbed(Ladder(object(), share=4, parts=2)) == [
        "a batch goes through the network in 4 parts of 1 of its samples"
    ]


def test_a_resumed_run_starts_on_the_rung_that_it_was_on():
    ladder = Ladder(Frugal(), share=4, parts=1)
    climbed(ladder)
    learner = Frugal()
    again = Ladder(learner, share=4, parts=1)
    again.restore(json.loads(json.dumps(ladder.state())))
    assert again.parts == 4 and learner.asked == ["checkpointing", "offload"]
    assert climbed(again) == []


@pytest.mark.parametrize(
    ("error", "it_is"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True), (MemoryError(), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False), (ValueError("out of memory"), False),
    ],
)  # fmt: skip
def test_a_lack_of_memory_is_told_from_other_errors(error, it_is):
    assert is_out_of_memory(error) == it_is


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limit on the address space is Linux's")
def test_a_batch_that_does_not_fit_is_made_in_parts_and_gives_the_same_weights(tmp_path):
    worker = Path(__file__).with_name("memory_worker.py")
    done = subprocess.run([sys.executable, worker, tmp_path], capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr[-2000:]
    first, second, hopeless = (json.loads(line) for line in done.stdout.splitlines())
    kinds = [row["event"] for row in first]
    assert kinds[0] == "out_of_memory" and kinds.count("step") == 2, kinds
    assert first[0]["step"] == 0 and "allocate" in first[0]["error"] and "2 parts of 4" in first[0]["remedy"]
    # a resumed run does not try in vain again what did not fit
    assert [row["event"] for row in second] == ["step", "saved", "evaluated", "finished"]
    assert hopeless[-1]["event"] == "NoMemoryLeftError" and len(hopeless) == 4
    for words in ("step 0: out of memory", "2 parts", "8 parts of 1", "smaller resolution", "last checkpoint is None"):
        assert words in hopeless[-1]["error"]
    tight, parts = (load_checkpoint(tmp_path / name / "checkpoint-3")[0] for name in ("tight", "parts"))
    for kind in tight:
        for name, value in tight[kind].items():
            assert torch.equal(value, parts[kind][name]), (kind, name)
