"""Training whole tensors: all of them, or those of a kind."""

from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from training.methods.base import METHODS, Losses, MethodConfig, ParamGroup, Tuner
from training.methods.scope import KINDS, Scope


class PartialTuner(Tuner):
    """Some tensors are trained as they stand, the others are frozen."""

    def __init__(self, model: nn.Module, names: Iterable[str]) -> None:
        super().__init__(model)
        chosen = set(names)
        self._was_trainable = {n: p.requires_grad for n, p in model.named_parameters()}
        self.trained = {n: p for n, p in model.named_parameters() if n in chosen}
        if not self.trained:
            raise ValueError("there is nothing to train in the scope")
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in chosen)
        # in main memory: on a GPU a second copy of all weights would not fit
        self._base = {n: p.detach().cpu().clone() for n, p in self.trained.items()}
        self._aside: dict[str, Tensor] | None = None

    def parameters(self) -> Iterable[ParamGroup]:
        """The tensors themselves."""
        return (ParamGroup(parameters=tuple(self.trained.values())),)

    def delta(self) -> dict[str, Tensor]:
        """How much every tensor changed."""
        return {n: p.detach().cpu().float() - self._base[n].float() for n, p in self.trained.items()}

    @torch.no_grad()
    def load(self, delta: Mapping[str, Tensor]) -> None:
        """Takes over the changes."""
        check_names(delta, self.trained)
        for name, change in delta.items():
            self.trained[name].copy_(self._base[name].float() + change)

    @torch.no_grad()
    def set_scale(self, scale: float) -> None:
        """Writes the tensors with so much of the change; the trained ones are kept aside."""
        if self._aside is None:
            self._aside = {n: p.detach().cpu().clone() for n, p in self.trained.items()}
        for name, parameter in self.trained.items():
            base, trained = self._base[name], self._aside[name]
            if scale in (0.0, 1.0):
                parameter.copy_(trained if scale else base)
            else:
                parameter.copy_(base.float() + scale * (trained.float() - base.float()))
        if scale == 1.0:
            self._aside = None

    def merge(self) -> None:
        """Keeps the tensors as they are."""
        self.set_scale(1.0)
        self._release()

    def unload(self) -> None:
        """Puts the base's tensors back."""
        self.set_scale(0.0)
        self._release()

    def _release(self) -> None:
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(self._was_trainable[name])
            parameter.grad = None


def check_names(delta: Mapping[str, Tensor], trained: Mapping[str, Tensor]) -> None:
    """Compares an adapter's tensors with those that are trained here.

    Raises:
        ValueError: a name or a shape differs.
    """
    odd = sorted(delta.keys() ^ trained.keys())
    if odd:
        raise ValueError(
            f"the adapter and this model differ in {len(odd)} tensors, {odd[0]} for one; it is of another model"
        )
    for name, change in delta.items():
        if change.shape != trained[name].shape:
            found, wanted = tuple(change.shape), tuple(trained[name].shape)
            raise ValueError(
                f"the adapter's {name} has the shape {found}, this model's {wanted}; it is of another model"
            )


class _Partial(MethodConfig):
    """A method that trains the tensors that `_chosen` names."""

    def _chosen(self, model: nn.Module, scope: Scope) -> Iterable[str]:
        raise NotImplementedError

    def attach(
        self, model: nn.Module, scope: Scope, rng: torch.Generator, losses: Losses | None = None
    ) -> PartialTuner:
        """Freezes all but the chosen tensors."""
        return PartialTuner(model, [n for n in self._chosen(model, scope) if scope.holds(n)])


@METHODS.register("full")
class Full(_Partial):
    """Trains everything in the scope."""

    about: ClassVar[str] = "every number: the most memory, and what the others are measured by"
    paper: ClassVar[str] = "the usual way"

    def _chosen(self, model: nn.Module, scope: Scope) -> Iterable[str]:
        return (n for n, _ in model.named_parameters())

    def learning_rate(self, tuner: Tuner) -> float:
        """Small, for all weights move."""
        return 1e-5


@METHODS.register("bitfit")
class BitFit(_Partial):
    """Trains the biases."""

    about: ClassVar[str] = "the biases alone: no layer's input is kept"
    paper: ClassVar[str] = "BitFit, arXiv 2106.10199"

    def _chosen(self, model: nn.Module, scope: Scope) -> Iterable[str]:
        return (n for n, _ in model.named_parameters() if n.rsplit(".", 1)[-1] == "bias")

    def learning_rate(self, tuner: Tuner) -> float:
        """Large, for few numbers move."""
        return 1e-3


@METHODS.register("norms")
class Norms(_Partial):
    """Trains weights and biases of the normalisation layers."""

    about: ClassVar[str] = "the normalisation layers: the floor of memory and time"
    paper: ClassVar[str] = "LayerNorm tuning, arXiv 2312.11420"
    stands_beside: ClassVar[bool] = True

    def _chosen(self, model: nn.Module, scope: Scope) -> Iterable[str]:
        return _below(model, KINDS["norms"])

    def learning_rate(self, tuner: Tuner) -> float:
        """Large, for few numbers move."""
        return 1e-3


@METHODS.register("attention")
class Attention(_Partial):
    """Trains the attention layers whole."""

    about: ClassVar[str] = "the attention layers, whole"
    paper: ClassVar[str] = "arXiv 2203.09795; MemControl's first space, arXiv 2405.19458"

    def _chosen(self, model: nn.Module, scope: Scope) -> Iterable[str]:
        return _below(model, KINDS["attention"])


def _below(model: nn.Module, wanted: Callable[[str, nn.Module], bool]) -> list[str]:
    """Names of the parameters of all modules of a kind."""
    found = []
    for path, module in model.named_modules():
        if wanted(path, module):
            found += [f"{path}.{n}" for n, _ in module.named_parameters()]
    return found
