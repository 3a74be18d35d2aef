"""What a recipe is: a config that builds a learner, and a folder that it fills."""

import abc
from pathlib import Path
from typing import ClassVar, Final, Literal

from torch import nn

from pose.registry import Registry
from training.config import TrainingConfig
from training.precision import usual_precision


class Recipe(TrainingConfig, abc.ABC):
    """A training run of the mini family, from nothing to a folder of weights."""

    about: ClassVar[str]
    """One line for `studio recipes`."""
    needs: ClassVar[tuple[str, ...]] = ()
    """Folders of the mini family that must be trained before."""

    precision: Literal["bf16", "fp32"] = usual_precision()
    """Autocast type, where not given the one that this machine is fast in; the weights stay float32."""

    @property
    def goes_on_from(self) -> Path | None:
        """The mini folder whose weights this run starts with; None for a run from nothing."""
        return None

    @abc.abstractmethod
    def build(self, mini: Path) -> nn.Module:
        """Makes the learner; `mini` is the folder with the parts trained before."""

    @abc.abstractmethod
    def export(self, learner: nn.Module, folder: Path) -> None:
        """Writes the learner's weights into a folder of the mini family."""


class ContinuingRecipe(Recipe):
    """A recipe that can also begin with weights that are trained already."""

    start_from: str = ""
    """A mini folder with trained weights of this part to go on from; empty for new ones."""

    @property
    def goes_on_from(self) -> Path | None:
        """The folder of `start_from`."""
        return Path(self.start_from) if self.start_from else None


RECIPES: Final[Registry[type[Recipe]]] = Registry("recipe")
