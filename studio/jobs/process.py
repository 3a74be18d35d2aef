"""The process of a job: started so that it can be found again, and ended with all that it started itself."""

import fcntl
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil

TOKEN: Final = "STUDIO_JOB"
"""The variable by which every process that a job started knows its attempt."""
LOCK: Final = "lock"
ATTEMPT: Final = "attempt"
STALE: Final = 75
"""The exit code of a process that came too late: its attempt is over, or another one runs."""


def new_token() -> str:
    """Names an attempt."""
    return secrets.token_hex(12)


def spawn(folder: Path, words: Sequence[str], *, attempt: int, token: str, directory: Path,
          environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":  # fmt: skip
    """Starts `studio WORDS --json` for an attempt; what it prints goes into `folder/logs`.

    The process takes the job's lock before anything else and holds it as long as it lives, so whoever finds the lock
    taken knows that it runs, also after the worker that started it is gone.
    """
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", "studio.jobs.runner", str(folder), str(attempt), *words],
        cwd=directory if directory.is_dir() else folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, env={**os.environ, **environment, TOKEN: token}, start_new_session=True,
    )  # fmt: skip


def is_locked(folder: Path) -> bool:
    """Whether a process of the job lives on this machine."""
    try:
        handle = os.open(folder / LOCK, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def processes_of(token: str) -> list[psutil.Process]:
    """All processes of an attempt, also such as lost their parents or began a session of their own."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get(TOKEN) == token and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def interrupt(token: str) -> None:
    """Asks an attempt to save and end, as Ctrl-C does: its oldest process, which tells the others."""
    found = processes_of(token)
    ids = {process.pid for process in found}
    for process in found:
        with suppress(psutil.Error):
            if process.ppid() not in ids:
                process.send_signal(signal.SIGINT)


def kill(token: str, *, patience_s: float = 10.0) -> bool:
    """Ends all processes of an attempt at once; whether none is left."""
    until = time.monotonic() + patience_s
    while found := processes_of(token):
        for process in found:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(found, timeout=0.5)
        if time.monotonic() > until:
            return False
    return True
