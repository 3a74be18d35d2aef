"""`studio verify-resume`: proof that a config's runs go on bit for bit."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from studio.cli.console import Console
from studio.cli.verb import Result, Verb
from studio.cli.verbs.train import finetune_config, read_settings, recipe_name
from studio.errors import FailedCheckError, RequestError
from studio.progress import Progress
from studio.requests import Device, Positional, Request

if TYPE_CHECKING:
    from training.verify import Start


class VerifyRequest(Request):
    """Proves that a run goes on bit for bit: N steps in one go against half of them, a resume, and the rest.

    Compares weights, optimizer, average, learning rates, data and random numbers; exit code 1 where any differs.
    """

    config: Annotated[Path | None, Positional()] = None
    """A TOML file with the settings of a fine-tuning run, or the config.toml of a run's folder."""
    recipe: Annotated[str, Field(min_length=1)] | None = None
    """Verifies this recipe instead, see `studio recipes`."""
    steps: Annotated[int, Field(ge=2)] = 8
    """N: the first steps of the run that are made, twice."""
    set: tuple[str, ...] = ()
    """Changes a setting, NAME=VALUE; repeat it for several."""
    device: Device = "auto"
    """auto, cpu, cuda or cuda:N. Only the CPU promises the same bits."""


def run_verify(request: VerifyRequest, console: Console) -> Result:
    """Runs the config in a temporary folder."""
    from training.verify import verify_resume

    if (request.config is None) == (request.recipe is None):
        raise RequestError("name a TOML file, or a recipe with --recipe: one of the two")
    name, most, start = _starter(request)
    if request.steps > most:
        raise RequestError(f"--steps {request.steps}: the run has {most}; use at most so many")

    def on_step(done: int, total: int) -> None:
        console.progress(Progress(stage=f"verifying {name}", done=done, total=total))

    with TemporaryDirectory(prefix="studio-verify-") as folder:
        verdict = verify_resume(start, Path(folder), request.steps, on_step=on_step)
    told = {
        "identical": verdict.identical, "config": name, "steps": verdict.steps, "stopped_at": verdict.stopped_at,
        "compared": verdict.compared, "differences": list(verdict.differences[:20]),
    }  # fmt: skip
    if verdict.differences:
        raise FailedCheckError(
            f"{name}: a run that stops at step {verdict.stopped_at} and goes on differs from one that does not; "
            f"first in {verdict.differences[0]} ({len(verdict.differences)} differences in all)",
            told,
        )
    numbers = sum(verdict.compared.values())
    console.say(
        f"{name}: identical, bit for bit: {verdict.steps} steps against {verdict.stopped_at} and "
        f"{verdict.steps - verdict.stopped_at}, {numbers:,} numbers compared"
    )
    return told


def _starter(request: VerifyRequest) -> "tuple[str, int, Start]":
    """The name of what is verified, its steps, and how its run is started."""
    device = None if request.device == "auto" else request.device
    settings = read_settings(request.set)
    recipe = request.recipe
    if request.config is not None and recipe is None:
        recipe = recipe_name(request.config)
        if recipe is not None:
            from training.recipes.run import read_run

            settings = {**read_run(request.config.parent)[1], **settings}
    if recipe is not None:
        return _recipe_starter(recipe, settings, device)
    from training.finetune.run import finetune

    config = finetune_config(request.config, settings)
    config = config.model_copy(update={"report_to": ()})

    def start(run: Path, *, resume: bool, on_batch: Any) -> Any:
        return finetune(config, run, resume=resume, device=device, on_batch=on_batch)

    return str(request.config), config.max_train_steps, start


def _recipe_starter(recipe: str, settings: dict[str, Any], device: str | None) -> "tuple[str, int, Start]":
    from training.recipes.run import make_recipe, run_recipe

    steps = make_recipe(recipe, settings).steps

    def start(run: Path, *, resume: bool, on_batch: Any) -> Any:
        return run_recipe(recipe, run, settings, resume=resume, device=device, on_batch=on_batch)

    return recipe, steps, start


VERB = Verb("verify-resume", VerifyRequest, run_verify)
