"""`studio train --recipe`, `studio resume` and `studio recipes`."""

import json
import signal
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

from pydantic import Field

from studio.cli.console import Console
from studio.cli.verb import Result, Verb
from studio.errors import RequestError, did_you_mean
from studio.progress import Progress, peak_memory_bytes
from studio.requests import Positional, Request, Unit


class RunRequest(Request):
    """What starting and resuming share."""

    time_limit: Annotated[float, Field(gt=0), Unit("s")] | None = None
    """Stops with a checkpoint after so long; `studio resume` goes on."""
    export_to: Path | None = None
    """Also copies the finished weights into this folder of the mini family."""
    mini: Path | None = None
    """The folder with the parts that were trained before; by default the shipped one."""
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
    """auto, cpu, cuda or cuda:N."""


class TrainRequest(RunRequest):
    """Trains a built-in recipe in a run folder: config, events, checkpoints, weights and a model card."""

    recipe: Annotated[str, Field(min_length=1)]
    """A recipe's name, see `studio recipes`."""
    set: tuple[str, ...] = ()
    """Changes a setting, NAME=VALUE; repeat it for several."""
    output_dir: Path | None = None
    """The run folder; by default runs/RECIPE."""


class ResumeRequest(RunRequest):
    """Goes on exactly where a run stopped."""

    run: Annotated[Path, Positional()]
    """The run folder."""


class RecipesRequest(Request):
    """Lists the built-in recipes, those that made the mini weights among them."""


def run_train(request: TrainRequest, console: Console) -> Result:
    """Starts a run."""
    from training.recipes import RECIPES
    from training.recipes.run import load_recipes

    load_recipes()
    if request.recipe not in list(RECIPES):
        hint = did_you_mean(request.recipe, RECIPES)
        raise RequestError(f"--recipe {request.recipe}: no such recipe{hint}; known are {', '.join(RECIPES)}")
    run = request.output_dir or Path("runs") / request.recipe
    if run.is_file():
        raise RequestError(f"--output-dir {run}: is a file; name a folder")
    return _follow(request.recipe, run, read_settings(request.set), request, console, resume=False)


def run_resume(request: ResumeRequest, console: Console) -> Result:
    """Resumes a run with the settings in its folder."""
    from training.recipes.run import read_run

    if not request.run.is_dir():
        raise RequestError(f"RUN {request.run}: no such folder")
    name, settings = read_run(request.run)
    return _follow(name, request.run, settings, request, console, resume=True)


def run_recipes(_: RecipesRequest, console: Console) -> Result:
    """Lists recipes with their settings."""
    from training.recipes import RECIPES
    from training.recipes.run import load_recipes

    load_recipes()
    rows = []
    for name in RECIPES:
        recipe = RECIPES[name]
        settings = recipe.model_construct().model_dump(mode="json")
        rows.append({"name": name, "about": recipe.about, "needs": list(recipe.needs), "settings": settings})
        console.say(f"{name:<16}{recipe.about}")
    return {"recipes": rows}


def read_settings(words: tuple[str, ...]) -> dict[str, Any]:
    """Reads NAME=VALUE words; a value is JSON or TOML (3, 0.5, true, {probability = 0.5}) or else plain text.

    Raises:
        RequestError: there is no "=".
    """
    settings: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name.strip():
            raise RequestError(f"--set {word}: must be NAME=VALUE")
        settings[name.strip()] = _read_value(value)
    return settings


def _read_value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        pass
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _follow(
    name: str, run: Path, settings: dict[str, Any], request: RunRequest, console: Console, *, resume: bool
) -> Result:
    """Shows the events of a run until it ends.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed; the run has been saved.
    """
    from training.events import Evaluated, Finished, Saved, Step
    from training.recipes import run_recipe
    from training.recipes.run import make_recipe

    make_recipe(name, settings)  # a wrong setting is told before a folder is made
    began, made, losses = time.monotonic(), 0, dict[str, float]()
    last: Finished | None = None
    saved = ""
    with _stopped_by_ctrl_c(run) as pressed:
        for event in run_recipe(
            name, run, settings, resume=resume, export_to=request.export_to, mini=request.mini,
            time_limit_s=request.time_limit,
            device=None if request.device == "auto" else request.device,
        ):  # fmt: skip
            if isinstance(event, Step):
                made, losses = made + 1, event.losses
                worded = " ".join(f"{key} {value:.4g}" for key, value in losses.items())
                stage = f"training {name}"
                console.progress(Progress(stage=stage, done=event.step, total=event.total_steps, detail=worded))
            elif isinstance(event, Evaluated):
                console.say(f"step {event.step}: " + ", ".join(f"{k} {v:.4g}" for k, v in event.metrics.items()))
            elif isinstance(event, Saved):
                saved = event.path
            elif isinstance(event, Finished):
                last = event
    if last is None:
        raise RuntimeError(f"the run {run} ended without saying how; `studio resume {run}` goes on from its checkpoint")
    if not last.complete and pressed:
        raise KeyboardInterrupt(
            f"interrupted at step {last.step}, saved in {saved or run}; go on with `studio resume {run}`"
        )
    state = "done" if last.complete else f"stopped ({last.reason}); go on with `studio resume {run}`"
    console.say(f"{run}: {last.step} steps, {state}")
    seconds = time.monotonic() - began
    return {
        "run": str(run), "recipe": name, "steps": last.step, "complete": last.complete, "reason": last.reason,
        "loss": losses.get("loss"), "losses": losses, "metrics": last.metrics,
        "seconds": round(seconds, 3), "seconds_per_step": round(seconds / made, 4) if made else None,
        "peak_memory_bytes": peak_memory_bytes(), "weights": str(run / "mini") if last.complete else None,
    }  # fmt: skip


@contextmanager
def _stopped_by_ctrl_c(run: Path) -> Iterator[list[int]]:
    """Turns the first Ctrl-C into the run's stop file, so that the loop saves after its step; a second one kills."""
    pressed: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        if pressed:
            raise KeyboardInterrupt("interrupted twice; the last checkpoint is kept")
        pressed.append(number)
        run.mkdir(parents=True, exist_ok=True)
        (run / "stop").touch()

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)


VERBS = (
    Verb("train", TrainRequest, run_train),
    Verb("resume", ResumeRequest, run_resume),
    Verb("recipes", RecipesRequest, run_recipes),
)
