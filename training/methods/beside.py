"""Changes beside layers whose weights cannot be written: y = Q(x) + D x, with Q quantized and D sparse.

A quantized weight has no place for a change smaller than its step (4 bits, 8 bits), so the change stays apart, in
float32: columns and rows as thin products, single numbers as a matrix that exists during the layer's call alone.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from training.methods.base import ParamGroup, Tuner
from training.methods.inplace import InPlaceTuner, read_delta
from training.methods.layers import ConvLayer, Layer, LinearLayer, writable
from training.methods.supports import Columns, Rows, Scattered, Support

_ATTRIBUTE = "_studio_beside"
"""Where a module keeps what is beside it."""


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
        kind = x.device.type
        if torch.is_autocast_enabled(kind):
            x = x.to(torch.get_autocast_dtype(kind))
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


def lift(tuner: Tuner) -> dict[str, Support]:
    """Takes what is trained in place off the weights, to be put beside them; nothing of other tuners."""
    if not isinstance(tuner, InPlaceTuner):
        return {}
    supports = {piece.name: piece.support for piece in tuner.pieces}
    tuner.unload()
    tuner.model.requires_grad_(False)
    return supports


def put_beside(tuner: Tuner, supports: Mapping[str, Support], *, apart: Collection[str] | None = None) -> Tuner:
    """What takes the place of a tuner that `lift` took off; others are what they were."""
    if not isinstance(tuner, InPlaceTuner):
        return tuner
    beside = SideTuner(tuner.model, supports, apart=apart)
    if tuner.only_in_place:
        beside.note = f"beside weights that cannot be written, so without {tuner.only_in_place}"
    return beside


class SideTuner(Tuner):
    """Trains sparse changes of a model with weights that cannot be written: the same numbers, and the same adapter
    file, as in place.

    Those of quantized or split weights stand beside their layers; biases, norms and whatever else can be written is
    trained in place.
    """

    def __init__(
        self, model: nn.Module, supports: Mapping[str, Support], *, apart: Collection[str] | None = None
    ) -> None:
        """Puts changes of zero beside the layers.

        Args:
            supports: what is trained, by the tensors' names; chosen on the model before it was quantized.
            apart: weights that are left alone; by default those that cannot be written.

        Raises:
            ValueError: a name is not in the model, or that of a quantized tensor which is no layer's weight.
        """
        super().__init__(model)
        self._apart = apart
        self._was_trainable = {n: p.requires_grad for n, p in model.named_parameters()}
        model.requires_grad_(False)
        self._beside: dict[str, Beside] = {}
        self._set(supports)

    def _set(
        self, supports: Mapping[str, Support], fill: Callable[[InPlaceTuner], None] = lambda written: None
    ) -> None:
        """Puts what is trained in place, filled, and then what stands beside: that calls what is in place."""
        tensors = dict(self.model.named_parameters())
        if unknown := sorted(supports.keys() - tensors.keys()):
            raise ValueError(f"{unknown[0]} is not in this model")
        apart = {name: support for name, support in supports.items() if self._stands_apart(name, tensors[name])}
        self._written = InPlaceTuner(self.model, {n: s for n, s in supports.items() if n not in apart})
        fill(self._written)
        for name, support in apart.items():
            path, _, what = name.rpartition(".")
            if what != "weight":
                raise ValueError(f"{name} is quantized and no layer's weight; what is beside it has no place")
            device = tensors[name].device
            support.to(device)
            values = nn.Parameter(torch.zeros(support.count, device=device))
            self._beside[name] = Beside(self.model.get_submodule(path), support, values)

    def _stands_apart(self, name: str, parameter: Tensor) -> bool:
        return not writable(parameter) if self._apart is None else name in self._apart

    def parameters(self) -> Iterable[ParamGroup]:
        """The changes, and the numbers in place."""
        return (ParamGroup(parameters=(*self._values(), self._written.values)),)

    def _values(self) -> Iterator[nn.Parameter]:
        for beside in self._beside.values():
            assert isinstance(beside.values, nn.Parameter)
            yield beside.values

    def named(self) -> dict[str, nn.Parameter]:
        """By the tensors' names; what is in place is one vector."""
        beside = zip(self._beside, self._values(), strict=True)
        return {**{f"{name}.beside": p for name, p in beside}, "values": self._written.values}

    def after_step(self, step: int) -> bool:
        """Writes what is in place."""
        return self._written.after_step(step)

    def refresh(self) -> None:
        """Writes what is in place."""
        self._written.refresh()

    def state(self) -> dict[str, Tensor]:
        """The changes, the values in place, and what is trained of every tensor."""
        apart = {f"{name}.{beside.support.kind}": beside.support.index() for name, beside in self._beside.items()}
        return {**{n: p.detach() for n, p in self.named().items()}, **apart, **self._written.state()}

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor], step: int) -> None:
        """Takes over changes, values and choices."""
        apart = {name.removesuffix(".beside"): value for name, value in state.items() if name.endswith(".beside")}
        choices = {key: value for key, value in state.items() if not key.endswith(".beside")}
        mine = {key: value for key, value in choices.items() if key.rpartition(".")[0] in apart}
        written = {key: value for key, value in choices.items() if key not in mine}
        if apart.keys() != self._beside.keys():
            raise ValueError("the state does not fit this model: another method, scope or model")
        supports = self._supports_of({**{f"{n}.change": v for n, v in apart.items()}, **mine})[0]
        self._remove()
        self._set(supports, lambda inner: inner.load_state(written, step))
        for name, beside in self._beside.items():
            beside.values.copy_(apart[name])

    def delta(self) -> dict[str, Tensor]:
        """As `InPlaceTuner.delta`."""
        found: dict[str, Tensor] = {}
        for name, beside in self._beside.items():
            found[f"{name}.{beside.support.kind}"] = beside.support.index().cpu()
            found[f"{name}.change"] = beside.values.detach().cpu().float()
        return {**found, **self._written.delta()}

    @torch.no_grad()
    def load(self, delta: Mapping[str, Tensor]) -> None:
        """Takes over supports and changes.

        Raises:
            ValueError: a tensor is not in this model, or does not fit.
        """
        packed = {n for n, p in self.model.named_parameters() if self._stands_apart(n, p)}
        apart = {key: value for key, value in delta.items() if key.rpartition(".")[0] in packed}
        supports, changes = self._supports_of(apart)
        self._remove()
        self._set(supports, lambda inner: inner.load({k: v for k, v in delta.items() if k not in apart}))
        for name, beside in self._beside.items():
            beside.values.copy_(changes[name])

    def _supports_of(self, apart: Mapping[str, Tensor]) -> tuple[dict[str, Support], dict[str, Tensor]]:
        names = dict.fromkeys(key.rpartition(".")[0] for key in apart)
        shapes = {n: logical_shape(self.model.get_submodule(n.rpartition(".")[0])) for n in names}
        return read_delta({n: torch.empty(shape, device="meta") for n, shape in shapes.items()}, apart)

    def set_scale(self, scale: float) -> None:
        """Applies so much of the changes."""
        for beside in self._beside.values():
            beside.scale = scale
        self._written.set_scale(scale)

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
        self._written.unload()
