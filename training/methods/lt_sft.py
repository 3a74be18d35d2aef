"""LT-SFT: training everything once to find out what moves most, then only that, from the start again."""

from collections.abc import Iterable, Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from training.methods.base import METHODS, Losses, MethodConfig, ParamGroup, Tuner
from training.methods.inplace import InPlaceTuner
from training.methods.partial import PartialTuner
from training.methods.scope import Scope
from training.methods.selection import choose, magnitude
from training.methods.supports import Scattered


@METHODS.register("lt-sft")
class LTSFT(MethodConfig):
    """Trains everything first, then the numbers that moved most, from the base again (a lottery ticket)."""

    about: ClassVar[str] = "first everything, then from the start what moved most: as much memory as full, twice"
    paper: ClassVar[str] = "LT-SFT, arXiv 2110.07560"
    sized_by: ClassVar[str | None] = "fraction"

    fraction: float = Field(default=0.01, gt=0, le=1)
    """Share of the numbers that is trained in the second part."""
    select_step: int | None = Field(default=None, ge=1)
    """The step after which they are chosen; None for half of the run, which the trainer knows."""

    def attach(
        self, model: nn.Module, scope: Scope, rng: torch.Generator, losses: Losses | None = None
    ) -> "LTSFTTuner":
        """Starts with the full part."""
        return LTSFTTuner(model, [n for n, _ in model.named_parameters() if scope.holds(n)], self)

    def learning_rate(self, tuner: Tuner) -> float:
        """That of full fine-tuning, for the first part."""
        return 1e-5


class LTSFTTuner(Tuner):
    """A full tuner that gives way to an in-place one."""

    def __init__(self, model: nn.Module, names: Iterable[str], config: LTSFT) -> None:
        super().__init__(model)
        self._config = config
        self._inner: Tuner = PartialTuner(model, names)

    def parameters(self) -> Iterable[ParamGroup]:
        """Of the part that is under way."""
        return self._inner.parameters()

    def after_step(self, step: int) -> bool:
        """At `select_step` chooses what moved most and goes back to the base."""
        changed = self._inner.after_step(step)
        if step != self._config.select_step or not isinstance(self._inner, PartialTuner):
            return changed
        full = self._inner
        moved = {name: magnitude(change) for name, change in full.delta().items()}
        total = sum(p.numel() for p in full.trained.values())
        index = choose(moved, max(1, round(self._config.fraction * total)), largest=True)
        shapes = {name: full.trained[name].shape for name in index}
        full.unload()
        self._inner = InPlaceTuner(self.model, {name: Scattered(i, shapes[name]) for name, i in index.items()})
        return True

    def refresh(self) -> None:
        """Of the part that is under way."""
        self._inner.refresh()

    def state(self) -> dict[str, Tensor]:
        """Of the part that is under way."""
        return self._inner.state()

    def load_state(self, state: Mapping[str, Tensor], step: int) -> None:
        """Takes over the state, of whichever part it is."""
        if "values" in state and isinstance(self._inner, PartialTuner):
            self._inner.unload()
            self._inner = InPlaceTuner(self.model, {})
        self._inner.load_state(state, step)

    def delta(self) -> dict[str, Tensor]:
        """Of the part that is under way."""
        return self._inner.delta()

    def load(self, delta: Mapping[str, Tensor]) -> None:
        """Takes over the change, of whichever part it is."""
        if any(name.endswith(".change") for name in delta) and isinstance(self._inner, PartialTuner):
            self._inner.unload()
            self._inner = InPlaceTuner(self.model, {})
        self._inner.load(delta)

    def set_scale(self, scale: float) -> None:
        """Applies so much of the change."""
        self._inner.set_scale(scale)

    def merge(self) -> None:
        """Leaves the change in the weights."""
        self._inner.merge()

    def unload(self) -> None:
        """Takes the change out."""
        self._inner.unload()
