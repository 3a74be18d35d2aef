"""Programs that show a run: each reads the run's events and knows nothing of the loop.

None is on unless it is asked for, and none goes to the network: W&B runs offline (`wandb sync RUN/wandb/...` uploads
later) unless WANDB_MODE says otherwise, and trackio keeps a database on this machine.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from textwrap import indent
from typing import Any, Final, Literal, Protocol, runtime_checkable

import numpy as np
from PIL import Image

from pose.registry import Registry
from training.events import Evaluated, Event, Guarded, Sampled, Skipped, Step
from training.toml import dump_toml

TrackerName = Literal["tensorboard", "wandb", "trackio"]


@runtime_checkable
class Tracker(Protocol):
    """Takes the events of a run, in order."""

    def take(self, event: Event) -> None:
        """Shows one."""
        ...

    def close(self) -> None:
        """Writes what is left."""
        ...


TRACKERS: Final[Registry[Callable[[Path, Mapping[str, Any]], Tracker]]] = Registry("tracker")
"""Each makes a tracker for a run's folder and config."""

_PACKAGES: Final = {
    "tensorboard": ("tensorboard", "tensorboard"), "wandb": ("wandb", "animatex-studio[wandb]"),
    "trackio": ("trackio", "animatex-studio[trackio]"),
}  # fmt: skip
"""What each needs to be importable, and what brings it."""


def check_trackers(names: Iterable[str]) -> None:
    """Looks whether what is asked for is installed.

    Raises:
        ValueError: a tracker's package is not.
    """
    for name in names:
        module, package = _PACKAGES[name]
        if find_spec(module) is None:
            raise ValueError(f"report_to {name}: {module} is not installed; pip install '{package}'")


def numbers_of(event: Event) -> dict[str, float]:
    """The curves that an event adds a point to, by name."""
    match event:
        case Step():
            losses = {f"train/{name}": value for name, value in event.losses.items()}
            return {
                **losses, "train/learning_rate": event.learning_rate, "train/seconds_per_step": event.seconds,
                "train/peak_memory_gib": event.peak_bytes / 2**30,
            }  # fmt: skip
        case Evaluated():
            return {f"validation/{name}": value for name, value in event.metrics.items()}
        case Guarded():
            names = ("copy_rate", "low", "high", "background", "loss_gap")
            return {f"guard/{name}": float(getattr(event, name)) for name in names}
        case Skipped():
            return {"train/loss_scale": event.scale, "train/skipped_steps": float(event.skipped)}
    return {}


def picture_of(event: Event) -> tuple[str, str, tuple[str, ...]] | None:
    """The picture that an event brings: its name, its file and the words to it."""
    match event:
        case Sampled():
            return "samples", event.path, event.prompts
        case Guarded():
            return "guard", event.path, (event.worded(),)
    return None


@TRACKERS.register("tensorboard")
class TensorBoard:
    """Event files in RUN/tensorboard; `tensorboard --logdir RUN` shows them."""

    def __init__(self, run: Path, config: Mapping[str, Any]) -> None:
        self._folder = run / "tensorboard"
        self._config = config
        self._writer: Any = None

    def take(self, event: Event) -> None:
        """Adds scalars and pictures."""
        numbers, picture = numbers_of(event), picture_of(event)
        if not numbers and picture is None:
            return
        writer = self._open(event.step)
        for name, value in numbers.items():
            writer.add_scalar(name, value, event.step)
        if picture is not None:
            name, path, words = picture
            pixels = np.asarray(Image.open(path).convert("RGB"))
            writer.add_image(name, pixels, event.step, dataformats="HWC")
            writer.add_text(f"{name}/prompts" if name == "samples" else f"{name}/words", "\n\n".join(words), event.step)
        writer.flush()

    def close(self) -> None:
        """Closes the event file."""
        if self._writer is not None:
            self._writer.close()

    def _open(self, step: int) -> Any:
        """Opens a file when there is something to write; points of a run that was killed after its checkpoint go."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._folder), purge_step=step)
            self._writer.add_text("config", indent(dump_toml(self._config), "    "), step)
        return self._writer


class _Client:
    """W&B and trackio, which have the same calls."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def take(self, event: Event) -> None:
        """Logs scalars and pictures."""
        numbers: dict[str, Any] = dict(numbers_of(event))
        picture = picture_of(event)
        if picture is not None:
            name, path, words = picture
            numbers[name] = self._client.Image(path, caption=" | ".join(words))
        if numbers:
            self._client.log(numbers, step=event.step)

    def close(self) -> None:
        """Ends the run."""
        self._client.finish()


@TRACKERS.register("wandb")
def make_wandb(run: Path, config: Mapping[str, Any]) -> Tracker:
    """Files in RUN/wandb, offline unless WANDB_MODE says otherwise."""
    import wandb

    mode: Any = os.environ.get("WANDB_MODE", "offline")
    wandb.init(project="animatex-studio", name=run.name, dir=str(run), config=dict(config), mode=mode)
    return _Client(wandb)


@TRACKERS.register("trackio")
def make_trackio(run: Path, config: Mapping[str, Any]) -> Tracker:
    """Trackio's database on this machine; `trackio show` opens it."""
    import trackio

    trackio.init(project="animatex-studio", name=run.name, config=dict(config))
    return _Client(trackio)


def open_trackers(names: Iterable[str], run: Path, config: Mapping[str, Any]) -> list[Tracker]:
    """Makes the trackers of a run.

    Raises:
        ValueError: a tracker's package is not installed.
    """
    check_trackers(names)
    return [TRACKERS[name](run, config) for name in names]
