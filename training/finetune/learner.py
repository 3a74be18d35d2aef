"""A pipeline's network with pictures, clips and captions: what the training loop calls."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from training.finetune.cache import Cache
from training.finetune.config import FinetuneConfig
from training.finetune.data import Sample, Stream, View
from training.finetune.data.poses import find_poses, place_poses
from training.finetune.families import Clip, Draws, Family, draw
from training.hashing import file_sha256
from training.processes import number_of_processes
from training.tasks import Task

MEASURED, SAMPLES = 16, 4
"""Samples that a validation measures, and that it makes."""
DRAWS = 4
"""Noise and levels at which the loss of a sample is measured."""
_TOGETHER = 4
"""Samples whose losses are measured in one batch, each at several levels."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Encoded samples and captions."""

    encoded: dict[str, Tensor]
    embedded: dict[str, Tensor]
    draws: Draws
    files: tuple[str, ...]
    """Where they came from, for the message when something is wrong with them."""


class FinetuneLearner(nn.Module):
    """The network with its data and loss."""

    def __init__(
        self, family: Family, samples: Sequence[Sample], held_out: Sequence[Sample], config: FinetuneConfig,
        cache: Cache,
    ) -> None:  # fmt: skip
        super().__init__()
        self.network = family.network
        self.config, self._family, self._cache = config, family, cache
        tasks = config.tasks(family.tasks)
        self.tasks = tuple(Task(name=name, weight=weight) for name, weight in tasks.items())
        self._streams = {name: Stream([s for s in samples if s.task == name], config) for name in tasks}
        self._held_out = list(held_out)
        # what is encoded depends on the encoders, not on the network between them
        self._encoders = encoders_hash(family)
        self.samples: list[tuple[str, UInt8[Tensor, "frames height width 3"]]] = []

    @property
    def _device(self) -> torch.device:
        return next(self.network.parameters()).device

    def batch(self, task: Task, first: int, count: int, generator: torch.Generator) -> Batch:
        """Takes samples `first` .. `first + count` of a task's stream; their draws follow from their place in it."""
        views = self._streams[task.name].take(first, count)
        batch = self.batch_of(views)
        return replace(batch, draws=replace(batch.draws, seeds=tuple(view.seed for view in views)))

    def batch_of(self, views: Sequence[View]) -> Batch:
        """Encodes views of one bucket and task; nothing varies but what their seeds draw."""
        encoded = _stack([self._encode(view) for view in views], self._device)
        return Batch(
            encoded=encoded, embedded=_stack([self._embed(view.caption) for view in views], self._device),
            draws=draw(encoded["latents"].shape[1:], [view.seed for view in views], self._device),
            files=tuple(str(view.sample.path) for view in views),
        )  # fmt: skip

    def _encode(self, view: View) -> dict[str, Tensor]:
        key, task, posed = f"{self._encoders} {view.key}", view.sample.task, view.sample.keypoints
        encoded = self._kept(f"latents {key}", lambda: self._family.encode(view.pixels()))
        if task not in self._family.conditioned:
            return encoded
        keypoints = file_sha256(posed) if posed else ""
        told = self._kept(
            f"conditions {task} {key} frame {view.reference} {keypoints}",
            lambda: self._family.conditions(task, self._clip(view)),
        )
        return {**encoded, **told}

    def _clip(self, view: View) -> Clip:
        """What a task may look at."""
        sample, want = view.sample, self._family.wants(view.sample.task)
        poses = None
        if want.poses:
            poses = place_poses(find_poses(sample, self._cache, sample.fps or 1.0), view)
        return Clip(pixels=view.pixels(), reference=view.reference, poses=poses)

    def _embed(self, caption: str) -> dict[str, Tensor]:
        told = self._told(caption) if caption else ""
        return self._kept(f"caption {self._encoders} {told}", lambda: self._family.embed(told))

    def _kept(self, name: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """From the cache; made in float32, whoever needs it first, for it is kept for all."""

        def whole() -> dict[str, Tensor]:
            with torch.autocast(self._device.type, enabled=False):
                return make()

        return self._cache.get(name, whole)

    def forward(self, batch: Batch, task: Task, generator: torch.Generator) -> dict[str, Tensor]:
        """The family's denoising loss, mean over the batch."""
        each = self._family.loss(batch.encoded, batch.embedded, batch.draws, self.config.snr_gamma)
        return {"loss": each.mean()}

    def losses(self) -> Iterable[Float[Tensor, ""]]:
        """Losses of a few batches, for a method that chooses by gradients; of all tasks in turn.

        A batch that is trained in parts comes in these: it would not fit as a whole.
        """
        size = self.config.train_batch_size
        share = max(1, size // self.config.gradient_accumulation_steps // number_of_processes())
        for k in range(8):
            generator, task = torch.Generator(), self.tasks[k % len(self.tasks)]
            for first in range(k * size, (k + 1) * size, share):
                yield self(self.batch(task, first, share, generator), task, generator)["loss"]

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """The loss on fixed samples at fixed noise: held-out ones, or the first trained ones; and makes samples.

        With several tasks, also that of each; the mean is weighted as they are.
        """
        name = "validation_loss" if self._held_out else "loss_at_fixed_noise"
        self.samples = []
        each = {task.name: self._measure(task) for task in self.tasks}
        known = {task.name: task.weight for task in self.tasks if each[task.name] is not None}
        mean = sum(weight * (each[task] or 0.0) for task, weight in known.items()) / sum(known.values())
        more = {f"{name}_{task}": loss for task, loss in each.items() if loss is not None} if len(each) > 1 else {}
        return {name: mean, **more}

    def _measure(self, task: Task) -> float | None:
        """The loss of one task; None where none of its samples is held out."""
        held = [sample for sample in self._held_out if sample.task == task.name]
        samples = (held if self._held_out else self._streams[task.name].samples)[:MEASURED]
        if not samples:
            return None
        mean = float(self.losses_at_fixed_noise(samples, task).mean())
        self._make_samples(task, samples)
        return mean

    @torch.no_grad()
    def losses_at_fixed_noise(
        self, samples: Sequence[Sample], task: Task, *, draws: int = DRAWS, on_sample: Callable[[], None] = lambda: None
    ) -> Float[Tensor, "samples draws"]:
        """The loss of every sample at noise and levels that depend on its place in the list alone.

        Several levels a sample, or the mean would be one of luck. `on_sample` is called after each.
        """
        views = [
            View(sample=sample, caption=sample.caption, seed=number * draws + k)
            for number, sample in enumerate(samples)
            for k in range(draws)
        ]
        # those of one shape can go together
        shapes = [view.sample.bucket for view in views]
        found: dict[int, Tensor] = {}
        for shape in dict.fromkeys(shapes):
            own = [k for k, other in enumerate(shapes) if other == shape]
            for first in range(0, len(own), _TOGETHER * draws):
                some = own[first : first + _TOGETHER * draws]
                batch = self.batch_of([views[k] for k in some])
                each = self._family.loss(batch.encoded, batch.embedded, batch.draws, self.config.snr_gamma)
                found |= dict(zip(some, each.float().cpu(), strict=True))
                for _ in range(len(some) // draws):
                    on_sample()
        return rearrange(torch.stack([found[k] for k in range(len(views))]), "(s d) -> s d", d=draws)

    def _make_samples(self, task: Task, samples: Sequence[Sample]) -> None:
        told = [self._told(sample.caption) for sample in samples]
        prompts = list(dict.fromkeys(self.config.validation_prompts or told))
        most = max(1, SAMPLES // len(self.tasks))
        for seed, prompt in enumerate(prompts[:most]):
            # conditions go with the sample that the prompt is the caption of
            shown = samples[told.index(prompt) if prompt in told else seed % len(samples)]
            clip = self._clip(View(sample=shown, caption=shown.caption))
            self.samples.append((prompt, self._family.sample_task(task.name, clip, prompt, seed)))

    def _told(self, caption: str) -> str:
        return f"{self.config.trigger} {caption}".strip()


def _stack(parts: Sequence[dict[str, Tensor]], device: torch.device) -> dict[str, Tensor]:
    return {name: torch.stack([part[name] for part in parts]).to(device) for name in parts[0]}


def encoders_hash(family: Family) -> str:
    """Tells encoders apart: a hash over a few numbers of every tensor that is not the network's."""
    digest = hashlib.sha256()
    for name, part in sorted(family.pipeline.components.items()):
        if isinstance(part, nn.Module) and name not in family.networks:
            for key, value in sorted(part.state_dict().items()):
                few = value.flatten()[:: max(1, value.numel() // 64)].float().cpu()
                digest.update(f"{name}.{key} {tuple(value.shape)}".encode() + few.numpy().tobytes())
    return digest.hexdigest()
