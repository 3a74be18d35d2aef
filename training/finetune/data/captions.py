"""Captions: metadata files, text files of the same name, or a name for all."""

import csv
import json
import posixpath
from collections.abc import Iterator
from pathlib import Path

from training.finetune.data.folder import QUARANTINE, Listing
from training.finetune.data.problems import Problem, error, warning

_TEXT = ("text", "caption", "captions", "prompt")
"""Columns that hold captions; the first one that is there."""
_PAPERS = {"readme", "license", "licence", "notice", "requirements"}
"""Text files that come with data sets and are no captions."""


class Captions:
    """The captions of one listing; looking one up may add to `problems`."""

    def __init__(self, listing: Listing) -> None:
        self._listing = listing
        self.problems: list[Problem] = []
        self._told: dict[str, tuple[str, ...]] = {}
        names = {path.relative_to(listing.folder).as_posix() for path in listing.files}
        for path in (p for p in listing.others if p.stem == "metadata"):
            self._read(path, names)

    def of(self, path: Path) -> tuple[str, ...] | None:
        """The captions of a file: metadata goes before its .txt; None where there is neither.

        Raises:
            ValueError: its .txt cannot be read as UTF-8.
        """
        told = self._told.get(path.relative_to(self._listing.folder).as_posix())
        text = path.with_suffix(".txt")
        if told is not None or not text.is_file():
            return told
        try:
            return (text.read_text(encoding="utf-8-sig").strip(),)
        except UnicodeDecodeError as wrong:
            raise ValueError(f"its caption {text.name} is not UTF-8 text ({wrong.reason})") from None

    def orphans(self) -> Iterator[Problem]:
        """Text files that belong to nothing."""
        stems = {path.with_suffix("") for path in self._listing.files}
        for path in self._listing.others:
            if path.suffix == ".txt" and path.with_suffix("") not in stems and path.stem.lower() not in _PAPERS:
                why = "is a caption without a picture or video of its name"
                yield warning(path, "orphan caption", why, "rename it, or remove it")

    def _read(self, path: Path, names: set[str]) -> None:
        place = path.parent.relative_to(self._listing.folder).as_posix()
        if path.suffix not in (".jsonl", ".csv"):
            why = f"metadata is read from .jsonl and .csv, not from {path.suffix or 'files without an ending'}"
            self.problems.append(warning(path, "unread metadata", why, "save it as metadata.jsonl"))
            return
        try:
            for number, row in _rows(path):
                self._take(path, number, row, place, names)
        except (ValueError, OSError, csv.Error) as wrong:
            why = f"cannot be read ({wrong}); its captions are not used from there on"
            self.problems.append(warning(path, "unreadable metadata", why, "mend that line"))

    def _take(self, path: Path, number: int, row: dict[str, object], place: str, names: set[str]) -> None:
        name = row.get("file_name")
        if not isinstance(name, str) or not name:
            raise ValueError(f"line {number} has no file_name")
        name = posixpath.normpath(posixpath.join(place, name.replace("\\", "/")))
        if name not in names and any((self._listing.folder / place / name).is_file() for place in ("", QUARANTINE)):
            return  # of a split that is left out, or in quarantine
        if name not in names:
            why = f"line {number} is the caption of {name}, which is not there"
            self.problems.append(warning(path, "caption of no file", why, "correct file_name, or remove the line"))
            return
        told = next((row[column] for column in _TEXT if row.get(column) is not None), None)
        texts = [told] if isinstance(told, str) else told
        if texts is None:
            return
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"line {number}: the caption must be a text or a list of texts")
        self._told[name] = tuple(text.strip() for text in texts)


def unreadable_caption(path: Path, why: ValueError) -> Problem:
    """A file whose caption cannot be read is left out: without it, it would be trained as something else."""
    return error(path, "unreadable caption", str(why), "save the .txt as UTF-8")


def _rows(path: Path) -> Iterator[tuple[int, dict[str, object]]]:
    """Rows with their line numbers."""
    if path.suffix == ".csv":
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            for row in reader:
                yield reader.line_num, {key: value or None for key, value in row.items()}
        return
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        if line.strip():
            found = json.loads(line)
            if not isinstance(found, dict):
                raise ValueError(f"line {number} is not an object")
            yield number, found
