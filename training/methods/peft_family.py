"""The rest of PEFT's layer adapters that a diffusion network can be trained with.

Those are left out that do not start as the identity, cannot be merged, change the base weights or want more than a
layer to stand beside; and those that `sparse` does in place (SHiRA, Super-Tuning). PEFT gives most of them for linear
layers alone: convolutions then stay as they are.
"""

from typing import ClassVar, Final

from peft import (
    BOFTConfig,
    DeloraConfig,
    FourierFTConfig,
    GraloraConfig,
    HiraConfig,
    IA3Config,
    MissConfig,
    PeftConfig,
    RandLoraConfig,
    RoadConfig,
    VeraConfig,
    WaveFTConfig,
)
from pydantic import Field
from torch import nn

from training.methods.base import METHODS
from training.methods.peft_methods import OFT, PeftLayers, PeftMethod

LINEAR: Final = (nn.Linear,)


@METHODS.register("hira")
class HiRA(PeftMethod):
    """Multiplies every weight, number by number, with a product of two thin matrices, and adds that."""

    about: ClassVar[str] = "LoRA's product times the weight itself, number by number: a change of full rank"
    paper: ClassVar[str] = "HiRA, ICLR 2025"
    rate: ClassVar[float] = 5e-4

    def _config(self, targets: str) -> PeftConfig:
        return HiraConfig(r=self.rank, target_modules=targets)


@METHODS.register("delora")
class DeLoRA(PeftMethod):
    """LoRA whose product has a bounded length, trained apart from its direction."""

    about: ClassVar[str] = "LoRA with a bound on how far it goes"
    paper: ClassVar[str] = "DeLoRA, arXiv 2503.18225"
    layers: ClassVar[tuple[type[nn.Module], ...]] = LINEAR

    bound: int = Field(default=15, ge=1)
    """The change's length at the start, of every layer; it is trained."""

    def _config(self, targets: str) -> PeftConfig:
        return DeloraConfig(r=self.rank, delora_lambda=self.bound, target_modules=targets)


@METHODS.register("gralora")
class GraLoRA(PeftMethod):
    """A LoRA of its own for every block of a weight that is cut both ways."""

    about: ClassVar[str] = "LoRA block by block: a change of higher rank for the same numbers"
    paper: ClassVar[str] = "GraLoRA, arXiv 2505.20355"
    layers: ClassVar[tuple[type[nn.Module], ...]] = LINEAR

    rank: int = Field(default=16, ge=1)
    """Rank of all blocks of a row together, a multiple of `blocks`."""
    blocks: int = Field(default=2, ge=1)
    """Blocks to a side; layers whose sides it does not divide are left out."""

    def _config(self, targets: str) -> PeftConfig:
        if self.rank % self.blocks:
            raise ValueError(f"rank {self.rank} is no multiple of blocks = {self.blocks}")
        return GraloraConfig(r=self.rank, alpha=self.rank, gralora_k=self.blocks, target_modules=targets)

    def _takes(self, inputs: int, outputs: int) -> bool:
        return inputs % self.blocks == 0 and outputs % self.blocks == 0


@METHODS.register("randlora")
class RandLoRA(PeftMethod):
    """Sums fixed random products, of which only diagonal scales are trained, up to full rank."""

    about: ClassVar[str] = "scales of fixed random products: a change of full rank"
    paper: ClassVar[str] = "RandLoRA, arXiv 2502.00987"
    layers: ClassVar[tuple[type[nn.Module], ...]] = LINEAR

    rank: int = Field(default=16, ge=1)
    """Rank of a random product; the smaller it is, the more of them there are and the more is trained."""

    def _config(self, targets: str) -> PeftConfig:
        # by the rank, so that the products are scaled alike whatever it is, by PEFT's usual 20
        return RandLoraConfig(r=self.rank, randlora_alpha=20 * self.rank, target_modules=targets)


@METHODS.register("vera")
class VeRA(PeftMethod):
    """One fixed random product for all layers, of which every layer trains scales."""

    about: ClassVar[str] = "scales of one random product that all layers share: hardly any numbers"
    paper: ClassVar[str] = "VeRA, arXiv 2310.11454"
    rate: ClassVar[float] = 5e-4
    layers: ClassVar[tuple[type[nn.Module], ...]] = LINEAR

    rank: int = Field(default=256, ge=1)
    """Rank of the random product; a layer trains so many scales, and one for each of its outputs."""

    def _config(self, targets: str) -> PeftConfig:
        return VeraConfig(r=self.rank, target_modules=targets)


@METHODS.register("miss")
class MiSS(PeftMethod):
    """Adds one thin matrix, shared by all pieces of the input."""

    about: ClassVar[str] = "one thin matrix in place of LoRA's two"
    paper: ClassVar[str] = "MiSS (Bone), arXiv 2409.15371"
    layers: ClassVar[tuple[type[nn.Module], ...]] = LINEAR

    def _config(self, targets: str) -> PeftConfig:
        return MissConfig(r=self.rank, target_modules=targets)

    def _takes(self, inputs: int, outputs: int) -> bool:
        return inputs >= self.rank


@METHODS.register("boft")
class BOFT(OFT):
    """Turns every layer by a product of sparse rotations, as a fast Fourier transform is one."""

    about: ClassVar[str] = "OFT's rotation made of sparse ones: fewer numbers for whole turns"
    paper: ClassVar[str] = "BOFT, arXiv 2311.06243"
    stands_beside: ClassVar[bool] = False

    def _config(self, targets: str) -> PeftConfig:
        return BOFTConfig(boft_block_size=self.rank, target_modules=targets)


@METHODS.register("road")
class RoAd(PeftLayers):
    """Turns and stretches pairs of a layer's outputs."""

    about: ClassVar[str] = "rotations of pairs of outputs: about one number an output"
    paper: ClassVar[str] = "RoAd, arXiv 2409.00119"
    rate: ClassVar[float] = 5e-4
    layers: ClassVar[tuple[type[nn.Module], ...]] = LINEAR

    group: int = Field(default=8, ge=2, multiple_of=2)
    """Outputs to a group, within which they are paired; it must divide a layer's outputs, other layers are left out."""

    def _config(self, targets: str) -> PeftConfig:
        return RoadConfig(group_size=self.group, target_modules=targets)

    def _takes(self, inputs: int, outputs: int) -> bool:
        return outputs % self.group == 0


@METHODS.register("ia3")
class IA3(PeftLayers):
    """Stretches every output of every layer."""

    about: ClassVar[str] = "one factor an output: the fewest numbers of all"
    paper: ClassVar[str] = "(IA)^3, arXiv 2205.05638"
    rate: ClassVar[float] = 5e-4
    layers: ClassVar[tuple[type[nn.Module], ...]] = (nn.Linear, nn.Conv2d, nn.Conv3d)

    def _config(self, targets: str) -> PeftConfig:
        return IA3Config(target_modules=targets, feedforward_modules=[])


class _Coefficients(PeftMethod):
    """A change that is given by a few numbers of its transform."""

    layers: ClassVar[tuple[type[nn.Module], ...]] = LINEAR
    largest: ClassVar[int] = 1 << 16

    rank: int = Field(default=256, ge=1)
    """Coefficients a layer; smaller layers are left out."""

    def _takes(self, inputs: int, outputs: int) -> bool:
        return inputs * outputs >= self.rank


@METHODS.register("fourierft")
class FourierFT(_Coefficients):
    """Trains a few coefficients of the change's Fourier transform."""

    about: ClassVar[str] = "a few frequencies of the change, of the whole weight each"
    paper: ClassVar[str] = "FourierFT, arXiv 2405.03003"

    def _config(self, targets: str) -> PeftConfig:
        return FourierFTConfig(n_frequency=self.rank, target_modules=targets, init_weights=True)


@METHODS.register("waveft")
class WaveFT(_Coefficients):
    """Trains a few coefficients of the change's wavelet transform."""

    about: ClassVar[str] = "a few wavelets of the change, of one place of the weight each"
    paper: ClassVar[str] = "WaveFT, arXiv 2505.12532"

    def _config(self, targets: str) -> PeftConfig:
        return WaveFTConfig(n_frequency=self.rank, target_modules=targets)
