"""What a study is made of, in a file of its folder: from it any candidate's run can be written down again."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from training.disk import write_text
from training.finetune.config import FinetuneConfig
from training.finetune.searching.settings import SearchSettings
from training.finetune.searching.sites import Sites
from training.search.space import Candidate

SETUP = "setup.json"
STOP_STEP, RATE = "stop_step", "learning_rate"
"""Numbers of a candidate that are no options of its method."""


@dataclass(frozen=True, kw_only=True)
class Setup:
    """The runs of a study and what it varies in them."""

    config: FinetuneConfig
    settings: SearchSettings
    sites: Sites
    trained: int
    """How many pictures are trained."""

    def trains(self, candidate: Candidate) -> bool:
        """Whether there is anything to train; a mask of zeros need not be a frozen network."""
        return self.sites.option is not None or bool(self.sites.scope(candidate.mask))

    def run_of(self, candidate: Candidate) -> FinetuneConfig:
        """The run that a candidate stands for, as `studio train` would be asked for it.

        Raises:
            ValueError: the mask trains nothing.
        """
        if not self.trains(candidate):
            raise ValueError("the mask is empty and nothing is always trained: there is no run, it is the base model")
        options: dict[str, Any] = {n: v for n, v in candidate.values.items() if n not in (STOP_STEP, RATE)}
        scope = self.sites.scope(candidate.mask)
        if self.sites.option is not None:
            options[self.sites.option], scope = scope, ()
        told: dict[str, Any] = {
            **self.config.model_dump(), "scope": scope,
            "learning_rate": candidate.values.get(RATE, self.config.learning_rate),
            "method_options": {**self.config.method_options, **options},
        }  # fmt: skip
        return FinetuneConfig.model_validate(told)

    def run_at(self, candidate: Candidate, step: int, *, pictures: int | None = None) -> FinetuneConfig:
        """The run that ends at a checkpoint of a candidate, on as many pictures or on more.

        Copies come later in proportion to the pictures, so the steps are scaled. What a method does halfway or in
        rounds stays where it was in the whole run, or the checkpoint would not come again.

        Raises:
            ValueError: the mask trains nothing.
        """
        run, scale = self.run_of(candidate), 1.0 if pictures is None else pictures / self.trained
        whole = run.fitted_to or run.max_train_steps
        steps, fitted = (max(1, round(length * scale)) for length in (step, whole))
        return run.model_copy(update={"max_train_steps": steps, "fitted_to": None if fitted == steps else fitted})


def write_setup(folder: Path, setup: Setup) -> None:
    """Keeps it in a study's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    told = {
        "config": setup.config.model_dump(mode="json"), "search": setup.settings.model_dump(mode="json"),
        "sites": asdict(setup.sites), "trained": setup.trained,
    }  # fmt: skip
    write_text(folder / SETUP, json.dumps(told, indent=1))


def read_setup(folder: Path) -> Setup:
    """Reads it again.

    Raises:
        ValueError: it is not there, or damaged.
    """
    path = folder / SETUP
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        return Setup(
            config=FinetuneConfig.model_validate(told["config"]),
            settings=SearchSettings.model_validate(told["search"]),
            sites=Sites(
                bits={name: tuple(paths) for name, paths in told["sites"]["bits"].items()},
                always=tuple(told["sites"]["always"]), option=told["sites"]["option"],
            ),
            trained=int(told["trained"]),
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} cannot be read: {error}; `studio search` writes it when a study begins") from error
