"""Runs `studio` in a process of its own, so that a crash or a closed browser takes nothing with it.

A job is a folder: the command, what it prints, and what it makes. All that the page knows comes from there.
"""

import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

State = Literal["running", "done", "failed"]

_PROGRESS: Final = re.compile(r"^(?P<stage>[^:]+): (?P<done>\d+)/(?P<total>\d+) (?P<rest>.*)$")


@dataclass(frozen=True)
class JobStatus:
    """How a job stands."""

    state: State
    stage: str
    share: float
    """0..1 of the stage."""
    result: dict[str, Any]
    """What `--json` printed; {} while it runs."""
    notes: tuple[str, ...]
    """What the command told on the way."""


@dataclass(frozen=True)
class Job:
    """A command in a folder."""

    folder: Path

    @property
    def command(self) -> list[str]:
        """The words after `studio`."""
        words: list[str] = json.loads((self.folder / "command.json").read_text())
        return words

    def status(self) -> JobStatus:
        """Reads how the job stands."""
        lines = _text(self.folder / "stderr.txt").splitlines()
        notes = tuple(line.removeprefix("note: ") for line in lines if line.startswith("note: "))
        found = next((match for line in reversed(lines) if (match := _PROGRESS.match(line))), None)
        stage = f"{found['stage']}, {found['rest']}" if found else "starting"
        share = int(found["done"]) / max(1, int(found["total"])) if found else 0.0
        alive = self._alive()  # asked before the result is read: what ends in between has written it
        result = self._result()
        if result:
            return JobStatus("failed" if "error" in result else "done", stage, share, result, notes)
        if alive:
            return JobStatus("running", stage, min(share, 1.0), {}, notes)
        last = lines[-1] if lines else "it printed nothing"
        return JobStatus("failed", stage, share, {"error": f"the process ended without a result: {last}"}, notes)

    def wait(self, timeout_s: float) -> JobStatus:
        """Waits for the end, at most `timeout_s`."""
        until = time.monotonic() + timeout_s
        while (status := self.status()).state == "running" and time.monotonic() < until:
            time.sleep(0.1)
        return status

    def cancel(self) -> None:
        """Interrupts the job as Ctrl-C does."""
        with suppress(ProcessLookupError, ValueError):
            os.kill(int(_text(self.folder / "pid")), signal.SIGINT)

    def _result(self) -> dict[str, Any]:
        last = next(reversed(_text(self.folder / "stdout.txt").strip().splitlines()), "")
        with suppress(json.JSONDecodeError):
            found = json.loads(last)
            return found if isinstance(found, dict) else {}
        return {}

    def _alive(self) -> bool:
        pid = int(_text(self.folder / "pid") or 0)
        if not pid:
            return False
        try:
            ended, _ = os.waitpid(pid, os.WNOHANG)  # a child that ended stays a zombie until it is asked for
            return not ended
        except ChildProcessError:
            pass
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        return True


def new_folder(root: Path) -> Path:
    """Makes a folder for a job; names sort by time."""
    folder = root / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
    folder.mkdir(parents=True)
    return folder


def start(arguments: Sequence[str], folder: Path) -> Job:
    """Starts `studio ARGUMENTS --json` with what it prints going into `folder`."""
    (folder / "command.json").write_text(json.dumps(list(arguments)))
    environment = {**os.environ, "STUDIO_PROGRESS_EVERY_S": "0.3"}
    with (folder / "stdout.txt").open("w") as out, (folder / "stderr.txt").open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "studio", *arguments, "--json"],
            stdout=out, stderr=errors, stdin=subprocess.DEVNULL, env=environment, start_new_session=True,
        )  # fmt: skip
    (folder / "pid").write_text(str(process.pid))
    process.returncode = 0  # the folder knows how it ended; Popen would warn about a child still running
    return Job(folder)


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.is_file() else ""
