"""Changes beside layers whose weights cannot be written: y = Q(x) + D x, with Q quantized and D sparse.

A quantized weight has no place for a change smaller than its step (4 bits, 8 bits), so the change stays apart, in
float32: columns and rows as thin products, single numbers as a matrix that exists during the layer's call alone.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from training.methods.base import ParamGroup, Tuner
from training.methods.inplace import read_delta
from training.methods.layers import ConvLayer, Layer, LinearLayer
from training.methods.supports import Columns, Rows, Scattered, Support

_ATTRIBUTE = "_studio_beside"
"""Where a module keeps what is beside it."""


def writable(parameter: Tensor) -> bool:
    """Tells whether numbers of a parameter can be changed: it is no quantized or otherwise special tensor."""
    return type(parameter) is nn.Parameter and parameter.is_floating_point() and parameter.device.type != "meta"


class Beside:
    """A sparse change beside one layer."""

    def __init__(self, module: nn.Module, support: Support, values: Tensor, scale: float = 1.0) -> None:
        """Begins to add to the layer's output.

        Raises:
            ValueError: the module is no linear layer or convolution, or the support has no product.
        """
        if not isinstance(support, Scattered | Columns | Rows):
            raise ValueError(f"changes of the kind {support.kind!r} cannot stand beside a quantized layer")
        self.layer = _arithmetic(module)
        self.support, self.values, self.scale = support, values, scale
        self.shape = logical_shape(module)
        self._module = module
        beside: list[Beside] = module.__dict__.setdefault(_ATTRIBUTE, [])
        if not beside:
            plain = module.forward
            self._before = module.__dict__.get("forward")

            def forward(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
                result: Tensor = plain(x, *args, **kwargs)
                for change in beside:
                    if change.scale != 0:
                        result = result + change(x).to(result.dtype)
                return result

            module.__dict__["forward"] = forward
        else:
            self._before = beside[0]._before
        beside.append(self)

    def __call__(self, x: Tensor) -> Tensor:
        """What is added to the layer's output."""
        layer, support = self.layer, self.support
        values = (self.scale * self.values).to(x.dtype)
        match support:
            case Columns():
                part = x.index_select(layer.feature_axis(x), support.chosen)
                return layer.forward(part, values.view(support.shape), None)
            case Rows():
                thin = layer.forward(x, values.view(support.shape), None)
                axis = layer.feature_axis(thin)
                size = [*thin.shape[:axis], self.shape[0], *thin.shape[axis + 1 :]]
                return thin.new_zeros(size).index_copy(axis, support.chosen.long(), thin)
            case _:
                whole: Tensor = _Scattered.apply(x, values, layer, support, self.shape)
                return whole

    def remove(self) -> None:
        """Leaves the layer as it was."""
        beside: list[Beside] = self._module.__dict__[_ATTRIBUTE]
        beside.remove(self)
        if not beside:
            del self._module.__dict__[_ATTRIBUTE], self._module.__dict__["forward"]
            if self._before is not None:
                self._module.__dict__["forward"] = self._before


class _Scattered(torch.autograd.Function):
    """D x, which keeps the input and not the matrix D, and never makes the dense gradient of it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, values: Tensor, layer: Layer, support: Scattered, shape: torch.Size) -> Tensor:
        ctx.layer, ctx.support, ctx.shape = layer, support, shape
        ctx.save_for_backward(x, values)
        return layer.forward(x, _matrix(values, support, shape), None)

    @staticmethod
    def backward(ctx: Any, *upstreams: Tensor) -> tuple[Tensor | None, ...]:
        x, values = ctx.saved_tensors
        (upstream,) = upstreams
        value_grad = x_grad = None
        if ctx.needs_input_grad[1]:
            value_grad = ctx.support.grad(ctx.layer, upstream, x).to(values.dtype)
        if ctx.needs_input_grad[0]:
            x_grad = ctx.layer.input_grad(upstream, x.shape, _matrix(values, ctx.support, ctx.shape))
        return x_grad, value_grad, None, None, None


def _matrix(values: Tensor, support: Scattered, shape: torch.Size) -> Tensor:
    flat = values.new_zeros(shape.numel())
    flat[support.flat.long()] = values
    return flat.view(shape)


def _arithmetic(module: nn.Module) -> Layer:
    if isinstance(module, nn.Linear) or hasattr(module, "in_features"):
        return LinearLayer()
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d) and module.padding_mode == "zeros":
        return ConvLayer(module)
    raise ValueError(
        f"changes cannot stand beside a {type(module).__name__}, only beside linear layers and convolutions"
    )


def logical_shape(module: nn.Module) -> torch.Size:
    """The shape of a layer's weight, however it is packed."""
    if hasattr(module, "in_features"):
        return torch.Size((int(module.out_features), int(module.in_features)))  # type: ignore[arg-type]
    return torch.Size(module.weight.shape)  # type: ignore[arg-type]


class SideTuner(Tuner):
    """Trains sparse changes of a quantized model: the same numbers, and the same adapter file, as in place."""

    def __init__(self, model: nn.Module, supports: Mapping[str, Support]) -> None:
        """Puts changes of zero beside the layers.

        Args:
            supports: what is trained, by the weights' names; chosen on the model before it was quantized.

        Raises:
            ValueError: a name is not the weight of a linear layer or convolution.
        """
        super().__init__(model)
        self._was_trainable = {n: p.requires_grad for n, p in model.named_parameters()}
        model.requires_grad_(False)
        self._beside: dict[str, Beside] = {}
        self._set(supports)

    def _set(self, supports: Mapping[str, Support]) -> None:
        for name, support in supports.items():
            path, _, what = name.rpartition(".")
            if what != "weight":
                raise ValueError(f"{name} is no layer's weight; a quantized model is trained in these alone")
            module = self.model.get_submodule(path)
            device = next(iter(self.model.parameters())).device
            support.to(device)
            values = nn.Parameter(torch.zeros(support.count, device=device))
            self._beside[name] = Beside(module, support, values)

    def parameters(self) -> Iterable[ParamGroup]:
        """The changes."""
        return (ParamGroup(parameters=tuple(self._values())),)

    def _values(self) -> Iterator[nn.Parameter]:
        for beside in self._beside.values():
            assert isinstance(beside.values, nn.Parameter)
            yield beside.values

    def delta(self) -> dict[str, Tensor]:
        """As `InPlaceTuner.delta`."""
        found: dict[str, Tensor] = {}
        for name, beside in self._beside.items():
            found[f"{name}.{beside.support.kind}"] = beside.support.index().cpu()
            found[f"{name}.change"] = beside.values.detach().cpu().float()
        return found

    @torch.no_grad()
    def load(self, delta: Mapping[str, Tensor]) -> None:
        """Takes over supports and changes.

        Raises:
            ValueError: a tensor is not in this model, or does not fit.
        """
        modules = dict(self.model.named_modules())
        shapes = {
            name: torch.empty(logical_shape(modules[name.rpartition(".")[0]]), device="meta")
            for name in dict.fromkeys(key.rpartition(".")[0] for key in delta)
            if name.rpartition(".")[0] in modules
        }
        supports, changes = read_delta(shapes, delta)
        self._remove()
        self._set(supports)
        for name, beside in self._beside.items():
            beside.values.copy_(changes[name])

    def set_scale(self, scale: float) -> None:
        """Applies so much of the changes."""
        for beside in self._beside.values():
            beside.scale = scale

    def merge(self) -> None:
        """Cannot be done.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            "a quantized weight has no place for a change this small; save the adapter, export it with --format merged "
            "and quantize that"
        )

    def unload(self) -> None:
        """Takes the changes off."""
        self._remove()
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(self._was_trainable[name])

    def _remove(self) -> None:
        for beside in self._beside.values():
            beside.remove()
        self._beside = {}
