"""HFT: training half of the network at a time."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from training.methods.base import METHODS, Losses, MethodConfig, ParamGroup, Tuner
from training.methods.partial import PartialTuner, check_names
from training.methods.scope import Scope


@METHODS.register("hft")
class HFT(MethodConfig):
    """Trains a random half of the tensors of each kind, and draws another half every round."""

    about: ClassVar[str] = "a random half of the tensors of each kind, drawn anew every round: forgets less"
    paper: ClassVar[str] = "HFT, arXiv 2404.18466"

    round_steps: int = Field(default=1000, ge=1)
    """Steps until another half is drawn."""

    def attach(self, model: nn.Module, scope: Scope, rng: torch.Generator, losses: Losses | None = None) -> "HFTTuner":
        """Draws the first half."""
        names = [n for n, _ in model.named_parameters() if scope.holds(n)]
        return HFTTuner(model, names, self.round_steps, seed=int(torch.randint(1 << 62, (), generator=rng)))

    def learning_rate(self, tuner: Tuner) -> float:
        """As for full fine-tuning."""
        return 1e-5


class HFTTuner(PartialTuner):
    """All tensors of the scope are known, half of them are trained."""

    def __init__(self, model: nn.Module, names: Iterable[str], round_steps: int, *, seed: int) -> None:
        super().__init__(model, names)
        self._seed, self._round_steps = seed, round_steps
        self._draw(0)

    def _draw(self, number: int) -> None:
        generator = torch.Generator().manual_seed((self._seed + number * 0x9E3779B1) % (1 << 63))
        kinds = defaultdict(list)
        for name, parameter in self.trained.items():
            # the paper's categories (q, k, v, o, feed-forward matrices, norms): what has the same name in every block
            kinds[(_kind(name), parameter.shape)].append(name)
        self._active: list[str] = []
        for names in kinds.values():
            order = torch.randperm(len(names), generator=generator).tolist()
            # of an odd number the extra one goes in by lot, or single tensors would always or never be trained
            extra = len(names) % 2 * int(torch.randint(2, (), generator=generator))
            self._active += [names[k] for k in order[: len(names) // 2 + extra]]
        chosen = set(self._active) or set(list(self.trained)[:1])
        self._active = [n for n in self.trained if n in chosen]
        for name, parameter in self.trained.items():
            parameter.requires_grad_(name in chosen)
            parameter.grad = None

    def parameters(self) -> Iterable[ParamGroup]:
        """The half that is being trained."""
        return (ParamGroup(parameters=tuple(self.trained[n] for n in self._active)),)

    def state(self) -> dict[str, Tensor]:
        """All tensors that a round may have trained."""
        return {name: p.detach() for name, p in self.trained.items()}

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor], step: int) -> None:
        """Takes over the tensors, and the half of that step's round."""
        check_names(state, self.trained)
        for name, value in state.items():
            self.trained[name].copy_(value)
        self._draw(step // self._round_steps)

    def after_step(self, step: int) -> bool:
        """Draws another half after every round."""
        if step % self._round_steps:
            return False
        self._draw(step // self._round_steps)
        return True


def _kind(name: str) -> str:
    return ".".join(part for part in name.split(".") if not part.isdigit())
