"""Schedules and guidance for flow-matching samplers."""

from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler
from jaxtyping import Float
from torch import Tensor

FlowScheduler: TypeAlias = FlowMatchEulerDiscreteScheduler | UniPCMultistepScheduler
"""The samplers that the pipeline is tested with."""


@runtime_checkable
class Denoiser(Protocol):
    """Predicts the velocity of noisy latents at a timestep in 0..1000."""

    def __call__(
        self, latents: Float[Tensor, "batch channels frames rows columns"], timestep: Float[Tensor, ""]
    ) -> Float[Tensor, "batch channels frames rows columns"]:
        """Predicts the velocity."""
        ...


def euler(shift: float = 5.0) -> FlowMatchEulerDiscreteScheduler:
    """Builds the released sampler: Euler steps on shifted noise levels."""
    return FlowMatchEulerDiscreteScheduler(shift=shift)


def unipc(shift: float = 5.0) -> UniPCMultistepScheduler:
    """Builds the multistep sampler that Wan recommends: fewer steps for the same quality (arXiv 2302.04867)."""
    return UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift)


def set_flow_timesteps(
    scheduler: FlowScheduler, num_inference_steps: int, device: torch.device
) -> Float[Tensor, "steps"]:
    """Sets evenly spaced noise levels from 1 down, which the scheduler shifts, and ends at 0; as released.

    diffusers' own spacing for Euler starts from levels that are shifted already, so they would be shifted twice.

    Raises:
        ValueError: fewer than one step, or the scheduler is not one for flow matching.
    """
    if num_inference_steps < 1:
        raise ValueError(f"num_inference_steps must be at least 1, got {num_inference_steps}")
    if isinstance(scheduler, UniPCMultistepScheduler):
        if scheduler.config["prediction_type"] != "flow_prediction" or not scheduler.config["use_flow_sigmas"]:
            raise ValueError(
                "UniPC needs prediction_type='flow_prediction' and use_flow_sigmas=True for this model; "
                "use models.sampling.unipc()"
            )
    elif not isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
        raise ValueError(
            f"scheduler {type(scheduler).__name__} is not one for flow matching; "
            "use FlowMatchEulerDiscreteScheduler or UniPCMultistepScheduler with flow sigmas"
        )
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 0.0, num_inference_steps + 1)[:-1], device=device)
    return scheduler.timesteps


def guide(
    positive: Float[Tensor, "*dims"],
    negative: Float[Tensor, "*dims"],
    guidance_scale: float | Float[Tensor, "..."],
) -> Float[Tensor, "*dims"]:
    """Pushes a prediction away from the negative one: negative + scale (positive - negative) (arXiv 2207.12598)."""
    return negative + guidance_scale * (positive - negative)
