"""What gradients say of every number of a network, before it is trained."""

from collections.abc import Callable, Mapping

import torch
from accelerate.utils import broadcast
from jaxtyping import Float
from torch import Tensor, nn

from training.methods.base import Losses
from training.processes import know_each_other, several_processes


def snip(weight: Tensor, grad: Tensor) -> Tensor:
    """|w g|: how much the loss would change without the number (SNIP, arXiv 1810.02340)."""
    return (weight * grad).abs()


def fisher(weight: Tensor, grad: Tensor) -> Tensor:
    """g^2, the diagonal of the empirical Fisher information (FISH, arXiv 2111.09839)."""
    return grad.square()


def size_of_gradient(weight: Tensor, grad: Tensor) -> Tensor:
    """|g|, SHiRA's Grad (arXiv 2406.13175, sec. 3)."""
    return grad.abs()


def gradient_scores(
    model: nn.Module, tensors: Mapping[str, nn.Parameter], losses: Losses, rule: Callable[[Tensor, Tensor], Tensor]
) -> dict[str, Float[Tensor, "..."]]:
    """The sum over batches of what `rule` makes of a tensor and its gradient, on the CPU.

    A tensor's gradient is taken as soon as it is complete and freed, so only one exists at a time. Of several processes
    all get what the main one found: on GPUs sums come out in any order, and their choices would not be the same.
    """
    scores = {n: torch.zeros(p.shape) for n, p in tensors.items()}
    before = {n: p.requires_grad for n, p in model.named_parameters()}
    hooks = []

    def take(name: str) -> Callable[[Tensor], None]:
        def hook(parameter: Tensor) -> None:
            assert parameter.grad is not None
            scores[name] += rule(parameter.detach().float(), parameter.grad.float()).cpu()
            parameter.grad = None

        return hook

    try:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in tensors)
            if name in tensors:
                hooks.append(parameter.register_post_accumulate_grad_hook(take(name)))
        with torch.enable_grad():
            for loss in losses():
                loss.backward()
    finally:
        for hook in hooks:
            hook.remove()
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(before[name])
    if several_processes():
        device = next(iter(tensors.values())).device
        know_each_other(device)
        for score in scores.values():
            score.copy_(broadcast(score.to(device)))
    return scores
