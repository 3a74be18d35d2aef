"""DiffFit: biases, norms, label embeddings, and a new gain after every attention and feed-forward layer."""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from training.methods.base import METHODS, Losses, MethodConfig, ParamGroup, Tuner
from training.methods.partial import PartialTuner
from training.methods.scope import KINDS, Scope, find_scope

GAMMA = "gamma"
"""Ends the name of a gain in an adapter."""


@METHODS.register("difffit")
class DiffFit(MethodConfig):
    """Trains biases, norms, label embeddings and a gain after every attention and feed-forward layer."""

    about: ClassVar[str] = "biases, norms and a gain after each attention and feed-forward layer"
    paper: ClassVar[str] = "DiffFit, arXiv 2304.06648"

    gain_scope: tuple[str, ...] | None = None
    """Gains only here (scope words, an empty list is nowhere); biases and norms in the whole scope: MemControl's."""

    def attach(
        self, model: nn.Module, scope: Scope, rng: torch.Generator, losses: Losses | None = None
    ) -> "DiffFitTuner":
        """Adds gains of 1 and freezes all but them, biases, norms and label embeddings."""
        norms = [path for path, module in model.named_modules() if KINDS["norms"](path, module)]
        names = [
            name
            for name, _ in model.named_parameters()
            if scope.holds(name)
            and (name.rsplit(".", 1)[-1] == "bias" or name.rpartition(".")[0] in norms or _is_label(name))
        ]
        with_gain = self._with_gain(model, scope)
        outputs = [path for path in output_layers(model) if any(part.holds(path) for part in with_gain)]
        return DiffFitTuner(model, names, outputs)

    def _with_gain(self, model: nn.Module, scope: Scope) -> list[Scope]:
        if self.gain_scope is None:
            return [scope]
        return [find_scope(model, self.gain_scope)] if self.gain_scope else []

    def learning_rate(self, tuner: Tuner) -> float:
        """The paper's, ten times that of pre-training."""
        return 1e-3


def _is_label(name: str) -> bool:
    return any(part in ("y_embedder", "class_embedding", "label_emb", "class_embedder") for part in name.split("."))


def output_layers(model: nn.Module) -> list[str]:
    """Paths of the linear layers that end the attention and feed-forward layers of a network."""
    found = []
    for path, module in model.named_modules():
        if not (KINDS["attention"](path, module) or KINDS["feed-forward"](path, module)):
            continue
        linear = [name for name, part in module.named_modules() if isinstance(part, nn.Linear) and name]
        # attention that joins text and picture has an output for each
        ends = {n for n in linear if n.split(".")[0] in ("to_out", "to_add_out")} or set(linear[-1:])
        found += [f"{path}.{n}" for n in linear if n in ends]
    return list(dict.fromkeys(found))


class DiffFitTuner(PartialTuner):
    """Whole tensors, and gains that are folded into the layers before them."""

    def __init__(self, model: nn.Module, names: Iterable[str], outputs: Iterable[str]) -> None:
        super().__init__(model, names)
        self._scale = 1.0
        self.gains: dict[str, nn.Parameter] = {}
        self._hooks = []
        for path in outputs:
            layer = model.get_submodule(path)
            assert isinstance(layer, nn.Linear)
            self.gains[path] = nn.Parameter(torch.ones(layer.out_features, device=layer.weight.device))
            self._hooks.append(layer.register_forward_hook(self._gain(self.gains[path])))

    def _gain(self, gain: nn.Parameter) -> Any:
        def hook(module: nn.Module, args: Any, output: Tensor) -> Tensor:
            return output * (1 + self._scale * (gain - 1)).to(output.dtype)

        return hook

    def parameters(self) -> Iterable[ParamGroup]:
        """The tensors and the gains."""
        return (*super().parameters(), ParamGroup(parameters=tuple(self.gains.values())))

    def delta(self) -> dict[str, Tensor]:
        """How much tensors and gains changed."""
        gains = {f"{path}.{GAMMA}": gain.detach().cpu() - 1 for path, gain in self.gains.items()}
        return {**super().delta(), **gains}

    @torch.no_grad()
    def load(self, delta: Mapping[str, Tensor]) -> None:
        """Takes over the changes."""
        super().load({n: c for n, c in delta.items() if not n.endswith(f".{GAMMA}")})
        for path, gain in self.gains.items():
            gain.copy_(1 + delta[f"{path}.{GAMMA}"].to(gain))

    def set_scale(self, scale: float) -> None:
        """Applies so much of the change."""
        super().set_scale(scale)
        self._scale = scale

    @torch.no_grad()
    def merge(self) -> None:
        """Multiplies the gains into weights and biases."""
        self.set_scale(1.0)
        for path, gain in self.gains.items():
            layer = self.model.get_submodule(path)
            assert isinstance(layer, nn.Linear)
            layer.weight.copy_(layer.weight.float() * gain[:, None])
            if layer.bias is not None:
                layer.bias.copy_(layer.bias.float() * gain)
        super().merge()

    def _release(self) -> None:
        for hook in self._hooks:
            hook.remove()
        super()._release()
