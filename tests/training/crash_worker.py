"""A process that trains a toy in children, which it kills: `crash_worker.py FOLDER TIMES`."""

import importlib.util
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from torch import nn

from training import loop

spec = importlib.util.spec_from_file_location("training_toys", Path(__file__).with_name("toys.py"))
assert spec is not None and spec.loader is not None
toys = importlib.util.module_from_spec(spec)
spec.loader.exec_module(toys)
STEPS = 24


class Large(toys.Toy):  # type: ignore[misc,name-defined]
    """A toy whose checkpoints take some time to write."""

    def __init__(self, *, seed: int = 0) -> None:
        super().__init__(seed=seed)
        self.ballast = nn.Parameter(torch.zeros(300_000))

    def forward(self, batch, task, generator):  # type: ignore[no-untyped-def]
        losses = super().forward(batch, task, generator)
        return {"loss": losses["loss"] + (self.ballast[:4] - losses["loss"].detach()).square().mean()}


def train(run: Path, *, resume: bool) -> None:
    config = toys.config(steps=STEPS, checkpoint_every=1, keep_checkpoints=1)
    for _ in loop.train(Large(seed=7 if resume else 0), config, run, resume=resume, device="cpu"):
        pass


def staged(run: Path) -> set[tuple[str, int]]:
    """The saves that are under way, or were when their process was killed."""
    found = set()
    for path in run.glob(".checkpoint-*.tmp"):
        try:
            found.add((path.name, path.stat().st_ino))
        except FileNotFoundError:  # renamed in meanwhile
            continue
    return found


def kill_often(run: Path, times: int) -> None:
    """Kills a child that trains, again and again; prints how often it was amid a save of its own.

    The first half is watched and killed soon after a save begins, the rest at random moments: how many of those would
    hit a save, and how many steps are made before, depends on the machine.
    """
    draw = random.Random(0)
    amid = 0
    for number in range(times):
        before = staged(run)
        child = os.fork()
        if child == 0:
            train(run, resume=(run / "latest").exists())
            os._exit(0)
        if number < times // 2:
            until = time.monotonic() + 5
            while not staged(run) - before and time.monotonic() < until:
                pass
            time.sleep(draw.uniform(0, 0.004))
        else:
            time.sleep(draw.uniform(0.03, 0.3))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        amid += bool(staged(run) - before)
    print("amid", amid, "at", (run / "latest").read_text() if (run / "latest").exists() else "nothing")


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    train(folder / "straight", resume=False)
    kill_often(folder / "killed", int(sys.argv[2]))
    train(folder / "killed", resume=True)
