"""What is left of a run that is killed while it saves."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from training.checkpoint import load_checkpoint


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_while_it_saves_ends_like_one_that_never_was(tmp_path):
    worker = Path(__file__).with_name("crash_worker.py")
    done = subprocess.run(
        [sys.executable, str(worker), str(tmp_path), "20"], capture_output=True, text=True, timeout=250
    )
    assert done.returncode == 0, done.stderr[-2000:]
    # `amid N at checkpoint-K`: the kills did hit saves, and the children did get on
    _, amid, _, reached = done.stdout.splitlines()[-1].split()
    assert int(amid) >= 3, done.stdout
    assert reached.startswith("checkpoint-")
    (one, state), (two, other) = (load_checkpoint(tmp_path / n / "checkpoint-60") for n in ("straight", "killed"))
    assert state == other
    for kind in one:
        assert all(torch.equal(value, two[kind][name]) for name, value in one[kind].items()), kind
    assert not list((tmp_path / "killed").glob(".*"))
