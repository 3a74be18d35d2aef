"""Encoded pictures and captions on disk, by what they were made of."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor


class Cache:
    """A folder of safetensors files. Several processes may share it: a file is there whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, key: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """What is stored under the key, or what `make` gives, which is stored then."""
        name = hashlib.sha256(key.encode()).hexdigest()
        path = self._folder / name[:2] / f"{name}.safetensors"
        try:
            return load_file(path)
        except (FileNotFoundError, SafetensorError):
            pass
        made = {n: t.detach().cpu().contiguous() for n, t in make().items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        staged = path.with_name(f".{name}.{os.getpid()}.tmp")
        save_file(made, staged)
        staged.replace(path)
        return made
