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


ScheduleName = Literal[
    "constant", "constant_with_warmup", "cosine", "cosine_throughout", "cosine_with_restarts", "linear", "polynomial",
    "power",
]  # fmt: skip


class ScheduleOptions(BaseModel):
    """How the learning rate goes over a run, see `training.schedules`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    lr_scheduler: ScheduleName = "cosine_throughout"
    """constant, constant_with_warmup, linear, cosine, cosine_with_restarts, polynomial, power, or cosine_throughout."""
    lr_num_cycles: int = Field(default=1, ge=1)
    """How often cosine_with_restarts begins anew."""
    lr_power: float = Field(default=1.0, gt=0)
    """The exponent of polynomial: 1 is a line, 2 a parabola."""
    lr_power_a: float | None = Field(default=None, gt=0)
    """Of power, min(peak, batch a n^b): a, n in samples seen; by default the rate leaves its peak after 100 steps."""
    lr_power_b: float = Field(default=-0.51, gt=-2, lt=0)
    """Of power: the exponent b."""
    lr_decay_steps: int | None = Field(default=None, ge=0)
    """Of power: the steps of the fall at the end; by default a tenth of the run."""
    lr_decay: Literal["exponential", "linear"] = "exponential"
    """Of power: the shape of the fall at the end."""


class TrainingConfig(ScheduleOptions):
    """How long, how fast and how exactly to train."""

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
    """Where a falling rate ends, as a share of the peak."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Decoupled decay, on matrices only."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are scaled down to this norm."""
    ema_decay: float = Field(default=0.995, ge=0, lt=1)
    """Decay of the averaged weights, which are the ones that are evaluated and exported."""
    precision: Literal["bf16", "fp16", "fp32"] = "bf16"
    """Autocast type; the weights stay float32. With fp16 the loss is scaled so that small gradients are not lost."""
    seed: int = Field(default=0, ge=0)
    """Every draw of the run follows from it and the step number."""
    checkpoint_every: int = Field(default=250, ge=1)
    """Steps between checkpoints."""
    keep_checkpoints: int = Field(default=2, ge=1)
    """How many checkpoints stay."""
    evaluate_every: int = Field(default=500, ge=1)
    """Steps between measurements on held-out data."""
