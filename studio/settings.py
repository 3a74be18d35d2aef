"""What the studio is told once: kept in `settings.toml` of the runs folder, in a table for every room."""

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar, cast

from pydantic import BaseModel, Field, create_model

from studio.errors import RequestError
from studio.files import moved_in
from studio.requests import AnimateRequest, Request, Unit, make_request
from training.toml import dump_toml

FILE: Final = "settings.toml"
R = TypeVar("R", bound=BaseModel)


class StudioSettings(Request):
    """Where things are, and how long workers wait."""

    data_roots: tuple[Path, ...] = ()
    """Folders of training data that the pages offer, one in a line."""
    model_folders: tuple[Path, ...] = ()
    """Folders with models in diffusers layout; the library lists them. One in a line."""
    worker_idle_exit: Annotated[float, Field(ge=10, le=86_400), Unit("s")] = 600.0
    """A worker that the studio started ends after so long without a job."""


def _some_of(name: str, kind: type[BaseModel], fields: Sequence[str], about: str) -> type[Request]:
    """A model of some fields of another one, word for word."""
    chosen: dict[str, Any] = {
        field: (kind.model_fields[field].annotation, kind.model_fields[field]) for field in fields
    }
    return cast(type[Request], create_model(name, __base__=Request, __doc__=about, **chosen))


AnimateDefaults: Final = _some_of(
    "AnimateDefaults", AnimateRequest,
    ["model", "num_inference_steps", "guidance_scale", "scheduler", "fps", "detector", "negative_prompt", "device"],
    "What the Animate page begins with.",
)  # fmt: skip


def sections() -> dict[str, type[BaseModel]]:
    """The tables of the file: name -> what may stand in it."""
    found: dict[str, type[BaseModel]] = {"studio": StudioSettings, "animate": AnimateDefaults}
    from studio.uploads.limits import Limits

    found["limits"] = Limits
    return found


def read_settings(root: Path, section: str, kind: type[R]) -> R:
    """Reads one table of a runs folder's settings; what is not there is the default.

    Raises:
        RequestError: the file is damaged, or a value in it is wrong.
    """
    values = _read(root).get(section, {})
    if not isinstance(values, dict):
        raise RequestError(f"{root / FILE}: [{section}] must be a table; correct it, or delete the file")
    try:
        return make_request(kind, values)
    except RequestError as error:
        raise RequestError(f"{root / FILE}, [{section}]: {error}") from None


def write_settings(root: Path, section: str, values: BaseModel) -> Path:
    """Writes one table, what differs from the defaults; the others stay. All of it is written or nothing.

    Raises:
        RequestError: what is there already is damaged.
        OSError: the disk cannot be written.
    """
    known = _read(root)
    known[section] = values.model_dump(mode="json", exclude_defaults=True)
    with moved_in(root / FILE) as beside:
        beside.write_text(dump_toml(known), encoding="utf-8")
    return root / FILE


def _read(root: Path) -> dict[str, Any]:
    try:
        return tomllib.loads((root / FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise RequestError(f"{root / FILE} cannot be read: {error}; correct it, or delete it") from None
