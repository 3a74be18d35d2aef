"""Spaces of released CLIP models."""

from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from training.metrics.features.space import (
    FEATURES,
    Asked,
    FeatureSpace,
    Pictures,
    normalised,
    sized,
    weights_version,
)


@FEATURES.register("open_clip")
class OpenCLIPSpace(FeatureSpace):
    """The towers of any model of open_clip."""

    form = "open_clip:MODEL@PATH"
    about = "any architecture of open_clip with its weights in a file; reads texts where its tokenizer is open_clip's"

    def __init__(self, model: str, path: Path, device: torch.device) -> None:
        from models.open_clip_file import open_clip_from_file

        self._clip = open_clip_from_file(model, path, device)
        self.device = device
        self.name = f"open_clip:{model}@{path.name}"
        self.version = weights_version(path)

    @classmethod
    def check(cls, asked: Asked) -> None:
        """Looks for the architecture.

        Raises:
            ValueError: open_clip has none of that name.
        """
        from models.open_clip_file import known_open_clip

        known_open_clip(str(asked.model))

    @classmethod
    def open(cls, asked: Asked, mini: Path, device: torch.device) -> FeatureSpace:
        """Loads both towers."""
        assert asked.model is not None and asked.path is not None
        return cls(asked.model, asked.path, device)

    def _features(self, pictures: Pictures) -> Float[Tensor, "n dim"]:
        clip = self._clip
        return clip.images(normalised(sized(pictures.to(self.device), clip.side), clip.mean, clip.std))

    @property
    def reads(self) -> bool:
        """Whether its tokenizer is there."""
        return self._clip.tokenize is not None

    @torch.no_grad()
    def texts(self, texts: list[str]) -> Float[Tensor, "n dim"]:
        """The vectors of the text tower."""
        if self._clip.tokenize is None:
            return super().texts(texts)
        return F.normalize(self._clip.texts(self._clip.tokenize(texts).to(self.device)).float(), dim=-1).cpu()
