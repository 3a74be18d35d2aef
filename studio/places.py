"""Where the pages look for what was made: the runs, and folders that the owner declared."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from studio.roots import declared_roots

_DEEPEST: Final = 5
_MOST_FOLDERS: Final = 20_000
"""Folders that one look goes through; what lies beyond can be named by hand."""
_LEFT_OUT: Final = {"cache", "leases", "logs", "__pycache__"}


def roots() -> tuple[Path, ...]:
    """The folders in which pages look: where runs are made, and what the settings declare.

    Raises:
        RequestError: the settings are wrong.
    """
    return declared_roots(local=False)


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
