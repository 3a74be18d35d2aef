"""Reads what files say of themselves: sidecars of videos, configs of runs, heads of adapter files. Never weights."""

import json
import struct
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from studio.library.walk import Spot

SIDECAR: Final = "animatex-studio/animation"
ADAPTER: Final = "animatex-studio adapter 1"
POSE: Final = '"animatex-studio/pose"'
_LARGEST_HEAD: Final = 16 << 20
_LARGEST_JSON: Final = 8 << 20
"""Bytes; a file from outside is not to be trusted."""


@dataclass(frozen=True, kw_only=True)
class Told:
    """What the index keeps of a thing."""

    title: str
    prompt: str = ""
    model: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


def read(spot: Spot, *, known: bool = False) -> Told | None:
    """Reads what is at a place; None where it turns out to be none of ours.

    Args:
        known: a job said that it made it, so a video without a sidecar counts too.
    """
    if spot.root == "bundled" and spot.kind != "model":
        return Told(title=spot.title, prompt=spot.about)
    match spot.kind:
        case "result":
            return _result(spot, known)
        case "adapter":
            return _adapter(spot)
        case "run":
            return _run(spot)
        case "study":
            return _study(spot)
        case "model":
            return _model(spot)
        case "motion":
            return Told(title=spot.place.stem) if _is_pose(spot.place) else None
        case "character":
            return Told(title=spot.place.stem)


def sidecar_of(video: Path) -> dict[str, Any] | None:
    """How a video was made, as `studio animate` wrote it down; None where nobody did, or not in a way we know."""
    found = json_of(video.with_suffix(".json"))
    return found if found is not None and found.get("schema") == SIDECAR else None


def json_of(path: Path) -> dict[str, Any] | None:
    """A JSON object of a file; None where there is none, or it is damaged."""
    try:
        if path.stat().st_size > _LARGEST_JSON:
            return None
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def adapter_head(path: Path) -> dict[str, str] | None:
    """What an adapter file says of itself, from its first bytes; None where it is none of ours."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > _LARGEST_HEAD:
                return None
            head = json.loads(file.read(length))
    except (OSError, struct.error, ValueError, RecursionError):
        return None
    told = head.get("__metadata__") if isinstance(head, dict) else None
    if not isinstance(told, dict) or told.get("format") != ADAPTER:
        return None
    return {str(name): str(value) for name, value in told.items()}


def run_config(folder: Path) -> dict[str, Any]:
    """The settings of a run; empty where they cannot be read."""
    try:
        return tomllib.loads((folder / "config.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}


def _result(spot: Spot, known: bool) -> Told | None:
    told = sidecar_of(spot.place)
    if told is None:
        return Told(title=spot.place.stem) if known else None
    request, output = _mapping(told.get("request")), _mapping(told.get("output"))
    who = Path(str(request.get("reference") or request.get("image") or spot.place.stem)).stem
    how = Path(str(request["driving"])).stem if request.get("driving") else "background"
    facts = {"seed": request.get("seed"), "frames": output.get("frames"), "width": output.get("width"),
             "height": output.get("height"), "fps": output.get("fps"),
             "adapters": [Path(str(one)).name for one in request.get("adapter") or ()]}  # fmt: skip
    return Told(title=f"{who} · {how}", prompt=str(request.get("prompt") or ""), model=str(request.get("model") or ""),
                facts={name: value for name, value in facts.items() if value not in (None, [])})  # fmt: skip


def _adapter(spot: Spot) -> Told | None:
    told = adapter_head(spot.place)
    if told is None:
        return None
    notes = _mapping(_loads(told.get("notes")))
    title = spot.place.parent.name if spot.place.name == "adapter.safetensors" else spot.place.stem
    return Told(title=title, model=str(notes.get("base") or ""), prompt=str(notes.get("trigger") or ""),
                facts={"method": told.get("method", "")})  # fmt: skip


def _run(spot: Spot) -> Told:
    config = run_config(spot.place)
    if "recipe" in config:
        return Told(title=spot.place.name, model=str(config["recipe"]),
                    facts={"method": f"recipe {config['recipe']}", **_last(spot.place)})  # fmt: skip
    tune = _mapping(config.get("finetune"))
    prompts = tune.get("prompts") or tune.get("validation_prompts") or ()
    return Told(
        title=spot.place.name, model=str(tune.get("model") or ""),
        prompt=" · ".join(map(str, prompts)) if isinstance(prompts, list) else str(prompts),
        facts={"method": str(tune.get("method") or ""), **_last(spot.place)},
    )  # fmt: skip


def _last(folder: Path) -> dict[str, Any]:
    """How far a run came, from the end of its events."""
    from studio.jobs.job import tail

    found: dict[str, Any] = {"complete": False}
    for line in reversed(tail(folder / "events.jsonl").splitlines()):
        event = _loads(line)
        if not isinstance(event, dict):
            continue
        if event.get("event") == "finished":
            found["complete"] = bool(event.get("complete"))
        if event.get("event") in ("step", "finished"):
            found.setdefault("steps", event.get("step"))
        if event.get("event") == "step":
            found["loss"] = _mapping(event.get("losses")).get("loss")
            break
    return {name: value for name, value in found.items() if value is not None}


def _study(spot: Spot) -> Told:
    if (compared := json_of(spot.place / "comparison.json")) is not None:
        config = _mapping(compared.get("config")) or compared
        return Told(title=spot.place.name, model=str(config.get("model") or ""), facts={"what": "comparison"})
    setup = json_of(spot.place / "setup.json") or {}
    config = _mapping(setup.get("config"))
    strategy = _mapping(setup.get("search")).get("strategy")
    facts = {"what": "search", "method": str(config.get("method") or ""), "strategy": str(strategy or "")}
    return Told(title=spot.place.name, model=str(config.get("model") or ""), facts=facts)


def _model(spot: Spot) -> Told:
    index = json_of(spot.place / "model_index.json") or {}
    title = spot.title or (spot.place.name if spot.place.name != "mini" else f"{spot.place.parent.name} (mini)")
    return Told(title=title, prompt=spot.about, model=str(spot.place) if spot.root != "bundled" else spot.title,
                facts={"pipeline": str(index.get("_class_name") or "")})  # fmt: skip


def _is_pose(path: Path) -> bool:
    try:
        with path.open("r", encoding="utf-8") as file:
            return POSE in file.read(300)
    except (OSError, UnicodeDecodeError):
        return False


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _loads(text: str | None) -> Any:
    try:
        return json.loads(text or "null")
    except (ValueError, RecursionError):
        return None
