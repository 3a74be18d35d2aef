"""The products of linear and convolution layers, apart: forward, gradient of the input, gradient of the weight."""

import abc
import itertools
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.methods import sampled, slid

Rows = slice | Tensor
"""Output features: a range of them, or their numbers."""


class Layer(abc.ABC):
    """One layer's arithmetic, without its weights."""

    @abc.abstractmethod
    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """What the plain layer computes."""

    @abc.abstractmethod
    def input_grad(self, upstream: Tensor, shape: torch.Size, weight: Tensor) -> Tensor:
        """The gradient of the input, which needs the weight alone."""

    @abc.abstractmethod
    def weight_grad(self, upstream: Tensor, x: Tensor, rows: Rows) -> Tensor:
        """The gradient of some rows of the weight; with part of the input's features, of those columns."""

    @abc.abstractmethod
    def factors(self, upstream: Tensor, x: Tensor) -> list[tuple[Tensor, Tensor]] | None:
        """Pairs (output features x places, input features x places): the weight's gradient is the sum of A B^T.

        None where it is no such sum.
        """

    def single_grads(self, upstream: Tensor, x: Tensor, flat: Tensor, shape: torch.Size) -> Tensor | None:
        """The gradient of single numbers of a weight of that shape, by sorted flat index, float32.

        None where the whole gradient takes no longer.
        """
        matrix = (shape[0], shape[1:].numel())
        if not upstream.is_cpu or not sampled.pays(len(flat), matrix, upstream.dtype):
            return None
        factors = self.factors(upstream, x)
        return None if factors is None else sampled.sampled_products(factors, flat, matrix)

    @abc.abstractmethod
    def bias_grad(self, upstream: Tensor) -> Tensor:
        """The gradient of the bias."""

    @abc.abstractmethod
    def feature_axis(self, x: Tensor) -> int:
        """Where the features of the input and of the output lie."""


class LinearLayer(Layer):
    """`nn.Linear`: tokens of any shape before the features."""

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """x W^T + b."""
        return F.linear(x, weight, bias)

    def input_grad(self, upstream: Tensor, shape: torch.Size, weight: Tensor) -> Tensor:
        """The upstream gradient times W."""
        return upstream @ weight

    def weight_grad(self, upstream: Tensor, x: Tensor, rows: Rows) -> Tensor:
        """Summed over all tokens."""
        flat = upstream.reshape(-1, upstream.shape[-1])
        flat = flat[:, rows] if isinstance(rows, slice) else flat.index_select(1, rows)
        return flat.T @ x.reshape(-1, x.shape[-1])

    def factors(self, upstream: Tensor, x: Tensor) -> list[tuple[Tensor, Tensor]]:
        """One pair: the tokens of all samples."""
        return [(self.by_feature(upstream), self.by_feature(x))]

    def by_feature(self, x: Tensor) -> Tensor:
        """Features x places."""
        return x.reshape(-1, x.shape[-1]).T

    def bias_grad(self, upstream: Tensor) -> Tensor:
        """Summed over all tokens."""
        return upstream.reshape(-1, upstream.shape[-1]).sum(0)

    def feature_axis(self, x: Tensor) -> int:
        """The last."""
        return x.ndim - 1


class ConvLayer(Layer):
    """`nn.Conv1d`, `nn.Conv2d` or `nn.Conv3d` with zero padding; batched."""

    def __init__(self, conv: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> None:
        self.dims = len(conv.kernel_size)
        self.kernel = tuple(conv.kernel_size)
        self.groups = conv.groups
        padding: Any = conv.padding
        if isinstance(padding, str):
            padding = [
                (d * (k - 1)) // 2 if padding == "same" else 0 for d, k in zip(conv.dilation, self.kernel, strict=True)
            ]
        self.geometry = (list(conv.stride), list(padding), list(conv.dilation))

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The convolution."""
        convolve = (F.conv1d, F.conv2d, F.conv3d)[self.dims - 1]
        stride, padding, dilation = self.geometry
        return convolve(x, weight, bias, stride, padding, dilation, self.groups)

    def input_grad(self, upstream: Tensor, shape: torch.Size, weight: Tensor) -> Tensor:
        """The transposed convolution of the upstream gradient."""
        # the input's numbers play no part, only its shape; oneDNN would copy what is not laid out as a whole tensor
        if upstream.is_cpu and upstream.is_contiguous() and shape.numel() <= upstream.numel():
            empty = upstream.view(-1)[: shape.numel()].view(shape)
        else:
            empty = upstream.new_empty(1).expand(shape)
        found: Tensor = self._backward(upstream, empty, weight, self.groups, [True, False, False])[0]
        return found

    def weight_grad(self, upstream: Tensor, x: Tensor, rows: Rows) -> Tensor:
        """Summed over all places."""
        groups = self.groups
        if groups > 1:  # rows of different groups read different channels: make all, they are few
            per_group = x.shape[1] // groups
            whole = upstream.new_empty(1).expand(upstream.shape[1], per_group, *self.kernel)
            dense: Tensor = self._backward(upstream, x, whole, groups, [False, True, False])[1]
            return dense[rows] if isinstance(rows, slice) else dense.index_select(0, rows)
        part = upstream[:, rows] if isinstance(rows, slice) else upstream.index_select(1, rows)
        if upstream.is_cpu and x.shape[1] * math.prod(self.kernel) <= part.shape[1]:
            # few channels, whose taps take less room than the upstream gradient: oneDNN takes ten times as long
            taps = self._taps(x, part.shape[2:])
            per_sample = torch.bmm(part.flatten(2), taps.transpose(1, 2))
            return per_sample.sum(0, dtype=torch.float32).view(-1, x.shape[1], *self.kernel)
        shape = (part.shape[1], x.shape[1], *self.kernel)
        found: Tensor = self._backward(part.contiguous(), x, part.new_empty(1).expand(shape), 1, [False, True, False])[
            1
        ]
        return found

    def _taps(self, x: Tensor, places: torch.Size) -> Tensor:
        """What every place of the kernel reads: batch x (channels kernel) x places."""
        stride, padding, dilation = self.geometry
        padded = F.pad(x, [side for p in reversed(padding) for side in (p, p)])
        taps = []
        for tap in itertools.product(*(range(k) for k in self.kernel)):
            reads = [
                slice(t * d, t * d + s * (n - 1) + 1, s)
                for t, d, s, n in zip(tap, dilation, stride, places, strict=True)
            ]
            taps.append(padded[(slice(None), slice(None), *reads)])
        return torch.stack(taps, 2).flatten(3).flatten(1, 2)

    def factors(self, upstream: Tensor, x: Tensor) -> list[tuple[Tensor, Tensor]] | None:
        """One pair a sample, of filters that read single places."""
        stride, padding, _ = self.geometry
        if self.groups > 1 or math.prod((*self.kernel, *stride)) > 1 or any(padding):
            return None
        return list(zip(upstream.flatten(2), x.flatten(2), strict=True))

    def single_grads(self, upstream: Tensor, x: Tensor, flat: Tensor, shape: torch.Size) -> Tensor | None:
        """Of filters that go one place at a time too."""
        found = super().single_grads(upstream, x, flat, shape)
        stride, padding, dilation = self.geometry
        if found is not None or not upstream.is_cpu or self.groups > 1 or math.prod(stride) > 1:
            return found
        if not slid.pays(len(flat), shape, upstream.dtype):
            return None
        return slid.slid_products(upstream, x, flat, self.kernel, padding, dilation)

    def _backward(self, upstream: Tensor, x: Tensor, weight: Tensor, groups: int, mask: list[bool]) -> Any:
        stride, padding, dilation = self.geometry
        return torch.ops.aten.convolution_backward(
            upstream, x, weight, None, stride, padding, dilation, False, [0] * self.dims, groups, mask
        )

    def bias_grad(self, upstream: Tensor) -> Tensor:
        """Summed over all places."""
        return upstream.flatten(2).sum((0, 2))

    def feature_axis(self, x: Tensor) -> int:
        """The second, after the batch."""
        return 1


def writable(parameter: Tensor) -> bool:
    """Tells whether numbers of a parameter can be changed: it is no quantized or otherwise special tensor."""
    return type(parameter) is nn.Parameter and parameter.is_floating_point() and parameter.device.type != "meta"


def layer_of(module: nn.Module) -> Layer | None:
    """The arithmetic of a module; None where it is not exactly one of the layers known here."""
    if isinstance(module, nn.Linear) and type(module).forward is nn.Linear.forward:
        return LinearLayer() if type(module.weight) is nn.Parameter else None
    for kind in (nn.Conv1d, nn.Conv2d, nn.Conv3d):
        if isinstance(module, kind) and type(module)._conv_forward is kind._conv_forward:
            symmetric = not (isinstance(module.padding, str) and module.padding == "same" and _uneven(module))
            return ConvLayer(module) if module.padding_mode == "zeros" and symmetric else None
    return None


def _uneven(conv: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> bool:
    """Tells whether "same" would pad one side more than the other."""
    return any((d * (k - 1)) % 2 for d, k in zip(conv.dilation, conv.kernel_size, strict=True))
