"""Encoded pictures and captions on disk, by what they were made of."""

import hashlib
import os
import uuid
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor


class CacheError(RuntimeError):
    """The cache folder cannot be written."""


class Cache:
    """A folder of safetensors files. Several processes may share it: a file is there whole or not at all.

    Whoever misses a key makes it; where two do at once, both make the same and the later one is kept. A file that was
    damaged is made again.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, key: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """What is stored under the key, or what `make` gives, which is stored then.

        Raises:
            CacheError: it cannot be stored: the disk is full, or the folder is not ours to write.
        """
        name = hashlib.sha256(key.encode()).hexdigest()
        path = self._folder / name[:2] / f"{name}.safetensors"
        try:
            return load_file(path)
        except (FileNotFoundError, NotADirectoryError, SafetensorError):
            pass
        # clones: safetensors refuses tensors that share memory
        made = {n: t.detach().cpu().contiguous().clone() for n, t in make().items()}
        # a name that no other process has, on this machine or another one that shares the folder
        staged = path.with_name(f".{name}.{uuid.uuid4().hex}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file(made, staged)
            with staged.open("rb") as file:
                os.fsync(file.fileno())
            staged.replace(path)
        except (OSError, SafetensorError) as error:
            raise CacheError(
                f"the cache {self._folder} cannot be written ({error}); make room on that disk, or set cache_dir to a "
                "folder on another one. What is in it stays good"
            ) from error
        finally:
            if staged.parent.is_dir():
                staged.unlink(missing_ok=True)
        return made
