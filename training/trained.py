"""What a training loop trains: a module's own parameters, or those of a fine-tuning method."""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from training.config import TrainingConfig
from training.methods.base import Tuner
from training.methods.optimizer import rebuild
from training.muon import muon_for
from training.optimizers import OptimizerOptions, make_adamw


@runtime_checkable
class Trained(Protocol):
    """The numbers that an optimizer changes, and what has to be done around its steps."""

    wrapped: bool
    """Their gradients come through autograd alone, so that several processes may share them by DDP."""

    def named(self) -> dict[str, nn.Parameter]:
        """The parameters, by names that are the same in every process and every run."""
        ...

    def optimizer(self, config: TrainingConfig) -> torch.optim.Optimizer:
        """A fresh optimizer of all of them. A group's "rate" multiplies the run's learning rate."""
        ...

    def penalty(self) -> Float[Tensor, ""] | None:
        """What is added to the loss, asked for before the forward pass."""
        ...

    def after_step(self, step: int, optimizer: torch.optim.Optimizer, average: dict[str, Tensor]) -> bool:
        """Brings model, optimizer and average up to date; True where `named` has other parameters now."""
        ...

    def refresh(self) -> None:
        """Brings the model up to date after parameters were written from outside."""
        ...

    def state(self) -> Mapping[str, Tensor]:
        """What a checkpoint stores."""
        ...

    def load_state(self, state: Mapping[str, Tensor], step: int) -> None:
        """Takes it over.

        Raises:
            ValueError: it is of another network.
        """
        ...


class WholeModule:
    """All parameters of a module that want gradients, by Muon."""

    wrapped = True

    def __init__(self, module: nn.Module) -> None:
        self._module = module

    def named(self) -> dict[str, nn.Parameter]:
        """By the module's own names."""
        return {name: p for name, p in self._module.named_parameters() if p.requires_grad}

    def optimizer(self, config: TrainingConfig) -> torch.optim.Optimizer:
        """Muon for matrices and filters, AdamW for the rest."""
        return muon_for(self._module, lr=config.learning_rate, weight_decay=config.weight_decay)

    def penalty(self) -> Float[Tensor, ""] | None:
        """Nothing."""
        return None

    def after_step(self, step: int, optimizer: torch.optim.Optimizer, average: dict[str, Tensor]) -> bool:
        """Nothing."""
        return False

    def refresh(self) -> None:
        """Nothing: the parameters are the model's."""

    def state(self) -> Mapping[str, Tensor]:
        """The parameters."""
        return self.named()

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor], step: int) -> None:
        """Copies the parameters."""
        names = self.named()
        if state.keys() != names.keys():
            odd = sorted(state.keys() ^ names.keys())
            raise ValueError(f"is of another network: {odd[0]!r} and {len(odd) - 1} more names differ")
        for name, parameter in names.items():
            if state[name].shape != parameter.shape:
                found, wanted = tuple(state[name].shape), tuple(parameter.shape)
                raise ValueError(f"is of another network: {name} has the shape {found}, now it is {wanted}")
            parameter.copy_(state[name])


class Tuned:
    """The numbers of a fine-tuning method, by AdamW."""

    wrapped = False

    def __init__(self, tuner: Tuner, options: OptimizerOptions | None = None) -> None:
        self.tuner = tuner
        self._options = options or OptimizerOptions()

    def named(self) -> dict[str, nn.Parameter]:
        """By the tuner's names."""
        return self.tuner.named()

    def optimizer(self, config: TrainingConfig) -> torch.optim.Optimizer:
        """AdamW; a decay of in-place values would pull them to 0, not to the base, so there is none by default."""
        groups = [
            {"params": list(group.parameters), "lr": config.learning_rate * group.rate, "rate": group.rate}
            for group in self.tuner.parameters()
        ]
        return make_adamw(groups, self._options, weight_decay=config.weight_decay)

    def penalty(self) -> Float[Tensor, ""] | None:
        """The method's."""
        return self.tuner.penalty()

    def after_step(self, step: int, optimizer: torch.optim.Optimizer, average: dict[str, Tensor]) -> bool:
        """The method's; a new choice takes optimizer state and average along."""
        before = self.named()
        if not self.tuner.after_step(step):
            return False
        moved = {move.new: move for move in self.tuner.moved}
        old_names = {p: name for name, p in before.items()}
        kept = dict(average)
        average.clear()
        for name, parameter in self.named().items():
            average[name] = parameter.detach().clone()
            move = moved.get(parameter)
            if move is not None and move.old in old_names:
                there = move.kept >= 0
                average[name][there] = kept[old_names[move.old]][move.kept[there]]
            elif parameter in old_names:
                average[name] = kept[old_names[parameter]]
        rebuild(optimizer, self.tuner)
        return True

    def refresh(self) -> None:
        """Writes the values into the weights."""
        self.tuner.refresh()

    def state(self) -> Mapping[str, Tensor]:
        """The tuner's."""
        return self.tuner.state()

    def load_state(self, state: Mapping[str, Tensor], step: int) -> None:
        """The tuner's."""
        self.tuner.load_state(state, step)
