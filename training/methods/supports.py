"""Which numbers of one tensor are trained, and how they enter it.

A support says three things: which part of the tensor it rewrites, what has to be kept of a layer's input for their
gradient, and that gradient itself. The forward pass and the gradient of the input are those of the frozen layer.
"""

import abc
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from training.methods.layers import Layer, LinearLayer
from training.methods.recompute import Again
from training.methods.sampled import pays, sampled_products

CHUNK: int = 1 << 20
"""Numbers of a dense weight gradient that exist at a time; on a GPU `_GPU_CHUNK`, for small products waste it."""
_GPU_CHUNK: int = 1 << 24
_EVEN, _GPU_EVEN = 512, 64
"""Rows of a chunk are a multiple of this, where they are more."""


class Support(abc.ABC):
    """Trained numbers of one tensor, as one flat vector of `count` values."""

    kind: ClassVar[str]
    wants_all: ClassVar[bool] = True
    """Its gradient needs all of the layer's input."""
    count: int

    @abc.abstractmethod
    def take(self, weight: Tensor) -> Tensor:
        """A copy of the part of the tensor that is rewritten, in the tensor's type."""

    @abc.abstractmethod
    def put(self, weight: Tensor, part: Tensor) -> None:
        """Writes that part back."""

    def start(self, part: Tensor) -> Float[Tensor, "count"]:
        """The values that stand for the untouched part."""
        return part.flatten().float()

    def make(self, part: Tensor, values: Float[Tensor, "count"], scale: float) -> Tensor:
        """The part with the values in it; `part` is as it was before training."""
        if scale == 1.0:
            return values.to(part.dtype).view_as(part)
        base = part.float()
        return (base + scale * (values.view_as(part) - base)).to(part.dtype)

    @abc.abstractmethod
    def keep(self, layer: Layer, x: Tensor) -> Tensor:
        """What the gradient needs of the layer's input."""

    @abc.abstractmethod
    def grad(self, layer: Layer, upstream: Tensor, kept: Tensor) -> Float[Tensor, "count"]:
        """The gradient of the values from the gradient of the layer's output."""

    def grad_again(self, layer: Layer, upstream: Tensor, again: Again) -> Float[Tensor, "count"]:
        """The same, where the layer's input is made again."""
        return self.grad(layer, upstream, self.keep(layer, again.whole().to(upstream.dtype)))

    @abc.abstractmethod
    def of_dense(self, grad: Tensor) -> Float[Tensor, "count"]:
        """The gradient of the values from that of the whole tensor."""

    def bias_grad(self, layer: Layer, upstream: Tensor) -> Float[Tensor, "count"]:
        """The gradient of the values of a layer's bias."""
        return self.of_dense(layer.bias_grad(upstream))

    @classmethod
    @abc.abstractmethod
    def read(cls, index: Tensor, weight: Tensor) -> "Support":
        """Makes it from `index` and the tensor.

        Raises:
            ValueError: an index lies outside the tensor.
        """

    @abc.abstractmethod
    def index(self) -> Int[Tensor, "n"]:
        """What tells this support from another of its kind, for the adapter file."""

    @abc.abstractmethod
    def to(self, device: torch.device) -> None:
        """Moves what it holds."""


class Scattered(Support):
    """Single numbers anywhere in the tensor, by sorted flat index in logical order."""

    kind = "scattered"

    def __init__(self, index: Int[Tensor, "count"], shape: torch.Size) -> None:
        self.count = len(index)
        self.shape = shape
        # four bytes an index where they do
        self.flat = index.to(torch.int32 if shape.numel() < 2**31 else torch.int64)
        rows = shape[0] if len(shape) > 1 else 1
        self.row_size = max(1, shape.numel() // rows)
        self._cut(CHUNK, _EVEN)

    def _cut(self, chunk: int, even: int) -> None:
        """Finds which values lie in each chunk of rows: known once, so that a step asks the device nothing."""
        rows = self.shape[0] if len(self.shape) > 1 else 1
        step = max(1, chunk // self.row_size)
        if step > even:  # products of odd sizes take longer
            step -= step % even
        edges = torch.arange(0, rows + step, step).clamp(max=rows)
        self.edges = edges.tolist()
        self.bounds = torch.searchsorted(self.flat.cpu().long(), edges * self.row_size).tolist()

    def take(self, weight: Tensor) -> Tensor:
        """The chosen numbers."""
        return weight.detach().reshape(-1).index_select(0, self.flat)

    def put(self, weight: Tensor, part: Tensor) -> None:
        """Writes the chosen numbers."""
        flat = weight.detach().view(-1) if weight.is_contiguous() else None
        if flat is None:  # channels_last: logical order is not that of the memory
            whole = weight.detach().contiguous()
            whole.view(-1)[self.flat.long()] = part
            weight.detach().copy_(whole)
            return
        flat.index_copy_(0, self.flat.long(), part)

    def keep(self, layer: Layer, x: Tensor) -> Tensor:
        """All of it: any number's gradient is a product over all tokens."""
        return x

    def grad(self, layer: Layer, upstream: Tensor, kept: Tensor) -> Float[Tensor, "count"]:
        """Only the chosen dot products, or dense products of which they are gathered: whichever is faster."""
        if not self.count:
            return torch.zeros(0, device=upstream.device)
        found = layer.single_grads(upstream, kept, self.flat, self.shape)
        return self.gathered(layer, upstream, kept) if found is None else found

    def grad_again(self, layer: Layer, upstream: Tensor, again: Again) -> Float[Tensor, "count"]:
        """The same; where single products are faster, an activation is made again a few places at a time."""
        if not self.count:
            again.let_go()
            return torch.zeros(0, device=upstream.device)
        matrix = (self.shape[0], self.row_size)
        if upstream.is_cpu and isinstance(layer, LinearLayer) and pays(self.count, matrix, upstream.dtype):
            by_place = again.by_place(upstream.dtype)
            if by_place is not None:
                return sampled_products([(layer.by_feature(upstream), by_place)], self.flat, matrix)
        return super().grad_again(layer, upstream, again)

    def gathered(self, layer: Layer, upstream: Tensor, kept: Tensor) -> Float[Tensor, "count"]:
        """Dense products of a few rows at a time, of which the chosen numbers are gathered."""
        found = torch.empty(self.count, dtype=torch.float32, device=upstream.device)
        for k in range(len(self.edges) - 1):
            low, high = self.bounds[k], self.bounds[k + 1]
            if low == high:
                continue
            first, last = self.edges[k], self.edges[k + 1]
            dense = layer.weight_grad(upstream, kept, slice(first, last))
            chosen = self.flat[low:high] - first * self.row_size
            found[low:high] = dense.reshape(-1).index_select(0, chosen)
            del dense  # or two of them would exist at a time
        return found

    def of_dense(self, grad: Tensor) -> Float[Tensor, "count"]:
        """The chosen numbers."""
        return grad.reshape(-1).index_select(0, self.flat).float()

    def bias_grad(self, layer: Layer, upstream: Tensor) -> Float[Tensor, "count"]:
        """Sums of the chosen features alone, where they are few."""
        if not 0 < self.count * 8 < self.shape.numel():
            return super().bias_grad(layer, upstream)
        return layer.bias_grad(upstream.index_select(layer.feature_axis(upstream), self.flat)).float()

    @classmethod
    def read(cls, index: Tensor, weight: Tensor) -> "Scattered":
        """From flat indices."""
        return cls(_within(index, weight.numel()), weight.shape)

    def index(self) -> Int[Tensor, "count"]:
        """The flat indices."""
        return self.flat

    def to(self, device: torch.device) -> None:
        """Moves the indices."""
        if device.type == "cuda" and not self.flat.is_cuda:
            self._cut(_GPU_CHUNK, _GPU_EVEN)
        self.flat = self.flat.to(device)


class Slices(Support):
    """Whole slices of the tensor along one axis, by their numbers."""

    axis: ClassVar[int]

    def __init__(self, chosen: Int[Tensor, "n"], shape: torch.Size) -> None:
        self.chosen = chosen.to(torch.int32)
        self.shape = torch.Size((*shape[: self.axis], len(chosen), *shape[self.axis + 1 :]))
        self.count = self.shape.numel()

    def take(self, weight: Tensor) -> Tensor:
        """The slices."""
        return weight.detach().index_select(self.axis, self.chosen)

    def put(self, weight: Tensor, part: Tensor) -> None:
        """Writes the slices."""
        weight.detach().index_copy_(self.axis, self.chosen.long(), part)

    def of_dense(self, grad: Tensor) -> Float[Tensor, "count"]:
        """The slices."""
        return grad.index_select(self.axis, self.chosen).reshape(-1).float()

    @classmethod
    def read(cls, index: Tensor, weight: Tensor) -> "Slices":
        """From the slices' numbers."""
        if weight.ndim <= cls.axis:
            raise ValueError(f"a tensor of shape {tuple(weight.shape)} has no {cls.kind}")
        return cls(_within(index, weight.shape[cls.axis]), weight.shape)

    def index(self) -> Int[Tensor, "n"]:
        """The slices' numbers."""
        return self.chosen

    def to(self, device: torch.device) -> None:
        """Moves the numbers."""
        self.chosen = self.chosen.to(device)


class Columns(Slices):
    """Whole input features of a linear layer, or input channels of a convolution (PaCA, arXiv 2503.01905).

    Only these features of the input are kept for the backward pass.
    """

    kind = "columns"
    axis = 1
    wants_all = False

    def keep(self, layer: Layer, x: Tensor) -> Tensor:
        """The features that the columns read."""
        return x.index_select(layer.feature_axis(x), self.chosen)

    def grad(self, layer: Layer, upstream: Tensor, kept: Tensor) -> Float[Tensor, "count"]:
        """One product with the kept features."""
        return layer.weight_grad(upstream, kept, slice(None)).reshape(-1).float()


class Rows(Slices):
    """Whole output features of a linear layer, or output channels of a convolution."""

    kind = "rows"
    axis = 0

    def keep(self, layer: Layer, x: Tensor) -> Tensor:
        """All of it: a row reads every feature."""
        return x

    def grad(self, layer: Layer, upstream: Tensor, kept: Tensor) -> Float[Tensor, "count"]:
        """One product with the rows' share of the upstream gradient."""
        return layer.weight_grad(upstream, kept, self.chosen).reshape(-1).float()


class Singular(Support):
    """Shifts of a matrix's singular values: W = U relu(S + d) V^T (SVDiff, arXiv 2303.11305, eq. 2).

    Written as W + U (relu(S + d) - S) V^T, so that no shift is no change. A filter is a matrix with one row an output
    channel.
    """

    kind = "singular"

    def __init__(self, weight: Tensor) -> None:
        matrix = weight.detach().flatten(1).float()
        self.u, self.s, self.vh = torch.linalg.svd(matrix, full_matrices=False)
        self.count = len(self.s)
        self.edges = list(range(0, len(matrix), max(1, CHUNK // matrix.shape[1])))

    def take(self, weight: Tensor) -> Tensor:
        """All of it."""
        return weight.detach().clone()

    def put(self, weight: Tensor, part: Tensor) -> None:
        """Writes all of it."""
        weight.detach().copy_(part)

    def start(self, part: Tensor) -> Float[Tensor, "count"]:
        """No shift."""
        return torch.zeros_like(self.s)

    def make(self, part: Tensor, values: Float[Tensor, "count"], scale: float) -> Tensor:
        """The matrix with shifted singular values."""
        shift = F.relu(self.s + scale * values) - self.s
        return (part.float() + ((self.u * shift) @ self.vh).view_as(part)).to(part.dtype)

    def keep(self, layer: Layer, x: Tensor) -> Tensor:
        """All of it."""
        return x

    def grad(self, layer: Layer, upstream: Tensor, kept: Tensor) -> Float[Tensor, "count"]:
        """diag(U^T G V), with the dense gradient G a few rows at a time."""
        turned = torch.zeros_like(self.vh)
        for first in self.edges:
            rows = slice(first, first + max(1, CHUNK // self.vh.shape[1]))
            dense = layer.weight_grad(upstream, kept, rows).flatten(1).float()
            turned += self.u[rows].T @ dense
        return (turned * self.vh).sum(1)

    def of_dense(self, grad: Tensor) -> Float[Tensor, "count"]:
        """diag(U^T G V)."""
        return ((self.u.T @ grad.flatten(1).float()) * self.vh).sum(1)

    @classmethod
    def read(cls, index: Tensor, weight: Tensor) -> "Singular":
        """From the tensor itself, which must be the base's."""
        return cls(weight)

    def index(self) -> Int[Tensor, "n"]:
        """Nothing: all singular values are trained."""
        return torch.zeros(0, dtype=torch.int32)

    def to(self, device: torch.device) -> None:
        """Moves the decomposition."""
        self.u, self.s, self.vh = (t.to(device) for t in (self.u, self.s, self.vh))


def _within(index: Tensor, size: int) -> Tensor:
    if len(index) and not (int(index.min()) >= 0 and int(index.max()) < size):
        raise ValueError(
            f"an index of the adapter is {int(index.max())}, the tensor has {size}; it is of another model"
        )
    return index


SUPPORTS: dict[str, type[Support]] = {kind.kind: kind for kind in (Scattered, Columns, Rows, Singular)}
"""By the word that stands in an adapter file."""
