"""What the queue has to know of commands: a title, the device, and how one that was stopped goes on."""

import itertools
import os
from collections.abc import Sequence
from pathlib import Path


def value_of(words: Sequence[str], flag: str) -> str | None:
    """What a flag is given, as `--flag value` or `--flag=value`; the last one counts."""
    found = None
    for word, after in itertools.pairwise([*words, ""]):
        if word == flag and after:
            found = after
        elif word.startswith(f"{flag}="):
            found = word.partition("=")[2]
    return found


def with_value(words: Sequence[str], flag: str, value: str) -> list[str]:
    """The same words with another value of a flag."""
    kept: list[str] = []
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word == flag:
            skip = True
        elif not word.startswith(f"{flag}="):
            kept.append(word)
    return [*kept, f"{flag}={value}"]


def device_of(words: Sequence[str]) -> str:
    """cpu, cuda:N or auto."""
    return numbered(value_of(words, "--device") or "auto")


def numbered(device: str) -> str:
    """A GPU by its number: cuda is the first."""
    return "cuda:0" if device == "cuda" else device


def title_of(words: Sequence[str]) -> str:
    """A few words for a command, for lists."""
    verb = words[0] if words else "nothing"
    if verb == "animate":
        return f"animate {_name(value_of(words, '--reference'))} with {_name(value_of(words, '--driving'))}"
    if verb == "background":
        return f"background of {_name(value_of(words, '--image'))}"
    for flag in ("--output-dir", "--output"):
        if made := value_of(words, flag):
            return f"{verb} {Path(made).name}"
    plain = [word for word in itertools.takewhile(lambda word: not word.startswith("-"), words)]
    return " ".join(_name(word) if os.sep in word else word for word in plain[:3])


def _name(path: str | None) -> str:
    return Path(path).name if path else "?"


def words_to_go_on(words: Sequence[str], directory: Path) -> list[str]:
    """The command that goes on where an earlier attempt stopped: a training from its last checkpoint.

    Searches, comparisons and trainings that did not save yet find by themselves what is there already; all else begins
    again.
    """
    if words and words[0] == "train" and (made := value_of(words, "--output-dir")):
        run = directory / made
        if (run / "latest").exists():
            return ["resume", str(run)]
    return list(words)
