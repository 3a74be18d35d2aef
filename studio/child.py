"""Runs `studio` in a process of its own, as a part of a larger job."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from studio.jobs.job import Progress, read_progress, read_result, tail


class Child:
    """A command that was started; what it prints and its result are files in a folder."""

    def __init__(self, words: Sequence[str], folder: Path) -> None:
        """Starts `studio WORDS --json`."""
        self.folder = folder
        environment = {**os.environ, "STUDIO_PROGRESS_EVERY_S": "0.3"}
        with (folder / "stdout.txt").open("w") as out, (folder / "stderr.txt").open("w") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "studio", *words, "--json"],
                stdout=out, stderr=errors, stdin=subprocess.DEVNULL, env=environment, start_new_session=True,
            )  # fmt: skip

    def wait(self, timeout_s: float) -> bool:
        """Waits for the end, at most so long; whether it ended."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def progress(self) -> Progress:
        """How far it is."""
        return read_progress(self.folder / "stderr.txt")

    def result(self) -> dict[str, Any]:
        """What `--json` printed, or {"error": ...} with its last words where it did not come to that."""
        if (found := read_result(self.folder / "stdout.txt")) is not None:
            return found
        last = next(reversed(tail(self.folder / "stderr.txt").splitlines()), "it printed nothing")
        return {"error": f"the process ended without a result: {last}"}

    def interrupt(self) -> None:
        """Interrupts it as Ctrl-C does."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
