"""The training loop: batches in, events out, and a checkpoint from which it goes on bit for bit.

Every draw of a step comes from a generator that is seeded by (seed, step, process). So nothing random has to be saved:
a run that is resumed at step k makes the same step k as one that never stopped.
"""

import math
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, broadcast
from torch import Tensor, nn

from training.checkpoint import CheckpointError, latest_checkpoint, load_checkpoint, save_checkpoint
from training.config import TrainingConfig
from training.events import Evaluated, Event, Finished, Saved, Step
from training.tasks import Task, draw_task
from training.trained import Trained, WholeModule

Batch = Any


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


class NotFiniteError(RuntimeError):
    """The loss or its gradient became NaN or infinite."""


def step_generator(seed: int, step: int, process: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator of its own for one step of one process."""
    mixed = (seed * 0x9E3779B97F4A7C15 + step * 0xBF58476D1CE4E5B9 + process * 0x94D049BB133111EB) % (1 << 63)
    return torch.Generator(device).manual_seed(mixed)


def rate_at(step: int, config: TrainingConfig) -> float:
    """The learning rate of a step: a linear rise, then a cosine down to `final_rate`."""
    rise = min(1.0, (step + 1) / max(1, config.warmup_steps))
    progress = min(1.0, step / config.steps)
    fall = config.final_rate + (1 - config.final_rate) * 0.5 * (1 + math.cos(math.pi * progress))
    return config.learning_rate * rise * fall


def peak_bytes(device: torch.device) -> int:
    """The most memory held so far: on the GPU there, else by the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def train(
    learner: nn.Module,
    config: TrainingConfig,
    run: Path,
    *,
    resume: bool = False,
    trained: Trained | None = None,
    fingerprint: dict[str, Any] | None = None,
    should_stop: Callable[[], str | None] = lambda: None,
    device: str | None = None,
) -> Iterator[Event]:
    """Trains until `config.steps`, yielding events. Closing the iterator saves and stops.

    Args:
        trained: what of it is trained; by default all parameters that want gradients.
        fingerprint: what must be equal for a resume to make sense; a difference is refused by name.
        should_stop: asked after every step; a reason ends the run with a checkpoint.

    Raises:
        CheckpointError: there is nothing to resume, or it is of another run.
        NotFiniteError: the loss or its gradient is NaN or infinite; the last checkpoint is untouched.
        ValueError: the device is not here, or the batch cannot be shared among the processes.
    """
    accelerator = _accelerator(device)
    where = accelerator.device
    learning = cast(Learner, learner)
    learner.to(where)
    trained = trained or WholeModule(learner)
    saved_run, done = _read_run(run, fingerprint or {}, where) if resume else None, 0
    if saved_run is not None:
        path, tensors, done = saved_run
        try:
            trained.load_state(tensors["model"], done)
        except ValueError as error:
            raise CheckpointError(f"{path} {error}") from None
    names = trained.named()
    optimizer = trained.optimizer(config)
    average = {name: p.detach().clone() for name, p in names.items()}
    if saved_run is not None:
        for name in names:
            average[name].copy_(tensors["average"][name])
        _restore_optimizer(optimizer, tensors.get("optimizer", {}), names)
    several = accelerator.num_processes > 1
    wrapped = accelerator.prepare_model(learner) if several and trained.wrapped else learner
    pieces = accelerator.num_processes * config.gradient_accumulation_steps
    share = config.batch_size // pieces
    if share * pieces != config.batch_size:
        raise ValueError(
            f"batch_size {config.batch_size} does not divide by {accelerator.num_processes} processes and "
            f"{config.gradient_accumulation_steps} gradient_accumulation_steps"
        )
    began = time.monotonic()
    saved = done
    whole = True
    reason, complete = "all steps done", True
    last: Event | None = None

    def save(step: int) -> Event:
        tensors: dict[str, dict[str, Tensor]] = {
            "model": dict(trained.state()), "average": average, "optimizer": _optimizer_tensors(optimizer, names),
        }  # fmt: skip
        path = save_checkpoint(run, step, tensors, {"fingerprint": fingerprint or {}}, keep=config.keep_checkpoints)
        return Saved(step=step, path=str(path))

    try:
        for step in range(done, config.steps):
            started = time.monotonic()
            # the task is one for all processes, the samples are each process's own
            task = draw_task(learning.tasks, step_generator(config.seed, step, -1))
            generator = step_generator(config.seed, step, accelerator.process_index)
            for group in optimizer.param_groups:
                group["lr"] = rate_at(step, config) * group.get("rate", 1.0)
            learner.train()
            values: dict[str, float] = {}
            for part in range(config.gradient_accumulation_steps):
                first = (
                    step * config.batch_size + (part * accelerator.num_processes + accelerator.process_index) * share
                )
                batch = learning.batch(task, first, share, generator)
                extra = trained.penalty()
                with torch.autocast(where.type, dtype=torch.bfloat16, enabled=config.precision == "bf16"):
                    losses = wrapped(batch, task, generator)
                if extra is not None:
                    losses = {**losses, "loss": losses["loss"] + extra, "penalty": extra}
                for name, loss in losses.items():
                    values[name] = values.get(name, 0.0) + float(loss.detach()) / config.gradient_accumulation_steps
                if not all(math.isfinite(v) for v in values.values()):
                    raise NotFiniteError(_not_finite(step, f"the losses are {values}{_names(batch)}", run))
                accelerator.backward(losses["loss"] / config.gradient_accumulation_steps)
            if several:
                values = _mean(values, accelerator)
            if several and not trained.wrapped:
                for parameter in names.values():
                    if parameter.grad is not None:
                        parameter.grad = accelerator.reduce(parameter.grad, "mean")
            for name, parameter in names.items():
                if not task.trains(name):
                    parameter.grad = None
            norm = float(accelerator.clip_grad_norm_(names.values(), config.max_grad_norm))
            if not math.isfinite(norm):
                what = f"the gradient's norm is {norm} (losses {values}{_names(batch)})"
                raise NotFiniteError(_not_finite(step, what, run))
            whole = False
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            decay = min(config.ema_decay, (step + 1) / (step + 10))
            torch._foreach_lerp_([average[n] for n in names], [p.detach() for p in names.values()], 1 - decay)
            if trained.after_step(step + 1, optimizer, average):
                names = trained.named()
            done, whole = step + 1, True
            yield Step(
                step=done,
                total_steps=config.steps,
                task=task.name,
                losses=values,
                learning_rate=rate_at(step, config),
                seconds=time.monotonic() - started,
                peak_bytes=peak_bytes(where),
            )
            stop = _agree(should_stop(), accelerator)
            if stop:
                reason, complete = stop, False
                break
            if done % config.checkpoint_every == 0 and accelerator.is_main_process:
                saved = done
                yield save(done)
            if done % config.evaluate_every == 0 and done < config.steps and accelerator.is_main_process:
                yield Evaluated(step=done, metrics=_evaluate_average(learner, trained, average))
    except NotFiniteError:
        saved = done  # what led here is not worth a checkpoint, which would push out an older one
        raise
    finally:
        # also when the caller closes the iterator or presses Ctrl-C: what was learned is kept, but never half a step
        if saved != done and whole and accelerator.is_main_process:
            last = save(done)
            saved = done
    accelerator.wait_for_everyone()  # none goes on, to a resume perhaps, before the checkpoint is there
    if last is not None:
        yield last
    metrics: dict[str, float] = {}
    if complete and accelerator.is_main_process:
        metrics = _evaluate_average(learner, trained, average)
        yield Evaluated(step=done, metrics=metrics)
    yield Finished(step=done, complete=complete, reason=reason, seconds=time.monotonic() - began, metrics=metrics)


def _accelerator(device: str | None) -> Accelerator:
    """Precision is not its business here: it is one a process, and the next run may want another."""
    if device is not None and device != "cpu":
        index = torch.device(device).index or 0
        if index >= torch.cuda.device_count():
            raise ValueError(
                f"device {device}: there are {torch.cuda.device_count()} CUDA devices here; use cpu or auto"
            )
        torch.cuda.set_device(index)
    return Accelerator(
        mixed_precision="no",
        cpu=device == "cpu",
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )


def _agree(stop: str | None, accelerator: Accelerator) -> str | None:
    """The main process decides for all, or some would wait for ever for those that stopped."""
    if accelerator.num_processes == 1:
        return stop
    flag = broadcast(torch.tensor([stop is not None], dtype=torch.uint8, device=accelerator.device))
    return (stop or "the main process stopped") if bool(flag) else None


def _mean(values: dict[str, float], accelerator: Accelerator) -> dict[str, float]:
    """The mean over all processes: each has seen its share of the batch alone."""
    flat = torch.tensor(list(values.values()), device=accelerator.device)
    return dict(zip(values, accelerator.reduce(flat, "mean").tolist(), strict=True))


def _not_finite(step: int, what: str, run: Path) -> str:
    return (
        f"step {step}: {what}; the last checkpoint is {latest_checkpoint(run)}; start anew with a lower learning_rate"
    )


def load_average(learner: nn.Module, checkpoint: Path) -> int:
    """Puts the averaged weights of a checkpoint into the learner; returns the step."""
    tensors, state = load_checkpoint(checkpoint)
    names = dict(learner.named_parameters())
    with torch.no_grad():
        for name, value in tensors["average"].items():
            names[name].copy_(value)
    return int(state["step"])


def _names(batch: Batch) -> str:
    """The files that a batch was made of, where it knows them."""
    files = getattr(batch, "files", None)
    return f"; the batch is of {', '.join(files)}" if files else ""


def _evaluate_average(learner: nn.Module, trained: Trained, average: dict[str, Tensor]) -> dict[str, float]:
    """Evaluates with the averaged weights in place of the trained ones, and puts those back."""
    names = trained.named()
    kept = {name: p.detach().clone() for name, p in names.items()}
    learner.eval()
    with torch.no_grad():
        try:
            for name, p in names.items():
                p.copy_(average[name])
            trained.refresh()
            metrics = cast(Learner, learner).evaluate()
        finally:  # an interrupted evaluation must not leave the average to be saved as the weights
            for name, p in names.items():
                p.copy_(kept[name])
            trained.refresh()
    learner.train()
    return metrics


def _optimizer_tensors(optimizer: torch.optim.Optimizer, names: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name, parameter in names.items():
        for key, value in optimizer.state.get(parameter, {}).items():
            found[f"{name}:{key}"] = value
    return found


def _read_run(
    run: Path, fingerprint: dict[str, Any], device: torch.device
) -> tuple[Path, dict[str, dict[str, Tensor]], int]:
    """The last checkpoint, its tensors and its step."""
    path = latest_checkpoint(run)
    if path is None:
        raise CheckpointError(f"{run} has no checkpoint to resume from; start it without --resume")
    tensors, state = load_checkpoint(path, device)
    then = state["fingerprint"]
    for key, value in fingerprint.items():
        # a setting that did not exist yet had its present default
        if key in then and then[key] != value:
            raise CheckpointError(
                f"{path} was trained with {key} = {then[key]!r}, now it is {value!r}; "
                "use the same, or another run folder"
            )
    return path, tensors, int(state["step"])


def _restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], names: dict[str, nn.Parameter]
) -> None:
    for key, value in tensors.items():
        name, field = key.rsplit(":", 1)
        # counters stay on the CPU, where the optimizer made them: a step reads them
        optimizer.state[names[name]][field] = value.cpu() if value.ndim == 0 else value.clone()
