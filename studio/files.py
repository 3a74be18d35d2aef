"""Output files: checked before the work, written beside their place, moved in at the end."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from studio.errors import RequestError


def check_output(path: Path, *, flag: str = "--output", suffixes: tuple[str, ...] = ()) -> None:
    """Makes sure that `path` can be written, before any work is done for it.

    Permission bits do not tell the truth for root, on network drives or on read-only mounts, so a file is really made.

    Raises:
        RequestError: it is a folder, has another suffix, or its place cannot be written.
    """
    if suffixes and path.suffix.lower() not in suffixes:
        raise RequestError(f"{flag} {path}: must end in {' or '.join(suffixes)}, got {path.suffix or 'no suffix'!r}")
    if path.is_dir():
        raise RequestError(f"{flag} {path}: is a folder; give a file name in it, such as {path / ('out' + suffixes[0])}"
                           if suffixes else f"{flag} {path}: is a folder; give a file name")  # fmt: skip
    place = path.absolute().parent
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise RequestError(f"{flag} {path}: {place} is not a folder, so nothing can be written there; choose another")
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise RequestError(f"{flag} {path}: cannot write in {place} ({error.strerror}); choose another place") from None


@contextmanager
def moved_in(path: Path) -> Iterator[Path]:
    """Gives a name beside `path` to write to; moves it in when the block ends well, removes it when it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield beside
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
