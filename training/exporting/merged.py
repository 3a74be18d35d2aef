"""A pipeline's folder with an adapter folded into its network."""

import math
import shutil
from collections.abc import Mapping
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from models.components import load_component
from models.loading import check_folder
from training.exporting.base import Base, Report
from training.exporting.factors import relative_error
from training.methods.adapter import Adapter
from training.methods.changes import Change

LIMIT = 1e-6
"""Largest difference, by the weights' norm, between the folder as it is loaded and what was meant."""


def export_merged(adapter: Adapter, base: Base, output: Path) -> Report:
    """Copies the pipeline's folder with the change in the network's own files, in the types that they have.

    Raises:
        ValueError: the files name the tensors otherwise than the network does.
        ArithmeticError: the folder, loaded again, is not what was meant; nothing is kept.
    """
    changes = base.changes(adapter)
    output.parent.mkdir(parents=True, exist_ok=True)
    staged = output.with_name(f".{output.name}.part")
    shutil.rmtree(staged, ignore_errors=True)
    try:
        shutil.copytree(base.folder, staged, ignore=lambda place, names: _not_these(base, Path(place), names))
        wanted = _fold(base, changes, staged / base.component)
        check_folder(staged, pipeline=None)
        loaded = dict(load_component(staged, base.component).named_parameters())
        trip = max(relative_error(loaded[name], weight.float()) for name, weight in wanted.items())
        if not trip <= LIMIT:
            raise ArithmeticError(
                f"{output.name} loads otherwise than it was meant: it is off by {trip:.1e}, limit {LIMIT:.0e}; nothing "
                "was kept"
            )
        staged.replace(output)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return Report(output=output, max_error=trip, lost=_lost(base, changes, wanted), round_trip=trip)


def _not_these(base: Base, place: Path, names: list[str]) -> list[str]:
    """What is not copied: the network's weights, which are written anew, and weights of the same in other forms."""
    if place != base.folder / base.component:
        return []
    return [name for name in names if name.endswith((".safetensors", ".bin", ".ckpt", ".msgpack"))]


def _fold(base: Base, changes: Mapping[str, Change], place: Path) -> dict[str, Tensor]:
    """Writes the network's files, one at a time; returns the changed weights."""
    wanted: dict[str, Tensor] = {}
    for source in sorted((base.folder / base.component).glob("*.safetensors")):
        tensors: dict[str, Tensor] = {}
        with safe_open(source, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118
                tensors[name] = file.get_tensor(name)
                if name in changes:
                    weight = tensors[name].float() + changes[name].dense()
                    tensors[name] = wanted[name] = weight.to(tensors[name].dtype)
            metadata = file.metadata()
        save_file(tensors, place / source.name, metadata)
    lacking = sorted(changes.keys() - wanted.keys())
    if lacking:
        raise ValueError(
            f"the files in {base.folder / base.component} have no {lacking[0]} (and {len(lacking) - 1} more): they "
            "name tensors as older versions did; load the pipeline, save it with diffusers, and train on that"
        )
    return wanted


def _lost(base: Base, changes: Mapping[str, Change], wanted: Mapping[str, Tensor]) -> float:
    """What rounding to the files' type took from the change, by its norm."""
    before = dict(base.network.named_parameters())
    missed = whole = 0.0
    for name, weight in wanted.items():
        kept = weight.double() - before[name].detach().double()
        missed += float((kept - changes[name].dense().double()).square().sum())
        whole += changes[name].energy
    return math.sqrt(missed / whole) if whole else 0.0
