"""LoRA and its family, through PEFT."""

import copy
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any, ClassVar, cast

import torch
from peft import HRAConfig, LoHaConfig, LoKrConfig, LoraConfig, OFTConfig, PeftConfig
from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.tuners_utils import BaseTunerLayer
from pydantic import Field
from torch import Tensor, nn

from training.methods.base import METHODS, Losses, MethodConfig, ParamGroup, Tuner
from training.methods.partial import check_names
from training.methods.scope import Scope

ADAPTER = "default"
"""What PEFT calls the one adapter of a tuner."""


class PeftTuner(Tuner):
    """A PEFT adapter."""

    def __init__(self, model: nn.Module, config: PeftConfig, seed: int) -> None:
        super().__init__(model)
        self._was_trainable = {n: p.requires_grad for n, p in model.named_parameters()}
        make = PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type]
        with torch.random.fork_rng(devices=[]):  # PEFT draws from the global generator
            torch.manual_seed(seed)
            self.peft: Any = make(model, config, adapter_name=ADAPTER)
        self.trained = {name.replace(f".{ADAPTER}", ""): p for name, p in model.named_parameters() if p.requires_grad}
        for parameter in self.trained.values():
            parameter.data = parameter.data.float()  # of frozen weights in half precision PEFT takes the type over

    def parameters(self) -> Iterable[ParamGroup]:
        """The adapter's tensors."""
        return (ParamGroup(parameters=tuple(self.trained.values())),)

    def delta(self) -> dict[str, Tensor]:
        """The adapter's tensors, named as PEFT names them in a file."""
        return {n: p.detach().cpu().float() for n, p in self.trained.items()}

    @torch.no_grad()
    def load(self, delta: Mapping[str, Tensor]) -> None:
        """Takes over the adapter's tensors."""
        check_names(delta, self.trained)
        for name, value in delta.items():
            self.trained[name].copy_(value)

    def set_scale(self, scale: float) -> None:
        """Switches the adapter off at 0, on at 1; in between, layers without a scale answer so far from the base."""
        if scale == 0.0:
            self.peft.disable_adapter_layers()
            return
        self.peft.enable_adapter_layers()
        for layer in self._layers():
            layer.__dict__.pop("forward", None)
            # some layers have one of the two and no scale all the same
            if hasattr(layer, "scaling") and hasattr(layer, "set_scale"):
                layer.set_scale(ADAPTER, scale)
            elif scale != 1.0:
                layer.__dict__["forward"] = partial(_between, layer, scale)

    def merge(self) -> None:
        """Adds the adapter to the weights and takes its layers out."""
        self.set_scale(1.0)
        self.peft.merge_and_unload()
        self._release()

    def unload(self) -> None:
        """Takes the adapter's layers out."""
        self.peft.unload()
        self._release()

    def _layers(self) -> list[Any]:
        return [module for module in self.model.modules() if isinstance(module, BaseTunerLayer)]

    def _release(self) -> None:
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(self._was_trainable[name])
        # what PEFT leaves on the model, beside its layers
        for attribute in ("peft_config",):
            if hasattr(self.model, attribute):
                delattr(self.model, attribute)


def _between(layer: Any, scale: float, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    base: Tensor = layer.get_base_layer()(x, *args, **kwargs)
    changed: Tensor = type(layer).forward(layer, x, *args, **kwargs)
    return base + scale * (changed - base)


@torch.no_grad()
def peft_changes(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """What the active adapters of PEFT's layers add to the weights and biases, in float32, by their names without PEFT.

    Each layer is merged in float64 on a copy, so that the small difference of two large numbers is exact.
    """
    for path, layer in model.named_modules():
        if not isinstance(layer, BaseTunerLayer):
            continue
        twin: Any = copy.deepcopy(layer).double()
        before = {name: tensor.clone() for name, tensor in twin.get_base_layer().named_parameters()}
        twin.merge()
        for name, tensor in twin.get_base_layer().named_parameters():
            if name == "weight" or not torch.equal(tensor, before[name]):  # few methods move biases
                yield f"{path}.{name}", (tensor - before[name]).float()


@torch.no_grad()
def lora_products(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The product B A of every LoRA layer with its scale, in float32, by the weights' names without PEFT."""
    for path, layer in model.named_modules():
        if isinstance(layer, BaseTunerLayer) and hasattr(layer, "lora_A"):
            (name,) = layer.active_adapters
            a, b = layer.lora_A[name].weight.double(), layer.lora_B[name].weight.double()
            product = b.flatten(1) @ a.flatten(1) * layer.scaling[name]
            yield f"{path}.weight", product.view(b.shape[0], *a.shape[1:]).float()


class PeftLayers(MethodConfig):
    """A method of PEFT on every linear layer and convolution in the scope."""

    layers: ClassVar[tuple[type[nn.Module], ...]] = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    """What PEFT can put it beside; never grouped convolutions."""
    rate: ClassVar[float] = 1e-4

    def _config(self, targets: str) -> PeftConfig:
        raise NotImplementedError

    def attach(self, model: nn.Module, scope: Scope, rng: torch.Generator, losses: Losses | None = None) -> PeftTuner:
        """Puts an adapter beside every layer that the method knows."""
        layers = [
            path
            for path, module in model.named_modules()
            if isinstance(module, self.layers) and scope.holds(path) and self._fits(module)
        ]
        if not layers:
            raise ValueError("there is no layer that this method knows in the scope")
        targets = "|".join(re.escape(path) for path in layers)
        seed = int(torch.randint(1 << 62, (), generator=rng))
        return PeftTuner(model, self._config(f"({targets})"), seed)

    def learning_rate(self, tuner: Tuner) -> float:
        """LoRA's usual one; five times that where LoRA's best on mini, 1e-2, was too low (docs/fine-tuning.md)."""
        return self.rate

    def _fits(self, module: nn.Module) -> bool:
        # PEFT 0.21 cannot merge what it puts beside a pointwise Conv3d
        pointwise = isinstance(module, nn.Conv3d) and module.kernel_size == (1, 1, 1)
        if isinstance(module, nn.Linear) and not self._takes(module.in_features, module.out_features):
            return False
        return getattr(module, "groups", 1) == 1 and not pointwise

    def _takes(self, inputs: int, outputs: int) -> bool:
        """Whether the options suit a linear layer of these sides."""
        return True


class PeftMethod(PeftLayers):
    """One of a rank."""

    sized_by: ClassVar[str | None] = "rank"

    rank: int = Field(default=16, ge=1)
    """Rank of the adapter."""


@METHODS.register("lora")
class LoRA(PeftMethod):
    """Adds a product of two thin matrices to every layer."""

    about: ClassVar[str] = "two thin matrices beside every layer; what everybody knows and every program loads"
    paper: ClassVar[str] = "LoRA, arXiv 2106.09685"
    stands_beside: ClassVar[bool] = True

    alpha: float | None = Field(default=None, gt=0)
    """The product is scaled by alpha / rank; None for alpha = rank."""
    rslora: bool = False
    """Scales by alpha / sqrt(rank) instead (arXiv 2312.03732)."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of the layer's input that the adapter does not see."""

    @property
    def scaling(self) -> float:
        """What the product is multiplied by."""
        alpha = self.alpha or self.rank
        return alpha / (math.sqrt(self.rank) if self.rslora else self.rank)

    def _config(self, targets: str) -> PeftConfig:
        return LoraConfig(
            r=self.rank, lora_alpha=cast(int, self.alpha or self.rank), use_rslora=self.rslora, target_modules=targets,
            lora_dropout=self.dropout,
        )  # fmt: skip


@METHODS.register("dora")
class DoRA(LoRA):
    """LoRA with the length of every row trained apart."""

    about: ClassVar[str] = "LoRA with the rows' lengths trained apart; almost twice the memory and time of LoRA"
    paper: ClassVar[str] = "DoRA, arXiv 2402.09353"

    def _config(self, targets: str) -> PeftConfig:
        config = super()._config(targets)
        assert isinstance(config, LoraConfig)
        config.use_dora = True
        return config


@METHODS.register("loha")
class LoHa(PeftMethod):
    """Adds the elementwise product of two low-rank products."""

    about: ClassVar[str] = "elementwise product of two low-rank products"
    paper: ClassVar[str] = "FedPara, arXiv 2108.06098; LyCORIS, arXiv 2309.14859"
    layers: ClassVar[tuple[type[nn.Module], ...]] = (nn.Linear, nn.Conv1d, nn.Conv2d)

    def _config(self, targets: str) -> PeftConfig:
        return LoHaConfig(r=self.rank, alpha=self.rank, target_modules=targets)


@METHODS.register("lokr")
class LoKr(PeftMethod):
    """Adds a Kronecker product of a small matrix and a low-rank one."""

    about: ClassVar[str] = "Kronecker product with a low-rank matrix: small files"
    paper: ClassVar[str] = "LyCORIS, arXiv 2309.14859"
    layers: ClassVar[tuple[type[nn.Module], ...]] = (nn.Linear, nn.Conv1d, nn.Conv2d)

    def _config(self, targets: str) -> PeftConfig:
        return LoKrConfig(r=self.rank, alpha=self.rank, target_modules=targets)


@METHODS.register("oft")
class OFT(PeftMethod):
    """Turns the input of every layer by a block-diagonal rotation."""

    about: ClassVar[str] = "rotations of the input: keeps the angles between neurons"
    paper: ClassVar[str] = "OFT, arXiv 2306.07280"
    stands_beside: ClassVar[bool] = True
    layers: ClassVar[tuple[type[nn.Module], ...]] = (nn.Linear,)  # PEFT 0.21's convolutions do not start as they were

    rank: int = Field(default=4, ge=2)
    """Side of a block of the rotation; it must divide the layer's inputs, other layers are left out."""

    def _config(self, targets: str) -> PeftConfig:
        return OFTConfig(oft_block_size=self.rank, r=0, target_modules=targets)

    def _takes(self, inputs: int, outputs: int) -> bool:
        return inputs % self.rank == 0


@METHODS.register("hra")
class HRA(PeftMethod):
    """Turns the input of every layer by a chain of reflections."""

    about: ClassVar[str] = "reflections of the input, between LoRA and OFT"
    paper: ClassVar[str] = "HRA, arXiv 2405.17484"
    layers: ClassVar[tuple[type[nn.Module], ...]] = (nn.Linear, nn.Conv2d)

    rank: int = Field(default=8, ge=2, multiple_of=2)
    """Reflections, an even number: two of the same are none, which is where training starts."""

    def _config(self, targets: str) -> PeftConfig:
        return HRAConfig(r=self.rank, target_modules=targets)


def lora_factors(config: MethodConfig, delta: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """The thin matrices A and B, scaled, of every layer that an adapter has a plain LoRA beside, by the layers' paths.

    A DoRA's change is no product of them.
    """
    if isinstance(config, DoRA):
        return {}
    scaling = config.scaling if isinstance(config, LoRA) else 1.0
    mark = ".lora_A.weight"
    paths = [name.removesuffix(mark) for name in delta if name.endswith(mark)]
    return {path: (delta[f"{path}{mark}"], delta[f"{path}.lora_B.weight"] * scaling) for path in paths}
