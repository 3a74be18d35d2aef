"""How a thing was made: what a page shows of it, the command that makes it again, and the settings to start from."""

import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from studio.cli.words import words_for
from studio.errors import RequestError
from studio.jobs.queue import Queue
from studio.library.read import adapter_head, json_of, run_config, sidecar_of
from studio.library.thing import Thing
from studio.requests import AnimateRequest, BackgroundRequest, SamplingRequest, make_request

_PATHS = ("reference", "image", "driving", "reference_pose", "output")
_NOT_AGAIN = ("output", "preview", "live")
"""Where an animation went is its own; the next one finds its own place."""


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """All that is known of how a thing came to be."""

    rows: tuple[tuple[str, str], ...]
    """Name and value, in the order to show them."""
    command: str = ""
    """Makes it again; empty where there is no command."""
    page: str = ""
    """The page that can start from it."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """For the fields of that page."""
    notes: tuple[str, ...] = ()


def provenance(thing: Thing, queue: Queue) -> Provenance:
    """Reads how a thing was made, from its files and its job."""
    match thing.kind:
        case "result":
            return _result(thing, queue)
        case "adapter":
            return _adapter(thing, queue)
        case "run":
            return _run(thing, queue)
        case "study":
            return _study(thing, queue)
        case "character":
            name = thing.title if thing.root == "bundled" else str(thing.place)
            return Provenance(rows=_common(thing), page="animate", values={"reference": name})
        case "motion":
            name = thing.title if thing.root == "bundled" else str(thing.place)
            return Provenance(rows=_common(thing), page="animate", values={"driving": name})
        case "model":
            name = "mini" if thing.root == "bundled" else str(thing.place)
            return Provenance(rows=_common(thing), page="animate", values={"model": name})


def _result(thing: Thing, queue: Queue) -> Provenance:
    told = sidecar_of(thing.place)
    job_command, directory = _job(thing, queue)
    if told is None:
        return Provenance(rows=_common(thing), command=job_command)
    request = {name: value for name, value in _mapping(told.get("request")).items() if value is not None}
    output, metrics = _mapping(told.get("output")), _mapping(told.get("metrics"))
    is_background = "image" in request
    settings = {name: value for name, value in request.items() if value not in ("", [], False) and name != "prompt"}
    rows = [
        ("Prompt", str(request.get("prompt") or "none")), *_common(thing),
        ("Video", f"{output.get('frames')} frames of {output.get('width')}x{output.get('height')} at "
                  f"{_number(output.get('fps'))} frames/s"),
        *((_label(name), _worded(value)) for name, value in settings.items()),
        *((f"Hash of {name}", str(one.get("sha256"))) for name, one in _mapping(told.get("inputs")).items()
          if isinstance(one, dict) and one.get("sha256")),
        *((f"Weights of {name}", str(digest)) for name, digest in _mapping(told.get("weights")).items()),
        ("Hash of the video", str(output.get("sha256") or "unknown")),
        *((_label(name), _number(value)) for name, value in metrics.items() if value is not None),
        *((f"Version of {name}", str(value)) for name, value in _mapping(told.get("software")).items()),
    ]  # fmt: skip
    values = {name: _from(directory, value) if name in _PATHS else value for name, value in request.items()}
    verb: str = "background" if is_background else "animate"
    kind: type[SamplingRequest] = BackgroundRequest if is_background else AnimateRequest
    offered: dict[str, Any] = {}
    try:
        asked = make_request(kind, values)
        command = f"studio {shlex.join(words_for(verb, kind, values))}"
        offered = {name: getattr(asked, name) for name in kind.model_fields if name not in _NOT_AGAIN}
    except RequestError:
        command = job_command  # of another version; the job's own words still say it
    return Provenance(rows=tuple(rows), command=command, page=verb if offered else "", values=offered,
                      notes=tuple(map(str, told.get("notes") or ())))  # fmt: skip


def _adapter(thing: Thing, queue: Queue) -> Provenance:
    head = adapter_head(thing.place) or {}
    run = thing.place.parent if (thing.place.parent / "config.toml").is_file() else None
    rows = [*_common(thing), *((_label(name), value) for name, value in head.items() if value and name != "format")]
    command = _job(thing, queue)[0] or (_again(run) if run is not None else "")
    values: dict[str, Any] = {"adapter": (str(thing.place),)}
    if thing.model:
        values["model"] = thing.model
    return Provenance(rows=tuple(rows), command=command, page="animate", values=values)


def _run(thing: Thing, queue: Queue) -> Provenance:
    config = run_config(thing.place)
    settings = _mapping(config.get("finetune")) or _mapping(config.get("settings"))
    rows = [*_common(thing), *((_label(name), _worded(value)) for name, value in settings.items())]
    page, values = ("fine_tune", {"settings": settings}) if config.get("finetune") else ("", {})
    return Provenance(rows=tuple(rows), command=_job(thing, queue)[0] or _again(thing.place), page=page,
                      values=values)  # fmt: skip


def _study(thing: Thing, queue: Queue) -> Provenance:
    setup = json_of(thing.place / "setup.json") or json_of(thing.place / "comparison.json") or {}
    settings = {**_mapping(setup.get("config")), **_mapping(setup.get("search"))} or setup
    rows = [*_common(thing), *((_label(name), _worded(value)) for name, value in settings.items())]
    is_search = (thing.place / "setup.json").is_file()
    return Provenance(rows=tuple(rows), command=_job(thing, queue)[0], page="search" if is_search else "",
                      values={"study": str(thing.place)} if is_search else {})  # fmt: skip


def _again(run: Path) -> str:
    return f"studio train {shlex.quote(str(run / 'config.toml'))} --output-dir {shlex.quote(f'{run}-again')}"


def _common(thing: Thing) -> tuple[tuple[str, str], ...]:
    made = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(thing.made_at)) if thing.made_at else "with the studio"
    rows = [
        ("Made", made),
        ("Where", str(thing.place) if thing.kind != "motion" or not thing.is_bundled else "bundled"),
    ]
    if thing.job is not None:
        rows.append(("Job", str(thing.job)))
    if thing.prompt and thing.kind != "result":
        rows.insert(0, ("About", thing.prompt))
    return tuple(rows)


def _job(thing: Thing, queue: Queue) -> tuple[str, Path | None]:
    """The command of the job that made it, and where its relative paths begin."""
    if thing.job is None:
        return "", None
    try:
        job = queue.job(thing.job)
    except RequestError:  # it was forgotten
        return "", None
    return job.command, job.directory


def _from(directory: Path | None, value: Any) -> Any:
    """A path as it can be used from anywhere; a bundled name stays one."""
    if directory is None or not isinstance(value, str) or not (directory / value).exists():
        return value
    return str(directory / value)


def _label(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _worded(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_worded, value)) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{name} = {_worded(one)}" for name, one in value.items()) or "none"
    return str(value)


def _number(value: Any) -> str:
    return f"{value:,.10g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
