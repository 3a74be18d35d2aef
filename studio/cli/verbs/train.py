"""`studio train --recipe`, `studio resume` and `studio recipes`."""

import json
import signal
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from studio.cli.console import Console
from studio.cli.verb import Result, Verb
from studio.errors import RequestError, did_you_mean
from studio.progress import Progress, peak_memory_bytes
from studio.requests import Positional, Request, Unit, make_request

if TYPE_CHECKING:
    from training.events import Event
    from training.finetune.config import FinetuneConfig


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
    """Fine-tunes a model on a folder of pictures, or trains a built-in recipe; all of a run is in one folder.

    A TOML file says the same as the flags, and more; a flag goes before it.
    """

    config: Annotated[Path | None, Positional()] = None
    """A TOML file with the settings of a fine-tuning run."""
    recipe: Annotated[str, Field(min_length=1)] | None = None
    """Trains this recipe instead, see `studio recipes`."""
    pretrained_model_name_or_path: Annotated[str, Field(min_length=1)] | None = None
    """What is fine-tuned: mini, a folder in diffusers layout, or a hub id. By default mini."""
    train_data_dir: Path | None = None
    """A folder of pictures with captions: same-stem .txt, metadata.jsonl or metadata.csv."""
    method: Annotated[str, Field(min_length=1)] | None = None
    """How it is trained, see `studio methods`. By default sara."""
    scope: tuple[str, ...] = ()
    """Where: attention, feed-forward, norms, convolutions, or a path with *; repeat it for several."""
    trainable_share: Annotated[float, Field(gt=0, le=1)] | None = None
    """How much: sets the method's fraction or rank to train nearest to this share of the network."""
    task: Annotated[str, Field(min_length=1)] | None = None
    """What is learned: of the animator text-to-image, ti2v or animation. By default the model's first."""
    max_train_steps: Annotated[int, Field(ge=1)] | None = None
    """Optimizer steps in all. By default 500."""
    train_batch_size: Annotated[int, Field(ge=1)] | None = None
    """Pictures a step. By default 4."""
    gradient_accumulation_steps: Annotated[int, Field(ge=1)] | None = None
    """Parts in which a batch goes through the network: less memory, the same step. By default 1."""
    gradient_checkpointing: bool = False
    """Computes activations twice instead of keeping them: less memory, a third more time."""
    mixed_precision: Literal["bf16", "fp16", "fp32"] | None = None
    """Type of matrix products. By default bf16, on a CPU without instructions for it fp32."""
    weights_dtype: Literal["fp32", "bf16", "fp16", "int8", "nf4"] | None = None
    """Type of the frozen weights: bf16 halves them, int8 and nf4 quantize the linear layers (a quarter, an eighth). By
    default fp32."""
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Peak learning rate. By default the method's."""
    lr_scheduler: Annotated[str, Field(min_length=1)] | None = None
    """How the rate goes: constant, linear, cosine, power and others, see docs/training-options.md."""
    lr_warmup_steps: Annotated[int, Field(ge=0)] | None = None
    """Steps in which the rate rises. By default 0."""
    guard: Literal["warn", "lower-rate", "stop"] | None = None
    """Looks for copies of the trained pictures at every validation, and does this when there are some."""
    resolution: Annotated[int, Field(ge=32, le=4096, multiple_of=16), Unit("px")] | None = None
    """Pictures are scaled to the area of a square of this side. By default 128."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    """Same seed and device: same weights."""
    set: tuple[str, ...] = ()
    """Changes a setting, NAME=VALUE, such as method_options.fraction=0.05; repeat it for several."""
    output_dir: Path | None = None
    """The run folder; by default runs/RECIPE or runs/METHOD."""


class ResumeRequest(RunRequest):
    """Goes on exactly where a run stopped."""

    run: Annotated[Path, Positional()]
    """The run folder."""
    max_train_steps: Annotated[int, Field(ge=1)] | None = None
    """Makes a fine-tuning run longer or shorter: steps in all. Where its method chooses anew stays as it was."""


class RecipesRequest(Request):
    """Lists the built-in recipes, those that made the mini weights among them."""


def run_train(request: TrainRequest, console: Console) -> Result:
    """Starts a run."""
    if request.recipe is None:
        return _run_finetune(request, console)
    from training.recipes import RECIPES
    from training.recipes.run import load_recipes

    odd = [name for name in ("config", "guard", *_FINETUNE_FLAGS) if getattr(request, name)]
    if odd:
        flag = odd[0].replace("_", "-")
        raise RequestError(f"--{flag} is for fine-tuning and --recipe trains the mini family; give one of the two")
    load_recipes()
    if request.recipe not in list(RECIPES):
        hint = did_you_mean(request.recipe, RECIPES)
        raise RequestError(f"--recipe {request.recipe}: no such recipe{hint}; known are {', '.join(RECIPES)}")
    run = request.output_dir or Path("runs") / request.recipe
    if run.is_file():
        raise RequestError(f"--output-dir {run}: is a file; name a folder")
    return _follow(request.recipe, run, read_settings(request.set), request, console, resume=False)


_FINETUNE_FLAGS = {
    "pretrained_model_name_or_path": "model", "method": "method", "scope": "scope",
    "max_train_steps": "max_train_steps", "train_batch_size": "train_batch_size", "learning_rate": "learning_rate",
    "resolution": "resolution", "seed": "seed", "train_data_dir": "data", "trainable_share": "trainable_share",
    "task": "task", "gradient_accumulation_steps": "gradient_accumulation_steps",
    "gradient_checkpointing": "gradient_checkpointing", "mixed_precision": "mixed_precision",
    "weights_dtype": "weights_dtype", "lr_scheduler": "lr_scheduler", "lr_warmup_steps": "lr_warmup_steps",
}  # fmt: skip
"""Flags of fine-tuning, and the setting that each stands for."""


def _run_finetune(request: TrainRequest, console: Console) -> Result:
    flags: dict[str, Any] = {}
    for flag, name in _FINETUNE_FLAGS.items():
        value = getattr(request, flag)
        if value is not None and value is not False and value != ():  # 0 is a seed
            flags[name] = [{"folder": str(value.absolute())}] if name == "data" else value
    guard = {} if request.guard is None else {"guard.action": request.guard}
    config = finetune_config(request.config, {**guard, **read_settings(request.set)}, flags)
    run = request.output_dir or Path("runs") / config.method
    if run.is_file():
        raise RequestError(f"--output-dir {run}: is a file; name a folder")
    return _follow_finetune(config, run, request, console, resume=False)


def finetune_config(
    path: Path | None, settings: Mapping[str, Any], flags: Mapping[str, Any] | None = None
) -> "FinetuneConfig":
    """Puts a TOML file, flags and `--set` together, each going before the one before it.

    Raises:
        RequestError: a setting is unknown or wrong, or there is nothing to train on.
    """
    from training.finetune.config import FinetuneConfig, named_from_anywhere, read_config, set_value

    values = {**(read_config(path) if path else {}), **(flags or {})}
    for name, value in settings.items():
        set_value(values, name, value)
    values = named_from_anywhere(values, Path.cwd())
    if "data" not in values:
        raise RequestError(
            "there is nothing to train on: name a folder of pictures with --train-data-dir, [[data]] in a TOML file, "
            "or train a part of the mini family with --recipe"
        )
    config = make_request(FinetuneConfig, values)
    check_method(config.method, config.method_options)
    return config


def recipe_name(path: Path) -> str | None:
    """The recipe whose config.toml this is; None for a fine-tuning run's.

    Raises:
        ValueError: it cannot be read as TOML.
    """
    from training.finetune.config import read_config

    name = read_config(path).get("recipe")
    return name if isinstance(name, str) else None


def check_method(name: str, options: dict[str, Any]) -> None:
    """Words what is wrong with a method or its options."""
    from training.methods import METHODS

    if name not in METHODS:
        hint = did_you_mean(name, METHODS)
        raise RequestError(f"method {name}: no such method{hint}; known are {', '.join(METHODS)}")
    make_request(METHODS[name], options)


def _follow_finetune(
    config: "FinetuneConfig", run: Path, request: RunRequest, console: Console, *, resume: bool
) -> Result:
    from training.finetune.run import ADAPTER, finetune

    events = finetune(
        config, run, resume=resume, device=None if request.device == "auto" else request.device,
        time_limit_s=request.time_limit,
    )  # fmt: skip
    counts: dict[str, object] = {}
    result = _watch(events, f"training {config.method}", run, console, counts)
    adapter = run / ADAPTER
    return {**result, "method": config.method, **counts, "adapter": str(adapter) if result["complete"] else None}


def run_resume(request: ResumeRequest, console: Console) -> Result:
    """Resumes a run with the settings in its folder."""
    from training.recipes.run import read_run

    if not request.run.is_dir():
        raise RequestError(f"RUN {request.run}: no such folder")
    if (request.run / "config.toml").is_file():
        from training.finetune.run import read_finetune

        config = read_finetune(request.run)
        if config is not None:
            if request.max_train_steps is not None:
                _check_length(request.run, request.max_train_steps)
                config = config.model_copy(update={"max_train_steps": request.max_train_steps})
            return _follow_finetune(config, request.run, request, console, resume=True)
    name, settings = read_run(request.run)
    if request.max_train_steps is not None:
        raise RequestError(f"--max-train-steps: {request.run} is a run of the recipe {name}, whose length is fixed")
    return _follow(name, request.run, settings, request, console, resume=True)


def _check_length(run: Path, steps: int) -> None:
    from training.checkpoint import latest_checkpoint

    latest = latest_checkpoint(run)
    made = 0 if latest is None else int(latest.name.rpartition("-")[2])
    if steps < made:
        raise RequestError(f"--max-train-steps {steps}: {run} has made {made} steps; give as many or more")


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
    from training.recipes import run_recipe
    from training.recipes.run import make_recipe

    make_recipe(name, settings)  # a wrong setting is told before a folder is made
    events = run_recipe(
        name, run, settings, resume=resume, export_to=request.export_to, mini=request.mini,
        time_limit_s=request.time_limit, device=None if request.device == "auto" else request.device,
    )  # fmt: skip
    result = _watch(events, f"training {name}", run, console, {})
    return {**result, "recipe": name, "weights": str(run / "mini") if result["complete"] else None}


def _watch(
    events: "Iterable[Event]", stage: str, run: Path, console: Console, counts: dict[str, object]
) -> dict[str, object]:
    """Shows the events of a run until it ends; `counts` gets what its notes count.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed; the run has been saved.
    """
    from training.events import Evaluated, Finished, Guarded, Note, OutOfMemory, Saved, Skipped, Step

    began, made, losses = time.monotonic(), 0, dict[str, float]()
    last: Finished | None = None
    saved, guarded = "", dict[str, object]()
    with _stopped_by_ctrl_c(run, lambda: made) as pressed:
        for event in events:
            if isinstance(event, Step):
                made, losses = made + 1, event.losses
                worded = " ".join(f"{key} {value:.4g}" for key, value in losses.items())
                console.progress(Progress(stage=stage, done=event.step, total=event.total_steps, detail=worded))
            elif isinstance(event, Note):
                console.say(event.text)
                counts.update(event.counts)
            elif isinstance(event, Evaluated):
                console.say(f"step {event.step}: " + ", ".join(f"{k} {v:.4g}" for k, v in event.metrics.items()))
            elif isinstance(event, Guarded):
                guarded = {"guard": event.as_dict()}
                console.say(f"step {event.step}: {event.worded()}")
            elif isinstance(event, OutOfMemory):
                console.note(f"step {event.step}: out of memory; {event.remedy}, and the step is made again")
            elif isinstance(event, Skipped):
                console.note(f"step {event.step} skipped: its gradient was infinite; loss scale {event.scale:g}")
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
    if last.complete:
        state = "done" if last.reason == "all steps done" else last.reason
    else:
        state = f"stopped ({last.reason}); go on with `studio resume {run}`"
    console.say(f"{run}: {last.step} steps, {state}")
    seconds = time.monotonic() - began
    return {
        "run": str(run), "steps": last.step, "complete": last.complete, "reason": last.reason,
        "loss": losses.get("loss"), "losses": losses, "metrics": last.metrics,
        "seconds": round(seconds, 3), "seconds_per_step": round(seconds / made, 4) if made else None,
        "peak_memory_bytes": peak_memory_bytes(), **guarded,
    }  # fmt: skip


@contextmanager
def _stopped_by_ctrl_c(run: Path, made: Callable[[], int]) -> Iterator[list[int]]:
    """Turns the first Ctrl-C into the run's stop file, so that the loop saves after its step; a second one kills.

    Before the first step there is nothing to save, and loading may take long, so the first one ends it at once.
    """
    pressed: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        if not made():
            raise KeyboardInterrupt("interrupted before the first step; nothing is lost: the same command goes on")
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
