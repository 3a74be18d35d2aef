"""What a feature space is: a network that turns pictures into vectors, and the words that ask for it."""

import abc
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from pose.registry import Registry
from training.hashing import file_sha256

Pictures = Float[Tensor, "n 3 height width"]
"""RGB in 0..1."""

BATCH: Final = 32
"""Pictures that go through a network together."""
VERSION: Final = 1
"""Of what we do with pictures before and after a network: raise it when features change, so that none are mixed."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a feature space was asked for with, beside its name: NAME:MODEL@PATH or NAME:PATH."""

    model: str | None = None
    path: Path | None = None


class FeatureSpace(abc.ABC):
    """A network that turns pictures into vectors."""

    form: ClassVar[str]
    """How it is asked for; brackets mean that a part may be left out."""
    about: ClassVar[str]
    """One line: what it is good for, and what it was trained on."""
    name: str
    """Stands in the names of metrics."""
    version: str
    """Tells features from those of other weights, or of another way to use them."""
    device: torch.device
    """Where it runs; the last digits of features depend on it."""

    @classmethod
    @abc.abstractmethod
    def check(cls, asked: Asked) -> None:
        """Makes sure that all it needs is there, without loading it.

        Raises:
            ValueError: says what is missing, and the fix.
        """

    @classmethod
    @abc.abstractmethod
    def open(cls, asked: Asked, mini: Path, device: torch.device) -> "FeatureSpace":
        """Loads it; `mini` is the folder of the mini family.

        Raises:
            ValueError: the weights are damaged, or of another network.
        """

    @abc.abstractmethod
    def _features(self, pictures: Pictures) -> Float[Tensor, "n dim"]:
        """Vectors of a few pictures, of any length."""

    @torch.no_grad()
    def __call__(self, pictures: Pictures) -> Float[Tensor, "n dim"]:
        """Vectors of unit length, on the CPU."""
        parts = [F.normalize(self._features(part).float(), dim=-1).cpu() for part in pictures.split(BATCH)]
        return torch.cat(parts)

    @property
    def reads(self) -> bool:
        """Whether it has vectors for texts."""
        return False

    def texts(self, texts: list[str]) -> Float[Tensor, "n dim"]:
        """Vectors of unit length in the same space, on the CPU.

        Raises:
            ValueError: the space has none for texts.
        """
        raise ValueError(f"the feature space {self.name} has no text tower; take mini-clip or open_clip:MODEL@PATH")


FEATURES: Final[Registry[type[FeatureSpace]]] = Registry("feature space")
"""`studio evaluate quality --features`, `studio compare --features`."""


def sized(pictures: Pictures, side: int) -> Pictures:
    """A square of `side` px, stretched; smoothed where it gets smaller, as generated and real pictures must be alike.

    Bicubic, and never beyond 0..1.
    """
    if pictures.shape[-2:] == (side, side):
        return pictures
    return F.interpolate(pictures, size=(side, side), mode="bicubic", antialias=True).clamp(0, 1)


def normalised(pictures: Pictures, mean: tuple[float, ...], std: tuple[float, ...]) -> Float[Tensor, "n 3 h w"]:
    """Takes off the mean of every colour and divides by its deviation."""
    columns = (torch.tensor(numbers, device=pictures.device).reshape(3, 1, 1) for numbers in (mean, std))
    return (pictures - next(columns)) / next(columns)


def weights_version(path: Path) -> str:
    """The version of a space whose weights are a file."""
    return f"{VERSION}-{file_sha256(path)[:16]}"
