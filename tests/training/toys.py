"""A real learner that trains in a millisecond; run as a script it trains in the processes of `accelerate launch`."""

import sys
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.config import TrainingConfig
from training.tasks import Task
from training.watch import Asked


class Toy(nn.Module):
    """An embedding, a filter, a matrix and a bias: every kind of weight that the optimizer tells apart."""

    def __init__(self, *, seed: int = 0, noise: float = 0.1, evaluated: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.table = nn.Embedding(4, 8)
        self.filter = nn.Conv1d(2, 3, 3, padding=1)
        self.adapter = nn.Linear(8, 8)
        self.head = nn.Linear(12, 2)
        self.tasks = (
            Task(name="both", weight=0.6),
            Task(name="rest", weight=0.4, trainable=r"(?!adapter).*"),
        )
        self.noise = noise
        self.poisoned_at: int | None = None
        self.infinite_gradient_at: int | None = None
        self.asked: list[tuple[str, int, int]] = []

    def batch(self, task: Task, first: int, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        self.asked.append((task.name, first, count))
        x, kinds = [], []
        for k in range(first, first + count):
            own = torch.Generator().manual_seed(k)
            x.append(torch.randn(8, generator=own))
            kinds.append(k % 4)
        inputs = torch.stack(x)
        clean = torch.stack([inputs.sum(1).tanh(), inputs[:, 0]], dim=1)
        noise = torch.randn(clean.shape, generator=generator) * self.noise
        poison = torch.zeros(())
        if self.poisoned_at is not None and first <= self.poisoned_at < first + count:
            poison = torch.tensor(torch.nan)
        return {"x": inputs, "kind": torch.tensor(kinds), "y": clean + noise + poison, "first": torch.tensor(first)}

    def forward(self, batch: dict[str, Tensor], task: Task, generator: torch.Generator) -> dict[str, Tensor]:
        hidden = self.adapter(batch["x"]) + self.table(batch["kind"])
        out = self.head(self.filter(hidden.view(-1, 2, 4)).flatten(1))
        loss = F.mse_loss(out.float(), batch["y"])
        if self.infinite_gradient_at == int(batch["first"]):
            loss = loss + (self.head.bias.sum() * 0).sqrt()  # 0, with the slope of a root at 0
        return {"loss": loss}

    def evaluate(self) -> dict[str, float]:
        return {"weight": float(self.head.weight.sum())}


class Matrix(nn.Module):
    """One matrix that is large enough to have a rank; fine-tuned by `Tuned`."""

    tasks = (Task(name="fit"),)

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(72, 80)

    def batch(self, task: Task, first: int, count: int, generator: torch.Generator) -> Tensor:
        rows = [torch.randn(72, generator=torch.Generator().manual_seed(k)) for k in range(first, first + count)]
        return torch.stack(rows)

    def forward(self, batch: Tensor, task: Task, generator: torch.Generator) -> dict[str, Tensor]:
        return {"loss": (self.linear(batch) - 1).square().mean()}

    def evaluate(self) -> dict[str, float]:
        return {}


class Cramped(Matrix):
    """It fits one sample in the second of two processes, and any number in the first."""

    def forward(self, batch: Tensor, task: Task, generator: torch.Generator) -> dict[str, Tensor]:
        if torch.distributed.get_rank() == 1 and len(batch) > 1:
            torch.empty(1 << 60)  # more than there is
        return super().forward(batch, task, generator)


def sara(learner: Matrix) -> Any:
    """SaRA with a low-rank term that counts."""
    from training.methods import METHODS, find_scope
    from training.trained import Tuned

    method = METHODS["sara"](fraction=0.1, nuclear_weight=0.5)  # type: ignore[call-arg]
    return Tuned(method.attach(learner, find_scope(learner, ()), torch.Generator().manual_seed(0)))


def slower(step: int, metrics: dict[str, float]) -> Asked:
    """A watcher that halves the rate at step 2 and ends the run at step 4."""
    if step == 4:
        return Asked(stop="seen enough", complete=True)
    return Asked(rate_factor=0.5 if step == 2 else 1.0)


def config(**changes: object) -> TrainingConfig:
    values: dict[str, object] = {
        "steps": 6, "batch_size": 4, "learning_rate": 1e-2, "warmup_steps": 2, "precision": "fp32",
        "checkpoint_every": 100, "evaluate_every": 100, "keep_checkpoints": 2,
    }  # fmt: skip
    return TrainingConfig(**{**values, **changes})  # type: ignore[arg-type]


def run_every_kind(folder: Path) -> None:
    """What one of several processes does; prints what the tests look for."""
    from training.loop import train

    made = 0

    def after_three() -> str | None:
        nonlocal made
        made += 1
        return "enough" if made == 3 else None

    # in two parts, so that going on in several processes is seen as well
    for part in ({"should_stop": after_three}, {"resume": True}):
        for event in train(Toy(noise=0.0), config(), folder / "toy", device="cpu", **part):  # type: ignore[arg-type]
            if event.kind == "finished":
                print(f"toy: {torch.distributed.get_world_size()} processes, step {event.step}")
    rank = torch.distributed.get_rank()  # type: ignore[attr-defined]
    for event in train(Toy(), config(evaluate_every=2), folder / "watched", watch=slower, device="cpu"):
        if event.kind == "step":
            print(f"watched {rank}: {event.step} at {event.learning_rate:.6f}")
        if event.kind == "finished":
            print(f"watched {rank}: ends at {event.step}, {event.complete}")
    for name, matrix in (("sara", Matrix()), ("cramped", Cramped())):
        for event in train(matrix, config(), folder / name, trained=sara(matrix), device="cpu"):
            if event.kind == "out_of_memory":
                print(f"{name} {rank}: {event.remedy}")


if __name__ == "__main__":
    run_every_kind(Path(sys.argv[1]))
