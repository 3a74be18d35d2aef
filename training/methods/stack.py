"""Adapters on a network that is used, not trained: their changes are in its weights and come off bit for bit.

Nothing is wrapped and nothing is computed at inference. Several add up, whatever their methods, in any order, and each
has a scale of its own.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from training.methods.adapter import AdapterError
from training.methods.beside import Beside, logical_shape
from training.methods.changes import Change
from training.methods.layers import writable
from training.methods.supports import Columns, Rows, Scattered, Support

_ATTRIBUTE = "_studio_adapters"
"""Where a network keeps its stack."""


@dataclass(eq=False)
class _Layer:
    """One adapter's changes with its scale."""

    changes: Mapping[str, Change]
    base: dict[str, Tensor]
    """The numbers that it touches, as they were without any adapter."""
    scale: float
    beside: list[Beside] = field(default_factory=list)
    """Changes of weights that cannot be written."""


class Stack:
    """All adapters of one network."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._layers: list[_Layer] = []

    def __len__(self) -> int:
        return len(self._layers)

    @contextmanager
    def base(self) -> Iterator[None]:
        """The network without adapters, for a while."""
        names = {name for layer in self._layers for name in layer.changes}
        self._restore(names)
        beside = [(change, change.scale) for layer in self._layers for change in layer.beside]
        for change, _ in beside:
            change.scale = 0.0
        try:
            yield
        finally:
            self._write(names)
            for change, scale in beside:
                change.scale = scale

    @torch.no_grad()
    def add(self, changes: Mapping[str, Change], scale: float) -> "Attached":
        """Adds the changes.

        Raises:
            AdapterError: a tensor is missing, has another shape, or cannot be written.
        """
        tensors = self._tensors()
        for name, change in changes.items():
            weight = tensors.get(name)
            shape = None if weight is None else self._shape(name, weight)
            if weight is None or shape != change.shape:
                found = "is not there" if shape is None else f"has the shape {tuple(shape)}"
                raise AdapterError(
                    f"the adapter changes {name} of shape {tuple(change.shape)}, which {found}; it is of another model"
                )
            if weight.device.type == "meta":
                raise AdapterError(f"{name} is not in memory; load the adapter before offloading")
        written = {name: change for name, change in changes.items() if writable(tensors[name])}
        beside = [self._beside(name, changes[name], scale) for name in changes if name not in written]
        self._restore(set(written))
        base = {name: _take(tensors[name], change) for name, change in written.items()}
        layer = _Layer(changes=written, base=base, scale=scale, beside=beside)
        self._layers.append(layer)
        self._write(set(written))
        setattr(self._network, _ATTRIBUTE, self)
        return Attached(self, layer)

    def _shape(self, name: str, weight: Tensor) -> torch.Size:
        module = self._network.get_submodule(name.rpartition(".")[0])
        packed = name.endswith(".weight") and not writable(weight)
        return logical_shape(module) if packed else weight.shape

    def _beside(self, name: str, change: Change, scale: float) -> Beside:
        """A change that stands beside its layer, whose weight is quantized."""
        module = self._network.get_submodule(name.rpartition(".")[0])
        support: Support
        match change.kind:
            case "scattered":
                support = Scattered(change.index, change.shape)
            case "columns":
                support = Columns(change.index, change.shape)
            case "rows":
                support = Rows(change.index, change.shape)
            case "dense":
                support = Rows(torch.arange(change.shape[0]), change.shape)
        device = next(self._network.parameters()).device
        support.to(device)
        return Beside(module, support, change.values.to(device), scale)

    def scaled(self, layer: _Layer, scale: float) -> None:
        """Gives one adapter another scale."""
        layer.scale = scale
        for beside in layer.beside:
            beside.scale = scale
        self._restore(set(layer.changes))
        self._write(set(layer.changes))

    def removed(self, layer: _Layer) -> None:
        """Takes one adapter off."""
        self._restore(set(layer.changes))
        for beside in layer.beside:
            beside.remove()
        self._layers.remove(layer)
        self._write(set(layer.changes))
        if not self._layers:
            delattr(self._network, _ATTRIBUTE)

    def _tensors(self) -> dict[str, nn.Parameter]:
        # PEFT's layers of another program's LoRA keep the weight one level deeper
        return {name.replace(".base_layer.", "."): p for name, p in self._network.named_parameters()}

    @torch.no_grad()
    def _restore(self, names: set[str]) -> None:
        tensors = self._tensors()
        for layer in self._layers:
            for name in names & layer.changes.keys():
                _put(tensors[name], layer.changes[name], layer.base[name])

    @torch.no_grad()
    def _write(self, names: set[str]) -> None:
        """Adds up the changes of some tensors, which are the base's now."""
        tensors = self._tensors()
        for name in names:
            # nothing of a change must be the original itself, bit for bit
            layers = [layer for layer in self._layers if name in layer.changes and layer.scale != 0]
            if not layers:
                continue
            if len(layers) == 1:
                (layer,) = layers
                change, base = layer.changes[name], layer.base[name]
                total = base.float() + layer.scale * change.values.to(base.device)
                _put(tensors[name], change, total.to(base.dtype))
                continue
            weight = tensors[name]
            whole = weight.detach().float().flatten()
            touched = torch.zeros(weight.numel(), dtype=torch.bool, device=weight.device)
            for layer in layers:
                where = layer.changes[name].positions().to(weight.device)
                whole[where] += layer.scale * layer.changes[name].values.to(weight.device)
                touched[where] = True
            made = torch.where(touched, whole.to(weight.dtype), weight.detach().flatten())
            weight.copy_(made.view_as(weight))


class Attached:
    """One adapter on one network. As a context manager it comes off at the end of the block."""

    def __init__(self, stack: Stack, layer: _Layer) -> None:
        self._stack: Stack | None = stack
        self._layer = layer

    @property
    def scale(self) -> float:
        """How much of the change is applied."""
        return self._layer.scale

    def set_scale(self, scale: float) -> None:
        """Applies so much of the change: 0 is the base model, bit for bit, and 1 the trained one.

        Raises:
            ValueError: the adapter was taken off before.
        """
        self._on().scaled(self._layer, scale)

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """The model without this adapter, for a while."""
        before = self.scale
        self.set_scale(0.0)
        try:
            yield
        finally:
            self.set_scale(before)

    def unload(self) -> None:
        """Takes the adapter off; without others the base model is back, bit for bit.

        Raises:
            ValueError: the adapter was taken off before.
        """
        self._on().removed(self._layer)
        self._stack = None

    def _on(self) -> Stack:
        if self._stack is None:
            raise ValueError("this adapter was unloaded; load it again")
        return self._stack

    def __enter__(self) -> "Attached":
        return self

    def __exit__(self, *_: Any) -> None:
        if self._stack is not None:
            self.unload()


def stack_of(network: nn.Module) -> Stack:
    """The adapters on a network; a new, empty stack where there are none."""
    found = getattr(network, _ATTRIBUTE, None)
    return found if isinstance(found, Stack) else Stack(network)


def _take(weight: Tensor, change: Change) -> Tensor:
    flat = weight.detach().reshape(-1)
    return flat.clone() if change.kind == "dense" else flat[change.positions().to(weight.device)]


def _put(weight: Tensor, change: Change, values: Tensor) -> None:
    if change.kind == "dense":
        weight.detach().copy_(values.to(weight.device).view(weight.shape))
        return
    where = change.positions().to(weight.device)
    if weight.is_contiguous():
        weight.detach().view(-1)[where] = values.to(weight.device)
        return
    whole = weight.detach().contiguous()  # channels_last: logical order is not that of the memory
    whole.view(-1)[where] = values.to(weight.device)
    weight.detach().copy_(whole)
