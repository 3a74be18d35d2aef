"""Spaces of torchvision's classifiers, or of one that was trained on data of one's own."""

from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from models.state import load_state, read_state
from training.metrics.features.space import (
    FEATURES,
    Asked,
    FeatureSpace,
    Pictures,
    normalised,
    sized,
    weights_version,
)


@FEATURES.register("torchvision")
class TorchvisionSpace(FeatureSpace):
    """What a classifier knows before its last layer; how many classes that has does not matter."""

    form = "torchvision:MODEL@PATH"
    about = "any classifier of torchvision with its state dict in a file; what comes before its last layer"

    def __init__(self, model: str, path: Path, device: torch.device) -> None:
        from torchvision.models import get_model, get_model_weights

        state = read_state(path)
        network = get_model(model, weights=None)
        last = next((n for n, part in reversed(list(network.named_modules())) if isinstance(part, nn.Linear)), None)
        if last is None:
            raise ValueError(f"torchvision's {model} has no last linear layer to take features before; take another")
        load_state(network, state, what=f"torchvision:{model}@{path}", without=last)
        network.get_submodule(last).register_forward_pre_hook(self._keep)
        self._network = network.to(device).eval()
        given: Any = get_model_weights(model).DEFAULT.transforms()
        self._side, self._mean, self._std = given.crop_size[0], tuple(given.mean), tuple(given.std)
        self.device = device
        self._before = torch.empty(0)
        self.name = f"torchvision:{model}@{path.name}"
        self.version = weights_version(path)

    @classmethod
    def check(cls, asked: Asked) -> None:
        """Looks for the classifier.

        Raises:
            ValueError: torchvision has none of that name.
        """
        from torchvision import models

        known = models.list_models(module=models)
        if asked.model not in known:
            close = get_close_matches(str(asked.model), known, n=3, cutoff=0.5)
            hint = f"did you mean {', '.join(close)}? " if close else ""
            raise ValueError(f"torchvision has no classifier {asked.model!r}; {hint}known are {', '.join(known)}")

    @classmethod
    def open(cls, asked: Asked, mini: Path, device: torch.device) -> FeatureSpace:
        """Loads all but the last layer."""
        assert asked.model is not None and asked.path is not None
        return cls(asked.model, asked.path, device)

    def _keep(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._before = inputs[0]

    def _features(self, pictures: Pictures) -> Float[Tensor, "n dim"]:
        self._network(normalised(sized(pictures.to(self.device), self._side), self._mean, self._std))
        return self._before.flatten(1)
