"""Making a layer's input again from what autograd keeps anyway, instead of keeping it.

An input is needed only for the gradient of the layer's own weight. Where it came out of a LayerNorm or an activation,
autograd keeps what went into that for its own gradient, and making the input again costs next to nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

_BLOCK: Final = 1 << 17
"""Numbers of a norm's output that are made at a time; a GPU has no use for so few."""
_GPU_BLOCK: Final = 1 << 25
_NORM: Final = "NativeLayerNormBackward0"
"""The autograd node of a LayerNorm."""


def _layer_norm(node: Any) -> Tensor:
    x = node._saved_input
    width = x.shape[-len(node._saved_normalized_shape) :].numel()
    rows = x.reshape(-1, width)
    mean, rstd = (t.reshape(-1, 1).float() for t in (node._saved_result1, node._saved_result2))
    weight, bias = (None if t is None else t.reshape(-1).float() for t in (node._saved_weight, node._saved_bias))
    made = torch.empty_like(rows, memory_format=torch.contiguous_format)
    # a few rows at a time, in place: the float32 copy stays in the cache
    step = max(1, (_GPU_BLOCK if x.is_cuda else _BLOCK) // width)
    for first in range(0, len(rows), step):
        cut = slice(first, first + step)
        part = rows[cut].to(torch.float32, copy=True).sub_(mean[cut]).mul_(rstd[cut])
        if weight is not None and bias is not None:
            torch.addcmul(bias, part, weight, out=part)
        elif weight is not None:
            part.mul_(weight)
        elif bias is not None:
            part.add_(bias)
        made[cut] = part
    return made.view(x.shape)


_ACTIVATIONS: Final[dict[str, Callable[[Any, Tensor], Tensor]]] = {
    "GeluBackward0": lambda node, x: F.gelu(x, approximate=node._saved_approximate),
    "SiluBackward0": lambda node, x: F.silu(x),
}
"""By the name of the autograd node that made the input: what it makes of a part of its own input, `_saved_self`."""


@dataclass(eq=False)
class _Shared:
    """One node's output for all layers that read it (queries, keys and values do): gone after the last.

    It must not know the node, in whose metadata it lies: nothing would ever free such a circle.
    """

    waiting: int = 0
    made: Tensor | None = None


class Again:
    """Makes one layer's input again, once; a few places at a time, or of a LayerNorm, last bits may differ."""

    def __init__(self, node: Any, dtype: torch.dtype) -> None:
        self._node, self._dtype = node, dtype
        self._activation = _ACTIVATIONS.get(node.name())
        self._shared: _Shared = node.metadata.setdefault("made again", _Shared())
        self._shared.waiting += 1

    def whole(self) -> Tensor:
        """All of it, made for the first of its readers and let go by the last."""
        shared, node = self._shared, self._node
        made = shared.made
        if made is None:
            with torch.no_grad():
                made = self._activation(node, node._saved_self) if self._activation else _layer_norm(node)
        shared.waiting -= 1
        shared.made = made if shared.waiting > 0 else None
        return made.to(self._dtype)

    def let_go(self) -> None:
        """Does without."""
        self._shared.waiting -= 1
        if self._shared.waiting <= 0:
            self._shared.made = None

    def by_place(self, dtype: torch.dtype) -> Callable[[int, int], Float[Tensor, "features places"]] | None:
        """What makes a few places at a time, of all samples and tokens in a row; None where all at once is better."""
        activation, node, shared = self._activation, self._node, self._shared
        if activation is None or shared.waiting > 1 or shared.made is not None:
            return None
        shared.waiting -= 1
        rows = node._saved_self.reshape(-1, node._saved_self.shape[-1])

        def made(first: int, last: int) -> Tensor:
            with torch.no_grad():
                return activation(node, rows[first:last]).to(self._dtype).to(dtype).T

        return made


def recompute_of(x: Tensor) -> Again | None:
    """What makes `x` again during the backward pass; None where it has to be kept."""
    if torch._C._autograd._top_saved_tensors_default_hooks(False) is not None:
        return None  # checkpointing or offloading has what is saved in its own hands
    node: Any = x.grad_fn
    while node is not None and node.name() == "ToCopyBackward0":
        node = node.next_functions[0][0]
    if node is None or node.name() not in {*_ACTIVATIONS, _NORM}:
        return None
    return Again(node, x.dtype)
