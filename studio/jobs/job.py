"""A job: a command of `studio` that waits for its turn, runs or has ended."""

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

State = Literal["queued", "paused", "running", "done", "failed", "cancelled"]
Wanted = Literal["run", "pause", "cancel", "kill"]
STATES: Final[tuple[State, ...]] = ("queued", "paused", "running", "done", "failed", "cancelled")
OPEN: Final[tuple[State, ...]] = ("queued", "paused", "running")
"""The states of a job that has not ended."""

_TAIL_BYTES: Final = 64 * 1024
_PROGRESS: Final = re.compile(r"^(?P<stage>[^:]+): (?P<done>\d+)(/(?P<total>\d+))? (?P<rest>.*)$")


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job as the queue has it. Times are seconds since 1970."""

    id: int
    title: str
    words: tuple[str, ...]
    """What stands after `studio`."""
    folder: Path
    """What belongs to it alone: uploads, what it makes, logs."""
    directory: Path
    """Relative paths in its words begin here."""
    device: str
    """cpu, cuda:N, or auto for any."""
    state: State
    wanted: Wanted
    """What it was asked for last; a running job that is to end has something else than "run" here."""
    wanted_at: float | None
    priority: int
    """Higher ones first."""
    attempt: int
    """How often it was started."""
    token: str | None
    """The name of this attempt."""
    created: float
    started: float | None
    ended: float | None
    exit_code: int | None
    result: Mapping[str, Any]
    """What `--json` printed; empty while it runs."""
    error: str | None
    cloned_from: int | None
    needs: tuple[int, ...] = field(default=())
    """The jobs that have to be done first."""

    @property
    def kind(self) -> str:
        """Its verb, such as "animate"."""
        return self.words[0] if self.words else ""

    @property
    def command(self) -> str:
        """The same on the command line."""
        return f"studio {shlex.join(self.words)}"

    @property
    def is_open(self) -> bool:
        """Whether it has not ended."""
        return self.state in OPEN

    @property
    def shown_state(self) -> str:
        """The state in a word for people: a running job that was asked to end is "pausing" or "stopping"."""
        if self.state == "running" and self.wanted != "run":
            return "pausing" if self.wanted == "pause" else "stopping"
        return self.state

    def log(self, stream: Literal["out", "err"] = "err", attempt: int | None = None) -> Path:
        """Where an attempt writes what it prints; by default the last one."""
        return self.folder / "logs" / f"{attempt or self.attempt}.{stream}"

    def progress(self) -> "Progress":
        """How far it is, from the end of its log."""
        return read_progress(self.log()) if self.attempt else Progress()


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a command is, as it tells it."""

    stage: str = "waiting"
    share: float = 0.0
    """0..1 of the stage."""
    detail: str = ""
    """Rate, time left, peak memory."""
    notes: tuple[str, ...] = ()
    """What the user should know."""


def read_progress(log: Path) -> Progress:
    """Reads how far a command is from the end of what it printed on stderr."""
    lines = tail(log).splitlines()
    notes = tuple(dict.fromkeys(line.removeprefix("note: ") for line in lines if line.startswith("note: ")))
    found = next((match for line in reversed(lines) if (match := _PROGRESS.match(line))), None)
    if found is None:
        return Progress(stage="starting", notes=notes)
    done, total = int(found["done"]), int(found["total"] or 0)
    detail = f"{done:,} of {total:,} {found['rest']}" if total else f"{done:,} {found['rest']}"
    return Progress(
        stage=found["stage"], share=min(1.0, done / total) if total else 0.0, detail=detail, notes=notes
    )  # fmt: skip


def read_result(log: Path) -> dict[str, Any] | None:
    """What a command with `--json` printed at its end; None where it did not come to one."""
    last = next(reversed(tail(log, 1 << 24).strip().splitlines()), "")
    try:
        found = json.loads(last)
    except json.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None


def tail(path: Path, limit: int = _TAIL_BYTES) -> str:
    """The end of a text file, at most so many bytes; nothing where there is none."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - limit))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    return text if size <= limit else text.partition("\n")[2]
