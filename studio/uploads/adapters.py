"""Adapter files from outside: safetensors only, whose header is checked; what is pickled is never opened."""

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Final

from safetensors import SafetensorError, safe_open

from studio.uploads.limits import Limits, limits_of_settings
from studio.uploads.spool import MB, Source, placed, refusal, spooled

_WHAT: Final = "adapter"
_LARGEST_HEADER: Final = 25 * MB
_SAVE: Final = "save the adapter as .safetensors in the program that made it"


def keep_adapter(name: str, source: Source, folder: Path, *, limits: Limits | None = None) -> Path:
    """Keeps an adapter as `adapter-DIGEST.safetensors`. Whether it fits a model is for `studio.adapters` to say.

    Raises:
        RequestError: empty, too large, pickled (.ckpt, .pt, .bin), no safetensors, damaged, without tensors.
    """
    limits = limits or limits_of_settings()
    with spooled(_WHAT, name, source, folder, limit_mb=limits.adapter_mb) as upload:
        kept = folder / f"adapter-{upload.digest}.safetensors"
        if kept.is_file():
            return kept
        _check_header(upload.path, upload.size, name)
        _check_tensors(upload.path, name, limits)
        with placed(kept) as beside:
            shutil.copyfile(upload.path, beside)
    return kept


def _check_header(path: Path, size: int, name: str) -> None:
    with path.open("rb") as file:
        head = file.read(8)
        length = int.from_bytes(head, "little")
        header = None
        if len(head) == 8 and 2 <= length <= min(size - 8, _LARGEST_HEADER):
            with suppress(UnicodeDecodeError, ValueError, RecursionError):
                header = json.loads(file.read(length))
    if isinstance(header, dict):
        return
    if head[:1] == b"\x80" or head[:2] == b"PK":
        ending = os.path.splitext(name)[1].lower()[:12] or "such a file"
        raise refusal(_WHAT, name, f"is pickled, and opening {ending} can run any program that is hidden in it", _SAVE)
    raise refusal(_WHAT, name, "is not a safetensors file, or cut off", _SAVE)


def _check_tensors(path: Path, name: str, limits: Limits) -> None:
    try:
        with safe_open(path, framework="numpy") as file:  # checks types, shapes and places of all tensors; reads none
            names = list(file.keys())
    except (SafetensorError, OSError, ValueError) as error:
        raise refusal(_WHAT, name, f"is damaged ({str(error)[:80]})", "get a whole copy of it") from None
    if not names:
        raise refusal(_WHAT, name, "has no tensors in it", "choose another file")
    if len(names) > limits.adapter_tensors:
        raise refusal(_WHAT, name, f"has {len(names)} tensors, and the most is {limits.adapter_tensors}", _SAVE)
