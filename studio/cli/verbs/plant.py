"""`studio data plant`."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from studio.cli.console import Console
from studio.cli.verb import Result, Verb
from studio.errors import RequestError
from studio.requests import Positional, Request, Seed


class PlantRequest(Request):
    """Copies a data folder and plants canaries in it: pictures that come many times, under captions of their own.

    A run on the copy shows what `studio evaluate memorization` can detect: it ranks the canaries by their repeats.
    """

    folder: Annotated[Path, Positional()]
    """The data folder; it stays as it is."""
    output: Path
    """The folder to write: all pictures and videos with their captions in metadata.jsonl, and canaries.json."""
    repeats: Annotated[str, Field(pattern=r"^\d+(,\d+)*$")] = "1,2,5,10,20,50"
    """How often canaries come, in numbers with commas between them."""
    count: Annotated[int, Field(ge=1, le=1000)] = 2
    """Canaries of each number of repeats."""
    seed: Seed = 0
    """Which pictures are taken, and their captions."""


def run(request: PlantRequest, console: Console) -> Result:
    """Plants, and says what was planted."""
    from training.finetune.data.plant import plant

    repeats = [int(word) for word in request.repeats.split(",")]
    if min(repeats) < 1 or max(repeats) > 10_000:
        raise RequestError(f"--repeats {request.repeats}: every number must be 1 to 10000")
    planted = plant(request.folder, request.output, repeats=repeats, count=request.count, seed=request.seed)
    for canary in planted:
        console.say(f"{canary.repeats:>5} x {canary.file}: {canary.caption}")
    return {"output": str(request.output), "canaries": [vars(canary) for canary in planted]}


VERB = Verb("data plant", PlantRequest, run)
