"""What an adapter of any method changes in the model's own tensors: the common ground of merging and exporting."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from training.methods.adapter import Adapter
from training.methods.beside import logical_shape
from training.methods.inplace import read_delta
from training.methods.layers import writable
from training.methods.peft_methods import peft_changes
from training.methods.supports import SUPPORTS, Columns, Rows, Scattered, Singular, Support

Kind = Literal["scattered", "columns", "rows", "dense"]


@dataclass(frozen=True, kw_only=True)
class Change:
    """What is added to some numbers of one tensor; the others stay."""

    shape: torch.Size
    """Of the tensor."""
    kind: Kind
    index: Int[Tensor, "n"]
    """Sorted: flat positions, columns (input features or channels) or rows; empty where it is dense."""
    values: Float[Tensor, "count"]
    """float32, in the tensor's logical order."""

    def positions(self) -> Int[Tensor, "count"]:
        """The flat positions of the values, ascending."""
        index = self.index.long()
        match self.kind:
            case "scattered":
                return index
            case "dense":
                return torch.arange(self.shape.numel())
            case "rows":
                size = self.shape[1:].numel()
                return (index[:, None] * size + torch.arange(size)).flatten()
            case "columns":
                inner = self.shape[2:].numel()
                rows = torch.arange(self.shape[0])[:, None, None] * self.shape[1] * inner
                return (rows + index[:, None] * inner + torch.arange(inner)).flatten()

    def dense(self) -> Float[Tensor, "..."]:
        """The whole tensor's change, zero where there is none."""
        if self.kind == "dense":
            return self.values.view(self.shape)
        flat = torch.zeros(self.shape.numel())
        flat[self.positions()] = self.values
        return flat.view(self.shape)

    @property
    def energy(self) -> float:
        """The sum of squares."""
        return float(self.values.double().square().sum())


def dense_change(change: Tensor) -> Change:
    """A change of a whole tensor."""
    values = change.detach().cpu().float().flatten()
    return Change(shape=change.shape, kind="dense", index=torch.zeros(0, dtype=torch.int64), values=values)


def sparse_change(change: Tensor) -> Change:
    """A change of a whole tensor, of which only what is not zero is kept."""
    flat = change.detach().cpu().float().flatten()
    index = flat.nonzero().flatten()
    return Change(shape=change.shape, kind="scattered", index=index, values=flat[index])


@torch.no_grad()
def changes_of(model: nn.Module, adapter: Adapter) -> dict[str, Change]:
    """By how much an adapter changes every tensor of its base model, by the tensors' names.

    What stands in the file is taken from there. A method with layers or a form of its own (LoRA, OFT, DiffFit's gains)
    is attached, read and taken off again; the model is as before, bit for bit.

    Raises:
        ValueError: the adapter does not fit the model.
    """
    # PEFT's layers of another program's LoRA keep the weight one level deeper
    parameters = {name.replace(".base_layer.", "."): p for name, p in model.named_parameters()}
    in_place: dict[str, Tensor] = {}
    found: dict[str, Change] = {}
    foreign = False
    for key, value in adapter.delta.items():
        name, _, what = key.rpartition(".")
        if name in parameters and (what == "change" or what in SUPPORTS):
            in_place[key] = value
        elif key in parameters and value.shape == parameters[key].shape:
            found[key] = dense_change(value)
        else:
            foreign = True
    if any(key.endswith(".singular") for key in in_place) and not all(map(writable, parameters.values())):
        raise ValueError("shifts of singular values need the weights themselves, which are quantized here")
    weights = shaped(model, parameters, in_place)
    supports, values = read_delta(weights, in_place)
    for name, support in supports.items():
        found[name] = _of_support(support, values[name], weights[name])
    if not foreign:
        return found
    if not all(map(writable, parameters.values())):
        raise ValueError(
            "the model is quantized: only changes of single weights, columns and rows can be added to it; export this "
            "adapter with --format merged and quantize that"
        )
    if parameters.keys() != dict(model.named_parameters()).keys():
        raise ValueError("the model has a LoRA of another program on it; load this adapter first, or merge one of them")
    return {**found, **_attached(model, adapter)}


def shaped(model: nn.Module, parameters: Mapping[str, Tensor], delta: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The parameters that a delta names; quantized ones by an empty tensor of the shape that they stand for."""
    found: dict[str, Tensor] = {}
    for name in dict.fromkeys(key.rpartition(".")[0] for key in delta):
        weight = parameters[name]
        if name.endswith(".weight") and not writable(weight):
            weight = torch.empty(logical_shape(model.get_submodule(name.removesuffix(".weight"))), device="meta")
        found[name] = weight
    return found


def _of_support(support: Support, values: Tensor, parameter: Tensor) -> Change:
    values = values.float()
    match support:
        case Singular():
            # 1 is what it was trained at
            base = parameter.detach().float()
            return dense_change(support.make(torch.zeros_like(base), values.to(base.device), 1.0))
        case Scattered() | Columns() | Rows():
            index = support.index().cpu()
            if len(index) > 1 and int(torch.diff(index.long()).min()) < 1:
                raise ValueError("the adapter's indices are not sorted; the file is damaged, copy it again")
            kind: Kind = "scattered" if isinstance(support, Scattered) else "rows"
            if isinstance(support, Columns):
                kind = "columns"
            return Change(shape=torch.Size(parameter.shape), kind=kind, index=index, values=values.cpu())
        case _:
            raise ValueError(f"a support of the kind {support.kind!r} has no algebra yet")


def _attached(model: nn.Module, adapter: Adapter) -> dict[str, Change]:
    tuner = adapter.config.restore(model, adapter.scope, adapter.delta)
    found = {name: dense_change(change) for name, change in peft_changes(model)}
    if found:
        tuner.unload()
        return found
    tuner.set_scale(0.0)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    tuner.set_scale(1.0)
    tuner.merge()
    for name, parameter in model.named_parameters():
        change = parameter.detach().float() - before[name].float()
        if bool(change.any()):
            found[name] = dense_change(change)
            parameter.copy_(before[name])
    return found
