"""Bytes from outside, counted while they are read, into a file of ours; and results that appear whole."""

import hashlib
import io
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from studio.errors import RequestError
from studio.uploads.names import shown_name

MB: Final = 1_000_000
CHUNK: Final = 1 << 20

Source = bytes | BinaryIO
Tell = Callable[[float], None]
"""Takes how much is done, 0..1."""


@dataclass(frozen=True)
class Spooled:
    """An upload in a private file."""

    path: Path
    size: int
    digest: str
    """16 hex digits of its SHA-256: the same upload gets the same name."""


def refusal(what: str, name: str, problem: str, fix: str) -> RequestError:
    """Words a refusal: the thing and its name, the problem with the value, the fix."""
    return RequestError(f"{what} {shown_name(name)}: {problem}; {fix}")


@contextmanager
def spooled(what: str, name: str, source: Source, folder: Path, *, limit_mb: int) -> Iterator[Spooled]:
    """Copies an upload beside its later place, gives it, and removes it at the end.

    Raises:
        RequestError: it is empty, larger than the limit, or there is no room for it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stream = io.BytesIO(source) if isinstance(source, bytes | bytearray | memoryview) else source
    if stream is source and stream.seekable():
        stream.seek(0)  # a page that is drawn again hands in the same stream
    handle, beside = tempfile.mkstemp(dir=folder, prefix=".upload-")
    path, size, digest = Path(beside), 0, hashlib.sha256()
    try:
        with os.fdopen(handle, "wb") as file:
            while chunk := stream.read(CHUNK):
                size += len(chunk)
                if size > limit_mb * MB:
                    raise refusal(what, name, f"is larger than {limit_mb} MB", "make it smaller")
                digest.update(chunk)
                _write(file, chunk, what, name)
        if not size:
            raise refusal(what, name, "is empty, 0 bytes", "choose another file, or save it again")
        yield Spooled(path, size, digest.hexdigest()[:16])
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def placed(path: Path) -> Iterator[Path]:
    """Gives a name of its own beside `path` to write to; moves it in when the block ends well."""
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=".made-", suffix=path.suffix)
    os.close(handle)
    try:
        yield Path(beside)
        os.chmod(beside, 0o644)
        os.replace(beside, path)
    finally:
        Path(beside).unlink(missing_ok=True)


class Clock:
    """Ends work that takes too long."""

    def __init__(self, what: str, name: str, limit_s: float) -> None:
        self._what, self._name, self._limit_s, self._start = what, name, limit_s, time.monotonic()

    def check(self) -> None:
        """Raises RequestError once the time is over."""
        if time.monotonic() - self._start > self._limit_s:
            raise refusal(self._what, self._name, f"takes longer than {self._limit_s:g} s to convert and check",
                          "make it smaller or shorter")  # fmt: skip


def _write(file: BinaryIO, chunk: bytes, what: str, name: str) -> None:
    try:
        file.write(chunk)
        file.flush()
    except OSError as error:
        raise refusal(what, name, f"cannot be saved ({error.strerror})", "make room on the disk") from None
