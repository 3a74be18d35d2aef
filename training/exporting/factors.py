"""Writing the change of a layer as a product of two thin matrices."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from training.methods.changes import Change


@dataclass(frozen=True, kw_only=True)
class Factors:
    """A LoRA of one layer: the change is B A."""

    a: Float[Tensor, "rank ..."]
    """(rank, inputs), or (rank, channels, *kernel) of a convolution."""
    b: Float[Tensor, "outputs rank ..."]
    """(outputs, rank), or (outputs, rank, 1, ...) of a convolution."""

    @property
    def rank(self) -> int:
        """Of the product, at most."""
        return len(self.a)

    def product(self) -> Float[Tensor, "..."]:
        """B A in the shape of the weight."""
        b, a = self.b.flatten(1).double(), self.a.flatten(1).double()
        return (b @ a).float().view(self.b.shape[0], *self.a.shape[1:])


def exact_rank(change: Change) -> int:
    """The rank at which `factor` leaves nothing out without looking at the numbers: rows or columns that change."""
    rows, columns = _touched(change)
    return min(len(rows), len(columns))


def factor(change: Change, rank: int | None = None) -> Factors:
    """Factors of rank `rank` at most, nearest to the change; exact where that is enough, and without `rank`.

    A change of r columns is the changed columns times a choice of columns, one of r rows a choice of rows times the
    changed rows. An input channel of a convolution is as many columns as its kernel has places. Else the largest
    singular vectors are taken, from the smaller of the two Gram matrices in float64.
    """
    rows, columns = _touched(change)
    matrix = change.dense().flatten(1)
    if rank is None or min(len(rows), len(columns)) <= rank:
        if len(columns) <= len(rows):
            a = torch.zeros(len(columns), matrix.shape[1])
            a[torch.arange(len(columns)), columns] = 1
            return _shaped(a, matrix[:, columns], change.shape)
        b = torch.zeros(matrix.shape[0], len(rows))
        b[rows, torch.arange(len(rows))] = 1
        return _shaped(matrix[rows], b, change.shape)
    wide = matrix.double() if matrix.shape[0] <= matrix.shape[1] else matrix.double().T
    _, vectors = torch.linalg.eigh(wide @ wide.T)
    top = vectors[:, -rank:].flip(1)
    thin, long = top.float(), (top.T @ wide).float()
    if matrix.shape[0] <= matrix.shape[1]:
        return _shaped(long, thin, change.shape)
    return _shaped(thin.T.contiguous(), long.T.contiguous(), change.shape)


def _touched(change: Change) -> tuple[Tensor, Tensor]:
    """Rows and columns of the matrix in which something changes."""
    width = change.shape[1:].numel()
    where = change.positions()
    where = where[change.values != 0]
    return torch.unique(where // width), torch.unique(where % width)


def _shaped(a: Tensor, b: Tensor, shape: torch.Size) -> Factors:
    ones = (1,) * (len(shape) - 2)
    return Factors(a=a.reshape(-1, *shape[1:]).contiguous(), b=b.reshape(shape[0], -1, *ones).contiguous())


def relative_error(found: Tensor, wanted: Tensor) -> float:
    """The norm of the difference by the norm of what is wanted."""
    norm = float(wanted.double().norm())
    return float((found.double() - wanted.double()).norm()) / norm if norm else float(found.double().norm())
