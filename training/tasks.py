"""Tasks are data: which share of the batches they get, which conditions they see, which parameters they may move.

Multi-task partial parameter training as in Animate-X++ (arXiv 2508.09454, abstract and method figure; the recipe is
ours, see docs): a parameter outside a task has no gradient in that task's step, so AdamW leaves it alone altogether
(a zero gradient would still decay it and let momentum move it).
"""

import re
from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"is not a regular expression: {error}") from error
    return pattern


Pattern = Annotated[str, AfterValidator(_compiles)]
"""A regular expression."""


class Task(BaseModel):
    """One of the things that a model is trained on in turn."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str
    """Stands in the events beside the loss."""
    weight: float = Field(default=1.0, gt=0)
    """Share of the batches, relative to the other tasks."""
    trainable: Pattern = ".*"
    """Regular expression over parameter names: what this task may move."""

    def trains(self, parameter: str) -> bool:
        """Tells whether a step of this task may move the parameter."""
        return re.fullmatch(self.trainable, parameter) is not None


def draw_task(tasks: Sequence[Task], generator: torch.Generator) -> Task:
    """Draws the task of a batch by weight."""
    weights = torch.tensor([task.weight for task in tasks], device="cpu")
    return tasks[int(torch.multinomial(weights, 1, generator=generator))]
