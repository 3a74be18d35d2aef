"""The folders that pages may read: a path typed into a page reaches nothing outside of them."""

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Final

from studio.errors import RequestError
from studio.settings import DATA, FILE, runs_folder, studio_settings
from studio.uploads.names import shown_path

_NO_FOLLOW: Final = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_FOLDER: Final = getattr(os, "O_DIRECTORY", 0)


def declared_roots(*, local: bool) -> tuple[Path, ...]:
    """The runs folder and the data folders of the settings; with `local`, the working directory as well.

    `local` says that only this machine reaches the app: who sits at it can read these files anyway.

    Raises:
        RequestError: the settings are wrong.
    """
    places = [runs_folder(), *studio_settings().data_folders, *([Path.cwd()] if local else [])]
    return tuple(dict.fromkeys(_resolved(place.expanduser()) for place in places))


def inside_roots(path: str | Path, *, roots: Sequence[Path], what: str = "path") -> Path:
    """Resolves a path, links and `..` with it, and gives it where it lies in one of the roots. It need not exist.

    A relative path counts from the working directory. What the result names can still be swapped for a link by
    someone who may write there: `open_inside` opens it without following any.

    Raises:
        RequestError: it lies outside, is empty, or has letters that no path has.
    """
    text = str(path).strip()
    shown = shown_path(text)
    if not text:
        raise RequestError(f"{what} is empty; give a path")
    if any(ord(letter) < 32 for letter in text):
        raise RequestError(f"{what} {shown}: has control characters in it; type it again")
    try:
        found = _resolved(Path(text).expanduser())
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a name too long, an unknown ~user
        raise RequestError(f"{what} {shown}: is no path that can be followed ({_reason(error)}); correct it") from None
    if _root_of(found, roots) is None:
        allowed = ", ".join(str(root) for root in roots) or "none"
        raise RequestError(
            f"{what} {shown}: lies outside the folders that the app may read ({allowed}); "
            f"move it there, or add it to data_folders in {runs_folder() / FILE} or ${DATA}"
        )
    return found


def open_inside(path: str | Path, *, roots: Sequence[Path], what: str = "file") -> BinaryIO:
    """Opens a file in the roots for reading, by its folders one after another and following no link on the way.

    So nothing that is changed between the check and the opening leads outside. Pipes and devices are refused.

    Raises:
        RequestError: it lies outside, is not there, is no plain file, or was swapped meanwhile.
    """
    found = inside_roots(path, roots=roots, what=what)
    root = _root_of(found, roots)
    assert root is not None
    parts = found.relative_to(root).parts
    if os.open not in os.supports_dir_fd or not parts:  # Windows: its links need rights that users lack
        parts, root = (), found
    place = -1
    try:
        place = os.open(root, os.O_RDONLY | (_FOLDER if parts else os.O_NONBLOCK if hasattr(os, "O_NONBLOCK") else 0))
        for index, part in enumerate(parts):
            # NONBLOCK: opening a pipe would wait for a writer
            last = index == len(parts) - 1
            further = os.open(part, os.O_RDONLY | _NO_FOLLOW | (os.O_NONBLOCK if last else _FOLDER), dir_fd=place)
            os.close(place)
            place = further
        if not stat.S_ISREG(os.fstat(place).st_mode):
            raise RequestError(f"{what} {shown_path(str(path))}: is not a plain file; choose a file")
        file, place = os.fdopen(place, "rb"), -1
        return file
    except OSError as error:
        raise RequestError(f"{what} {shown_path(str(path))}: cannot be opened ({_reason(error)}); check it") from None
    finally:
        if place >= 0:
            os.close(place)


def _root_of(path: Path, roots: Sequence[Path]) -> Path | None:
    return next((root for root in roots if path.is_relative_to(root)), None)


def _resolved(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
