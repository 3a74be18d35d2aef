"""The space without a network."""

from pathlib import Path
from typing import ClassVar

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from training.metrics.features.space import FEATURES, VERSION, Asked, FeatureSpace, Pictures, sized


@FEATURES.register("pixels")
class Pixels(FeatureSpace):
    """Small pictures as they are: colours less mid grey.

    As vectors are of unit length, contrast does not count. It knows nothing of what is shown, so blur and darkness look
    near to everything: a background for other spaces, and a check that needs no weights.
    """

    form = "pixels"
    about = "pictures of 16x16 px themselves; trained on nothing"
    side: ClassVar = 16
    """Of the small pictures, smoothed before they are made small. [px]"""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.name, self.version = self.form, f"{VERSION}-{self.side}"

    @classmethod
    def check(cls, asked: Asked) -> None:
        """It needs nothing."""

    @classmethod
    def open(cls, asked: Asked, mini: Path, device: torch.device) -> FeatureSpace:
        """There is nothing to load."""
        return cls(device)

    def _features(self, pictures: Pictures) -> Float[Tensor, "n dim"]:
        return rearrange(sized(pictures.to(self.device), self.side) - 0.5, "n c h w -> n (c h w)")
