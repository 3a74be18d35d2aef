"""Checkpoints that are whole or absent: staged beside their place, synced, then renamed in."""

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

LATEST = "latest"
_OLDER = f"write the name of an older checkpoint into the file {LATEST!r} beside it"
_NAME = re.compile(r"checkpoint-(\d+)")


class CheckpointError(ValueError):
    """A checkpoint is missing, damaged or of another run."""


def write_text(path: Path, text: str) -> None:
    """Writes a small file beside its place and moves it in."""
    staged = path.with_name(f".{path.name}.tmp")
    with staged.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    staged.replace(path)


def save_checkpoint(
    run: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any], *, keep: int
) -> Path:
    """Writes `checkpoint-N` with one safetensors file a name, then points `latest` to it and drops old ones."""
    final = run / f"checkpoint-{step}"
    staged = run / f".checkpoint-{step}.tmp"
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    for name, group in tensors.items():
        path = staged / f"{name}.safetensors"
        save_file({k: v.detach().cpu().contiguous() for k, v in group.items()}, path)
        _sync(path)
    write_text(staged / "state.json", json.dumps({**state, "step": step}, indent=2))
    _sync(staged)
    if final.exists():
        final.rename(run / f".{final.name}.replaced.tmp")
    staged.rename(final)
    write_text(run / LATEST, final.name)
    _sync(run)
    numbered = {path: int(match[1]) for path in run.iterdir() if (match := _NAME.fullmatch(path.name))}
    old = sorted(numbered, key=numbered.__getitem__)[: -max(1, keep)]
    # also what earlier processes left half written
    for path in [*old, *run.glob(".checkpoint-*.tmp")]:
        if path != final:
            shutil.rmtree(path)
    return final


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def latest_checkpoint(run: Path) -> Path | None:
    """Finds the newest whole checkpoint of a run, or None."""
    pointer = run / LATEST
    if not pointer.exists():
        return None
    path = run / pointer.read_text(encoding="utf-8").strip()
    if not (path / "state.json").exists():
        raise CheckpointError(
            f"{pointer} names {path.name}, which is not in {run}; write the name of another checkpoint into it"
        )
    return path


def load_checkpoint(
    path: Path, device: torch.device | str = "cpu"
) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Reads every safetensors file and the state of a checkpoint.

    Raises:
        CheckpointError: a file is damaged or missing.
    """
    device = torch.device(device)
    # one of several processes without a GPU is given "cpu:0", which safetensors does not know
    where = "cpu" if device.type == "cpu" else str(device)
    try:
        tensors = {file.stem: load_file(file, device=where) for file in sorted(path.glob("*.safetensors"))}
        state = json.loads((path / "state.json").read_text(encoding="utf-8"))
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"checkpoint {path} cannot be read: {error}; {_OLDER}") from error
    for name in ("model", "average"):
        if name not in tensors:
            raise CheckpointError(f"checkpoint {path} has no {name}.safetensors; {_OLDER}")
    if not isinstance(state, dict) or not {"step", "fingerprint"} <= state.keys():
        raise CheckpointError(f"checkpoint {path}: state.json does not tell the step and the fingerprint; {_OLDER}")
    return tensors, state
