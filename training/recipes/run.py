"""Runs a recipe in a run folder: effective config, events, checkpoints, exported weights and a model card."""

import json
import shlex
import shutil
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import nn

from training.checkpoint import CheckpointError, latest_checkpoint
from training.disk import write_text
from training.events import Event, Finished
from training.going import OnBatch
from training.loop import load_average, train
from training.recipes.base import RECIPES, Recipe
from training.recipes.card import render_cards, write_card
from training.run_folder import held, is_main, record, refuse_another_run, saver, stopper

_NOT_IN_FINGERPRINT = {"checkpoint_every", "keep_checkpoints", "evaluate_every"}


def load_recipes() -> None:
    """Imports every recipe, so that `RECIPES` is full. Not done on import: it takes torch and diffusers."""
    for name in ("codec", "clip", "pose", "animator"):
        import_module(f"training.recipes.{name}")


def mini_folder() -> Path:
    """Where the shipped mini weights are."""
    return Path(str(files("models"))) / "weights" / "mini"


def make_recipe(name: str, overrides: Mapping[str, Any]) -> Recipe:
    """Builds a recipe's config from its defaults and overrides.

    Raises:
        ValueError: the recipe or a key is unknown, or a value is out of range.
    """
    load_recipes()
    cls = RECIPES[name]
    unknown = [key for key in overrides if key not in cls.model_fields]
    if unknown:
        import difflib

        close = difflib.get_close_matches(unknown[0], cls.model_fields, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ValueError(f"{name} has no setting {unknown[0]!r}: {hint}it has {', '.join(sorted(cls.model_fields))}")
    try:
        return cls(**overrides)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{name}: {where} = {first['input']!r}: {first['msg']}") from error


def run_recipe(
    name: str,
    run: Path,
    overrides: Mapping[str, Any] | None = None,
    *,
    resume: bool = False,
    mini: Path | None = None,
    export_to: Path | None = None,
    time_limit_s: float | None = None,
    device: str | None = None,
    on_batch: OnBatch | None = None,
) -> Iterator[Event]:
    """Trains a recipe, yielding events; a finished run leaves its weights in `run/mini/`.

    Args:
        mini: the folder with the parts trained before; the shipped one when None.
        export_to: also copy the finished weights into this folder of the mini family.
        time_limit_s: stop with a checkpoint after so many seconds; resume later.

    Raises:
        ValueError: bad settings, or the run folder holds another run.
    """
    began = time.monotonic()
    recipe = make_recipe(name, overrides or {})
    mini = mini or mini_folder()
    for part in recipe.needs:
        if not (mini / part).exists():
            raise ValueError(f"{name} needs the trained {part}, which is not in {mini}; run its recipe first")
    if recipe.goes_on_from is not None and not recipe.goes_on_from.is_dir():
        raise ValueError(f"start_from {recipe.goes_on_from}: no such folder; name the mini folder of an earlier run")
    with held(run):
        if not resume:
            refuse_another_run(run)
        yield from _trained(
            recipe, name, run, mini, export_to, resume, device, on_batch, stopper(run, began, time_limit_s)
        )


def _trained(
    recipe: Recipe, name: str, run: Path, mini: Path, export_to: Path | None, resume: bool, device: str | None,
    on_batch: OnBatch | None, should_stop: Callable[[], str | None],
) -> Iterator[Event]:  # fmt: skip
    learner = recipe.build(mini)
    # as JSON gives it back: a tuple of the settings is a list in the checkpoint
    fingerprint = {"recipe": name, **recipe.model_dump(mode="json", exclude=_NOT_IN_FINGERPRINT)}

    def events() -> Iterator[Event]:
        for event in train(
            learner, recipe, run, resume=resume, fingerprint=fingerprint, device=device, on_batch=on_batch,
            should_stop=should_stop, should_save=saver(run),
        ):  # fmt: skip
            if is_main() and isinstance(event, Finished) and event.complete:
                _export(recipe, name, learner, run, export_to)
            yield event

    yield from record(run, settings_of(name, recipe), events(), resume=resume)


def settings_of(name: str, recipe: Recipe) -> dict[str, Any]:
    """What config.toml says of a run."""
    return {"recipe": name, "settings": recipe.model_dump(mode="json")}


def _export(recipe: Recipe, name: str, learner: nn.Module, run: Path, export_to: Path | None) -> None:
    """Writes the averaged weights of the last checkpoint and their card to `run/mini`, and copies them on."""
    checkpoint = latest_checkpoint(run)
    assert checkpoint is not None
    load_average(learner, checkpoint)
    learner.eval()
    recipe.export(learner, run / "mini")
    forget_origins(run / "mini")
    changed = recipe.model_dump(mode="json", exclude_defaults=True)
    command = [
        f"studio train --recipe {name}",
        *(f"--set {shlex.quote(f'{key}={json.dumps(value)}')}" for key, value in changed.items()),
    ]
    events = run / "events.jsonl"
    write_card(run / "mini", name, changed, events, " ".join(command), before=recipe.goes_on_from)
    if export_to is not None:
        shutil.copytree(run / "mini", export_to, dirs_exist_ok=True)
        write_text(export_to / "README.md", render_cards(export_to))  # of the parts that were there before, too


def forget_origins(folder: Path) -> None:
    """Takes out of the configs where their components were loaded from: a path of this machine is nobody's business."""
    for path in folder.glob("*/config.json"):
        config = json.loads(path.read_text(encoding="utf-8"))
        if config.pop("_name_or_path", None) is not None:
            write_text(path, json.dumps(config, indent=2, sort_keys=True) + "\n")


def read_run(run: Path) -> tuple[str, dict[str, Any]]:
    """Reads the recipe's name and settings of a run folder, to resume it."""
    path = run / "config.toml"
    if not path.exists():
        raise CheckpointError(f"{run} is not a run folder: it has no config.toml")
    values = tomllib.loads(path.read_text(encoding="utf-8"))
    return str(values["recipe"]), dict(values["settings"])
