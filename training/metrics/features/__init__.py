"""Feature spaces in which sets of pictures are compared. A metric's name says which one it was measured in."""

from pathlib import Path

import torch

from training.metrics.features.efficientnet import EfficientNetLite
from training.metrics.features.mini import MiniCLIP
from training.metrics.features.open_clip_model import OpenCLIPSpace
from training.metrics.features.pixels import Pixels
from training.metrics.features.space import FEATURES, Asked, FeatureSpace, Pictures
from training.metrics.features.sscd import SSCD
from training.metrics.features.torchvision_model import TorchvisionSpace

__all__ = [
    "FEATURES",
    "SSCD",
    "EfficientNetLite",
    "FeatureSpace",
    "MiniCLIP",
    "OpenCLIPSpace",
    "Pictures",
    "Pixels",
    "TorchvisionSpace",
    "check_features",
    "default_features",
    "open_features",
]


def default_features() -> str:
    """The best space that is installed."""
    return EfficientNetLite.form if EfficientNetLite.installed() else MiniCLIP.form


def check_features(text: str) -> None:
    """Makes sure that a feature space can be opened, without loading it.

    Raises:
        ValueError: there is no such space, or a package or file that it needs is not there.
    """
    _parse(text)


def open_features(text: str, mini: Path, *, device: torch.device | str = "cpu") -> FeatureSpace:
    """Opens a feature space by what it is asked for with, such as `pixels` or `open_clip:ViT-B-32@weights.pt`.

    Args:
        mini: the folder of the mini family, where mini-clip is.

    Raises:
        ValueError: there is no such space, or what it needs is not there, damaged, or of another network.
    """
    kind, asked = _parse(text)
    return kind.open(asked, mini, torch.device(device))


def _parse(text: str) -> tuple[type[FeatureSpace], Asked]:
    name, colon, rest = text.partition(":")
    kind = FEATURES[name]
    form = kind.form.removeprefix(name)
    model, at, path = rest.partition("@") if form == ":MODEL@PATH" else ("", "", rest)
    wrong = {":MODEL@PATH": not (model and at and path), "[:PATH]": bool(colon) and not path, "": bool(colon)}
    if wrong[form]:
        raise ValueError(f"feature space {text!r}: must be written {kind.form}")
    asked = Asked(model=model or None, path=Path(path) if path else None)
    kind.check(asked)
    if asked.path is not None and not asked.path.is_file():
        raise ValueError(f"feature space {text!r}: there is no file {asked.path}")
    return kind, asked
