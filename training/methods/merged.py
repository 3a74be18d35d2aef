"""What a merge of adapters leaves: changes in place, and where they came from."""

from typing import ClassVar

import torch
from torch import nn

from training.methods.base import Losses
from training.methods.inplace import InPlaceMethod, InPlaceTuner
from training.methods.scope import Scope

MERGED = "merged"
"""The method's name in an adapter file. It trains nothing, so it is not among `METHODS`."""


class Merged(InPlaceMethod):
    """Made by `training.merging` out of other adapters."""

    about: ClassVar[str] = "several adapters in one"
    paper: ClassVar[str] = "see the rule"

    rule: str
    """How they were joined."""
    sources: tuple[str, ...]
    """SHA-256 of their files."""
    weights: tuple[float, ...]
    """What each was multiplied by."""

    def attach(
        self, model: nn.Module, scope: Scope, rng: torch.Generator, losses: Losses | None = None
    ) -> InPlaceTuner:
        """Nothing to train.

        Raises:
            ValueError: always.
        """
        raise ValueError("a merged adapter is used as it is; train with one of the methods that `studio methods` lists")
