"""Kinds of pipelines that can be fine-tuned. One file a kind."""

import models.pipeline  # noqa: F401  (makes our pipeline known to diffusers)
from training.finetune.families import animator, stable_diffusion
from training.finetune.families.base import FAMILIES, Clip, Draws, Family, draw, open_family

__all__ = ["FAMILIES", "Clip", "Draws", "Family", "animator", "draw", "open_family", "stable_diffusion"]
