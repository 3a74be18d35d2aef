"""A picture of the video on its way, for whoever waits for it."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from studio.files import moved_in
from studio.sheet import write_png

if TYPE_CHECKING:
    from models.pipeline import AnimateXPipeline

NEEDS: Final = ("latents", "velocity")
"""What the pipeline's callback has to be given."""


class LivePicture:
    """Writes a picture of a few moments after a step, and takes no more than a twentieth of the time for it."""

    def __init__(self, path: Path, *, share: float = 0.05) -> None:
        self.path, self._share = path, share
        self._began = time.monotonic()
        self._spent = 0.0

    def __call__(self, pipe: "AnimateXPipeline", step: int, tensors: Mapping[str, Tensor]) -> bool:
        """Writes the picture when it is time for one again; whether it did."""
        begun = time.monotonic()
        if self._spent > self._share * (begun - self._began):
            return False
        if tensors["latents"].is_cuda:  # what is queued still is the step's time, not that of the picture
            torch.cuda.synchronize(tensors["latents"].device)
            begun = time.monotonic()
        stills = pipe.stills(tensors["latents"], tensors["velocity"], step)
        row = rearrange(stills, "n c h w -> h (n w) c").cpu().numpy()
        with moved_in(self.path) as beside:
            write_png(beside, np.round(row * 255).astype(np.uint8))
        self._spent += time.monotonic() - begun
        return True
