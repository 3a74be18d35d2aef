"""Optuna's samplers by ask and tell. This file alone knows Optuna's samplers."""

import math
import warnings
from collections.abc import Sequence
from typing import Any, ClassVar

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, TPESampler
from optuna.trial import TrialState, create_trial

from training.search.pareto import Objectives
from training.search.space import Candidate, LogUniform, Space, Value
from training.search.strategy import STRATEGIES, SearchStrategy

optuna.logging.set_verbosity(optuna.logging.WARNING)


class OptunaStrategy(SearchStrategy):
    """A sampler of Optuna on a study in memory: the ledger is what lasts."""

    def __init__(self, space: Space, *, seed: int, limit: float | None = None) -> None:
        super().__init__(space, seed=seed, limit=limit)
        self._worst: Objectives | None = None
        self._distributions = distributions(space)
        self._study = optuna.create_study(directions=["minimize", "minimize"], sampler=self._sampler(seed))
        self._open: dict[str, list[optuna.trial.Trial]] = {}

    def _sampler(self, seed: int) -> BaseSampler:
        raise NotImplementedError

    def ask(self) -> Candidate:
        """What the sampler proposes."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # experimental marks
            trial = self._study.ask(self._distributions)
        candidate = to_candidate(self.space, trial.params)
        self._open.setdefault(candidate.key, []).append(trial)
        return candidate

    def tell(self, candidate: Candidate, points: Sequence[Objectives]) -> None:
        """Tells the study the last checkpoint, which is what the proposal led to."""
        waiting = self._open.get(candidate.key)
        if not waiting:
            self._add(candidate, points[-1:])
            return
        trial = waiting.pop()
        if not points:
            self._study.tell(trial, state=TrialState.FAIL)
            return
        values = self._finite(points[-1])
        for name, value in self._constraints(values).items():
            trial.set_constraint(name, value)
        self._study.tell(trial, values)

    def _add(self, candidate: Candidate, points: Sequence[Objectives]) -> None:
        """Tells of points that were not asked for."""
        parameters = to_parameters(self.space, candidate)
        for point in points:
            values = self._finite(point)
            self._study.add_trial(
                create_trial(
                    values=values, params=parameters, distributions=self._distributions,
                    constraints=self._constraints(values),
                )
            )  # fmt: skip

    def _finite(self, point: Objectives) -> Objectives:
        """The point; for one of a training that failed the worst up to now, which samplers can reckon with."""
        if not all(map(math.isfinite, point)):
            return self._worst or (1.0, 1.0)
        worst = self._worst or point
        self._worst = (max(worst[0], point[0]), max(worst[1], point[1]))
        return point

    def _constraints(self, point: Objectives) -> dict[str, float]:
        """What must not be above 0."""
        return {} if self.limit is None else {"copying": point[1] - self.limit}


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """A space as Optuna sees it; bits are numbers of 0 and 1, as in the paper's code."""
    found: dict[str, BaseDistribution] = {f"site {site}": IntDistribution(0, 1) for site in space.sites}
    for name, kind in space.numbers.items():
        if isinstance(kind, LogUniform):
            found[name] = FloatDistribution(kind.low, kind.high, log=True)
        else:
            found[name] = CategoricalDistribution(kind.options)
    return found


def to_candidate(space: Space, parameters: dict[str, Any]) -> Candidate:
    """Optuna's parameters as a candidate."""
    values: dict[str, Value] = {name: parameters[name] for name in space.numbers}
    return Candidate(mask=tuple(bool(parameters[f"site {site}"]) for site in space.sites), values=values)


def to_parameters(space: Space, candidate: Candidate) -> dict[str, Any]:
    """A candidate as Optuna's parameters."""
    bits = {f"site {site}": int(bit) for site, bit in zip(space.sites, candidate.mask, strict=True)}
    return {**bits, **candidate.values}


@STRATEGIES.register("nsga2")
class NSGA2(OptunaStrategy):
    """NSGA-II with a population of 50, the paper's: below 50 candidates it is random search."""

    about: ClassVar[str] = "NSGA-II, population 50, as in MemControl's code: random search below 50 candidates"
    paper: ClassVar[str] = "Deb et al. 2002; MemControl, arXiv 2405.19458"
    population: ClassVar[int] = 50

    def _sampler(self, seed: int) -> BaseSampler:
        return NSGAIISampler(population_size=self.population, seed=seed)


@STRATEGIES.register("nsga2-10")
class SmallNSGA2(NSGA2):
    """NSGA-II with a population of 10."""

    about: ClassVar[str] = "NSGA-II with a population of 10"
    population: ClassVar[int] = 10


@STRATEGIES.register("tpe")
class TPE(OptunaStrategy):
    """Tree-structured Parzen estimators, each variable alone."""

    about: ClassVar[str] = "TPE, each variable alone"
    paper: ClassVar[str] = "Ozaki et al., JAIR 2022"
    multivariate: ClassVar[bool] = False

    def _sampler(self, seed: int) -> BaseSampler:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return TPESampler(multivariate=self.multivariate, seed=seed, warn_independent_sampling=False)


@STRATEGIES.register("tpe-multivariate")
class MultivariateTPE(TPE):
    """Tree-structured Parzen estimators, all variables together."""

    about: ClassVar[str] = "TPE, all variables together"
    paper: ClassVar[str] = "Falkner et al., ICML 2018; Ozaki et al., JAIR 2022"
    multivariate: ClassVar[bool] = True


@STRATEGIES.register("gp")
class GaussianProcess(OptunaStrategy):
    """A Gaussian process and the expected gain of hypervolume: as good as TPE with few candidates, slower."""

    about: ClassVar[str] = "Gaussian process with expected gain of hypervolume"
    paper: ClassVar[str] = "Daulton et al., NeurIPS 2020; Ament et al., NeurIPS 2023"

    def _sampler(self, seed: int) -> BaseSampler:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return GPSampler(seed=seed, deterministic_objective=False)
