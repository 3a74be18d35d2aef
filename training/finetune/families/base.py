"""How pictures and captions become a loss, for one kind of diffusers pipeline. The rest is the same for all."""

import abc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import diffusers
import torch
from diffusers import DiffusionPipeline
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from models.loading import check_folder
from models.quiet import quiet_loading
from pose.registry import Registry
from pose.sequence import PoseSequence
from training.finetune.data.buckets import Wanted

AT_ONCE: Final = 16
"""Samples that are made together; more where they are small."""
SMALL: Final = 128 * 128
"""Pixels of a picture of which so many are enough for a processor."""


@dataclass(frozen=True, kw_only=True)
class Draws:
    """The random numbers of a batch, each sample's from a generator of its own.

    So a sample meets the same noise in whatever process, part of a batch or resumed run it is seen.
    """

    noise: Float[Tensor, "batch ..."]
    """Standard normal, as large as the latents."""
    uniform: Float[Tensor, "batch"]
    """In 0..1, for noise levels."""
    normal: Float[Tensor, "batch"]
    """Standard normal, for noise levels."""
    seeds: tuple[int, ...] = ()
    """One a sample, for what else a family draws in training; empty where a loss is measured, and nothing may vary."""


@dataclass(frozen=True, kw_only=True)
class Clip:
    """What a task may look at."""

    pixels: Float[Tensor, "frames 3 height width"]
    """-1..1."""
    reference: int
    """The frame that the reference is drawn to be, where any will do."""
    poses: PoseSequence | None
    """The body in every frame, in px of the frames; where the task wants it."""


class LevelError(ValueError):
    """A network cannot be asked at a noise level."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a network says of noisy latents."""

    said: Float[Tensor, "batch ..."]
    """As it is trained to: the noise, v, a velocity or the clean latents."""
    clean: Float[Tensor, "batch ..."]
    """The latents that it takes them for."""
    noise: Float[Tensor, "batch ..."]
    """The noise that it sees in them."""


def draw(shape: torch.Size, seeds: Sequence[int], device: torch.device) -> Draws:
    """Draws for samples of one shape, on the CPU, so that every device has the same."""
    rows = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        rows.append(
            (
                torch.rand((), generator=generator),
                torch.randn((), generator=generator),
                torch.randn(shape, generator=generator),
            )
        )
    uniform, normal, noise = (torch.stack(parts).to(device) for parts in zip(*rows, strict=True))
    return Draws(noise=noise, uniform=uniform, normal=normal)


class Family(abc.ABC):
    """A pipeline with one network that is trained and parts that only encode and decode."""

    about: ClassVar[str]
    """One line for the docs."""
    component: str
    """The pipeline's part that is trained."""
    others: ClassVar[tuple[str, ...]] = ()
    """Parts that can be trained in its place."""
    may_lack: ClassVar[tuple[str, ...]] = ()
    """Parts without which the pipeline works, though diffusers asks for them."""
    max_tokens: ClassVar[int | None] = None
    """What a caption is cut to; None for what the tokenizer says."""
    tasks: ClassVar[tuple[str, ...]] = ("text-to-image",)
    """What it can be trained on, the usual one first."""
    conditioned: ClassVar[frozenset[str]] = frozenset()
    """The tasks for which `conditions` has something to say."""
    unrelated: tuple[str, ...] = (
        "a photo of a mountain lake", "a bowl of fruit on a table", "a portrait of an old man", "a street at night",
        "a white horse on a meadow", "a sailing boat at sea", "a red brick house", "a bunch of flowers in a vase",
    )  # fmt: skip
    """Prompts that have nothing to do with what is trained: how far they drift is what a training costs."""

    def __init__(self, pipeline: DiffusionPipeline, component: str | None = None) -> None:
        """Takes a pipeline.

        Args:
            component: the part that is trained; by default the usual one.

        Raises:
            ValueError: it has no such part.
        """
        self.pipeline: Any = pipeline
        if component is not None:
            self.component = component
        able = [name for name in self.networks if self.pipeline.components.get(name) is not None]
        if self.component not in able:
            raise ValueError(
                f"component {self.component}: this {type(pipeline).__name__} has no such part to train; "
                f"it has {', '.join(able) or 'none'}"
            )
        self.pipeline.set_progress_bar_config(disable=True)
        for part in self.pipeline.components.values():
            if isinstance(part, nn.Module):
                part.eval().requires_grad_(False)

    @property
    def network(self) -> nn.Module:
        """What is trained."""
        found: nn.Module = getattr(self.pipeline, self.component)
        return found

    @property
    @abc.abstractmethod
    def multiple(self) -> int:
        """What a picture's sides must be a multiple of. [px]"""

    @property
    def frames_multiple(self) -> int:
        """0 = single pictures only; else clips have k*factor+1 frames."""
        return 0

    def wants(self, task: str) -> Wanted:
        """What a task takes; by default clips of four times `frames_multiple` and one frames, and pictures as well."""
        return Wanted(frames=4 * self.frames_multiple + 1, factor=self.frames_multiple)

    def num_tokens_cut(self, caption: str) -> int:
        """How many tokens of a caption are more than the first text encoder reads."""
        tokenizer = getattr(self.pipeline, "tokenizer", None)
        if tokenizer is None:
            return 0
        return max(0, len(tokenizer(caption).input_ids) - int(self.max_tokens or tokenizer.model_max_length))

    @abc.abstractmethod
    def encode(self, pixels: Float[Tensor, "frames 3 height width"]) -> dict[str, Tensor]:
        """What the loss needs of a picture (one frame) or clip, in -1..1; without a batch dimension. "latents" is what
        gets noise."""

    def encode_pictures(self, pictures: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n ..."]:
        """The latents of many pictures of one size, in -1..1, for those who compare them; by default one by one."""
        return torch.stack([self.encode(picture[None])["latents"] for picture in pictures])

    @abc.abstractmethod
    def embed(self, caption: str) -> dict[str, Tensor]:
        """What the loss needs of a caption; without a batch dimension."""

    def conditions(self, task: str, clip: Clip) -> dict[str, Tensor]:
        """What else the loss of a task needs of a clip, beside `encode`; without a batch dimension, kept on disk.

        This is the hook for tasks with more inputs than latents and text; by default nothing.
        """
        return {}

    @abc.abstractmethod
    def loss(
        self,
        encoded: dict[str, Tensor],
        embedded: dict[str, Tensor],
        draws: Draws,
        snr_gamma: float | None,
    ) -> Float[Tensor, "batch"]:
        """The denoising loss of every sample."""

    def mix(
        self, clean: Float[Tensor, "batch ..."], noise: Float[Tensor, "batch ..."], level: float
    ) -> Float[Tensor, "batch ..."]:
        """Latents with noise in them, at a level of 0 (as good as none) to 1 (as good as nothing else).

        Raises:
            LevelError: the kind has no such levels.
        """
        raise self._no_levels()

    def prediction(
        self,
        encoded: dict[str, Tensor],
        embedded: dict[str, Tensor],
        noisy: Float[Tensor, "batch ..."],
        level: float,
    ) -> Prediction:
        """What the network says of noisy latents at a level of `mix`, in float32, whatever it is trained to predict.

        Raises:
            LevelError: the kind has no such levels, or its network is never asked at this one.
        """
        raise self._no_levels()

    def _no_levels(self) -> LevelError:
        return LevelError(f"{self.about}: its network cannot be asked at one noise level for all of a picture")

    @abc.abstractmethod
    def sample(
        self, prompt: str, size: tuple[int, int], seed: int, frames: int = 1
    ) -> UInt8[Tensor, "frames height width 3"]:
        """A picture of the prompt, (width, height) px; or a clip, where the kind makes clips."""

    def sample_many(
        self, prompts: Sequence[str], size: tuple[int, int], seeds: Sequence[int], *, steps: int | None = None,
        on_sample: Callable[[int], None] = lambda done: None,
    ) -> UInt8[Tensor, "n height width 3"]:  # fmt: skip
        """A picture of each prompt (of a clip its middle frame), for those who make hundreds to measure them.

        Args:
            steps: denoising steps, where the kind has a choice; by default those of `sample`.
            on_sample: told how many there are so far.
        """
        made: list[Tensor] = []
        at_once = AT_ONCE * max(1, SMALL // (size[0] * size[1]))
        for first in range(0, len(prompts), at_once):
            some = slice(first, first + at_once)
            made.append(self._sample_some(prompts[some], size, seeds[some], steps))
            on_sample(min(first + at_once, len(prompts)))
        return torch.cat(made)

    def _sample_some(
        self, prompts: Sequence[str], size: tuple[int, int], seeds: Sequence[int], steps: int | None
    ) -> UInt8[Tensor, "n height width 3"]:
        """As `sample_many`, as few as fit in memory; by default one by one."""
        frames = [self.sample(prompt, size, seed) for prompt, seed in zip(prompts, seeds, strict=True)]
        return torch.stack([clip[len(clip) // 2] for clip in frames])

    def sample_task(self, task: str, clip: Clip, prompt: str, seed: int) -> UInt8[Tensor, "frames height width 3"]:
        """What a task makes of a clip's conditions and a prompt; by default of the prompt alone, of its length."""
        height, width = clip.pixels.shape[-2:]
        return self.sample(prompt, (width, height), seed, len(clip.pixels))

    @property
    def networks(self) -> tuple[str, ...]:
        """The names of the parts that can be trained."""
        return (type(self).component, *self.others)

    @property
    def idle(self) -> list[nn.Module]:
        """Networks that are there and not trained: they are needed for samples alone."""
        parts = [self.pipeline.components.get(name) for name in self.networks if name != self.component]
        return [part for part in parts if isinstance(part, nn.Module)]

    @property
    def encoders(self) -> list[nn.Module]:
        """Codec, text encoders and the like: all parts that are no networks to be trained."""
        parts = self.pipeline.components.items()
        return [part for name, part in parts if isinstance(part, nn.Module) and name not in self.networks]

    def to(self, device: torch.device, *, stay: Sequence[nn.Module] = ()) -> None:
        """Moves all parts but those that stay where they are."""
        if not stay:
            self.pipeline.to(device)
            return
        for part in self.pipeline.components.values():
            if isinstance(part, nn.Module) and all(part is not other for other in stay):
                part.to(device)


FAMILIES: Final[Registry[type[Family]]] = Registry("pipeline class")
"""By the class name in a model folder's model_index.json."""


def open_family(folder: Path, component: str | None = None) -> Family:
    """Loads a model folder in float32.

    Args:
        component: the part that is trained; by default the usual one of its kind.

    Raises:
        ValueError: its kind of pipeline cannot be fine-tuned here.
    """
    check_folder(folder, pipeline=None)
    index = DiffusionPipeline.load_config(str(folder))
    name = index["_class_name"]
    if name not in FAMILIES:
        raise ValueError(f"{folder} is a {name}, which cannot be fine-tuned here yet; known are {', '.join(FAMILIES)}")
    kind: Any = getattr(diffusers, name)  # ours is there as well, see `models.pipeline`
    absent = {part: None for part in FAMILIES[name].may_lack if index.get(part) in (None, (None, None), [None, None])}
    try:
        with quiet_loading():
            pipeline = kind.from_pretrained(
                str(folder), dtype=torch.float32, use_safetensors=True, local_files_only=True, **absent
            )
    except (OSError, TypeError, KeyError, RuntimeError, AttributeError) as error:
        raise ValueError(f"model folder {folder} could not be loaded: {error}") from error
    return FAMILIES[name](pipeline, component)
