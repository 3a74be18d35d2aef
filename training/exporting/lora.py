"""An adapter as a LoRA file of another program's, read back by diffusers before it gets its name."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from models.components import read_lora
from training.exporting.base import Base, Report
from training.exporting.factors import Factors, exact_rank, factor, relative_error
from training.exporting.names import Format, Naming, naming
from training.methods.adapter import Adapter
from training.methods.changes import Change
from training.methods.peft_methods import lora_factors, lora_products

LIMITS: Final = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 5e-3}
"""Largest difference between what was meant and what is read back, by the file's type."""
_NAMED: Final = 5


def export_lora(
    adapter: Adapter,
    base: Base,
    output: Path,
    format: Format,
    *,
    rank: int | None = None,
    drop_rest: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Report:
    """Writes the adapter as a LoRA and reads it back with the pipeline's own loader.

    What PEFT trained as a LoRA is copied; changes of columns or rows are LoRAs of their number, exactly; of all others
    the nearest product of `rank` is taken.

    Raises:
        ValueError: something needs a rank, or has no place in the format and may not be dropped.
        ArithmeticError: what is read back is not what was meant; nothing is written.
    """
    named = naming(format, base.component, type(base.network).__name__)
    changes = base.changes(adapter)
    own = {path: Factors(a=a, b=b) for path, (a, b) in lora_factors(adapter.config, adapter.delta).items()}
    layers = [name for name in changes if _fits(base.network, name, named)]
    rest = tuple(name for name in changes if name not in layers)
    share = _share(changes, rest)
    if rest and not drop_rest:
        raise ValueError(
            f"a LoRA of this format has no place for {len(rest)} of {len(changes)} changed tensors ({_some(rest)}), "
            f"{share:.2%} of the change's energy; --drop-rest leaves them out, --format merged keeps all"
        )
    factors, approximate = _factors(changes, layers, own, rank)
    if not factors:
        raise ValueError("the adapter changes nothing that a LoRA can hold; use --format merged")
    staged = output.with_name(f".{output.stem}.part.safetensors")
    output.parent.mkdir(parents=True, exist_ok=True)
    try:
        filled = {**factors, **(_nothing(base.network, named, factors) if named.every else {})}
        save_file(named.tensors(filled, dtype), staged, {"format": "pt", "base": adapter.base})
        read = _read_back(base, staged)
        trip = _compare(factors, read, LIMITS[dtype], output.name)
        staged.replace(output)
    finally:
        staged.unlink(missing_ok=True)
    errors = {name: relative_error(read[name], changes[name].dense()) for name in layers if changes[name].energy}
    return Report(
        output=output, max_error=max(errors.values(), default=0.0), lost=_lost(changes, read), round_trip=trip,
        approximate={name: errors[name] for name in approximate}, dropped=rest, dropped_share=share,
    )  # fmt: skip


def _fits(network: nn.Module, name: str, named: Naming) -> bool:
    path, _, what = name.rpartition(".")
    if what != "weight" or not path:
        return False
    layer = network.get_submodule(path)
    plain = isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d) and getattr(layer, "groups", 1) == 1
    return plain and named.name(path) is not None


def _nothing(network: nn.Module, named: Naming, factors: Mapping[str, Factors]) -> dict[str, Factors]:
    """Factors of zeros for all other layers that have a name."""
    found = {}
    for name, weight in network.named_parameters():
        path = name.removesuffix(".weight")
        if path not in factors and _fits(network, name, named):
            a, b = torch.zeros(1, weight[0].numel()), torch.zeros(len(weight), 1)
            found[path] = Factors(a=a.view(1, *weight.shape[1:]), b=b)
    return found


def _factors(
    changes: Mapping[str, Change], layers: list[str], own: Mapping[str, Factors], rank: int | None
) -> tuple[dict[str, Factors], list[str]]:
    """The factors of every layer, and the layers that they are not exact for."""
    found: dict[str, Factors] = {}
    approximate = []
    for name in layers:
        change, path = changes[name], name.removesuffix(".weight")
        if not change.energy:
            continue
        if path in own:
            found[path] = own[path]
        elif change.kind == "columns" or (change.kind == "rows" and len(change.index) < change.shape[0]):
            found[path] = factor(change)
        else:
            if rank is not None:
                found[path] = factor(change, rank)
            if rank is None or relative_error(found[path].product(), change.dense()) > LIMITS[torch.float32]:
                approximate.append(name)
    if rank is None and approximate:
        most = max(exact_rank(changes[name]) for name in approximate)
        raise ValueError(
            f"{len(approximate)} of {len(layers)} changed layers are no product of thin matrices "
            f"({_some(approximate)}): give --rank for the nearest one (exact from {most} on), or use --format merged, "
            "which is exact"
        )
    return found, approximate


def _read_back(base: Base, path: Path) -> dict[str, Tensor]:
    """What the pipeline's loader makes of a file: the change of every layer."""
    try:
        with read_lora(base.folder, base.network, base.component, path):
            return dict(lora_products(base.network))
    except RuntimeError as error:
        raise ArithmeticError(f"diffusers cannot read what was written ({error}); nothing was kept") from error


def _compare(factors: Mapping[str, Factors], read: Mapping[str, Tensor], limit: float, name: str) -> float:
    """The worst layer's error. Layers of zeros do not count: diffusers adds some to what Wan's I2V network lacks.

    Raises:
        ArithmeticError: it is above the limit, or a layer is missing or one too many.
    """
    wanted = {f"{path}.weight": f.product() for path, f in factors.items()}
    odd = sorted(n for n in wanted.keys() ^ read.keys() if bool((wanted if n in wanted else read)[n].any()))
    worst = max(relative_error(read[n], product) for n, product in wanted.items() if n in read) if read else 0.0
    if odd or not worst <= limit:
        told = f"{len(odd)} layers differ, {odd[0]} for one" if odd else f"is off by {worst:.1e}, limit {limit:.0e}"
        raise ArithmeticError(f"diffusers reads {name} otherwise than it was meant: {told}; nothing was kept")
    return worst


def _share(changes: Mapping[str, Change], names: tuple[str, ...]) -> float:
    whole = sum(change.energy for change in changes.values())
    return sum(changes[name].energy for name in names) / whole if whole else 0.0


def _lost(changes: Mapping[str, Change], read: Mapping[str, Tensor]) -> float:
    whole = sum(change.energy for change in changes.values())
    missed = 0.0
    for name, change in changes.items():
        gone = change.dense() - read[name] if name in read else change.values
        missed += float(gone.double().square().sum())
    return math.sqrt(missed / whole) if whole else 0.0


def _some(names: tuple[str, ...] | list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
