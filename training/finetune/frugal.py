"""A learner that can do with less memory, and frozen weights of half the size."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from training.finetune.config import FinetuneConfig
from training.finetune.families import Family
from training.finetune.learner import Batch, FinetuneLearner
from training.methods import Tuner
from training.methods.quantized import QUANTIZED, quantized
from training.methods.split import split
from training.processes import several_processes
from training.tasks import Task

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class FrugalLearner(FinetuneLearner):
    """What the memory ladder and half weights need beside the loss."""

    def checkpoint_activations(self) -> bool:
        """Computes activations twice; False where the network cannot, or does."""
        if getattr(self.network, "is_gradient_checkpointing", False):
            return False
        if not getattr(self.network, "_supports_gradient_checkpointing", False):
            return False
        self.network.enable_gradient_checkpointing()  # type: ignore[operator]
        return True

    def offload(self) -> bool:
        """Moves encoders to main memory, where they make what is not in the cache yet; False without a GPU."""
        if self.offloaded or next(self.network.parameters()).device.type == "cpu":
            return False
        self._move_encoders(torch.device("cpu"))
        self.offloaded = True
        return True

    offloaded = False
    """Encoders wait in main memory."""

    @property
    def together(self) -> bool:
        """Whether all processes must measure together: none of them has all weights."""
        return self.config.split_weights

    def forward(self, batch: Batch, task: Task, generator: torch.Generator) -> dict[str, Tensor]:
        """The loss, whoever asks for it."""
        with self._cast():
            return super().forward(batch, task, generator)

    def evaluate(self) -> dict[str, float]:
        """Measures and makes samples."""
        with self.measuring():
            return super().evaluate()

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Has encoders and idle networks where the network is, and half weights under autocast."""
        device, main = next(self.network.parameters()).device, torch.device("cpu")
        if self.offloaded:
            self._move_encoders(device)
        for network in self._family.idle:
            network.to(device)
        try:
            with self._cast():
                yield
        finally:
            for network in self._family.idle:
                network.to(main)
            if self.offloaded:
                self._move_encoders(main)

    def _cast(self) -> torch.autocast:
        """Half weights work under autocast alone; others are measured without, but on a GPU that takes too long.

        A training that is under autocast stays so.
        """
        device, precision = next(self.network.parameters()).device, self.config.mixed_precision
        half = self.config.weights_dtype != "fp32" and precision != "fp32"
        on_gpu = device.type == "cuda" and precision == "bf16"
        return cast_under(self.config, device, enabled=half or on_gpu or torch.is_autocast_enabled(device.type))

    def _move_encoders(self, device: torch.device) -> None:
        for part in self._family.encoders:
            part.to(device)


def cast_under(config: FinetuneConfig, device: torch.device, *, enabled: bool) -> torch.autocast:
    """Autocast to what the run computes in."""
    return torch.autocast(device.type, dtype=_DTYPES[config.mixed_precision], enabled=enabled)


def trained_in_half(config: FinetuneConfig) -> bool:
    """Whether changes were trained in half weights and fit in them; beside quantized or split ones they are float32."""
    return config.weights_dtype in ("bf16", "fp16") and not config.split_weights


def cast_weights(network: nn.Module, config: FinetuneConfig) -> None:
    """Brings the frozen weights to their type, but for those that the model says must stay float32.

    Those that are to be quantized stay as they are: a method chooses on them first.

    Raises:
        ValueError: without autocast half weights would meet float32 inputs.
    """
    if config.weights_dtype == "fp32" or config.weights_dtype in QUANTIZED:
        return
    if config.mixed_precision == "fp32":
        raise ValueError(
            f"weights_dtype {config.weights_dtype}: layers would meet inputs of another type; "
            f'use mixed_precision = "{config.weights_dtype}", or weights_dtype = "fp32"'
        )
    cast_to(network, _DTYPES[config.weights_dtype])


def cast_idle(family: Family, config: FinetuneConfig) -> None:
    """Brings networks that are not trained to the type of the trained one's weights, at best half."""
    if config.weights_dtype != "fp32":
        kind = config.mixed_precision if config.weights_dtype in QUANTIZED else config.weights_dtype
        for network in family.idle:
            cast_to(network, _DTYPES[kind])


def cast_to(network: nn.Module, dtype: torch.dtype) -> None:
    """Casts all parameters but those that the model says must stay float32."""
    whole = kept_whole(network)
    for name, parameter in network.named_parameters():
        if not whole & set(name.split(".")):
            parameter.data = parameter.data.to(dtype)


def kept_whole(network: nn.Module) -> set[str]:
    """The parts of paths that a model of diffusers says must stay float32."""
    return set(getattr(network, "_keep_in_fp32_modules", None) or ())


def shrink_under(tuner: Tuner, config: FinetuneConfig, device: torch.device) -> Tuner:
    """Quantizes or splits the frozen weights under a tuner that has chosen, where that is asked for."""
    if config.split_weights:
        return split(tuner, device, several=several_processes(), whole=kept_whole(tuner.model))
    if config.weights_dtype not in QUANTIZED:
        return tuner
    rest = _DTYPES[config.mixed_precision]
    return quantized(tuner, config.weights_dtype, rest, device, whole=kept_whole(tuner.model))


def check_trained(tuner: Tuner, config: FinetuneConfig) -> None:
    """Looks whether the trained numbers are float32.

    Raises:
        ValueError: the method trains the model's own tensors, and those are not.
    """
    if any(p.dtype != torch.float32 for p in tuner.named().values()):
        raise ValueError(
            f"weights_dtype {config.weights_dtype}: {config.method} trains the model's own tensors, in which small "
            'changes would be lost; use weights_dtype = "fp32", or a method with numbers of its own, as sara or lora'
        )
