"""A pipeline's network with pictures and captions: what the training loop calls."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from training.finetune.cache import Cache
from training.finetune.config import FinetuneConfig
from training.finetune.data import Order, Picture, load_pixels
from training.finetune.families import Draws, Family, draw
from training.tasks import Task

MEASURED, SAMPLES = 16, 4
"""Pictures that a validation measures, and that it makes."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Encoded pictures and captions."""

    encoded: dict[str, Tensor]
    embedded: dict[str, Tensor]
    draws: Draws
    files: tuple[str, ...]
    """Where they came from, for the message when something is wrong with them."""


class FinetuneLearner(nn.Module):
    """The network with its data and loss."""

    tasks = (Task(name="denoise"),)

    def __init__(
        self, family: Family, pictures: Sequence[Picture], held_out: Sequence[Picture], config: FinetuneConfig,
        cache: Cache,
    ) -> None:  # fmt: skip
        super().__init__()
        self.network = family.network
        self.config, self._family, self._cache = config, family, cache
        # a mirrored picture is another one
        self._views = [(p, mirrored) for p in pictures for mirrored in ((False, True) if config.flip else (False,))]
        self._held_out = list(held_out)
        self._order = Order([p.size for p, _ in self._views], config.train_batch_size, config.seed)
        # what is encoded depends on the encoders, not on the network between them
        self._encoders = _fingerprint(family)
        self.samples: list[tuple[str, UInt8[Tensor, "frames height width 3"]]] = []

    @property
    def _device(self) -> torch.device:
        return next(self.network.parameters()).device

    def batch(self, task: Task, first: int, count: int, generator: torch.Generator) -> Batch:
        """Takes pictures `first` .. `first + count` of the stream; their draws follow from their place in it alone."""
        views = [self._views[k] for k in self._order.take(first, count)]
        seeds = [_mixed(self.config.seed, first + k) for k in range(count)]
        chance = [float(torch.rand((), generator=torch.Generator().manual_seed(seed + 1))) for seed in seeds]
        drop = self.config.caption_dropout
        captions = ["" if c < drop else p.caption for (p, _), c in zip(views, chance, strict=True)]
        return self._batch(views, captions, seeds)

    def _batch(self, views: Sequence[tuple[Picture, bool]], captions: Sequence[str], seeds: Sequence[int]) -> Batch:
        encoded = _stack([self._encode(picture, mirrored) for picture, mirrored in views], self._device)
        return Batch(
            encoded=encoded, embedded=_stack([self._embed(caption) for caption in captions], self._device),
            draws=draw(encoded["latents"].shape[1:], seeds, self._device),
            files=tuple(str(picture.path) for picture, _ in views),
        )  # fmt: skip

    def _encode(self, picture: Picture, mirrored: bool) -> dict[str, Tensor]:
        key = f"picture {self._encoders} {picture.digest} {picture.size} {mirrored}"
        return self._cache.get(key, lambda: self._family.encode(load_pixels(picture, mirrored=mirrored)))

    def _embed(self, caption: str) -> dict[str, Tensor]:
        told = self._told(caption) if caption else ""
        return self._cache.get(f"caption {self._encoders} {told}", lambda: self._family.embed(told))

    def forward(self, batch: Batch, task: Task, generator: torch.Generator) -> dict[str, Tensor]:
        """The family's denoising loss, mean over the batch."""
        each = self._family.loss(batch.encoded, batch.embedded, batch.draws, self.config.snr_gamma)
        return {"loss": each.mean()}

    def losses(self) -> Iterable[Float[Tensor, ""]]:
        """Losses of a few batches, for a method that chooses by gradients."""
        size = self.config.train_batch_size
        for k in range(8):
            generator = torch.Generator()
            yield self(self.batch(self.tasks[0], k * size, size, generator), self.tasks[0], generator)["loss"]

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """The loss on fixed pictures at fixed noise: held-out ones, or the first trained ones; and makes samples."""
        name = "validation_loss" if self._held_out else "loss_at_fixed_noise"
        pictures = (self._held_out or [p for p, _ in self._views])[:MEASURED]
        found = []
        for number, picture in enumerate(pictures):
            # several noise levels a picture, or the mean would be one of luck
            batch = self._batch([(picture, False)] * 4, [picture.caption] * 4, [number * 4 + k for k in range(4)])
            found.append(float(self(batch, self.tasks[0], torch.Generator())["loss"]))
        prompts = self.config.validation_prompts or [self._told(p.caption) for p in pictures]
        size = pictures[0].size
        self.samples = [
            (prompt, self._family.sample(prompt, size, seed=k))
            for k, prompt in enumerate(list(dict.fromkeys(prompts))[:SAMPLES])
        ]
        return {name: sum(found) / len(found)}

    def _told(self, caption: str) -> str:
        return f"{self.config.trigger} {caption}".strip()


def _mixed(seed: int, number: int) -> int:
    """A seed of its own for every sample of the stream."""
    return (seed * 0x9E3779B97F4A7C15 + number * 0xBF58476D1CE4E5B9) % (1 << 62)


def _stack(parts: Sequence[dict[str, Tensor]], device: torch.device) -> dict[str, Tensor]:
    return {name: torch.stack([part[name] for part in parts]).to(device) for name in parts[0]}


def _fingerprint(family: Family) -> str:
    """Tells encoders apart: a hash over a few numbers of every tensor that is not the network's."""
    digest = hashlib.sha256()
    for name, part in sorted(family.pipeline.components.items()):
        if isinstance(part, nn.Module) and part is not family.network:
            for key, value in sorted(part.state_dict().items()):
                few = value.flatten()[:: max(1, value.numel() // 64)].float().cpu()
                digest.update(f"{name}.{key} {tuple(value.shape)}".encode() + few.numpy().tobytes())
    return digest.hexdigest()
