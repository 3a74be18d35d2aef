"""A model's own latents as a feature space: no other weights are needed, and its codec's blur counts for nothing."""

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from training.finetune.families import Family
from training.metrics.features import FeatureSpace, Pictures

LATENTS = "latents"


class LatentSpace(FeatureSpace):
    """Pictures as the model's codec encodes them, all numbers of one picture in a row.

    A picture that a small codec has decoded is softer than any photograph, which a perceptual space takes for the
    greatest difference of all, so that nothing seems to be copied. Encoded again both lie where the model works.
    Distances are those of pixels, nearly: near copies are found, changed ones are not.
    """

    name: ClassVar[str] = LATENTS

    def __init__(self, family: Family) -> None:
        self._family = family

    def _features(self, pictures: Pictures) -> Float[Tensor, "n dim"]:
        encoded = [self._family.encode(picture[None] * 2 - 1)["latents"].flatten() for picture in pictures]
        return torch.stack(encoded)
