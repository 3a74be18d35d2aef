"""SPT: the most sensitive numbers, as thin matrices where many lie together."""

from collections.abc import Iterable, Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from training.methods.base import METHODS, Losses, MethodConfig, ParamGroup, Tuner, needed
from training.methods.calibration import fisher, gradient_scores
from training.methods.inplace import InPlaceTuner, read_delta
from training.methods.peft_methods import LoRA, PeftTuner
from training.methods.scope import Scope, parameters_in
from training.methods.selection import choose, fixed
from training.methods.supports import Scattered, Support


@METHODS.register("spt")
class SPT(MethodConfig):
    """Trains the most sensitive numbers; a matrix with very many of them gets a LoRA instead."""

    about: ClassVar[str] = "the most sensitive numbers; matrices with many of them get a LoRA"
    paper: ClassVar[str] = "SPT, arXiv 2303.08566"
    sized_by: ClassVar[str | None] = "fraction"

    fraction: float = Field(default=0.005, gt=0, le=1)
    """Share of the numbers that is chosen by sensitivity."""
    rank: int = Field(default=8, ge=1)
    """Rank of the LoRAs."""
    enough: float = Field(default=0.1, gt=0)
    """A matrix with so many chosen numbers, as a share of what its LoRA would have, gets it."""

    @property
    def needs_losses(self) -> bool:
        """Sensitivity is the sum of squared gradients over a few batches."""
        return True

    def attach(self, model: nn.Module, scope: Scope, rng: torch.Generator, losses: Losses | None = None) -> Tuner:
        """Chooses, and decides for each matrix which form it takes."""
        tensors = parameters_in(model, scope)
        found = gradient_scores(model, tensors, needed(losses, "spt"), fisher)
        scores = {n: fixed(s) for n, s in found.items()}
        total = sum(p.numel() for p in tensors.values())
        index = choose(scores, max(1, round(self.fraction * total)), largest=True)
        supports: dict[str, Support] = {}
        thin = []
        for name, chosen in index.items():
            path = name.removesuffix(".weight")
            layer = model.get_submodule(path) if path != name else None
            shape = tensors[name].shape
            if isinstance(layer, nn.Linear) and len(chosen) >= self.enough * self.rank * sum(shape):
                thin.append(path)
            elif len(shape) == 1 and len(chosen) >= 0.2 * shape[0]:
                # the paper: a vector with a fifth of its numbers chosen is trained whole
                supports[name] = Scattered(torch.arange(shape[0]), shape)
            else:
                supports[name] = Scattered(chosen, shape)
        return SPTTuner(model, supports, tuple(thin), LoRA(rank=self.rank), rng)

    def restore(self, model: nn.Module, scope: Scope, delta: Mapping[str, Tensor]) -> Tuner:
        """What is trained stands in the delta: nothing is chosen again."""
        thin = dict.fromkeys(name.split(".lora_")[0] for name in delta if ".lora_" in name)
        tensors = dict(model.named_parameters())
        supports, _ = read_delta(tensors, {n: v for n, v in delta.items() if ".lora_" not in n})
        tuner = SPTTuner(model, supports, tuple(thin), LoRA(rank=self.rank), torch.Generator().manual_seed(0))
        tuner.load(delta)
        return tuner


class SPTTuner(Tuner):
    """Numbers in place, and LoRAs beside other layers."""

    def __init__(
        self, model: nn.Module, supports: Mapping[str, Support], thin: tuple[str, ...], lora: LoRA, rng: torch.Generator
    ) -> None:
        super().__init__(model)
        self._parts: list[Tuner] = []
        was = {n: p.requires_grad for n, p in model.named_parameters()}
        if supports:
            self._parts.append(InPlaceTuner(model, supports))
        needed = {id(p) for p in model.parameters() if p.requires_grad}
        if thin:
            self._parts.append(lora.attach(model, Scope(thin), rng))
            for parameter in model.parameters():  # PEFT has frozen what the first part lets autograd see
                if id(parameter) in needed:
                    parameter.requires_grad_(True)
        self._was = was

    def parameters(self) -> Iterable[ParamGroup]:
        """Those of both parts."""
        return [group for part in self._parts for group in part.parameters()]

    def after_step(self, step: int) -> bool:
        """Writes what is in place."""
        return any([part.after_step(step) for part in self._parts])

    def refresh(self) -> None:
        """Writes what is in place."""
        for part in self._parts:
            part.refresh()

    def state(self) -> dict[str, Tensor]:
        """Of both parts."""
        return {f"{k}:{name}": v for k, part in enumerate(self._parts) for name, v in part.state().items()}

    def load_state(self, state: Mapping[str, Tensor], step: int) -> None:
        """Takes over both parts."""
        for k, part in enumerate(self._parts):
            part.load_state({n.removeprefix(f"{k}:"): v for n, v in state.items() if n.startswith(f"{k}:")}, step)

    def delta(self) -> dict[str, Tensor]:
        """Of both parts."""
        return {name: value for part in self._parts for name, value in part.delta().items()}

    def load(self, delta: Mapping[str, Tensor]) -> None:
        """Takes over both parts."""
        for part in self._parts:
            thin = isinstance(part, PeftTuner)
            part.load({n: v for n, v in delta.items() if (".lora_" in n) == thin})

    def set_scale(self, scale: float) -> None:
        """Applies so much of both."""
        for part in self._parts:
            part.set_scale(scale)

    def merge(self) -> None:
        """Leaves both in the weights."""
        for part in reversed(self._parts):
            part.merge()
        self._release()

    def unload(self) -> None:
        """Takes both out."""
        for part in reversed(self._parts):
            part.unload()
        self._release()

    def _release(self) -> None:
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(self._was[name])
