"""Training in two processes, which run once for all of these tests, as loading takes long."""

import subprocess
import sys

import pytest
import torch

from training.checkpoint import load_checkpoint
from training.loop import train
from training.schedules import rate_at

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def two(toys, tmp_path_factory):
    """The folder of all runs, and the lines that both processes printed."""
    folder = tmp_path_factory.mktemp("two")
    # `accelerate launch --cpu` starts a single one, and the tests would show nothing
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", toys.__file__, folder],
        capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return folder, done.stdout


def weights(run):
    return load_checkpoint(run / "checkpoint-6")[0]["model"]


def test_two_that_stop_and_go_on_give_the_weights_of_one_with_the_same_global_batch(two, toys, tmp_path):
    folder, told = two
    assert "toy: 2 processes, step 3" in told and "toy: 2 processes, step 6" in told
    list(train(toys.Toy(noise=0.0), toys.config(), tmp_path, device="cpu"))
    one, other, start = weights(tmp_path), weights(folder / "toy"), toys.Toy().state_dict()
    moved = max(float((one[name] - start[name]).abs().max()) for name in one)
    apart = max(float((one[name] - other[name]).abs().max()) for name in one)
    # Muon works in bfloat16, where a rounding of the sum over two halves may tip a digit
    assert apart < 0.02 * moved, (apart, moved)


@pytest.mark.parametrize("kind", ["sara", "cramped"])
def test_two_agree_with_one_on_penalty_and_memory(kind, two, toys, tmp_path):
    folder, told = two
    learner = toys.Matrix()
    list(train(learner, toys.config(), tmp_path, trained=toys.sara(learner), device="cpu"))
    # the one that has memory takes the rung with the other, or they would see other samples
    parts = [k for k in (0, 1) if f"{kind} {k}: a batch goes through the network in 2 parts of 1" in told]
    assert parts == ([0, 1] if kind == "cramped" else [])
    torch.testing.assert_close(weights(folder / kind)["values"], weights(tmp_path)["values"], rtol=1e-4, atol=1e-5)


def test_two_do_what_a_watcher_asks_the_main_one(two, toys):
    _, told = two
    settings = toys.config(evaluate_every=2)
    for k in (0, 1):
        for step in range(1, 5):
            rate = rate_at(step - 1, settings) * (1 if step <= 2 else 0.5)
            assert f"watched {k}: {step} at {rate:.6f}" in told
        assert f"watched {k}: ends at 4, True" in told
