"""Classifier-free guidance that begins late: early guidance pulls samples into what a model knows by heart.

Jain et al. 2025 (CVPR, arXiv 2411.16738). The early steps are made without guidance, or with the opposite one; it
begins after a share of the steps (their static transition point), or behind the first local minimum of the difference
between the two predictions (their dynamic one).
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor, nn

GuidanceStart = float | Literal["auto"]
"""A share of the steps, 0..1; or auto."""
LEAST_BEFORE = -20.0
"""The strongest opposite guidance; the paper uses -2."""


class GuidanceDelay:
    """The scale of guidance at every step of one call, for each sample of the batch.

    Asked once a step, in order.
    """

    def __init__(self, start: GuidanceStart, before: float, steps: int) -> None:
        """Delays guidance.

        Args:
            before: the scale until it begins: 1 is the positive prediction alone, 0 the negative one alone, less than
                0 pushes away from the positive one.

        Raises:
            ValueError: a value is out of range.
        """
        if isinstance(start, str):
            if start != "auto":
                raise ValueError(f"guidance_start must be a share of the steps from 0 to 1, or 'auto', got {start!r}")
        elif not 0 <= start <= 1:
            raise ValueError(f"guidance_start must be a share of the steps from 0 to 1, or 'auto', got {start}")
        if not LEAST_BEFORE <= before <= 1:
            raise ValueError(
                f"guidance_before must be from {LEAST_BEFORE:g} to 1, got {before}; 1 is no guidance, 0 the negative "
                "prompt alone, and less pushes away from the prompt"
            )
        self.before = before
        self._auto = start == "auto"
        # a share of 0.7 of 10 steps is 7.000000000000001
        self._first = steps if isinstance(start, str) else math.ceil(round(start * steps, 6))
        self._step = 0
        self._last: Tensor | None = None
        self._begun: Tensor | None = None
        self.began: list[int | None] = []
        """The step at which guidance began, for each sample; None where it has not."""

    @property
    def watches(self) -> bool:
        """Whether the coming step must know how far the predictions are apart."""
        return self._auto and (self._begun is None or not bool(self._begun.all()))

    def needs(self) -> tuple[bool, bool]:
        """Whether the coming step needs the positive prediction, and the negative one."""
        if self._auto or self._step >= self._first or self.before not in (0, 1):
            return True, True
        return self.before == 1, self.before == 0

    def scale(
        self, full: float, difference: Float[Tensor, "batch ..."] | None, batch: int
    ) -> float | Float[Tensor, "batch"]:
        """The scale of this step: one number where it is the same for all samples.

        Args:
            full: the scale once guidance has begun.
            difference: positive less negative prediction; only looked at while it `watches`.
        """
        step, self._step = self._step, self._step + 1
        watches = self.watches
        if self._begun is None:
            self._begun, self.began = torch.zeros(batch, dtype=torch.bool), [None] * batch
        if watches:
            assert difference is not None
            now = reduce(difference.float().square(), "b ... -> b", "sum").sqrt().cpu()
            rising = torch.zeros_like(self._begun) if self._last is None else now > self._last
            self._begin(rising & ~self._begun, step)
            self._last = now
        elif step >= self._first:
            self._begin(~self._begun, step)
        if self._begun.all() or not self._begun.any():
            return full if self._begun.all() else self.before
        return torch.where(self._begun, full, self.before)

    def _begin(self, which: Tensor, step: int) -> None:
        assert self._begun is not None
        self._begun = self._begun | which
        self.began = [step if new else old for new, old in zip(which.tolist(), self.began, strict=True)]


@contextmanager
def delay_guidance(pipeline: Any, start: GuidanceStart, *, before: float = 0.0) -> Iterator[None]:
    """Delays guidance in the calls of a diffusers pipeline that puts both predictions into one batch (SD, SDXL, SD3).

    A `callback_on_step_end` comes too late for that: the first step, which matters most, is made before it is called.
    So the network's output is changed, to what makes the pipeline's own guidance that of the wanted scale.

    Args:
        start: a share of the steps, or "auto".
        before: the scale until guidance begins; 0 is the paper's, negative its opposite guidance.

    Raises:
        ValueError: the pipeline is of another kind, or a value is out of range.
    """
    network: nn.Module | None = getattr(pipeline, "unet", None) or getattr(pipeline, "transformer", None)
    # of the class: the property itself works within a call alone
    known = hasattr(type(pipeline), "do_classifier_free_guidance") and not hasattr(pipeline, "guidance_began")
    if network is None or not known:
        raise ValueError(
            f"delay_guidance: {type(pipeline).__name__} is not a pipeline whose guidance can be delayed from outside"
        )
    GuidanceDelay(start, before, 1)  # a wrong value is told at once
    delay: GuidanceDelay | None = None
    made, last = 0, None

    def guided(_: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Any) -> Any:
        nonlocal delay, made, last
        if not pipeline.do_classifier_free_guidance:
            raise ValueError("delay_guidance: there is no guidance to delay; use a guidance_scale above 1")
        said = output[0] if isinstance(output, tuple) else output.sample
        if delay is None or made == pipeline.num_timesteps:
            delay, made, last = GuidanceDelay(start, before, pipeline.num_timesteps), 0, None
        now = float(torch.as_tensor(named.get("timestep", inputs[1] if len(inputs) > 1 else made)).flatten()[0])
        if len(said) % 2 or now == last:
            raise ValueError(
                f"delay_guidance: {type(pipeline).__name__} asks its network for one prediction at a time; "
                "this works where both are in one batch"
            )
        made, last = made + 1, now
        negative, positive = said.chunk(2)
        full = float(pipeline.guidance_scale)
        scale = delay.scale(full, positive - negative, len(positive))
        if isinstance(scale, float) and scale == full:
            return output
        share = torch.as_tensor(scale, dtype=said.dtype, device=said.device).expand(len(positive)) / full
        shape = "b -> b" + " 1" * (said.ndim - 1)
        changed = torch.cat([negative, negative + rearrange(share, shape) * (positive - negative)])
        if isinstance(output, tuple):
            return (changed, *output[1:])
        output.sample = changed
        return output

    handle = network.register_forward_hook(guided, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
