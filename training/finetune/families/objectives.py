"""What a network is asked while it is trained: noise, v or a velocity, as the model's own scheduler says."""

import abc
from dataclasses import dataclass
from typing import Any, Final

import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.training_utils import compute_snr
from jaxtyping import Float
from torch import Tensor

from models.flow import add_noise, velocity_loss, velocity_target
from training.finetune.families.base import Draws, LevelError, Prediction

PREDICTIONS: Final = ("epsilon", "v_prediction", "sample")
"""What a network of the noising kind may predict: the noise, v (arXiv 2202.00512), the clean latents."""

_NOISING: Final = (
    "num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "prediction_type",
    "rescale_betas_zero_snr",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Question:
    """Noisy latents at their timesteps, and what the network should say of them."""

    noisy: Float[Tensor, "batch ..."]
    timesteps: Tensor
    """As the network takes them, one a sample."""
    target: Float[Tensor, "batch ..."]
    weights: Float[Tensor, "batch"] | None = None
    """Of the samples in the loss; None for 1."""

    def loss(self, predicted: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch"]:
        """Weighted mean squared error of each sample, in float32."""
        return velocity_loss(predicted, self.target, self.weights)


class Objective(abc.ABC):
    """How latents and draws become a question."""

    @abc.abstractmethod
    def ask(self, latents: Float[Tensor, "batch ..."], draws: Draws, snr_gamma: float | None) -> Question:
        """Adds the drawn noise at the drawn level.

        Raises:
            ValueError: min-SNR is asked for where it makes no sense.
        """

    @abc.abstractmethod
    def timesteps(self, level: float, count: int) -> Tensor:
        """A level of 0..1 as the network takes it.

        Raises:
            LevelError: the network is never asked there.
        """

    @abc.abstractmethod
    def mix(
        self, clean: Float[Tensor, "batch ..."], noise: Float[Tensor, "batch ..."], level: float
    ) -> Float[Tensor, "batch ..."]:
        """Latents with noise at a level."""

    @abc.abstractmethod
    def read(
        self, noisy: Float[Tensor, "batch ..."], predicted: Float[Tensor, "batch ..."], level: float
    ) -> Prediction:
        """The clean latents and the noise that follow from what the network predicts."""


class Noising(Objective):
    """DDPM's noising with timesteps drawn evenly; the network predicts noise, v or the clean latents."""

    def __init__(self, scheduler: Any) -> None:
        # whatever samples, this one knows how to add noise; `from_config` would forget what is a default of the other
        config = scheduler.config
        self._scheduler = DDPMScheduler(**{name: config[name] for name in _NOISING if name in config})
        self.prediction: str = self._scheduler.config["prediction_type"]

    def ask(self, latents: Float[Tensor, "batch ..."], draws: Draws, snr_gamma: float | None) -> Question:
        """As diffusers' trainers ask, `compute_snr` included (min-SNR: arXiv 2303.09556, sec. 3.4)."""
        steps = (draws.uniform * self._scheduler.config["num_train_timesteps"]).long()
        noisy = self._scheduler.add_noise(latents, draws.noise, steps)
        if self.prediction == "epsilon":
            target = draws.noise
        elif self.prediction == "v_prediction":
            target = self._scheduler.get_velocity(latents, draws.noise, steps)
        else:
            target = latents
        weights = None if snr_gamma is None else self._min_snr(compute_snr(self._scheduler, steps), snr_gamma)
        return Question(noisy=noisy, timesteps=steps, target=target, weights=weights)

    def timesteps(self, level: float, count: int) -> Tensor:
        """The step that lies so far in the schedule."""
        return torch.full((count,), round(level * (self._scheduler.config["num_train_timesteps"] - 1)))

    def _shares(self, level: float) -> tuple[float, float]:
        """What is left of the latents, and how much noise there is."""
        kept = float(self._scheduler.alphas_cumprod[self.timesteps(level, 1)])
        return kept**0.5, (1 - kept) ** 0.5

    def mix(
        self, clean: Float[Tensor, "batch ..."], noise: Float[Tensor, "batch ..."], level: float
    ) -> Float[Tensor, "batch ..."]:
        """By the scheduler's betas."""
        kept, added = self._shares(level)
        return kept * clean + added * noise

    def read(
        self, noisy: Float[Tensor, "batch ..."], predicted: Float[Tensor, "batch ..."], level: float
    ) -> Prediction:
        """From noise, v or the clean latents; neither share is taken for less than a thousandth."""
        kept, added = self._shares(level)
        if self.prediction == "v_prediction":
            clean, noise = kept * noisy - added * predicted, added * noisy + kept * predicted
        elif self.prediction == "sample":
            clean, noise = predicted, (noisy - kept * predicted) / max(added, 1e-3)
        else:
            clean, noise = (noisy - added * predicted) / max(kept, 1e-3), predicted
        return Prediction(said=predicted, clean=clean, noise=noise)

    def _min_snr(self, snr: Float[Tensor, "batch"], gamma: float) -> Float[Tensor, "batch"]:
        if self.prediction == "epsilon":
            return (gamma / snr).clamp(max=1)  # min(snr, gamma) / snr, which is 1 where a schedule ends in pure noise
        least = snr.clamp(max=gamma)
        return least / (snr + 1) if self.prediction == "v_prediction" else least


class Flow(Objective):
    """Straight lines between latents and noise; the network predicts their direction, noise - latents.

    Noise levels are the scheduler's table of training, shift included, entered at sigmoid(N(0, 1)): SD3's logit-normal
    density (arXiv 2403.03206, sec. 3.1), as diffusers' SD3 trainer draws it. All levels weigh the same.
    """

    def __init__(self, scheduler: Any, *, levels: tuple[float, float] = (0.0, 1.0)) -> None:
        """Reads the table.

        Args:
            scheduler: one of diffusers' flow matching schedulers, or a multistep one that samples flows.
            levels: from where to where noise levels are drawn, where another network is there for others. The upper
                end is not in it, but for 1.
        """
        config = scheduler.config
        table = FlowMatchEulerDiscreteScheduler(
            num_train_timesteps=config["num_train_timesteps"],
            shift=config.get("shift") or config.get("flow_shift") or 1.0,
            # a shift that depends on the size is for sampling; diffusers trains without
            use_dynamic_shifting=bool(config.get("use_dynamic_shifting")),
        )
        self._steps = int(config["num_train_timesteps"])
        self._levels = lowest, highest = levels
        self._sigmas = table.sigmas  # falling, from 1
        own = (table.sigmas >= lowest) & ((table.sigmas < highest) | (highest == 1.0))
        if not bool(own.any()):
            raise ValueError(f"no noise level of this model lies in {lowest:g} .. {highest:g}, which is its network's")
        self._first = int(own.float().argmax())
        self._end = self._first + int(own.sum())

    def ask(self, latents: Float[Tensor, "batch ..."], draws: Draws, snr_gamma: float | None) -> Question:
        """Mixes latents and noise at levels of the table."""
        if snr_gamma is not None:
            raise ValueError("snr_gamma is for models that predict noise or v; this one is trained by flow matching")
        normal = draws.normal
        if self._end - self._first < self._steps:  # the same density, cut off: N(0, 1) between the ends of its part
            ends = normal.new_tensor([self._first / self._steps, self._end / self._steps])
            low, high = torch.special.ndtr(torch.logit(ends))
            normal = torch.special.ndtri(low + torch.special.ndtr(normal) * (high - low))
        place = (normal.sigmoid() * self._steps).long().clamp(self._first, self._end - 1)
        sigmas = self._sigmas.to(latents.device)[place]
        return Question(
            noisy=add_noise(latents, draws.noise, sigmas),
            timesteps=sigmas * self._steps,
            target=velocity_target(latents, draws.noise),
        )

    def timesteps(self, level: float, count: int) -> Tensor:
        """The level is the sigma."""
        lowest, highest = self._levels
        if not (lowest <= level < highest or level == highest == 1.0):
            raise LevelError(
                f"this network is asked at noise levels of {lowest:g} .. {highest:g} only, not at {level:g}"
            )
        return torch.full((count,), level * self._steps)

    def mix(
        self, clean: Float[Tensor, "batch ..."], noise: Float[Tensor, "batch ..."], level: float
    ) -> Float[Tensor, "batch ..."]:
        """On the straight line between them."""
        return (1 - level) * clean + level * noise

    def read(
        self, noisy: Float[Tensor, "batch ..."], predicted: Float[Tensor, "batch ..."], level: float
    ) -> Prediction:
        """From the direction of the line: noise - latents."""
        return flow_prediction(noisy, predicted, level)


def flow_prediction(
    noisy: Float[Tensor, "batch ..."], velocity: Float[Tensor, "batch ..."], sigma: float
) -> Prediction:
    """Both ends of the straight line on which noisy latents lie at `sigma`."""
    return Prediction(said=velocity, clean=noisy - sigma * velocity, noise=noisy + (1 - sigma) * velocity)


def objective_of(scheduler: Any, *, levels: tuple[float, float] = (0.0, 1.0)) -> Objective:
    """Reads from a pipeline's scheduler what its network predicts.

    Raises:
        ValueError: it is a kind that cannot be trained here.
    """
    name, config = type(scheduler).__name__, scheduler.config
    prediction = config.get("prediction_type", "epsilon")
    if "FlowMatch" in name or prediction == "flow_prediction" or config.get("use_flow_sigmas"):
        return Flow(scheduler, levels=levels)
    if "beta_start" not in config or prediction not in PREDICTIONS:
        raise ValueError(
            f"the model's scheduler is {name} with prediction_type {prediction!r}, which cannot be trained here; "
            f"known are schedulers with betas and {', '.join(PREDICTIONS)}, and flow matching"
        )
    return Noising(scheduler)
