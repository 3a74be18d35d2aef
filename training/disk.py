"""Small files that are there whole or not at all, and a disk that takes no more, whoever wrote to it."""

import errno
import os
import re
from pathlib import Path

from safetensors import SafetensorError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_text(path: Path, text: str) -> None:
    """Writes a small file beside its place and moves it in."""
    staged = path.with_name(f".{path.name}.tmp")
    with staged.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    staged.replace(path)


def full_disk(error: BaseException) -> str | None:
    """What could not be written and why, where an error says that the disk is full; None for any other error."""
    if isinstance(error, OSError):
        number = error.errno
    elif isinstance(error, SafetensorError):
        # safetensors tells the number in words alone
        match = re.search(r"os error (\d+)", str(error))
        number = int(match[1]) if match else None
    else:
        return None
    if number not in _FULL:
        return None
    where = f"{error.filename} " if isinstance(error, OSError) and error.filename else ""
    return f"{where}could not be written: {os.strerror(number)}"
