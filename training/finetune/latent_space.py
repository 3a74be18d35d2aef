"""A model's own latents as a feature space: no other weights are needed, and its codec's blur counts for nothing."""

from pathlib import Path
from typing import Final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from training.finetune.families import Family
from training.finetune.families.base import AT_ONCE, SMALL
from training.finetune.learner import encoders_hash
from training.metrics.features import FeatureSpace
from training.metrics.features.space import Asked, Pictures

LATENTS: Final = "latents"


class LatentSpace(FeatureSpace):
    """Pictures as the model's codec encodes them, all numbers of one picture in a row.

    A picture that a small codec has decoded is softer than any photograph, which a perceptual space takes for the
    greatest difference of all, so that nothing seems to be copied. Encoded again both lie where the model works.
    Distances are those of pixels, nearly: near copies are found, changed ones are not.
    """

    form = LATENTS
    about = "what the trained model's own codec makes of a picture; for `studio search` and the guard"

    def __init__(self, family: Family, size: tuple[int, int]) -> None:
        """Of pictures that are stretched to one `size`, (width, height) px, where they have another."""
        self._family, self._size = family, size
        self.name, self.version = LATENTS, f"{encoders_hash(family)} {size[0]}x{size[1]}"
        self.device = next(family.network.parameters()).device

    @classmethod
    def check(cls, asked: Asked) -> None:
        """It is not asked for by words."""

    @classmethod
    def open(cls, asked: Asked, mini: Path, device: torch.device) -> FeatureSpace:
        """It is made of an open model, not by words.

        Raises:
            ValueError: always.
        """
        raise ValueError("the latents are of the model that is trained; they are what `studio search` takes by default")

    def _features(self, pictures: Pictures) -> Float[Tensor, "n dim"]:
        shape = self._size[::-1]
        if pictures.shape[-2:] != shape:
            pictures = F.interpolate(pictures, size=shape, mode="bicubic", antialias=True).clamp(0, 1)
        # large ones come one by one, for a codec takes more memory than the network that is trained
        parts = pictures.split(max(1, AT_ONCE * SMALL // (shape[0] * shape[1])))
        return torch.cat([self._family.encode_pictures(part * 2 - 1).flatten(1) for part in parts])
