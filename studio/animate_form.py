"""From what a person chose on the Animate and Background pages to a command, and back again."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pose.adjustment import Adjustment
from studio.characters import CHARACTERS
from studio.cli.flags import parse_flags
from studio.cli.words import words_for
from studio.errors import RequestError
from studio.jobs import Job
from studio.requests import AnimateRequest, BackgroundRequest, SamplingRequest

MOST_SEEDS: Final = 16
OUTPUT: Final = "animation.mp4"
LIVE: Final = "live.png"


def animate_words(values: Mapping[str, Any], folder: Path) -> list[str]:
    """The command of the Animate page; what it makes goes into `folder`.

    Raises:
        RequestError: a value is wrong.
    """
    return words_for("animate", AnimateRequest, {**values, **_made_in(folder)})


def background_words(values: Mapping[str, Any], folder: Path) -> list[str]:
    """The command of the Background page.

    Raises:
        RequestError: a value is wrong.
    """
    return words_for("background", BackgroundRequest, {**values, **_made_in(folder)})


def _made_in(folder: Path) -> dict[str, Any]:
    return {"output": folder / OUTPUT, "preview": True, "live": folder / LIVE}


def settings_of(job: Job) -> dict[str, Any]:
    """What a job was asked, by the fields' names, without where it wrote: to be asked again, changed.

    Raises:
        RequestError: it is neither an animation nor a background.
    """
    kinds: dict[str, type[SamplingRequest]] = {"animate": AnimateRequest, "background": BackgroundRequest}
    if job.kind not in kinds:
        raise RequestError(f"job {job.id} is {job.kind!r}; only animations and backgrounds have settings to use again")
    request = parse_flags(f"studio {job.kind}", kinds[job.kind], job.words[1:])
    left_out = {"output", "preview", "live"}
    return {name: getattr(request, name) for name in kinds[job.kind].model_fields if name not in left_out}


def seeds_from(first: int, count: int) -> list[int]:
    """The seeds of a grid."""
    return list(range(first, first + count))


def is_bundled(picture: str | Path) -> bool:
    """Whether a picture is a bundled character."""
    return str(picture) in CHARACTERS


def adjustment_of(values: Mapping[str, float]) -> Adjustment:
    """The sliders as an adjustment."""
    return Adjustment(**{name: round(value, 3) for name, value in values.items()})


def estimate(done: Sequence[Job], *, model: str, frames: int) -> tuple[float, float] | None:
    """Seconds and peak bytes of an animation, from the last ones of the same model; None where there are none.

    The time is taken to grow with the number of frames.
    """
    rates, peaks = [], []
    for job in done:
        facts = job.result
        if facts.get("model") == model and facts.get("frames") and facts.get("seconds"):
            rates.append(float(facts["seconds"]) / int(facts["frames"]))
            peaks.append(float(facts["peak_memory_bytes"]))
    if not rates:
        return None
    rates.sort()
    return rates[len(rates) // 2] * frames, max(peaks)
