"""Chosen numbers of a filter's gradient alone, on a CPU.

A filter that goes one place at a time meets every place of the output with the place of the input that lies so far
ahead of it. With both on one grid, padded alike, the gradient of one of its numbers is the dot product of a channel of
the output with a channel of the input, shifted. Torch has dot products of rows of two tables as the gradient of an
embedding bag's weights, and the rows of a table may overlap: all shifts are views of the same input.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import product
from operator import mul
from typing import Final

import torch
from jaxtyping import Float, Int
from torch import Tensor

_COST: Final = {torch.bfloat16: 24, torch.float32: 50}
"""What a single dot product costs, in numbers of a dense gradient of that type (one core with AVX512-bf16, where the
dense one of bfloat16 is fast; float32's dot products are the slower ones). Other types are left to the dense one."""
_GRID_COST: Final = 2
"""What laying a channel on the grid costs, in single dot products."""
_BLOCK: Final = 1 << 20
"""Numbers of both at a time, so that they take little memory and stay in the cache."""
_PLACES: Final = 1 << 13
"""Places at a time, where channels are few: longer sums in float32 would be less exact."""


def pays(count: int, shape: Sequence[int], dtype: torch.dtype) -> bool:
    """Tells whether `count` single products of a filter of that shape cost less than its whole gradient.

    Up to 4 % of it in bfloat16, 2 % in float32, where it has many channels.
    """
    whole = math.prod(shape) / _COST.get(dtype, float("inf"))
    return count + _GRID_COST * (shape[0] + shape[1]) < whole


def slid_products(
    upstream: Float[Tensor, "batch outputs ..."],
    x: Float[Tensor, "batch inputs ..."],
    flat: Int[Tensor, "count"],
    kernel: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Float[Tensor, "count"]:
    """The gradient of a filter at sorted flat indices, float32; its stride is 1 and it has one group.

    In bfloat16 the sum over a block of places is rounded to bfloat16 before it is added to the others.
    """
    inputs, outputs, taps = x.shape[1], upstream.shape[1], math.prod(kernel)
    chosen = flat.long()
    row, channel, tap = chosen // (inputs * taps), chosen // taps % inputs, chosen % taps
    whole_bag = torch.zeros(1, dtype=torch.int64)
    found = torch.zeros(len(flat), dtype=torch.float32)
    # how many places of the first axis a block reads beyond those that it makes
    beyond = dilation[0] * (kernel[0] - 1)
    across = [side + 2 * pad for side, pad in zip(x.shape[3:], padding[1:], strict=True)]
    steps = [apart * math.prod(across[axis:]) for axis, apart in enumerate(dilation)]
    ahead = torch.tensor([sum(map(mul, at, steps)) for at in product(*map(range, kernel))])
    most = min(_PLACES, _BLOCK // (inputs + outputs)) // math.prod(across)
    for samples, lines in _blocks(len(x), upstream.shape[2], beyond, most):
        grid = [lines.stop - lines.start + beyond, *across]
        length = (samples.stop - samples.start) * math.prod(grid)
        top = max(0, lines.start - padding[0])
        read = x[samples, :, top : max(top, lines.stop + beyond - padding[0])]
        places = _on_grid(read, grid, [max(0, padding[0] - lines.start), *padding[1:]], int(ahead[-1]))
        # row r begins at number r: a channel's r-th place and what follows it
        shifted = places.as_strided(((inputs - 1) * length + int(ahead[-1]) + 1, length), (1, 1))
        made = _on_grid(upstream[samples, :, lines], grid, [0] * len(grid), 0).view(outputs, length)
        found += torch.ops.aten._embedding_bag_per_sample_weights_backward(
            made, shifted, channel * length + ahead[tap], whole_bag, row, 0
        )
    return found


def _blocks(batch: int, lines: int, beyond: int, most: int) -> Iterator[tuple[slice, slice]]:
    """Whole samples, or lines of one, of not more than `most` lines with what is read beyond them, if that can be."""
    together = max(1, most // (lines + beyond))
    step = lines if lines + beyond <= most else max(1, most - beyond)
    for first in range(0, batch, together):
        for line in range(0, lines, step):
            yield slice(first, min(first + together, batch)), slice(line, min(line + step, lines))


def _on_grid(x: Tensor, grid: Sequence[int], corner: Sequence[int], more: int) -> Tensor:
    """All places of a channel, one sample after the other, then the next channel's; 0 around them, and `more` of it."""
    samples, channels = x.shape[:2]
    room = x.new_zeros(channels * samples * math.prod(grid) + more)
    inside = [slice(at, at + side) for at, side in zip(corner, x.shape[2:], strict=True)]
    room[: len(room) - more].view(channels, samples, *grid)[(slice(None), slice(None), *inside)] = x.transpose(0, 1)
    return room
