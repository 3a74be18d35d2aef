"""Checkpoints that are whole or absent: staged beside their place, hashed, synced, then renamed in."""

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

from training.disk import write_text
from training.hashing import file_sha256

LATEST = "latest"
SUMS = "SHA256SUMS"
"""The hashes of a checkpoint's files, as `sha256sum -c` reads them."""
_OLDER = f"write the name of an older checkpoint into the file {LATEST!r} beside it"
_NAME = re.compile(r"checkpoint-(\d+)")
_REPLACED = re.compile(r"\.checkpoint-(\d+)\.replaced\.tmp")


class CheckpointError(ValueError):
    """A checkpoint is missing, damaged or of another run."""


class SaveError(RuntimeError):
    """A checkpoint could not be written: the disk is full, or not there any more."""


def save_checkpoint(
    run: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any], *, keep: int
) -> Path:
    """Writes `checkpoint-N` with one safetensors file a name, then points `latest` to it and drops old ones.

    Raises:
        SaveError: it cannot be written; what was there before is as it was.
    """
    final = run / f"checkpoint-{step}"
    staged = run / f".checkpoint-{step}.tmp"
    try:
        _write(staged, tensors, {**state, "step": step})
        if final.exists():
            replaced = run / f".{final.name}.replaced.tmp"
            # one that was killed while it did the same may have left the one before
            shutil.rmtree(replaced, ignore_errors=True)
            final.rename(replaced)
        staged.rename(final)
        _sync(run)
        write_text(run / LATEST, final.name)
        _sync(run)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(staged, ignore_errors=True)
        raise SaveError(_not_written(run, step, error)) from error
    numbered = {path: int(match[1]) for path in run.iterdir() if (match := _NAME.fullmatch(path.name))}
    old = sorted(numbered, key=numbered.__getitem__)[: -max(1, keep)]
    # also what earlier processes left half written
    for path in [*old, *run.glob(".checkpoint-*.tmp")]:
        if path != final:
            shutil.rmtree(path)
    return final


def _write(folder: Path, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> None:
    """Writes a checkpoint's files and their hashes, and sees them to the disk."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, group in tensors.items():
        path = folder / f"{name}.safetensors"
        save_file({k: v.detach().cpu().contiguous() for k, v in group.items()}, path)
        _sync(path)
    write_text(folder / "state.json", json.dumps(state, indent=2))
    write_text(folder / SUMS, "".join(f"{file_sha256(path)}  {path.name}\n" for path in sorted(folder.iterdir())))
    _sync(folder)


def _not_written(run: Path, step: int, error: Exception) -> str:
    good = [path.name for path in _candidates(run)]
    rest = f"the last whole one is {run / good[0]}" if good else "there is none yet"
    return (
        f"checkpoint-{step} could not be written to {run}: {error}; {rest}. "
        f"Make space, then go on with `studio resume {run}`"
    )


def why_damaged(path: Path) -> str | None:
    """What is wrong with a checkpoint's files; None where each has its hash, or where it is too old to have any."""
    if not (path / "state.json").is_file():
        return "state.json is missing"
    if not (path / SUMS).is_file():
        return None
    for line in (path / SUMS).read_text(encoding="utf-8", errors="replace").splitlines():
        wanted, _, name = line.partition("  ")
        file = path / name
        if not name or not file.is_file():
            return f"{name or SUMS} is missing"
        if file_sha256(file) != wanted:
            return f"{name} does not have its hash"
    return None


def whole_checkpoint(run: Path) -> tuple[Path | None, list[str]]:
    """Finds the checkpoint to go on from: the one that `latest` names, or where that is damaged the newest whole one.

    `latest` names it afterwards. Damaged ones are put aside as `damaged-checkpoint-N`, each with a sentence that says
    so; None where there never was one.

    Raises:
        CheckpointError: all are damaged.
    """
    notes: list[str] = []
    if not (run / LATEST).is_file():
        return None, notes
    named = run / (run / LATEST).read_text(encoding="utf-8").strip()
    tried = [named, *(path for path in _candidates(run) if path != named)]
    for path in tried:
        why = why_damaged(path) if path.is_dir() else "it is missing"
        if why is None:
            if path != named:
                path = _reinstate(run, path)
                notes.append(f"going on from {path.name} instead")
            return path, notes
        notes.append(f"{path.name} is damaged: {why}")
    raise CheckpointError(f"{run} has no whole checkpoint: {'; '.join(notes)}; begin anew in another folder")


def _reinstate(run: Path, path: Path) -> Path:
    """Makes an older checkpoint the one that `latest` names, and puts newer, damaged ones out of the way."""
    number = _number(path)
    final = run / f"checkpoint-{number}"
    for other in _candidates(run):
        if _number(other) >= number and other != path:
            shutil.rmtree(run / f"damaged-checkpoint-{_number(other)}", ignore_errors=True)
            other.rename(run / f"damaged-checkpoint-{_number(other)}")
    if path != final:
        path.rename(final)
    write_text(run / LATEST, final.name)
    _sync(run)
    return final


def _candidates(run: Path) -> list[Path]:
    """All checkpoints of a run, the newest first; one that was about to be replaced is as good as another."""
    found = [path for path in run.iterdir() if _NAME.fullmatch(path.name) or _REPLACED.fullmatch(path.name)]
    return sorted(found, key=lambda path: (_number(path), not path.name.startswith(".")), reverse=True)


def _number(path: Path) -> int:
    match = _NAME.fullmatch(path.name) or _REPLACED.fullmatch(path.name)
    assert match is not None
    return int(match[1])


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
