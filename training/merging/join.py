"""Joining the changes of several adapters, tensor by tensor, on the union of their supports."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from training.hashing import file_sha256
from training.merging.rules import MergeOptions, apply_rule
from training.methods.adapter import Adapter, AdapterError, save_adapter
from training.methods.changes import Change, dense_change
from training.methods.merged import MERGED, Merged
from training.methods.scope import Scope

DENSE_FROM = 2 / 3
"""A change of so many of a tensor's numbers is stored whole: a position takes a byte, a value two."""

Changes = Mapping[str, Change]


def check_bases(adapters: Mapping[str, Adapter]) -> None:
    """Compares what adapters were trained on.

    Raises:
        AdapterError: two of them, by name, have different bases.
    """
    (first, one), *others = adapters.items()
    for name, other in others:
        if other.base != one.base:
            raise AdapterError(
                f"{first} was trained on {_base(one)} and {name} on {_base(other)}; only adapters of the same base can "
                "be merged"
            )


def _base(adapter: Adapter) -> str:
    return f"{adapter.notes.get('base', 'a model')} ({adapter.base[:12]})"


def join(parts: Sequence[Changes], weights: Sequence[float], options: MergeOptions) -> dict[str, Change]:
    """Joins changes of one base.

    Raises:
        ValueError: there are fewer than two, or nothing is left.
    """
    if len(parts) < 2:
        raise ValueError(f"merging takes two adapters or more, got {len(parts)}")
    rng = torch.Generator().manual_seed(options.seed)
    names = list(dict.fromkeys(name for part in parts for name in part))
    # one ranking for all tensors is one stack of all of them
    together = options.rule in ("ties", "pcb") and not options.per_tensor
    groups = [names] if together else [[name] for name in names]
    found: dict[str, Change] = {}
    for group in groups:
        unions = {name: _union([part[name] for part in parts if name in part]) for name in group}
        stack = torch.stack([torch.cat([_spread(part.get(n), u) for n, u in unions.items()]) for part in parts])
        counts = [sum(len(part[n].values) for n in group if n in part) for part in parts]
        merged = apply_rule(stack, counts, weights, options, rng)
        sizes = [len(union.values) for union in unions.values()]
        for (name, union), values in zip(unions.items(), merged.split(sizes), strict=True):
            change = _compact(union, values)
            if len(change.values):
                found[name] = change
    if not found:
        raise ValueError(f"rule {options.rule} leaves nothing of these adapters; use a higher density")
    return found


def _union(changes: Sequence[Change]) -> Change:
    """The support of all, with zeros in it: columns stay columns and rows rows where all are."""
    first = changes[0]
    kinds = {change.kind for change in changes}
    if kinds == {"dense"} or sum(len(c.values) for c in changes) >= 2 * first.shape.numel():
        return dense_change(torch.zeros(first.shape))
    if len(kinds) == 1:
        kind, index = first.kind, torch.unique(torch.cat([change.index.long() for change in changes]))
    elif "dense" in kinds:
        return dense_change(torch.zeros(first.shape))
    else:
        kind, index = "scattered", torch.unique(torch.cat([change.positions() for change in changes]))
    empty = Change(shape=first.shape, kind=kind, index=index, values=torch.zeros(0))
    return Change(shape=first.shape, kind=kind, index=index, values=torch.zeros(len(empty.positions())))


def _spread(change: Change | None, union: Change) -> Float[Tensor, "count"]:
    """The values on the union's positions."""
    if change is None:
        return union.values
    if change.kind == union.kind and torch.equal(change.index.long(), union.index.long()):
        return change.values
    values = union.values.clone()
    where = change.positions()
    values[where if union.kind == "dense" else torch.searchsorted(union.positions(), where)] = change.values
    return values


def _compact(union: Change, values: Float[Tensor, "count"]) -> Change:
    """Leaves out what came to nothing, where that makes it smaller."""
    kept = values.nonzero().flatten()
    if union.kind in ("columns", "rows") and len(kept) > len(values) / 2:
        return Change(shape=union.shape, kind=union.kind, index=union.index, values=values)
    if len(kept) > DENSE_FROM * union.shape.numel():
        whole = Change(shape=union.shape, kind=union.kind, index=union.index, values=values)
        return dense_change(whole.dense())
    return Change(shape=union.shape, kind="scattered", index=union.positions()[kept], values=values[kept])


def as_delta(changes: Changes) -> dict[str, Tensor]:
    """What an adapter file stores of changes."""
    delta: dict[str, Tensor] = {}
    for name, change in changes.items():
        kind, index = change.kind, change.index
        if kind == "dense":
            # whole rows need no position of every number; a vector has no rows
            kind = "rows" if len(change.shape) > 1 else "scattered"
            index = torch.arange(change.shape[0] if change.shape else 1)
        delta[f"{name}.{kind}"] = _narrow(index)
        delta[f"{name}.change"] = change.values
    return delta


def _narrow(index: Int[Tensor, "n"]) -> Int[Tensor, "n"]:
    return index.int() if not len(index) or int(index[-1]) < 2**31 else index.long()


def save_merged(
    path: Path,
    changes: Changes,
    sources: Mapping[Path, Adapter],
    weights: Sequence[float],
    options: MergeOptions,
    sizes: Mapping[str, int],
    *,
    dtype: Literal["bf16", "fp32"] = "bf16",
) -> Adapter:
    """Writes joined changes as an adapter file whose notes say what it was made of; returns what was written.

    Args:
        sizes: numbers of every tensor of the model, by name.
    """
    adapters = list(sources.values())
    hashes = tuple(file_sha256(source) for source in sources)
    notes: dict[str, str] = {}
    for key in dict.fromkeys(key for adapter in adapters for key in adapter.notes):
        told = dict.fromkeys(a.notes[key] for a in adapters if a.notes.get(key))
        if key != "metrics":  # those of the parts are not those of the whole
            notes[key] = " ".join(told) if key == "trigger" else ", ".join(told)
    notes["base"] = next((a.notes["base"] for a in adapters if a.notes.get("base")), "")
    told_sources = [
        f"{weight:g} x {source.name} ({adapter.method}, sha256 {digest})"
        for (source, adapter), weight, digest in zip(sources.items(), weights, hashes, strict=True)
    ]
    notes["merged"] = f"{options.model_dump_json()} of " + "; ".join(told_sources)
    config = Merged(rule=options.rule, sources=hashes, weights=tuple(weights))
    files = next((a.files for a in adapters if a.files), "")
    adapter = Adapter(
        method=MERGED, config=config, scope=Scope(), base=adapters[0].base, files=files, delta=as_delta(changes),
        notes=notes,
    )  # fmt: skip
    save_adapter(path, adapter, sizes, dtype=dtype)
    return adapter
