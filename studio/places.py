"""Where the pages look for what was made: the runs, and folders that the owner declared."""

import os
from collections.abc import Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from studio.errors import RequestError
from studio.jobs import runs_folder

_DEEPEST: Final = 5
_MOST_FOLDERS: Final = 20_000
"""Folders that one look goes through; what lies beyond can be named by hand."""
_LEFT_OUT: Final = {"cache", "leases", "logs", "__pycache__"}


def roots() -> tuple[Path, ...]:
    """The folders that pages may read: where runs are made, and what the settings declare."""
    return (runs_folder().resolve(), *(folder.resolve() for folder in _declared()))


def _declared() -> Sequence[Path]:
    if find_spec("studio.settings") is None:
        return ()
    folders: Sequence[Path] = import_module("studio.settings").studio_settings().data_folders
    return folders


def inside(path: Path, what: str, places: Sequence[Path] | None = None) -> Path:
    """The real path of what a person named, where it lies in one of the folders that pages may read.

    Raises:
        RequestError: it lies elsewhere.
    """
    real = Path(os.path.realpath(path.expanduser()))
    if not any(real.is_relative_to(root) for root in places or roots()):
        raise RequestError(
            f"{what} {path}: lies outside the folders of this studio; move it below {runs_folder()}, or declare its "
            "folder as data_folders in settings.toml there"
        )
    return real


def folders_with(names: Sequence[str], places: Sequence[Path]) -> Iterator[Path]:
    """The folders that hold one of these files, below the places; nothing is looked for inside of them."""
    seen = 0
    for place in places:
        for folder, below, files in os.walk(place):
            seen += 1
            if seen > _MOST_FOLDERS:
                return
            here = Path(folder)
            if any(name in files for name in names):
                yield here
                below.clear()
                continue
            deep = len(here.relative_to(place).parts) >= _DEEPEST
            below[:] = [] if deep else sorted(name for name in below if name not in _LEFT_OUT and name[0] != ".")
