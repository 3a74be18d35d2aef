"""What the owner of a studio sets once: `settings.toml` in the runs folder, and variables of the environment."""

import os
import tomllib
from pathlib import Path
from typing import Any, Final

from pydantic import Field, ValidationError

from studio.errors import RequestError, did_you_mean
from studio.requests import Request
from studio.uploads.limits import Limits

FILE: Final = "settings.toml"
UPLOADS: Final = "STUDIO_UPLOADS_"
"""STUDIO_UPLOADS_PICTURE_MB=20 sets `uploads.picture_mb`."""
DATA: Final = "STUDIO_DATA"
"""Folders that are added to `data_folders`, separated as in $PATH."""


class Settings(Request):
    """The settings of a studio."""

    data_folders: tuple[Path, ...] = ()
    """Folders with pictures, videos and models that the pages may read, beside the runs."""
    hosts: tuple[str, ...] = ()
    """Names by which this studio is opened, where it stands behind a proxy: studio.example.org."""
    uploads: Limits = Field(default_factory=Limits)
    """Limits of uploads."""


def runs_folder() -> Path:
    """Where everything that is made lives: $STUDIO_RUNS, or runs here."""
    return Path(os.environ.get("STUDIO_RUNS") or "runs")


def studio_settings() -> Settings:
    """Reads the settings; the environment goes before the file.

    Raises:
        RequestError: the file is not TOML, or a value is wrong.
    """
    path = runs_folder() / FILE
    values: dict[str, Any] = {}
    if path.is_file():
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise RequestError(f"{path}: is not TOML ({error}); mend that line") from None
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


def _worded(error: ValidationError, path: Path, limits: dict[str, str]) -> str:
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    last = str(first["loc"][-1]) if first["loc"] else ""
    where = f"${UPLOADS}{last.upper()}" if last in limits else f"{path}: {name}"
    if first["type"] == "extra_forbidden":
        known = Limits.model_fields if name.startswith("uploads.") else Settings.model_fields
        return f"{where}: no such setting{did_you_mean(last, known)}; take it out"
    return f"{where}: {str(first['input'])[:60]!r}: {first['msg'].lower()}; correct it"
