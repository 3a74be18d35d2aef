"""Weights that come as a file of their own: read without running any code in it, and held against a network."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from pose.wording import in_a_line

_COUNTER: Final = "num_batches_tracked"
"""Of batch norms; older files lack it, and it counts only in training."""
_WRAPPED: Final = ("state_dict", "model", "model_state_dict")
"""Where training programs put them, beside their own notes."""


def read_state(path: Path) -> dict[str, Tensor]:
    """Reads a file of tensors by name: safetensors, or what torch.save wrote, without pickled code.

    Raises:
        ValueError: there is no such file, or it holds something else.
    """
    if not path.is_file():
        raise ValueError(f"there is no weight file {path}; name a .safetensors or .pt file")
    try:
        found: Any = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except Exception as error:  # torch and safetensors raise many kinds for a broken file
        raise ValueError(
            f"cannot read the weights in {path} ({in_a_line(error)}); give safetensors, or a state dict saved by "
            "torch.save"
        ) from error
    for key in _WRAPPED:
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict) or not found or not all(isinstance(value, Tensor) for value in found.values()):
        raise ValueError(f"{path} holds no state dict, which is tensors by name; save model.state_dict()")
    # as DistributedDataParallel names them
    return {name.removeprefix("module."): value for name, value in found.items()}


def load_state(
    network: nn.Module, state: Mapping[str, Tensor], *, what: str, without: str = "", assign: bool = False
) -> None:
    """Puts weights into a network, all of them.

    Args:
        what: names file and network in errors.
        without: a part of the network that does not matter; what the file says of it is not read.
        assign: takes the tensors themselves, in their type, for a network that has none yet (on the meta device).

    Raises:
        ValueError: they are of another network; names the first weight that does not fit.
    """
    ours = network.state_dict()
    matters = {name for name in ours if not (without and name.startswith(f"{without}."))}
    for name in sorted(matters):
        if name not in state and name.endswith(_COUNTER):
            continue
        if name not in state:
            raise ValueError(f"{what}: the file lacks {name}, so it is of another network")
        if state[name].shape != ours[name].shape:
            raise ValueError(
                f"{what}: {name} is {tuple(state[name].shape)} in the file and {tuple(ours[name].shape)} in the "
                "network; name the network that the file is of"
            )
    strange = sorted(name for name in state if name not in ours and not (without and name.startswith(f"{without}.")))
    if strange:
        raise ValueError(f"{what}: the file has {strange[0]}, which the network lacks, so it is of another one")
    network.load_state_dict({name: state[name] for name in matters if name in state}, strict=False, assign=assign)
