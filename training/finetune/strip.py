"""Pictures side by side in a file: what a run or a trial made at a step."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor


def write_strip(pictures: Iterable[UInt8[Tensor, "height width 3"]], path: Path) -> None:
    """Writes pictures of one height from left to right as a PNG; the whole file or nothing of it.

    Raises:
        OSError: the disk cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f".{path.name}.tmp")
    Image.fromarray(np.concatenate([picture.numpy() for picture in pictures], axis=1)).save(staged, format="PNG")
    staged.replace(path)
