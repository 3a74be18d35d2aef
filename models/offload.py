"""Pipelines larger than a GPU: parts wait in main memory, whole or block by block."""

from typing import Any, Final

import torch
from diffusers.hooks import apply_group_offloading

LARGEST_SHARE: Final = 0.75
"""Of a GPU's memory that a transformer may take whole; activations and the codec need the rest."""


def offload(pipeline: Any, device: torch.device, *, memory_bytes: int) -> str | None:
    """Keeps on a device only what works.

    Args:
        memory_bytes: what the device has. A transformer that does not fit comes block by block.

    Returns:
        What a user should know; None where all is as expected.
    """
    size = sum(p.numel() * p.element_size() for p in pipeline.transformer.parameters())
    if size <= LARGEST_SHARE * memory_bytes:
        pipeline.enable_model_cpu_offload(device=device)
        return None
    block_by_block(pipeline, device)
    return (
        f"the transformer ({size / 2**30:.1f} GiB) does not fit on {device} ({memory_bytes / 2**30:.1f} GiB): its "
        "blocks come one after another"
    )


def block_by_block(pipeline: Any, device: torch.device) -> None:
    """Fetches the transformer's blocks, and the text encoder's layers, one after another; small parts stay there."""
    # while one is at work the next one is on its way
    stream = {"use_stream": device.type == "cuda", "low_cpu_mem_usage": device.type == "cuda"}
    for name, part in pipeline.components.items():
        if not isinstance(part, torch.nn.Module):
            continue
        if name == "transformer":
            apply_group_offloading(part, device, offload_type="block_level", num_blocks_per_group=1, **stream)
        elif name == "text_encoder":
            apply_group_offloading(part, device, offload_type="leaf_level", **stream)
        else:
            part.to(device)
