"""A process that trains a toy in children, which it kills: `crash_worker.py FOLDER TIMES`."""

import importlib.util
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

import torch
from torch import nn

from training import loop

spec = importlib.util.spec_from_file_location("training_toys", Path(__file__).with_name("toys.py"))
assert spec is not None and spec.loader is not None
toys = importlib.util.module_from_spec(spec)
spec.loader.exec_module(toys)
STEPS = 60
ENDED = os.WEXITED | os.WNOHANG | os.WNOWAIT


class Large(toys.Toy):  # type: ignore[misc,name-defined]
    """A toy whose checkpoints take some time to write."""

    def __init__(self, *, seed: int = 0) -> None:
        super().__init__(seed=seed)
        self.ballast = nn.Parameter(torch.zeros(300_000))

    def forward(self, batch, task, generator):  # type: ignore[no-untyped-def]
        losses = super().forward(batch, task, generator)
        return {"loss": losses["loss"] + (self.ballast[:4] - losses["loss"].detach()).square().mean()}


def train(run: Path, *, resume: bool, every: int) -> None:
    config = toys.config(steps=STEPS, checkpoint_every=every, keep_checkpoints=1)
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


def resumable(run: Path) -> bool:
    return (run / "latest").exists()


def begin(run: Path, *, every: int = 1) -> int:
    """A child that trains. This process must not: the threads that torch then holds are not there in a child."""
    child = os.fork()
    if child == 0:
        try:
            train(run, resume=resumable(run), every=every)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return child


def finish(run: Path) -> None:
    _, status = os.waitpid(begin(run, every=STEPS), 0)
    if status:
        sys.exit(f"the training of {run} ended with {status}")


def wait_for_saves(run: Path, child: int, count: int) -> None:
    """Waits until a child has begun so many saves, or has ended."""
    before, seen = staged(run), set()
    until = time.monotonic() + 60
    while len(seen) < count and time.monotonic() < until and os.waitid(os.P_PID, child, ENDED) is None:
        seen |= staged(run) - before
        time.sleep(0.0005)


def kill_often(run: Path, times: int) -> None:
    """Kills a child that trains, again and again; prints how often it was amid a save of its own.

    Half of them are watched and killed soon after their first or their second save begins, in turn, so that the kills
    hit saves and the children get on, however fast the machine and its disk are. The others die at random moments.
    """
    draw = random.Random(0)
    amid = 0
    for number in range(times):
        before = staged(run)
        child = begin(run)
        if number % 2:
            time.sleep(draw.uniform(0.03, 0.3))
        else:
            wait_for_saves(run, child, 1 + number // 2 % 2)
            time.sleep(draw.uniform(0, 0.004))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        amid += bool(staged(run) - before)
    print("amid", amid, "at", (run / "latest").read_text() if resumable(run) else "nothing")


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    finish(folder / "straight")
    kill_often(folder / "killed", int(sys.argv[2]))
    finish(folder / "killed")
