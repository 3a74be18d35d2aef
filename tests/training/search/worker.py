"""Workers of a search as real processes, which die. Takes requests as lines of JSON, answers each with one line.

This process must not compute: the threads that torch then holds are not there in its children.
"""

import fcntl
import functools
import hashlib
import json
import os
import random
import resource
import signal
import sys
import time
import traceback
from contextlib import closing
from pathlib import Path

from training.checkpoint import SaveError, write_text
from training.search.bilevel import bilevel
from training.search.entries import Budget, Header, Taken
from training.search.ledger import open_ledger
from training.search.space import Choice, LogUniform, Space
from training.search.trial import Point

STEPS = (10, 20, 30, 40, 50)
LIFE_S = 60
ENDED = os.WEXITED | os.WNOHANG | os.WNOWAIT


def space():
    return Space(
        sites=tuple(f"site{k}" for k in range(6)),
        numbers={"learning_rate": LogUniform(low=1e-5, high=1e-3), "rank": Choice(options=(4, 8, 16))},
    )


def header(**changes):
    return Header(**{"name": "toy", "space": space(), "budget": Budget(trials=12), "reference": (10.0, 1.0), **changes})


def point(candidate, step, **more):
    """Quality and copying both follow from how much is trained and for how long, with noise of the candidate's."""
    noise = int(hashlib.sha256(candidate.key.encode()).hexdigest()[:6], 16) / 16**6
    share = sum(candidate.mask) / len(candidate.mask)
    values = {
        "quality": 5 - 3 * share * min(step, 20) / 20 + noise, "copying": share**2 * step / 50 + noise / 20,
        "path": f"adapters/{noise}", "train_seconds": step / 10, "judge_seconds": 0.25,
    }  # fmt: skip
    return Point(step=step, **{**values, **more})


def inner(candidate, folder, pause_s=0.0):
    """Trains a toy that goes on after its last checkpoint; no two may train in one folder at the same time."""
    with (folder / "busy").open("w") as busy:
        fcntl.flock(busy, fcntl.LOCK_EX | fcntl.LOCK_NB)
        made = json.loads((folder / "made.json").read_text()) if (folder / "made.json").exists() else []
        for step in STEPS:
            if step not in made:
                time.sleep(pause_s)
                made.append(step)
                write_text(folder / "made.json", json.dumps(made))
                with (folder / "trained.txt").open("a") as log:
                    log.write(f"{os.getpid()} {step}\n")
            yield point(candidate, step)


def begin(folder, storage, pause_s, **changes):
    """A child that works until there is nothing to do."""
    child = os.fork()
    if child == 0:
        try:
            for _ in bilevel(folder, header(**changes), functools.partial(inner, pause_s=pause_s), storage=storage):
                pass
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return child


def wait(*children):
    for child in children:
        _, status = os.waitpid(child, 0)
        assert status == 0, f"a worker ended with {status}"


def count(folder, storage):
    with closing(open_ledger(folder, storage, study="toy")) as ledger:
        return len(ledger.read()[0])


def kill_often(folder, storage, times, pause_s, workers):
    """Kills workers, then lets new ones end the search; how many were amid their work, and how far they had got.

    Half of them die at random moments, the others soon after they have written something, so that they get on however
    slow the machine is.
    """
    draw, amid = random.Random(0), 0
    for number in range(times):
        before = count(folder, storage)
        children = [begin(folder, storage, pause_s) for _ in range(workers)]
        until = time.monotonic() + (draw.uniform(0.01, 0.1) if number % 2 else LIFE_S)
        wanted = before + workers + draw.randint(1, 2)
        while time.monotonic() < until and (number % 2 or count(folder, storage) < wanted):
            time.sleep(draw.uniform(0, 0.004))
            if all(os.waitid(os.P_PID, child, ENDED) for child in children):
                break
        for child in children:
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            amid += os.WIFSIGNALED(status)
    reached = count(folder, storage)
    wait(*[begin(folder, storage, 0.0) for _ in range(workers)])
    return {"amid": amid, "reached": reached}


def work(folder, storage, pause_s=0.0, workers=1, **changes):
    """Workers that live."""
    wait(*[begin(folder, storage, pause_s, **changes) for _ in range(workers)])
    return {}


def starve(folder, storage, largest, **_):
    """What a worker says that may not write files above some bytes: the system refuses as it does on a full disk."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
        try:
            for _ in bilevel(folder, header(), inner, storage=storage):
                pass
        except SaveError as error:
            os.write(write, str(error).encode())
        finally:
            os._exit(0)
    os.close(write)
    wait(child)
    with open(read) as told:
        return {"told": told.read()}


def add(folder, storage, workers, times, **_):
    """Workers that read how much there is and then add one more."""
    children = []
    for _ in range(workers):
        children.append(os.fork())
        if children[-1] == 0:
            with closing(open_ledger(folder, storage, study="toy")) as ledger:
                for _ in range(times):
                    with ledger.exclusive():
                        ledger.append(Taken(trial=len(ledger.read()[0]), worker="w", died=True, at=0.0))
            os._exit(0)
    wait(*children)
    return {}


if __name__ == "__main__":
    for line in sys.stdin:
        asked = json.loads(line)
        do = {"kill_often": kill_often, "work": work, "starve": starve, "add": add}[asked.pop("do")]
        try:
            answer = do(Path(asked.pop("folder")), **asked)
        except Exception:
            answer = {"error": traceback.format_exc()}
        print(json.dumps(answer), flush=True)
