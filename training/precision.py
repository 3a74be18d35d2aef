"""Which type of number a processor multiplies fastest."""

from collections.abc import Mapping
from typing import Final, Literal

import torch

_WITH_BF16: Final = ("amx_bf16", "avx512_bf16", "bf16")
"""Instructions of x86-64, and Arm's."""


def multiplies_bf16(device: torch.device) -> bool:
    """Whether it has instructions for products of bfloat16; without, these take ten times as long as in float32."""
    if device.type != "cpu":
        return True
    known: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # older versions of torch do not tell
    return any(known.get(name, False) for name in _WITH_BF16)


def in_half(device: torch.device) -> torch.autocast:
    """Products in bfloat16, where that is fast, for what is not trained."""
    return torch.autocast(device.type, torch.bfloat16, enabled=multiplies_bf16(device))


def usual_precision() -> Literal["bf16", "fp32"]:
    """Of this machine's fastest device."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return "bf16" if multiplies_bf16(device) else "fp32"
