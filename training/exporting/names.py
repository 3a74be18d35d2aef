"""What other programs call the layers of a network in their LoRA files."""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import torch
from torch import Tensor

from training.exporting.factors import Factors

Format = Literal["diffusers", "lora", "comfyui"]
Namer = Callable[[str], str | None]
"""From a layer's path to its name; None where the format has none."""

_WAN: Final = (
    (r"^blocks\.(\d+)\.attn1\.to_(q|k|v)$", r"blocks.\1.self_attn.\2"),
    (r"^blocks\.(\d+)\.attn1\.to_out\.0$", r"blocks.\1.self_attn.o"),
    (r"^blocks\.(\d+)\.attn2\.to_(q|k|v)$", r"blocks.\1.cross_attn.\2"),
    (r"^blocks\.(\d+)\.attn2\.to_out\.0$", r"blocks.\1.cross_attn.o"),
    (r"^blocks\.(\d+)\.attn2\.add_(k|v)_proj$", r"blocks.\1.cross_attn.\2_img"),
    (r"^blocks\.(\d+)\.ffn\.net\.0\.proj$", r"blocks.\1.ffn.0"),
    (r"^blocks\.(\d+)\.ffn\.net\.2$", r"blocks.\1.ffn.2"),
)
_WAN_AROUND: Final = (
    (r"^condition_embedder\.(text|time)_embedder\.linear_1$", r"\1_embedding.0"),
    (r"^condition_embedder\.(text|time)_embedder\.linear_2$", r"\1_embedding.2"),
    (r"^condition_embedder\.time_proj$", r"time_projection.1"),
    (r"^condition_embedder\.image_embedder\.ff\.net\.0\.proj$", r"img_emb.proj.1"),
    (r"^condition_embedder\.image_embedder\.ff\.net\.2$", r"img_emb.proj.3"),
    (r"^proj_out$", r"head.head"),
)
_UNET: Final = ((r"^add_embedding\.linear_1$", "label_emb.0.0"), (r"^add_embedding\.linear_2$", "label_emb.0.2"))
"""SDXL's extra conditions, which kohya calls by their original names alone."""
_KEEP_NAMES: Final = ("SD3Transformer2DModel", "PixArtTransformer2DModel", "FluxTransformer2DModel")
"""Networks whose diffusers names ComfyUI knows itself, since it joins q, k and v."""


@dataclass(frozen=True, kw_only=True)
class Naming:
    """How a LoRA file is written."""

    name: Namer
    down_up: bool
    """`lora_down`, `lora_up` and `alpha`, as kohya writes; else `lora_A` and `lora_B`."""
    every: bool = False
    """diffusers reads such files only where every layer that has a name is in it."""

    def tensors(self, layers: Mapping[str, Factors], dtype: torch.dtype) -> dict[str, Tensor]:
        """The file's tensors; every layer's path must have a name.

        Alpha is the same for all layers, and what a layer is scaled by on reading is undone here: diffusers loses the
        alphas of some layers that differ from the others'.
        """
        down, up = ("lora_down", "lora_up") if self.down_up else ("lora_A", "lora_B")
        alpha = Counter(factors.rank for factors in layers.values()).most_common(1)[0][0]
        found: dict[str, Tensor] = {}
        for path, factors in layers.items():
            name = self.name(path)
            assert name is not None
            found[f"{name}.{down}.weight"] = factors.a.to(dtype).contiguous()
            scale = factors.rank / alpha if self.down_up else 1.0
            found[f"{name}.{up}.weight"] = (factors.b * scale).to(dtype).contiguous()
            if self.down_up:
                found[f"{name}.alpha"] = torch.tensor(float(alpha))
        return found


def naming(format: Format, component: str, network: str) -> Naming:
    """How a format names the layers of a network.

    Args:
        component: the pipeline's name for the network, "unet", "transformer" or "transformer_2".
        network: the network's class.

    Raises:
        ValueError: the format has no names for it.
    """
    if format == "diffusers":
        # both transformers of Wan 2.2 have the same names in files; who reads one says which it is for
        prefix = "transformer" if component == "transformer_2" else component
        return Naming(name=lambda path: f"{prefix}.{path}", down_up=False)
    if component == "unet":
        return Naming(name=lambda path: "lora_unet_" + _renamed(path, _UNET).replace(".", "_"), down_up=True)
    if network.startswith("Wan") or network == "AnimateXTransformer3DModel":
        if format == "comfyui":
            return Naming(name=lambda path: _prefixed("diffusion_model.", path, _WAN + _WAN_AROUND), down_up=False)
        return Naming(name=_kohya_wan, down_up=True, every=True)
    if format == "comfyui" and network in _KEEP_NAMES:
        return Naming(name=lambda path: f"transformer.{path}", down_up=False)
    raise ValueError(f"--format {format}: there are no names for a {network} in it; use --format diffusers or merged")


def _kohya_wan(path: str) -> str | None:
    name = _prefixed("", path, _WAN)
    return None if name is None else "lora_unet_" + name.replace(".", "_")


def _prefixed(prefix: str, path: str, rules: tuple[tuple[str, str], ...]) -> str | None:
    name = _renamed(path, rules)
    return None if name == path else prefix + name


def _renamed(path: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, name in rules:
        if re.match(pattern, path):
            return re.sub(pattern, name, path)
    return path
