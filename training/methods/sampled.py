"""Chosen dot products of two factors alone (SDDMM), on a CPU.

Torch has the product (`torch.sparse.sampled_addmm`), in float32 and of factors with one row a feature. Layers have one
row a place, so both are turned, a few places at a time. Turning is half of the work with torch's own copy; OpenCV turns
float32 three times as fast.
"""

import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Final

import cv2
import torch
from jaxtyping import Float, Int
from torch import Tensor

_COST: Final = {torch.bfloat16: 30, torch.float32: 8}
"""What a single sampled dot product costs, in numbers of a dense product of that type (one core with AVX512-bf16; a CPU
without makes the dense one slower still). Other types have no sampled product here."""
_TURNED_COST: Final = 4
"""What turning a feature costs, in single dot products."""
_BLOCK: Final = 1 << 20
"""Numbers of both factors at a time: about the fastest on a core with 1 MiB of second-level cache; a fourth and twice
as many take longer."""


def pays(count: int, shape: tuple[int, int], dtype: torch.dtype) -> bool:
    """Tells whether `count` sampled products of a matrix of that shape cost less than a dense one.

    Up to 2 % of a matrix of 768 to 3,072 features in bfloat16, 10 % in float32; hardly any of 256 in bfloat16.
    """
    return count + _TURNED_COST * sum(shape) < shape[0] * shape[1] / _COST.get(dtype, float("inf"))


Factor = Tensor | Callable[[int, int], Tensor]
"""Features x places, or what makes those from the first place up to the last."""


def sampled_products(
    factors: Sequence[tuple[Tensor, Factor]], flat: Int[Tensor, "count"], shape: tuple[int, int]
) -> Float[Tensor, "count"]:
    """Sums over all pairs of A B^T, at sorted flat indices of a matrix, added up in float32.

    Factors are in float32 or bfloat16; fastest as the transposes of what has one row a place.
    """
    _hush()
    rows, columns = shape
    found = torch.zeros(len(flat), dtype=torch.float32)
    first_of_row = torch.searchsorted(flat, torch.arange(rows + 1, dtype=flat.dtype) * columns)
    pattern = torch.sparse_csr_tensor(
        first_of_row.to(flat.dtype), flat % columns, found, (rows, columns), check_invariants=False
    )
    step = max(16, _BLOCK // (rows + columns) // 16 * 16)
    # the same room for all blocks: fresh pages would cost more than the products
    room = torch.empty((rows + columns) * step, dtype=torch.float32)
    flat_room = torch.empty(max(rows, columns) * step, dtype=torch.float32)
    for upstream, x in factors:
        places = upstream.shape[1]
        for first in range(0, places, step):
            last = min(first + step, places)
            block = room[: (rows + columns) * (last - first)].view(-1, last - first)
            _turn(upstream[:, first:last], block[:rows], flat_room)
            _turn(x(first, last) if callable(x) else x[:, first:last], block[rows:], flat_room)
            torch.sparse.sampled_addmm(pattern, block[:rows], block[rows:].T, out=pattern)
    return found


def _turn(part: Tensor, into: Float[Tensor, "features places"], room: Float[Tensor, "n"]) -> None:
    """Writes features x places, mostly the transpose of what lies there, in float32."""
    by_place = part.T
    if not by_place.is_contiguous():
        into.copy_(part)
        return
    if part.dtype != torch.float32:  # both steps are faster than one that does both
        by_place = room[: part.numel()].view(by_place.shape).copy_(by_place)
    cv2.transpose(by_place.numpy(), into.numpy())


@functools.cache
def _hush() -> None:
    """Lets torch say for itself, as it does once in a process, that its CSR tensors are in beta."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.sparse_csr_tensor([0, 0], [], [], (1, 1), check_invariants=False)
