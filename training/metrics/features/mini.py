"""The space of the mini family."""

from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from models.clip import OpenCLIPTextEncoder, OpenCLIPVisionEncoder
from training.metrics.features.space import FEATURES, Asked, FeatureSpace, Pictures, weights_version


@FEATURES.register("mini-clip")
class MiniCLIP(FeatureSpace):
    """Both towers of the mini family: they know the drawn world, and of photographs colours and shapes."""

    form = "mini-clip"
    about = "comes with this package; trained on the drawn world, so it has seen pictures like those; reads texts"

    def __init__(self, mini: Path, device: torch.device) -> None:
        image, text = (mini / part for part in ("image_encoder", "text_encoder"))
        self._vision = OpenCLIPVisionEncoder.from_pretrained(image, torch_dtype=torch.float32).to(device).eval()
        self._text = OpenCLIPTextEncoder.from_pretrained(text, torch_dtype=torch.float32).to(device).eval()
        self.device = device
        self.name = self.form
        self.version = weights_version(image / "diffusion_pytorch_model.safetensors")

    @classmethod
    def check(cls, asked: Asked) -> None:
        """It is always there."""

    @classmethod
    def open(cls, asked: Asked, mini: Path, device: torch.device) -> FeatureSpace:
        """Loads both towers."""
        return cls(mini, device)

    def _features(self, pictures: Pictures) -> Float[Tensor, "n dim"]:
        pooled: Tensor = self._vision(pictures.to(self.device) * 2 - 1).pooled
        return pooled

    @property
    def reads(self) -> bool:
        """Its towers were trained together."""
        return True

    @torch.no_grad()
    def texts(self, texts: list[str]) -> Float[Tensor, "n dim"]:
        """The pooled vectors of the text tower."""
        return F.normalize(self._text.pooled(texts).float(), dim=-1).cpu()
