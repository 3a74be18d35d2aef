"""A job once more, with changes: its words and its TOML file, moved to a new folder, and what differs."""

import difflib
import shlex
from collections.abc import Sequence
from pathlib import Path

from studio.errors import RequestError
from studio.jobs import Job
from studio.jobs.kinds import value_of, with_value


def as_lines(words: Sequence[str]) -> str:
    """The words for editing: a line each, as a shell would read them."""
    return "\n".join(shlex.quote(word) for word in words)


def from_lines(text: str) -> list[str]:
    """Reads edited words; several in a line are several, and what follows # is not read.

    Raises:
        RequestError: a quote is not closed.
    """
    try:
        words = shlex.split(text, comments=True)
    except ValueError as error:
        raise RequestError(f"the command cannot be read: {error}; close the quotes") from None
    return words[1:] if words[:1] == ["studio"] else words


def rehomed(job: Job, words: Sequence[str], folder: Path) -> list[str]:
    """Words whose results go to another job's folder; what the job was given stays where it is.

    The run folder of a training gets a name that is free.
    """
    words = list(words)
    for flag in ("--output", "--live"):
        made = value_of(words, flag)
        if made is not None and Path(made).is_relative_to(job.folder):
            words = with_value(words, flag, str(folder / Path(made).relative_to(job.folder)))
    made = value_of(words, "--output-dir")
    if made is not None:
        run = job.directory / made
        if run.is_relative_to(job.folder):
            words = with_value(words, "--output-dir", str(folder / run.relative_to(job.folder)))
        elif made == value_of(job.words, "--output-dir"):
            words = with_value(words, "--output-dir", str(free_name(run)))
    return words


def free_name(path: Path) -> Path:
    """The path itself, or with the first number behind it that is not taken."""
    number = 1
    stem, _, tail = path.name.rpartition("-")
    if stem and tail.isdigit() and len(tail) < 6:
        number = int(tail)
    else:
        stem = path.name
    found = path
    while found.exists():
        number += 1
        found = path.with_name(f"{stem}-{number}")
    return found


def config_of(job: Job) -> Path | None:
    """The TOML file that a job reads; None where it has none."""
    if job.kind not in ("train", "search", "compare"):
        return None
    for word in job.words[1:]:
        path = job.directory / word
        if not word.startswith("-") and path.suffix.lower() == ".toml":
            return path if path.is_file() else None
    return None


def diff(before: str, after: str) -> str:
    """The lines that differ: those before with "- ", those after with "+ "; nothing where none do."""
    lines = difflib.ndiff(before.splitlines(), after.splitlines())
    return "\n".join(line for line in lines if line[:2] in ("- ", "+ "))
