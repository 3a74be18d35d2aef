"""The ledger of a study: entries that are only ever added, and the one truth about it.

What a study is, who trains what and what came of it all follow from reading it from its beginning.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Final, Protocol

from training.search.entries import Entry, LedgerError, from_json, to_json
from training.search.leases import FileLeases, Leases

LEDGER: Final = "ledger.jsonl"


class Ledger(Protocol):
    """Where entries are kept, and who holds which trial. One object serves one thread; processes have their own."""

    leases: Leases

    @property
    def place(self) -> str:
        """Where it is, for messages; without a password."""

    def exclusive(self) -> AbstractContextManager[None]:
        """Keeps all other processes from adding anything meanwhile. What is in the ledger then may be relied upon."""

    def append(self, entry: Entry) -> None:
        """Adds an entry. When this returns it is on the disk, or it is not in the ledger.

        Raises:
            OSError: the disk is full, or not there any more.
        """

    def read(self, offset: int = 0) -> tuple[list[Entry], int]:
        """The entries from an offset on, and the offset to go on from; 0 is the beginning.

        Raises:
            LedgerError: it is damaged or out of reach.
        """

    def close(self) -> None:
        """Lets go of it."""


class JsonlLedger:
    """A file of one JSON object a line. A line that a killed process left half written never counts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.leases: Leases = FileLeases(path.with_name("leases"))
        self._file: int | None = None

    @property
    def place(self) -> str:
        """Its path."""
        return str(self.path)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Holds the file's lock, which the system lets go when a process dies."""
        if self._file is not None:
            yield
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX)
            yield
        finally:
            os.close(self._file)
            self._file = None

    def append(self, entry: Entry) -> None:
        """Writes one line and sees it to the disk; what does not fit is taken off again."""
        line = json.dumps(to_json(entry), allow_nan=False).encode() + b"\n"
        with self.exclusive():
            assert self._file is not None
            whole = self._cut()
            try:
                left = memoryview(line)
                while left:
                    left = left[os.write(self._file, left) :]
                os.fsync(self._file)
            except OSError as error:
                os.ftruncate(self._file, whole)
                raise OSError(error.errno, error.strerror, str(self.path)) from error

    def _cut(self) -> int:
        """Takes off a half-written last line; the size that is left."""
        assert self._file is not None
        size = os.fstat(self._file).st_size
        if size and os.pread(self._file, 1, size - 1) != b"\n":
            size = self.path.read_bytes().rfind(b"\n") + 1
            os.ftruncate(self._file, size)
        return size

    def read(self, offset: int = 0) -> tuple[list[Entry], int]:
        """The whole lines from a byte on."""
        if not self.path.is_file():
            return [], offset
        with self.path.open("rb") as file:
            file.seek(offset)
            text = file.read()
        text = text[: text.rfind(b"\n") + 1]
        found = []
        for number, line in enumerate(text.splitlines(), 1):
            try:
                found.append(from_json(json.loads(line)))
            except ValueError as error:
                raise LedgerError(f"{self.path}, line {number} after byte {offset}: {error}") from error
        return found, offset + len(text)

    def close(self) -> None:
        """Nothing is held between calls."""


def open_ledger(folder: Path, storage: str | None = None, *, study: str | None = None) -> Ledger:
    """The ledger of a study: a file in its folder, or a database that several machines reach.

    Args:
        storage: `sqlite:///FILE` or `postgresql://USER@HOST/DATABASE`; None: the file.
        study: its name, where a database holds several.

    Raises:
        LedgerError: the storage is not of these, its driver is missing, or it has several studies and none is named.
    """
    if storage is None:
        return JsonlLedger(folder / LEDGER)
    from training.search.sql import open_sql

    return open_sql(storage, study)


def copy_ledger(source: Ledger, target: Ledger) -> int:
    """Writes a ledger again elsewhere, such as a database's into a file; how many entries it has.

    Raises:
        LedgerError: the source is empty, or the target is not.
    """
    entries, _ = source.read()
    if not entries:
        raise LedgerError(f"{source.place} holds no study")
    with target.exclusive():
        if target.read()[0]:
            raise LedgerError(f"{target.place} holds a study already; copy into an empty one")
        for entry in entries:
            target.append(entry)
    return len(entries)


def differences(one: Any, two: Any, name: str = "") -> Sequence[tuple[str, Any, Any]]:
    """The fields in which two JSON values differ, each by its dotted name with both values."""
    if isinstance(one, dict) and isinstance(two, dict):
        keys = dict.fromkeys([*one, *two])
        return [d for key in keys for d in differences(one.get(key), two.get(key), f"{name}.{key}".lstrip("."))]
    return [] if one == two else [(name, one, two)]
