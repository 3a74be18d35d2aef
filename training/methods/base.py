"""What a fine-tuning method is: a config that makes some of a model's numbers trainable."""

import abc
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, Final

import torch
from jaxtyping import Float, Int
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from pose.registry import Registry
from training.methods.scope import Scope


@dataclass(frozen=True, kw_only=True)
class ParamGroup:
    """Parameters that the optimizer treats alike."""

    parameters: tuple[nn.Parameter, ...]
    rate: float = 1.0
    """Their learning rate, as a multiple of the run's."""


@dataclass(frozen=True, kw_only=True)
class Moved:
    """A parameter that gave way to another, as when a method chooses anew what it trains."""

    old: nn.Parameter
    new: nn.Parameter
    kept: Int[Tensor, "count"]
    """For every number of the new one its place in the old one, -1 where it was not there."""

    def carry(self, state: Float[Tensor, "old"]) -> Float[Tensor, "count"]:
        """State of the old one for the new one: it goes with its numbers, and newcomers begin at 0."""
        if not len(state):
            return state.new_zeros(len(self.kept))
        return torch.where(self.kept >= 0, state[self.kept.clamp(min=0)], 0)


class Tuner(abc.ABC):
    """A model with some of its numbers made trainable. Made by `MethodConfig.attach`.

    Attaching is the identity. The tuner owns no optimizer; the loop steps the `parameters` and then calls
    `after_step`.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.moved: tuple[Moved, ...] = ()
        self.note = ""
        """What a user should know of how it trains here."""

    @abc.abstractmethod
    def parameters(self) -> Iterable[ParamGroup]:
        """What the optimizer trains."""

    def penalty(self) -> Float[Tensor, ""] | None:
        """What is added to the loss; None where there is nothing.

        To be asked for before the forward pass: what it makes on the way is then gone when activations fill the memory.
        """
        return None

    def after_step(self, step: int) -> bool:
        """Brings the model up to date after optimizer step `step` (1, 2, ...).

        Returns True where parameters were chosen anew; `moved` then says which state the optimizer keeps.
        """
        return False

    @abc.abstractmethod
    def delta(self) -> dict[str, Tensor]:
        """What an adapter file stores."""

    @abc.abstractmethod
    def load(self, delta: Mapping[str, Tensor]) -> None:
        """Takes over what `delta` gave.

        Raises:
            ValueError: it does not fit this model or method.
        """

    def refresh(self) -> None:  # noqa: B027  (most methods' parameters are the model's own)
        """Brings the model up to date after the parameters were written from outside."""

    def named(self) -> dict[str, nn.Parameter]:
        """The parameters by a name that is the same in every process and every run."""
        groups = enumerate(self.parameters())
        return {f"{g}.{k}": p for g, group in groups for k, p in enumerate(group.parameters)}

    def state(self) -> dict[str, Tensor]:
        """All that a resumed run needs beside the base model and the config, exactly."""
        return {name: p.detach() for name, p in self.named().items()}

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor], step: int) -> None:
        """Goes on from the state after optimizer step `step`; the tuner is fresh from `attach`.

        Raises:
            ValueError: the state is of another tuner.
        """
        named = self.named()
        if named.keys() != state.keys():
            raise ValueError(
                f"the state has {len(state)} tensors, this tuner {len(named)}: another method, scope or model"
            )
        for name, parameter in named.items():
            parameter.copy_(state[name])

    @abc.abstractmethod
    def set_scale(self, scale: float) -> None:
        """Applies the change by so much: 0 is the base model, bit for bit, and 1 the trained one."""

    @abc.abstractmethod
    def merge(self) -> None:
        """Leaves the change in the base weights and detaches; the model's names are as before attaching."""

    @abc.abstractmethod
    def unload(self) -> None:
        """Takes the change out again and detaches: the base model, bit for bit."""

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """The base model, bit for bit, for a while."""
        self.set_scale(0.0)
        try:
            yield
        finally:
            self.set_scale(1.0)

    @property
    def count(self) -> int:
        """How many numbers are trained."""
        return sum(p.numel() for group in self.parameters() for p in group.parameters)


Losses = Callable[[], Iterable[Float[Tensor, ""]]]
"""Gives losses of a few batches, each with its graph: what a method looks at that chooses by gradients."""


def needed(losses: Losses | None, who: str) -> Losses:
    """The losses, for a method that cannot do without.

    Raises:
        ValueError: there are none.
    """
    if losses is None:
        raise ValueError(f"{who} chooses by gradients and needs losses of a few batches")
    return losses


class MethodConfig(BaseModel, abc.ABC):
    """The options of a method."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    about: ClassVar[str]
    """One line for `studio methods`."""
    paper: ClassVar[str]
    """Where it comes from."""
    sized_by: ClassVar[str | None] = None
    """The option that says how many numbers are trained: a share ("fraction") or something that they grow with."""
    largest: ClassVar[int] = 1 << 12
    """The most that this option is set to when a share is asked for."""
    stands_beside: ClassVar[bool] = False
    """It can train where layers' weights are quantized or split: its numbers stand beside them, or are elsewhere."""

    @property
    def needs_losses(self) -> bool:
        """It chooses by gradients, so `attach` wants `losses`."""
        return False

    @abc.abstractmethod
    def attach(self, model: nn.Module, scope: Scope, rng: torch.Generator, losses: Losses | None = None) -> Tuner:
        """Freezes the model and makes its own numbers within the scope trainable.

        Args:
            rng: every draw of the method, on the CPU.
            losses: a few batches, for a method that chooses by gradients.

        Raises:
            ValueError: nothing in the scope can be trained by this method, or `losses` are missing.
        """

    def restore(self, model: nn.Module, scope: Scope, delta: Mapping[str, Tensor]) -> Tuner:
        """Attaches what an earlier tuner of this method learned.

        Raises:
            ValueError: it does not fit the model.
        """
        tuner = self.attach(model, scope, torch.Generator().manual_seed(0))
        tuner.load(delta)
        return tuner

    def learning_rate(self, tuner: Tuner) -> float:
        """A rate to start with for AdamW."""
        return 1e-4


METHODS: Final[Registry[type[MethodConfig]]] = Registry("method")
"""`studio train --method`, `studio methods`, the app's form and the conformance tests."""
