"""SaRA: training the weights that are too small to matter."""

import math
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from training.methods.base import METHODS, Losses, Tuner
from training.methods.inplace import InPlaceTuner, Piece, ScatteredMethod
from training.methods.scope import Scope, parameters_in
from training.methods.selection import CAP, choose, magnitude
from training.methods.supports import Scattered

SIGMA_ROOT_2 = 0.0387
"""Square root of 2 times the deviation of SD 1.5's weights, which the published rates belong to: a threshold t trains
the fraction erf(t / 0.0387)."""


def learning_rate_of(fraction: float) -> float:
    """SaRA's rate, 1e-3 exp(-350 threshold) (appendix), for the fraction that the threshold trains in SD 1.5.

    A threshold means something else in every network; the fraction does not. 0.6 % gives 9e-4, 2.3 % 8e-4, 5.8 % 5e-4,
    14.5 % 2e-4.
    """
    inverse = float(torch.erfinv(torch.tensor(min(fraction, 0.5), dtype=torch.float64)))
    return 1e-3 * math.exp(-350 * SIGMA_ROOT_2 * inverse)


@METHODS.register("sara")
class SaRA(ScatteredMethod):
    """Trains the weights too small to matter; halfway those that came to matter are left as they are."""

    about: ClassVar[str] = "the smallest weights of the whole network, wherever they are"
    paper: ClassVar[str] = "SaRA, arXiv 2409.06633"
    sized_by: ClassVar[str | None] = "fraction"
    stands_beside: ClassVar[bool] = True

    fraction: float | None = Field(default=0.02, gt=0, le=1)
    """Share of the scope's numbers that is trained."""
    threshold: float | None = Field(default=None, gt=0)
    """Trains |w| below this instead; the published values belong to SD 1.5 (2e-3 trains 5.8 % there)."""
    budget: int | None = Field(default=None, ge=1)
    """Trains so many numbers instead."""
    cap: float = Field(default=CAP, gt=0, le=1)
    """Largest share of one matrix or filter that is trained: layers that start at zero would be taken whole."""
    nuclear_weight: float = Field(default=5e-4, ge=0)
    """Weight of the low-rank term; 0 leaves it out."""
    nuclear_form: Literal["nuclear", "decay"] = "nuclear"
    """The nuclear norm, or the squared values that it mostly acts as."""
    nuclear_of: Literal["values", "change"] = "values"
    """What the term looks at: the trained weights, as in the paper, or how much they changed."""
    nuclear_every: int = Field(default=8, ge=1)
    """The term is made in one of so many steps, with so many times its weight: the same on average, and cheaper. The
    paper's code makes it in every one."""
    reselect_step: int | None = Field(default=None, ge=1)
    """After this step only weights that are still small go on being trained; None for half of the run, which the
    trainer knows."""

    @model_validator(mode="before")
    @classmethod
    def _one_rule(cls, given: object) -> object:
        if isinstance(given, dict):
            named = [n for n in ("fraction", "threshold", "budget") if given.get(n) is not None]
            if len(named) > 1:
                raise ValueError(f"give one of fraction, threshold and budget, not {' and '.join(named)}")
            if named and named[0] != "fraction":
                given = {**given, "fraction": None}
        return given

    def attach(self, model: nn.Module, scope: Scope, rng: torch.Generator, losses: Losses | None = None) -> "SaRATuner":
        """Chooses by magnitude, computed in float32 on the CPU so that every machine chooses alike."""
        tensors = parameters_in(model, scope)
        total = sum(p.numel() for p in tensors.values())
        scores = {name: magnitude(p) for name, p in tensors.items()}
        if self.threshold is not None:
            count = sum(int((make() < self.threshold).sum()) for make in scores.values())
            if not count:
                raise ValueError(f"threshold {self.threshold:g}: no weight is smaller; try fraction = 0.02")
        else:
            count = self.budget or max(1, round((self.fraction or 0) * total))
        index = choose(scores, count, cap=self.cap)
        limit = max(float(scores[name]().flatten()[chosen].max()) for name, chosen in index.items())
        supports = {name: Scattered(chosen, tensors[name].shape) for name, chosen in index.items()}
        seed = int(torch.randint(1 << 62, (), generator=rng))
        tuner = SaRATuner(model, supports, self, limit=limit, fraction=count / total, seed=seed)
        tuner.recompute = self.recompute
        return tuner

    def learning_rate(self, tuner: Tuner) -> float:
        """The paper's, by fraction."""
        assert isinstance(tuner, SaRATuner)
        return learning_rate_of(tuner.fraction)


class SaRATuner(InPlaceTuner):
    """In-place training with SaRA's low-rank term and its one change of the chosen weights."""

    only_in_place: ClassVar[str] = "the low-rank term and the choice anew halfway"

    def __init__(
        self,
        model: nn.Module,
        supports: dict[str, Scattered],
        config: SaRA,
        *,
        limit: float,
        fraction: float,
        seed: int,
    ) -> None:
        self.config, self.limit, self.fraction = config, limit, fraction
        self._seed, self._step = seed, 0
        super().__init__(model, supports)

    def penalty(self) -> Float[Tensor, ""] | None:
        """The low-rank term of one matrix a step, drawn at random: an estimate of the mean over all of them.

        The paper's code does the same with a full SVD, and leaves out filters; here they are matrices with one row an
        output channel.
        """
        every = self.config.nuclear_every
        if self._step % every:
            return None
        matrices = [piece for piece in self.pieces if _is_matrix(piece)]
        if not self.config.nuclear_weight or not matrices:
            return None
        generator = torch.Generator().manual_seed((self._seed + self._step * 0x9E3779B1) % (1 << 63))
        piece = matrices[int(torch.randint(len(matrices), (), generator=generator))]
        values = self.values[piece.span]
        if self.config.nuclear_of == "change":
            values = values - piece.touched.start(piece.part).to(values)[_where(piece)]
        weight = self.config.nuclear_weight * every
        if self.config.nuclear_form == "decay":
            return weight * 0.5 * values.square().sum()
        return weight * (values * nuclear_direction(piece, values.detach())).sum()

    def load_state(self, state: Mapping[str, Tensor], step: int) -> None:
        """Takes over the state; the low-rank term goes on with its draws."""
        super().load_state(state, step)
        self._step = step

    def after_step(self, step: int) -> bool:
        """Writes the values; at `reselect_step` goes on with those that are still small."""
        super().after_step(step)
        self._step = step
        if step != self.config.reselect_step:
            return False
        with torch.no_grad():
            small = {p.name: p.support.index()[self.values[p.span].abs() <= self.limit] for p in self.pieces}
        self.choose_anew(small)
        return True


def _is_matrix(piece: Piece) -> bool:
    # as in the released code: smaller matrices have no rank to speak of
    rows, *columns = piece.parameter.shape
    return bool(columns) and min(rows, math.prod(columns)) > 64 and piece.support.count > 100


def _where(piece: Piece) -> Tensor | slice:
    return slice(None) if piece.where is None else piece.where


def nuclear_direction(piece: Piece, values: Float[Tensor, "count"]) -> Float[Tensor, "count"]:
    """The subgradient of the nuclear norm of the matrix that holds the values and is 0 elsewhere.

    It is U V^T of that matrix's singular value decomposition, at the values' places (SaRA, eq. 7; Watson 1992).
    """
    rows, *columns = piece.parameter.shape
    index = piece.support.index().long()
    # in the weights' own type: a direction need not be finer than the weights, and it is the largest thing of a step
    matrix = piece.parameter.new_zeros(rows * math.prod(columns))
    matrix[index] = values.to(matrix.dtype)
    return matrix_sign(matrix.view(rows, -1)).flatten()[index].to(values.dtype)


_POLAR_EXPRESS = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
)
"""Quintics a x + b x^3 + c x^5, each the best for where the one before has brought singular values of 1e-3 .. 1
(Polar Express, arXiv 2505.16932)."""
_SETTLE = ((1.875, -1.25, 0.375),) * 2
"""Steps of order three towards 1, which never overshoot."""
_ROOM = 1.02
"""Rounding in bfloat16 must not carry a singular value out of the range of the next quintic, which would explode."""


def matrix_sign(matrix: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
    """U V^T of U S V^T, without a decomposition, by seven products of polynomials, in the matrix's type.

    Singular values below about 1e-3 of the matrix's Frobenius norm do not arrive at 1.
    """
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T.contiguous() if tall else matrix
    x = x / (x.norm() * _ROOM).clamp(min=1e-30)
    near = [(a / _ROOM, b / _ROOM**3, c / _ROOM**5) for a, b, c in _POLAR_EXPRESS]
    for a, b, c in (*near, *_SETTLE):
        gram = x @ x.T
        polynomial = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.addmm(x, polynomial, x, beta=a)
    return x.T if tall else x
