"""Muon for every weight that is a matrix or a filter, AdamW for the rest, in one optimizer.

The momentum of a matrix is replaced by the nearest orthogonal one, so that all its directions learn at the same pace
(Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"). A convolution's filters are a matrix
with one row an output channel. torch has `torch.optim.Muon`, which refuses filters; 63 % of our codec is filters.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn

from training.precision import multiplies_bf16

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic iteration, tuned for speed near 0 (the singular values end in about 0.7..1.2)."""


def orthogonalise(matrix: Float[Tensor, "rows columns"], steps: int = 5) -> Float[Tensor, "rows columns"]:
    """Brings every singular value of a matrix near 1 and keeps its singular vectors, in bfloat16 where that is fast."""
    a, b, c = NEWTON_SCHULZ
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.to(_product_type(matrix))
    x = x.T if tall else x
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.T if tall else x).to(matrix.dtype)


def _product_type(matrix: Tensor) -> torch.dtype:
    return torch.bfloat16 if multiplies_bf16(matrix.device) else matrix.dtype


def orthogonalise_all(matrices: Sequence[Float[Tensor, "_ _"]]) -> list[Float[Tensor, "_ _"]]:
    """Orthogonalises matrices that every process holds alike: each process takes a share and tells the others."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return [orthogonalise(matrix) for matrix in matrices]
    done = list(matrices)
    for rank, share in enumerate(shares([_cost(matrix) for matrix in matrices], dist.get_world_size())):
        if not share:
            continue
        dtype = _product_type(matrices[share[0]])
        # nothing is lost: the iteration ends in this type
        if rank == dist.get_rank():
            flat = torch.cat([orthogonalise(matrices[k]).to(dtype).flatten() for k in share])
        else:
            flat = matrices[share[0]].new_empty(sum(matrices[k].numel() for k in share), dtype=dtype)
        dist.broadcast(flat.view(torch.uint8), src=rank)  # as bytes: not every backend knows bfloat16
        for k, part in zip(share, flat.split([matrices[k].numel() for k in share]), strict=True):
            done[k] = part.view_as(matrices[k]).to(matrices[k].dtype)
    return done


def shares(costs: Sequence[float], count: int) -> list[list[int]]:
    """Deals work out to `count` workers, the largest piece first, always to whom has least to do."""
    dealt: list[list[int]] = [[] for _ in range(count)]
    loads = [0.0] * count
    for index in sorted(range(len(costs)), key=lambda k: -costs[k]):
        worker = loads.index(min(loads))
        dealt[worker].append(index)
        loads[worker] += costs[index]
    return dealt


def _cost(matrix: Tensor) -> float:
    """Multiplications of one iteration, but for a factor."""
    return float(min(matrix.shape)) ** 2 * max(matrix.shape)


class Muon(torch.optim.Optimizer):
    """Muon with decoupled weight decay; groups with `orthogonal=False` get AdamW.

    The update has the root mean square that AdamW's usually has, 0.2, so both take the same learning rate
    (Liu et al. 2025, arXiv 2502.16982, sec. 2.2).
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        *,
        lr: float,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.98),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            groups,
            {
                "lr": lr,
                "momentum": momentum,
                "betas": betas,
                "eps": eps,
                "weight_decay": weight_decay,
                "orthogonal": False,
            },
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Updates every parameter that has a gradient."""
        assert closure is None, "a closure is not used here"
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if group["orthogonal"]:
                updates = self._orthogonal(parameters, group)
            else:
                updates = [self._adam(p, p.grad, group) for p in parameters]
            for parameter, update in zip(parameters, updates, strict=True):
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update, alpha=-group["lr"])

    def _orthogonal(self, parameters: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
        ahead = []
        for parameter in parameters:
            state = self.state[parameter]
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(parameter)
            gradient = parameter.grad
            assert gradient is not None
            state["momentum"].lerp_(gradient, 1 - group["momentum"])
            ahead.append(gradient.lerp(state["momentum"], group["momentum"]).flatten(1))
        return [
            (update * (0.2 * max(update.shape) ** 0.5)).view_as(parameter)
            for parameter, update in zip(parameters, orthogonalise_all(ahead), strict=True)
        ]

    def _adam(self, parameter: Tensor, grad: Tensor, group: dict[str, Any]) -> Tensor:
        state = self.state[parameter]
        if "step" not in state:
            state.update(step=torch.zeros(()), mean=torch.zeros_like(parameter), square=torch.zeros_like(parameter))
        first, second = group["betas"]
        state["step"] += 1
        state["mean"].lerp_(grad, 1 - first)
        state["square"].lerp_(grad.square(), 1 - second)
        count = float(state["step"])
        scale = ((1 - second**count) ** 0.5) / (1 - first**count)
        return state["mean"] * scale / (state["square"].sqrt() + group["eps"] * (1 - second**count) ** 0.5)


def muon_for(module: nn.Module, *, lr: float, weight_decay: float) -> Muon:
    """Sorts a module's trainable parameters: matrices and filters to Muon, embeddings and vectors to AdamW."""
    tables = {id(m.weight) for m in module.modules() if isinstance(m, nn.Embedding)}
    trainable = [p for p in module.parameters() if p.requires_grad]
    matrices = [p for p in trainable if p.ndim >= 2 and id(p) not in tables and min(p.flatten(1).shape) > 1]
    chosen = {id(p) for p in matrices}
    rest = [p for p in trainable if id(p) not in chosen]
    groups = [
        {"params": matrices, "orthogonal": True, "weight_decay": weight_decay},
        {"params": rest, "orthogonal": False},
    ]
    return Muon([g for g in groups if g["params"]], lr=lr)
