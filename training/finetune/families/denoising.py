"""What all kinds share whose network is asked one question at one noise level."""

import abc
from typing import Any

from jaxtyping import Float
from torch import Tensor

from training.finetune.families.base import Draws, Family, Prediction
from training.finetune.families.objectives import Objective, objective_of


class Denoising(Family):
    """A family whose loss follows from its scheduler: a subclass says how the network is called."""

    def __init__(self, pipeline: Any, component: str | None = None) -> None:
        super().__init__(pipeline, component)
        self.objective = self._objective()

    def _objective(self) -> Objective:
        return objective_of(self.pipeline.scheduler)

    @abc.abstractmethod
    def predict(
        self,
        noisy: Float[Tensor, "batch ..."],
        timesteps: Tensor,
        encoded: dict[str, Tensor],
        embedded: dict[str, Tensor],
    ) -> Float[Tensor, "batch ..."]:
        """What the network says of noisy latents."""

    def loss(
        self,
        encoded: dict[str, Tensor],
        embedded: dict[str, Tensor],
        draws: Draws,
        snr_gamma: float | None,
    ) -> Float[Tensor, "batch"]:
        """Squared error of what the network predicts, weighted by min-SNR where asked.

        Raises:
            ValueError: min-SNR is asked for, and the model is trained by flow matching.
        """
        question = self.objective.ask(encoded["latents"], draws, snr_gamma)
        predicted = self.answer(question.noisy, question.timesteps, encoded, embedded)
        return question.loss(_mean(predicted, question.target))

    def mix(
        self, clean: Float[Tensor, "batch ..."], noise: Float[Tensor, "batch ..."], level: float
    ) -> Float[Tensor, "batch ..."]:
        """As the objective mixes them."""
        return self.objective.mix(clean, noise, level)

    def prediction(
        self,
        encoded: dict[str, Tensor],
        embedded: dict[str, Tensor],
        noisy: Float[Tensor, "batch ..."],
        level: float,
    ) -> Prediction:
        """As the objective reads the network's answer."""
        timesteps = self.objective.timesteps(level, len(noisy)).to(noisy.device)
        predicted = self.answer(noisy, timesteps, encoded, embedded)
        return self.objective.read(noisy, _mean(predicted, noisy).float(), level)

    def answer(
        self, noisy: Float[Tensor, "batch ..."], timesteps: Tensor, encoded: dict[str, Tensor],
        embedded: dict[str, Tensor],
    ) -> Float[Tensor, "batch ..."]:  # fmt: skip
        """`predict` of noisy latents and captions in the type of the network's weights."""
        captions = {name: self.in_dtype(value) for name, value in embedded.items()}
        return self.predict(self.in_dtype(noisy), timesteps, encoded, captions)

    def in_dtype(self, value: Tensor) -> Tensor:
        """Turns numbers to those of the network's weights, which may be loaded in half precision."""
        network: Any = self.network
        return value.to(network.dtype) if value.is_floating_point() else value


def _mean(predicted: Float[Tensor, "batch ..."], like: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
    """Without the learned variance, of which diffusers' samplers and trainers take no notice either."""
    return predicted.chunk(2, dim=1)[0] if predicted.shape[1] == 2 * like.shape[1] else predicted
