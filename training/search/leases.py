"""Who trains which trial now. A lease is kept alive by a heartbeat; one whose owner is gone is free for anybody."""

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

from training.disk import write_text
from training.owners import Owner


class Leases(Protocol):
    """The leases of a study's trials. Take one only within the ledger's `exclusive()`."""

    def owner(self, trial: int) -> tuple[Owner, float] | None:
        """Who holds a trial, and the seconds since its last heartbeat; None where nobody does."""

    def take(self, trial: int, owner: Owner) -> None:
        """Gives a trial to an owner, whoever had it."""

    def beat(self, trial: int, owner: Owner) -> None:
        """Says that an owner is still there, if it still holds the trial."""

    def release(self, trial: int, owner: Owner) -> None:
        """Gives a trial back, if the owner still holds it."""


def is_free(leases: Leases, trial: int, *, expiry_s: float) -> bool:
    """Whether a trial may be taken: nobody holds it, or its owner is dead or has not been heard of for so long."""
    held = leases.owner(trial)
    return held is None or held[0].is_dead or held[1] > expiry_s


@contextmanager
def heartbeat(leases: Leases, trial: int, owner: Owner, *, every_s: float) -> Iterator[None]:
    """Keeps a lease alive from a thread of its own, and gives it back at the end."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(every_s):
            # a database or a disk that is away for a moment: what it means for the lease is seen at the next entry
            with suppress(Exception):
                leases.beat(trial, owner)

    thread = threading.Thread(target=beat, name=f"lease of trial {trial}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        with suppress(Exception):
            leases.release(trial, owner)


class FileLeases:
    """One small file a trial; its time of change is the heartbeat."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _path(self, trial: int) -> Path:
        return self._folder / f"trial-{trial}.json"

    def owner(self, trial: int) -> tuple[Owner, float] | None:
        """Who holds a trial."""
        try:
            beaten = self._path(trial).stat().st_mtime
            return Owner(**json.loads(self._path(trial).read_text(encoding="utf-8"))), time.time() - beaten
        except FileNotFoundError:
            return None

    def take(self, trial: int, owner: Owner) -> None:
        """Writes the file."""
        self._folder.mkdir(exist_ok=True)
        write_text(self._path(trial), json.dumps(asdict(owner)))

    def _holds(self, trial: int, owner: Owner) -> bool:
        held = self.owner(trial)
        return held is not None and held[0] == owner

    def beat(self, trial: int, owner: Owner) -> None:
        """Touches the file."""
        if self._holds(trial, owner):
            os.utime(self._path(trial))

    def release(self, trial: int, owner: Owner) -> None:
        """Takes the file away."""
        if self._holds(trial, owner):
            self._path(trial).unlink(missing_ok=True)
