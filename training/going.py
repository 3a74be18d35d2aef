"""A run on its way: what is trained, and how one step of it is made."""

import math
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from pose.wording import in_a_line
from training.checkpoint import CheckpointError, latest_checkpoint, load_checkpoint, save_checkpoint
from training.config import TrainingConfig
from training.events import Event, OutOfMemory, Saved, Skipped, Step
from training.memory import Ladder, NoMemoryLeftError, free_memory, is_out_of_memory, no_room_to_choose
from training.optimizers import optimizer_tensors, restore_optimizer
from training.schedules import rate_at
from training.tasks import Task, draw_task
from training.trained import Trained, WholeModule
from training.watch import Asked

Batch = Any
OnBatch = Callable[[int, Batch, torch.Generator], None]
"""Sees every batch of a step, 0, 1, ..., before it goes through the network, and the generator as it is then."""
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
_MOST_SKIPPED = 25
"""Steps skipped in a row after which scaling the loss is not what helps: the scale went from 65536 to 0.002."""


@runtime_checkable
class Learner(Protocol):
    """A model together with its data and its loss. It is an `nn.Module`; its parameters are what is trained."""

    tasks: tuple[Task, ...]

    def batch(self, task: Task, first: int, count: int, generator: torch.Generator) -> Batch:
        """Makes samples `first` .. `first + count` of the endless stream of a task."""
        ...

    def __call__(self, batch: Batch, task: Task, generator: torch.Generator) -> dict[str, Tensor]:
        """Named losses, each a scalar; "loss" is what is minimised."""
        ...

    def evaluate(self) -> dict[str, float]:
        """Measures the current weights on held-out data."""
        ...


class NotFiniteError(FloatingPointError):
    """The loss or its gradient became NaN or infinite."""


def step_generator(seed: int, step: int, process: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator of its own for one step of one process."""
    mixed = (seed * 0x9E3779B97F4A7C15 + step * 0xBF58476D1CE4E5B9 + process * 0x94D049BB133111EB) % (1 << 63)
    return torch.Generator(device).manual_seed(mixed)


def peak_bytes(device: torch.device) -> int:
    """The most memory held so far: on the GPU there, else by the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class Going:
    """A run on its way: what is trained, its optimizer and average, and how a step is made."""

    def __init__(
        self, learner: nn.Module, config: TrainingConfig, run: Path, trained: Trained | None,
        fingerprint: dict[str, Any], accelerator: Accelerator, on_batch: OnBatch | None,
    ) -> None:  # fmt: skip
        self.config, self.run, self.fingerprint, self.accelerator = config, run, fingerprint, accelerator
        self.on_batch = on_batch
        self.where = accelerator.device
        self.module, self.learning = learner, cast(Learner, learner)
        learner.to(self.where)
        self.trained = trained or WholeModule(learner)
        self.several = accelerator.num_processes > 1
        pieces = accelerator.num_processes * config.gradient_accumulation_steps
        if config.batch_size % pieces:
            raise ValueError(
                f"batch_size {config.batch_size} does not divide by {accelerator.num_processes} processes and "
                f"{config.gradient_accumulation_steps} gradient_accumulation_steps"
            )
        share = config.batch_size // accelerator.num_processes
        self.memory = Ladder(learner, share=share, parts=config.gradient_accumulation_steps)
        # float16 cannot hold small gradients: the loss is multiplied, and the gradients divided again
        self.scaler = torch.amp.GradScaler(self.where.type, enabled=config.precision == "fp16")
        self.skipped = self.skipped_in_a_row = 0
        self.done, self.whole = 0, True
        self.rate_factor, self.watched = 1.0, -1
        """What a watcher asked for, and at which step it was asked last."""

    @property
    def together(self) -> bool:
        """Whether all processes must measure together, none of them having all weights."""
        return bool(getattr(self.learning, "together", False))

    def begin(self) -> None:
        """Starts with what is trained as it is now."""
        self.names = self.trained.named()
        self.optimizer = self.trained.optimizer(self.config)
        self.average = {name: p.detach().clone() for name, p in self.names.items()}
        wrap = self.several and self.trained.wrapped
        self.network: Any = self.accelerator.prepare_model(self.module) if wrap else self.module

    def restore(self) -> None:
        """Goes back to the checkpoint that `latest` names."""
        path, tensors, state = _read_run(self.run, self.fingerprint)
        self.done = int(state["step"])
        try:
            self.trained.load_state(tensors["model"], self.done)
        except ValueError as error:
            raise CheckpointError(f"{path} {error}") from None
        self.begin()
        for name in self.names:
            self.average[name].copy_(tensors["average"][name])
        restore_optimizer(self.optimizer, tensors.get("optimizer", {}), self.names)
        self.rate_factor, self.watched = state.get("rate_factor", 1.0), state.get("watched", -1)
        if "memory" in state:
            self.memory.restore(state["memory"])
        if "scaler" in state and self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"]["scaler"])
            self.skipped, self.skipped_in_a_row = state["scaler"]["skipped"], state["scaler"]["in_a_row"]

    def save(self) -> Event:
        """Writes a checkpoint."""
        tensors: dict[str, dict[str, Tensor]] = {
            "model": dict(self.trained.state()), "average": self.average,
            "optimizer": optimizer_tensors(self.optimizer, self.names),
        }  # fmt: skip
        state: dict[str, Any] = {
            "fingerprint": self.fingerprint, "memory": self.memory.state(), "rate_factor": self.rate_factor,
            "watched": self.watched,
        }  # fmt: skip
        if self.scaler.is_enabled():
            state["scaler"] = {
                "scaler": self.scaler.state_dict(), "skipped": self.skipped, "in_a_row": self.skipped_in_a_row,
            }  # fmt: skip
        path = save_checkpoint(self.run, self.done, tensors, state, keep=self.config.keep_checkpoints)
        return Saved(step=self.done, path=str(path))

    def step(self, step: int) -> Iterator[Event]:
        """Makes one step, with less memory where it must be."""
        started = time.monotonic()
        # the task is one for all processes, the samples are each process's own
        task = draw_task(self.learning.tasks, step_generator(self.config.seed, step, -1))
        rate = rate_at(step, self.config) * self.rate_factor
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("rate", 1.0)
        self.module.train()
        values: dict[str, float] = {}
        files = ""
        while True:
            error = None
            try:
                values, files = self._gradients(step, task)
            except (RuntimeError, MemoryError) as trouble:
                if not is_out_of_memory(trouble) or (self.several and self.trained.wrapped):
                    raise
                # the exception itself must go: its traceback holds all that was in memory
                error = in_a_line(trouble)
                if self.several and self.together:
                    # the others wait for this one's share of a block, and would for ever
                    raise NoMemoryLeftError(_no_room_for_a_share(step, error, self.run)) from None
            if not self._anywhere(error is not None):
                break
            yield self._less_memory(step, error or "another process has no memory left")
        if self.several:
            values = _mean(values, self.accelerator)
        yield from self._update(step, task, values, files)
        yield Step(
            step=self.done,
            total_steps=self.config.steps,
            task=task.name,
            losses=values,
            learning_rate=rate,
            seconds=time.monotonic() - started,
            peak_bytes=peak_bytes(self.where),
        )

    def _gradients(self, step: int, task: Task) -> tuple[dict[str, float], str]:
        """Puts the gradients of a batch, in parts, into the parameters; the named losses, and the batch's files."""
        config, processes, index = self.config, self.accelerator.num_processes, self.accelerator.process_index
        parts, share = self.memory.parts, self.memory.share // self.memory.parts
        generator = step_generator(config.seed, step, index)
        values: dict[str, float] = {}
        files: list[str] = []
        with _own_draws(config.seed, step, index, self.where):
            for part in range(parts):
                first = step * config.batch_size + (part * processes + index) * share
                batch = self.learning.batch(task, first, share, generator)
                if self.on_batch is not None:
                    self.on_batch(step, batch, generator)
                # once a step: it is of the weights, whatever the batch
                extra = self.trained.penalty() if part == 0 else None
                dtype = _DTYPES[config.precision]
                with torch.autocast(self.where.type, dtype=dtype, enabled=config.precision != "fp32"):
                    losses = self.network(batch, task, generator)
                objective = losses["loss"]
                if extra is not None:
                    losses = {**losses, "penalty": extra * parts}
                    objective = objective + losses["penalty"]
                for name, loss in losses.items():
                    values[name] = values.get(name, 0.0) + float(loss.detach()) / parts
                if not all(math.isfinite(v) for v in values.values()):
                    what = f"the losses are {values}{_named(_files(batch))}"
                    raise NotFiniteError(_not_finite(step, what, self.run))
                files += _files(batch)
                self.accelerator.backward(self.scaler.scale(objective / parts))
        # an infinite gradient may come from any part
        return values, _named(files)

    def _update(self, step: int, task: Task, values: dict[str, float], files: str) -> Iterator[Event]:
        """Clips the gradients and moves weights and average by them."""
        if self.several and not self.trained.wrapped:
            self._share_gradients()
        for name, parameter in self.names.items():
            if not task.trains(name):
                parameter.grad = None
        if self.scaler.is_enabled():
            self.scaler.unscale_(self.optimizer)
        norm = float(self.accelerator.clip_grad_norm_(self.names.values(), self.config.max_grad_norm))
        moves = math.isfinite(norm)
        if not moves and not (self.scaler.is_enabled() and self.skipped_in_a_row < _MOST_SKIPPED):
            what = f"the gradient's norm is {norm} (losses {values}{files})"
            raise NotFiniteError(_not_finite(step, what, self.run))
        self.whole = False
        try:
            self.scaler.step(self.optimizer)
        except (RuntimeError, MemoryError) as error:
            if is_out_of_memory(error):  # too late for another try: some of the weights may have moved
                raise NoMemoryLeftError(_no_room_for_optimizer(step, error, self.run)) from error
            raise
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        decay = min(self.config.ema_decay, (step + 1) / (step + 10))
        present = [p.detach() for p in self.names.values()]
        torch._foreach_lerp_([self.average[n] for n in self.names], present, 1 - decay)
        try:
            changed = self.trained.after_step(step + 1, self.optimizer, self.average)
        except (RuntimeError, MemoryError) as error:
            if is_out_of_memory(error):
                kept = latest_checkpoint(self.run)
                raise NoMemoryLeftError(f"{no_room_to_choose(error)}; the last checkpoint is {kept}") from error
            raise
        if changed:
            self.names = self.trained.named()
        self.skipped_in_a_row = 0 if moves else self.skipped_in_a_row + 1
        self.skipped += not moves
        self.done, self.whole = step + 1, True
        if not moves:
            yield Skipped(step=self.done, scale=self.scaler.get_scale(), skipped=self.skipped)

    def _share_gradients(self) -> None:
        """Puts the mean over all processes in place of each one's gradients, in one exchange for each type."""
        found = [p.grad for p in self.names.values() if p.grad is not None]
        for dtype in dict.fromkeys(grad.dtype for grad in found):
            own = [grad for grad in found if grad.dtype == dtype]
            flat = own[0].flatten() if len(own) == 1 else torch.cat([grad.flatten() for grad in own])
            mean = self.accelerator.reduce(flat, "mean")
            for grad, part in zip(own, mean.split([grad.numel() for grad in own]), strict=True):
                grad.copy_(part.view_as(grad))

    def _anywhere(self, failed: bool) -> bool:
        """Whether a step failed in any process: all of them make it again then."""
        if not self.several or self.trained.wrapped:
            return failed
        flag = torch.tensor([float(failed)], device=self.where)
        return bool(self.accelerator.reduce(flag, "sum") > 0)

    def _less_memory(self, step: int, error: str) -> Event:
        """Takes the next rung of the ladder."""
        self.optimizer.zero_grad(set_to_none=True)
        free_memory()
        remedy = self.memory.climb()
        if remedy is None:
            tried = "; ".join(self.memory.tried) or "nothing could be tried: a step is of one sample"
            raise NoMemoryLeftError(
                f"step {step}: out of memory ({error}); tried: {tried}. Use a smaller resolution or batch, "
                'weights_dtype = "bf16", or a method with fewer numbers; the last checkpoint is '
                f"{latest_checkpoint(self.run)}"
            )
        return OutOfMemory(step=step, error=error, remedy=remedy)

    def obey(self, asked: Asked) -> None:
        """Does what a watcher asks for, from now on; one that stops the run is asked again when it is resumed."""
        self.rate_factor *= asked.rate_factor
        if asked.stop is None:
            self.watched = self.done

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Puts the averaged weights in place of the trained ones, to be measured, and puts those back."""
        names = self.trained.named()
        kept = {name: p.detach().clone() for name, p in names.items()}
        self.module.eval()
        with torch.no_grad():
            try:
                for name, p in names.items():
                    p.copy_(self.average[name])
                self.trained.refresh()
                yield
            finally:  # an interrupted evaluation must not leave the average to be saved as the weights
                for name, p in names.items():
                    p.copy_(kept[name])
                self.trained.refresh()
        self.module.train()


@contextmanager
def _own_draws(seed: int, step: int, process: int, device: torch.device) -> Iterator[None]:
    """Seeds torch's own generators for one step: dropout draws from them, and would not be the same after a resume."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        # far from the numbers of any process, whose draws must have nothing to do with these
        torch.manual_seed(step_generator(seed, step, process + (1 << 20)).initial_seed())
        yield


def _mean(values: dict[str, float], accelerator: Accelerator) -> dict[str, float]:
    """The mean over all processes: each has seen its share of the batch alone."""
    flat = torch.tensor(list(values.values()), device=accelerator.device)
    return dict(zip(values, accelerator.reduce(flat, "mean").tolist(), strict=True))


def _not_finite(step: int, what: str, run: Path) -> str:
    return (
        f"step {step}: {what}; the last checkpoint is {latest_checkpoint(run)}; start anew with a lower learning_rate"
    )


def _no_room_for_a_share(step: int, error: str, run: Path) -> str:
    return (
        f"step {step}: out of memory ({error}), and processes with split weights cannot make a step again; use "
        f"gradient_checkpointing, or a smaller batch or resolution; the last checkpoint is {latest_checkpoint(run)}"
    )


def _no_room_for_optimizer(step: int, error: BaseException, run: Path) -> str:
    return (
        f'step {step}: out of memory in the optimizer ({error}); use optimizer = "adamw8bit" or a method with fewer '
        f"numbers; the last checkpoint is {latest_checkpoint(run)}"
    )


def _files(batch: Batch) -> tuple[str, ...]:
    """The files that a batch was made of, where it knows them."""
    return tuple(getattr(batch, "files", None) or ())


def _named(files: Sequence[str]) -> str:
    return f"; the batch is of {', '.join(dict.fromkeys(files))}" if files else ""


def _read_run(run: Path, fingerprint: dict[str, Any]) -> tuple[Path, dict[str, dict[str, Tensor]], dict[str, Any]]:
    """The last checkpoint, its tensors and its state."""
    path = latest_checkpoint(run)
    if path is None:
        raise CheckpointError(f"{run} has no checkpoint to resume from; start it without --resume")
    tensors, state = load_checkpoint(path)  # not where it would stand beside all that it is copied to
    then = state["fingerprint"]
    for key, value in fingerprint.items():
        # a setting that did not exist yet had its present default
        if key in then and then[key] != value:
            raise CheckpointError(
                f"{path} was trained with {key} = {then[key]!r}, now it is {value!r}; "
                "use the same, or another run folder"
            )
    return path, tensors, state
