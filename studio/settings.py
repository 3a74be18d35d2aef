"""What the owner of a studio sets once: `settings.toml` in the runs folder, and variables of the environment."""

import os
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final, cast

from pydantic import BaseModel, Field, ValidationError, create_model

from studio.errors import RequestError, did_you_mean
from studio.files import moved_in
from studio.requests import AnimateRequest, Request, Unit
from studio.uploads.limits import Limits
from training.toml import dump_toml

FILE: Final = "settings.toml"
UPLOADS: Final = "STUDIO_UPLOADS_"
"""STUDIO_UPLOADS_PICTURE_MB=20 sets `uploads.picture_mb`."""
DATA: Final = "STUDIO_DATA"
"""Folders that are added to `data_folders`, separated as in $PATH."""


def _some_of(name: str, kind: type[BaseModel], fields: Sequence[str], about: str) -> type[Request]:
    """A model of some fields of another one, word for word."""
    chosen: dict[str, Any] = {one: (kind.model_fields[one].annotation, kind.model_fields[one]) for one in fields}
    return cast(type[Request], create_model(name, __base__=Request, __doc__=about, **chosen))


AnimateDefaults: Final = _some_of(
    "AnimateDefaults",
    AnimateRequest,
    ["model", "num_inference_steps", "guidance_scale", "scheduler", "fps", "detector", "negative_prompt", "device"],
    "What the Animate and Background pages begin with.",
)


class Settings(Request):
    """The settings of a studio."""

    data_folders: tuple[Path, ...] = ()
    """Folders with pictures, videos and models that the pages may read, beside the runs."""
    hosts: tuple[str, ...] = ()
    """Names by which this studio is opened, where it stands behind a proxy: studio.example.org."""
    model_folders: tuple[Path, ...] = ()
    """Folders with models in diffusers layout; the library lists them."""
    worker_idle_exit: Annotated[float, Field(ge=10, le=86_400), Unit("s")] = 600.0
    """A worker that the studio started ends after so long without a job."""
    animate: AnimateDefaults = Field(default_factory=AnimateDefaults)  # type: ignore[valid-type]
    """What the Animate page begins with."""
    uploads: Limits = Field(default_factory=Limits)
    """Limits of uploads."""


def runs_folder() -> Path:
    """Where everything that is made lives: $STUDIO_RUNS, or runs here."""
    return Path(os.environ.get("STUDIO_RUNS") or "runs").absolute()


def studio_settings() -> Settings:
    """Reads the settings; the environment goes before the file.

    Raises:
        RequestError: the file is not TOML, or a value is wrong.
    """
    path = runs_folder() / FILE
    values = _values(path)
    limits = {name.removeprefix(UPLOADS).lower(): value for name, value in os.environ.items()
              if name.startswith(UPLOADS) and value}  # fmt: skip
    if limits and isinstance(values.get("uploads", {}), dict):
        values = {**values, "uploads": {**values.get("uploads", {}), **limits}}
    folders = [folder for folder in os.environ.get(DATA, "").split(os.pathsep) if folder]
    if folders and isinstance(values.get("data_folders", []), list):
        values = {**values, "data_folders": [*values.get("data_folders", []), *folders]}
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise RequestError(_worded(error, path, limits)) from None


def file_settings() -> Settings:
    """Reads what the file alone says, which is what a form changes.

    Raises:
        RequestError: the file is not TOML, or a value is wrong.
    """
    path = runs_folder() / FILE
    try:
        return Settings.model_validate(_values(path))
    except ValidationError as error:
        raise RequestError(_worded(error, path, {})) from None


def idle_exit_of_settings() -> float:
    """How long a worker waits for a job, in seconds; settings that cannot be read do not keep it from starting."""
    return _or_defaults().worker_idle_exit


def animate_defaults() -> dict[str, Any]:
    """What the Animate and Background pages begin with, where it is not the fields' own default, by their names."""
    return cast(Request, _or_defaults().animate).model_dump(exclude_defaults=True)


def _or_defaults() -> Settings:
    """The settings; wrong ones are told by the System page and by `studio doctor`, and do not count here."""
    try:
        return studio_settings()
    except RequestError:
        return Settings()


def write_settings(settings: Settings) -> Path:
    """Writes what differs from the defaults; the whole file or nothing of it.

    Raises:
        OSError: the disk cannot be written.
    """
    path = runs_folder() / FILE
    with moved_in(path) as beside:
        beside.write_text(dump_toml(settings.model_dump(mode="json", exclude_defaults=True)), encoding="utf-8")
    return path


def set_by_environment() -> tuple[str, ...]:
    """The variables that go before the file, those that are set."""
    limits = sorted(name for name, value in os.environ.items() if name.startswith(UPLOADS) and value)
    return tuple([name for name in (DATA,) if os.environ.get(name)] + limits)


def _values(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RequestError(f"{path}: is not TOML ({error}); mend that line") from None


def _worded(error: ValidationError, path: Path, limits: dict[str, str]) -> str:
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    last = str(first["loc"][-1]) if first["loc"] else ""
    where = f"${UPLOADS}{last.upper()}" if last in limits else f"{path}: {name}"
    if first["type"] == "extra_forbidden":
        known = Limits.model_fields if name.startswith("uploads.") else Settings.model_fields
        return f"{where}: no such setting{did_you_mean(last, known)}; take it out"
    return f"{where}: {str(first['input'])[:60]!r}: {first['msg'].lower()}; correct it"
