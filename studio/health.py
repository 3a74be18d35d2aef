"""The findings of `studio doctor` for a page: looked for in another process, kept in a file of the runs folder."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock, Thread
from typing import Any, Final

import psutil

from studio.errors import describe
from studio.files import moved_in

FILE: Final = ".doctor.json"
_PATIENCE_S: Final = 300.0


@dataclass(frozen=True, kw_only=True)
class Report:
    """What doctor found."""

    at: float
    """When, in seconds since 1970."""
    checks: tuple[Mapping[str, Any], ...]
    error: str = ""
    """Why there are no checks."""

    def missing(self) -> list[Mapping[str, Any]]:
        """What is needed and not well."""
        return [check for check in self.checks if not check["ok"] and check["needed"]]

    def of(self, name: str) -> Mapping[str, Any] | None:
        """One check."""
        return next((check for check in self.checks if check["name"] == name), None)


def last_report(root: Path) -> Report | None:
    """What was found the last time; None where nobody looked yet."""
    try:
        told = json.loads((root / FILE).read_text(encoding="utf-8"))
        checks = tuple({"name": str(one["name"]), "ok": bool(one["ok"]), "needed": bool(one["needed"]),
                        "found": str(one["found"]), "fix": str(one["fix"])} for one in told["checks"])  # fmt: skip
        return Report(at=float(told["at"]), checks=checks, error=str(told["error"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


class Doctor:
    """Looks at this machine in the background, once at a time."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lock = Lock()
        self._thread: Thread | None = None

    @property
    def is_looking(self) -> bool:
        """Whether it looks now."""
        return self._thread is not None and self._thread.is_alive()

    def look(self) -> bool:
        """Begins to look; whether it did, for it may be looking already."""
        with self._lock:
            if self.is_looking:
                return False
            self._thread = Thread(target=self._look, name="doctor", daemon=True)
            self._thread.start()
            return True

    def wait(self) -> None:
        """Waits until it has looked."""
        if self._thread is not None:
            self._thread.join()

    def _look(self) -> None:
        checks: list[Any] = []
        error = ""
        try:
            done = subprocess.run(
                [sys.executable, "-m", "studio", "doctor", "--json"], capture_output=True, text=True,
                timeout=_PATIENCE_S, check=False, stdin=subprocess.DEVNULL,
            )  # fmt: skip
            told = json.loads(done.stdout.strip().splitlines()[-1])
            checks, error = told.get("checks", []), str(told.get("error", ""))
        except Exception as reason:  # shown on the page: a machine on which doctor breaks is why one looks
            error = f"studio doctor did not come to an end: {describe(reason)}"
        with moved_in(self.root / FILE) as beside:
            beside.write_text(json.dumps({"at": time.time(), "checks": checks, "error": error}), encoding="utf-8")


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A GPU as its driver sees it now."""

    index: int
    name: str
    used_bytes: int
    total_bytes: int
    busy: float
    """0..1."""


def gpus() -> list[Gpu]:
    """Asks the driver of NVIDIA's GPUs; none where there is no driver, or it does not answer in a moment."""
    query = "index,name,memory.used,memory.total,utilization.gpu"
    try:
        done = subprocess.run(
            ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits"], capture_output=True, text=True,
            timeout=3, check=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return []
    found = []
    for line in done.stdout.splitlines():
        words = [word.strip() for word in line.split(",")]
        if len(words) == 5 and words[0].isdigit():
            used, total, busy = (float(word) if word.replace(".", "").isdigit() else 0.0 for word in words[2:])
            found.append(Gpu(index=int(words[0]), name=words[1], used_bytes=int(used) << 20,
                             total_bytes=int(total) << 20, busy=busy / 100))  # fmt: skip
    return found


@dataclass(frozen=True, kw_only=True)
class Room:
    """What this machine has, and what of it is free, in bytes."""

    cores: int
    memory_free: int
    memory_total: int
    disk_free: int
    disk_total: int


def room_of(root: Path) -> Room:
    """Looks at cores, memory, and the disk of a folder."""
    memory, disk = psutil.virtual_memory(), shutil.disk_usage(root)
    return Room(cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
                memory_free=memory.available, memory_total=memory.total, disk_free=disk.free,
                disk_total=disk.total)  # fmt: skip
