"""A model whose frozen linear layers are quantized under what a method trains.

The method chooses first, on the weights as they are, so that it trains the same numbers as ever; then the layers that
nothing writes to are quantized, and the rest of the frozen weights is cast.
"""

from collections.abc import Callable, Collection
from importlib.util import find_spec
from typing import Any, Final

import torch
from torch import Tensor, nn

from training.methods.base import METHODS, MethodConfig, Tuner
from training.methods.beside import lift, put_beside

SMALLEST: Final = 4096
"""Layers of fewer numbers stay as they are."""


def check_beside(name: str, method: MethodConfig, setting: str) -> None:
    """Looks whether a method can do without writing to layers' weights.

    Raises:
        ValueError: it cannot.
    """
    if not method.stands_beside:
        able = [other for other in METHODS if METHODS[other].stands_beside]
        raise ValueError(
            f"{setting}: {name} writes to the layers' weights, which cannot be written then; use one of "
            f"{', '.join(able)}"
        )
    if method.needs_losses:
        raise ValueError(
            f"{setting}: {name} chooses by gradients of the whole model, which has no room then; choose by size or at "
            "random, or leave that out"
        )


def frozen_layers(model: nn.Module, whole: Collection[str], kinds: tuple[type[nn.Module], ...]) -> list[str]:
    """Paths of the layers that nothing trains, of a size that counts, and not in a part that stays as it is."""
    kept = set(whole)
    return [
        path
        for path, module in model.named_modules()
        if type(module) in kinds
        and isinstance(weight := module.weight, Tensor)
        and not weight.requires_grad
        and weight.numel() >= SMALLEST
        and not kept & set(path.split("."))
    ]


def check_quantizable(name: str, method: MethodConfig, kind: str) -> None:
    """Looks whether a method can train beside quantized weights, and whether what quantizes is installed.

    Raises:
        ValueError: one of them is not so.
    """
    check_beside(name, method, f"weights_dtype {kind}")
    package = _PACKAGES[kind]
    if find_spec(package) is None:
        raise ValueError(
            f"weights_dtype {kind}: {package} is not installed; pip install 'animatex-studio[quantized]', "
            'or use weights_dtype = "bf16"'
        )


def quantized(
    tuner: Tuner, kind: str, rest: torch.dtype, device: torch.device, *, whole: Collection[str] = ()
) -> Tuner:
    """Quantizes a tuner's model under it.

    Args:
        tuner: fresh from `attach`, on weights in float32.
        kind: int8 (torchao, one scale an output feature) or nf4 (bitsandbytes, one scale for 64 numbers).
        rest: what other frozen weights are cast to.
        device: where the layers go, one after another: the model need not fit there as it is.
        whole: modules and parameters that stay float32.

    Returns:
        The tuner, or what takes its place.
    """
    model = tuner.model
    supports = lift(tuner)
    layers = frozen_layers(model, whole, (nn.Linear,))
    kept = set(whole)
    for name, parameter in model.named_parameters():
        if not (parameter.requires_grad or kept & set(name.split("."))):
            parameter.data = parameter.data.to(rest)
    for path in layers:
        layer: Any = model.get_submodule(path)
        packed = _KINDS[kind](layer, rest, device)
        packed.register_forward_pre_hook(_under_autocast)
        model.set_submodule(path, packed)
    model.to(device)
    return put_beside(tuner, supports)


def _under_autocast(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Gives a layer what autocast gives a plain one; quantized weights go past it, and answer in the input's type."""
    x, *more = inputs
    if torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))
    return (x, *more)


class _Int8Linear(nn.Linear):
    """A linear layer of torchao's weights, of which autograd would keep a whole copy in the type of the input."""

    def forward(self, x: Tensor) -> Tensor:
        """x W^T + b."""
        made: Tensor = _Int8Product.apply(x, self.bias, self.weight)
        return made


class _Int8Product(torch.autograd.Function):
    """A linear layer's product, whose weight is unpacked again for the gradient of the input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor | None, weight: Tensor) -> Tensor:
        ctx.weight, ctx.x_dtype, ctx.bias_dtype = weight, x.dtype, None if bias is None else bias.dtype
        return nn.functional.linear(x, weight, None if bias is None else bias.to(x.dtype))

    @staticmethod
    def backward(ctx: Any, *upstreams: Tensor) -> tuple[Tensor | None, ...]:
        (upstream,) = upstreams
        x_grad = bias_grad = None
        if ctx.needs_input_grad[0]:
            x_grad = (upstream @ ctx.weight.dequantize().to(upstream.dtype)).to(ctx.x_dtype)
        if ctx.needs_input_grad[1]:
            bias_grad = upstream.flatten(0, -2).sum(0).to(ctx.bias_dtype)
        return x_grad, bias_grad, None


def _int8(layer: nn.Linear, rest: torch.dtype, device: torch.device) -> nn.Module:
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    quantize_(layer.to(device), Int8WeightOnlyConfig())
    # made without memory of its own: what it is given replaces all of it
    with torch.device("meta"):
        made = _Int8Linear(layer.in_features, layer.out_features, layer.bias is not None)
    made.weight, made.bias = layer.weight, layer.bias
    return made


def _nf4(layer: nn.Linear, rest: torch.dtype, device: torch.device) -> nn.Module:
    from bitsandbytes.nn import Linear4bit, Params4bit

    with torch.device("meta"):
        made = Linear4bit(
            layer.in_features, layer.out_features, layer.bias is not None, compute_dtype=rest, quant_type="nf4"
        )
    made.weight = Params4bit(layer.weight.data, requires_grad=False, quant_type="nf4", module=made)
    made.bias = layer.bias
    # on some CPUs it would repack itself, with coarser scales, the first time that nothing is trained
    made.support_avx512bf16_for_cpu = False
    quantized: nn.Module = made.to(device)
    return quantized


_KINDS: Final[dict[str, Callable[[nn.Linear, torch.dtype, torch.device], nn.Module]]] = {"int8": _int8, "nf4": _nf4}
_PACKAGES: Final = {"int8": "torchao", "nf4": "bitsandbytes"}
QUANTIZED: Final = tuple(_KINDS)
"""Types that weights can be quantized to."""
