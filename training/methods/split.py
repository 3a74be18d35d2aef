"""A model whose frozen weights are split over the processes of a run, each holding a part (FSDP2).

What is trained is small and stays whole in every process, so the loop, its checkpoints and adapters know nothing of it.
A block's weights are gathered when the block is called, and let go afterwards.
"""

from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from training.methods.base import Tuner
from training.methods.beside import lift, put_beside
from training.methods.quantized import frozen_layers
from training.processes import know_each_other

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def split(tuner: Tuner, device: torch.device, *, several: bool, whole: Collection[str] = ()) -> Tuner:
    """Splits the frozen layers of a tuner's model over all processes, block by block from main memory.

    Args:
        tuner: fresh from `attach`.
        device: this process's.
        several: there are others; else the model stays whole, and all the rest is as with several.
        whole: modules that stay as they are.

    Returns:
        The tuner, or what takes its place: what was trained in place of a layer that is split stands beside it.

    Raises:
        ValueError: the model does not say what its blocks are.
    """
    model = tuner.model
    supports = lift(tuner)
    layers = frozen_layers(model, whole, _LAYERS)
    names = {f"{path}.weight" for path in layers}
    if several:
        know_each_other(device)
        weights = [weight for path in layers if isinstance(weight := model.get_submodule(path).weight, Tensor)]
        _shard(model, set(weights), device)
    model.to(device)
    return put_beside(tuner, supports, apart=names)


def _shard(model: nn.Module, weights: set[Tensor], device: torch.device) -> None:
    kinds = set(getattr(model, "_no_split_modules", None) or ())
    blocks = [module for module in model.modules() if type(module).__name__ in kinds and module is not model]
    if not blocks:
        raise ValueError(
            f"split_weights: a {type(model).__name__} does not say what its blocks are, so all of it would be gathered "
            'at once; use weights_dtype = "nf4"'
        )
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    # blocks in blocks first; what is in none of them belongs to the model itself
    for module in (*reversed(blocks), model):
        left: set[nn.Parameter] = {p for p in module.parameters() if p not in weights}
        fully_shard(module, mesh=mesh, ignored_params=left)
