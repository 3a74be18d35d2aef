"""What can be wrong with data."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

Severity = Literal["error", "warning", "note"]
"""error: a run leaves the file out. warning: it is trained, perhaps not as meant. note: what is done with it."""


class DataError(ValueError):
    """There is nothing to train on, or a file is no longer what it was."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that was found in the data."""

    file: Path
    kind: str
    """In a word: "unreadable", "duplicate"."""
    why: str
    """What it is, in words."""
    fix: str
    """What to do about it."""
    severity: Severity

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "file": str(self.file)}


def error(file: Path, kind: str, why: str, fix: str) -> Problem:
    """A file that a run leaves out."""
    return Problem(file=file, kind=kind, why=why, fix=fix, severity="error")


def errors_in(problems: Sequence[Problem], folder: Path) -> list[Problem]:
    """The files of a folder that a run leaves out."""
    return [p for p in problems if p.severity == "error" and p.file.is_relative_to(folder)]


def warning(file: Path, kind: str, why: str, fix: str) -> Problem:
    """A file that is trained, perhaps not as meant."""
    return Problem(file=file, kind=kind, why=why, fix=fix, severity="warning")


def note(file: Path, kind: str, why: str, fix: str = "nothing, if that is meant") -> Problem:
    """What is done with a file."""
    return Problem(file=file, kind=kind, why=why, fix=fix, severity="note")
