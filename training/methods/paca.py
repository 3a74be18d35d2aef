"""PaCA: training a few input columns of every layer."""

from typing import ClassVar

import torch
from pydantic import Field
from torch import nn

from training.methods.base import METHODS, Losses
from training.methods.inplace import InPlaceMethod, InPlaceTuner
from training.methods.layers import layer_of
from training.methods.scope import Scope
from training.methods.supports import Columns


@METHODS.register("paca")
class PaCA(InPlaceMethod):
    """Trains random input columns of every linear layer and convolution; only their features are kept in memory."""

    about: ClassVar[str] = "a few input columns of every layer: the least memory and time of all"
    paper: ClassVar[str] = "PaCA, arXiv 2503.01905"
    sized_by: ClassVar[str | None] = "rank"
    stands_beside: ClassVar[bool] = True

    rank: int = Field(default=16, ge=1)
    """Columns of each layer; 2r of them have the numbers of a LoRA of rank r on square layers."""

    def attach(
        self, model: nn.Module, scope: Scope, rng: torch.Generator, losses: Losses | None = None
    ) -> InPlaceTuner:
        """Draws the columns; a layer with fewer than `rank` has all of them trained."""
        supports = {}
        for path, module in model.named_modules():
            layer = layer_of(module)
            weight = getattr(module, "weight", None)
            name = f"{path}.weight" if path else "weight"
            if layer is None or not scope.holds(name) or getattr(module, "groups", 1) != 1 or weight is None:
                continue
            columns = torch.randperm(weight.shape[1], generator=rng)[: self.rank].sort().values
            supports[name] = Columns(columns, weight.shape)
        if not supports:
            raise ValueError("there is no linear layer or convolution in the scope")
        return InPlaceTuner(model, supports)
