"""SVDiff: training the singular values of every weight."""

from typing import ClassVar

import torch
from torch import nn

from training.methods.base import METHODS, Losses, Tuner
from training.methods.inplace import InPlaceMethod, InPlaceTuner
from training.methods.layers import layer_of
from training.methods.scope import Scope
from training.methods.supports import Singular


@METHODS.register("svdiff")
class SVDiff(InPlaceMethod):
    """Trains shifts of the singular values of every linear layer and convolution."""

    about: ClassVar[str] = "shifts of singular values: very small files, but two more copies of the weights in memory"
    paper: ClassVar[str] = "SVDiff, arXiv 2303.11305"

    def attach(
        self, model: nn.Module, scope: Scope, rng: torch.Generator, losses: Losses | None = None
    ) -> InPlaceTuner:
        """Decomposes every weight in the scope once."""
        supports = {}
        for path, module in model.named_modules():
            name = f"{path}.weight" if path else "weight"
            if layer_of(module) is not None and scope.holds(name):
                assert isinstance(module.weight, nn.Parameter)
                supports[name] = Singular(module.weight)
        if not supports:
            raise ValueError("there is no linear layer or convolution in the scope")
        return InPlaceTuner(model, supports)

    def learning_rate(self, tuner: Tuner) -> float:
        """The paper's, a thousand times that of full fine-tuning."""
        return 1e-3
