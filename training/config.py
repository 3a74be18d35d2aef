"""The knobs that every training run has; recipes add their own."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _whole_latents(count: int) -> int:
    if count % 4 != 1:
        raise ValueError(
            f"must be 4k + 1 (the codec makes one latent frame of 4), such as {max(1, count // 4 * 4 + 1)}"
        )
    return count


FrameCount = Annotated[int, AfterValidator(_whole_latents)]
"""Frames of a clip, 4k + 1."""


class TrainingConfig(BaseModel):
    """How long, how fast and how exactly to train."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    steps: int = Field(ge=1)
    """Optimizer steps in all."""
    batch_size: int = Field(ge=1)
    """Samples a step, over all processes."""
    gradient_accumulation_steps: int = Field(default=1, ge=1)
    """Parts in which a batch goes through the network: less memory, the same step."""
    learning_rate: float = Field(gt=0)
    """Peak learning rate of Muon and AdamW alike."""
    warmup_steps: int = Field(default=100, ge=0)
    """Steps in which the rate rises from 0."""
    final_rate: float = Field(default=0.05, ge=0, le=1)
    """Where the cosine ends, as a share of the peak."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Decoupled decay, on matrices only."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are scaled down to this norm."""
    ema_decay: float = Field(default=0.995, ge=0, lt=1)
    """Decay of the averaged weights, which are the ones that are evaluated and exported."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """Autocast type; the weights stay float32."""
    seed: int = Field(default=0, ge=0)
    """Every draw of the run follows from it and the step number."""
    checkpoint_every: int = Field(default=250, ge=1)
    """Steps between checkpoints."""
    keep_checkpoints: int = Field(default=2, ge=1)
    """How many checkpoints stay."""
    evaluate_every: int = Field(default=500, ge=1)
    """Steps between measurements on held-out data."""
