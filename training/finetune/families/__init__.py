"""Kinds of pipelines that can be fine-tuned. One file a kind."""

import models.pipeline  # noqa: F401  (makes our pipeline known to diffusers)
from training.finetune.families import (
    animator,
    dit,
    pixart,
    stable_diffusion,
    stable_diffusion_3,
    stable_diffusion_xl,
    wan,
)
from training.finetune.families.base import FAMILIES, Clip, Draws, Family, LevelError, Prediction, draw, open_family

__all__ = [
    "FAMILIES",
    "Clip",
    "Draws",
    "Family",
    "LevelError",
    "Prediction",
    "animator",
    "dit",
    "draw",
    "open_family",
    "pixart",
    "stable_diffusion",
    "stable_diffusion_3",
    "stable_diffusion_xl",
    "wan",
]
