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

    def find(self, key: str) -> dict[str, Tensor] | None:
        """What is stored under the key, for those who make what is missing together."""
        try:
            return load_file(self._path(key))
        except (FileNotFoundError, NotADirectoryError, SafetensorError):
            return None

    def get(self, key: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """What is stored under the key, or what `make` gives, which is stored then.

        Raises:
            CacheError: it cannot be stored: the disk is full, or the folder is not ours to write.
        """
        found = self.find(key)
        if found is not None:
            return found
        path = self._path(key)
        # clones: safetensors refuses tensors that share memory
        made = {n: t.detach().cpu().contiguous().clone() for n, t in make().items()}
        # a name that no other process has, on this machine or another one that shares the folder
        staged = path.with_name(f".{path.stem}.{uuid.uuid4().hex}.tmp")
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

    def _path(self, key: str) -> Path:
        name = hashlib.sha256(key.encode()).hexdigest()
        return self._folder / name[:2] / f"{name}.safetensors"
