"""What a ledger says, entry by entry, and each as JSON: numbers come back exactly, and never as NaN."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from training.search.pareto import Objectives
from training.search.space import Candidate, Choice, LogUniform, Range, Space
from training.search.trial import Outcome, Point, Why

Json = dict[str, Any]
FORMAT: Final = 1


class LedgerError(ValueError):
    """A ledger is missing, damaged, out of reach or of another study."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a study may spend, the anchors and what still runs included: trials, or optimizer steps."""

    trials: int | None = None
    steps: int | None = None
    steps_each: int | None = None
    """Of a trial that is not stopped early. With a budget of steps, a trial begins where as many are left."""

    def __post_init__(self) -> None:
        if (self.trials is None) == (self.steps is None):
            raise ValueError("a budget is a number of trials or a number of steps: give one of them")
        if self.steps is not None and self.steps_each is None:
            raise ValueError("a budget of steps needs the steps of one trial (steps_each)")
        for name, value in asdict(self).items():
            if value is not None and value < 1:
                raise ValueError(f"the budget's {name} must be at least 1, got {value}")

    def __str__(self) -> str:
        return f"{self.trials} trials" if self.trials else f"{self.steps} steps, {self.steps_each} a trial"

    def covers(self, other: "Budget") -> bool:
        """Whether it is of the same kind and not smaller."""
        if self.steps_each != other.steps_each or (self.trials is None) != (other.trials is None):
            return False
        return (self.trials or self.steps or 0) >= (other.trials or other.steps or 0)


@dataclass(frozen=True, kw_only=True)
class Header:
    """The first entry: what a study is of. All workers of a study have the same."""

    name: str
    space: Space
    budget: Budget
    strategy: str = "memcontrol-2"
    seed: int = 0
    limit: float | None = None
    """The most copying that the user accepts."""
    early_stop: bool = True
    reference: Objectives | None = None
    """Where hypervolumes are measured from; None: from just beyond the worst of the anchors."""
    objectives: tuple[str, str] = ("quality", "copying")
    """What the two are, by names that say feature space and number of samples."""
    fingerprint: Mapping[str, str] = field(default_factory=dict)
    """Hashes and versions of all else that results depend on: config, data, code."""


@dataclass(frozen=True, kw_only=True)
class Extended:
    """From here on the study may spend more."""

    budget: Budget


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A worker takes on a candidate. Of a repeat, `trial` is the one that had it first, and nothing is trained."""

    trial: int
    candidate: Candidate
    why: Why
    worker: str
    at: float
    """Seconds since 1970, as all `at` are."""


@dataclass(frozen=True, kw_only=True)
class Taken:
    """A worker goes on with the trial of one that is gone."""

    trial: int
    worker: str
    died: bool
    """Whether the one before was killed or lost, instead of stopped."""
    at: float


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A checkpoint of a trial was measured."""

    trial: int
    point: Point
    note: str | None = None
    """What is odd about it."""


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A trial is over."""

    trial: int
    outcome: Outcome
    reason: str | None = None
    diverged: bool = False
    """It failed by its numbers, which no other candidate need do."""
    steps: int
    seconds: float
    """Of training and measuring, up to the last checkpoint."""
    at: float


Entry = Header | Extended | Asked | Taken | Measured | Finished
_KINDS: Final[Mapping[str, type[Entry]]] = {
    "study": Header, "budget": Extended, "asked": Asked, "taken": Taken, "point": Measured, "finished": Finished,
}  # fmt: skip
_NAMES: Final = {kind: name for name, kind in _KINDS.items()}


def to_json(entry: Entry) -> Json:
    """An entry as one JSON object."""
    found: Json = {"entry": _NAMES[type(entry)], **asdict(entry)}
    match entry:
        case Header():
            found = {"entry": "study", "format": FORMAT} | found | {"space": space_to_json(entry.space)}
        case Asked():
            found["candidate"] = candidate_to_json(entry.candidate)
    plain: Json = _plain(found)
    return plain


def from_json(found: Mapping[str, Any]) -> Entry:
    """The entry that a JSON object is.

    Raises:
        LedgerError: it is none.
    """
    fields = dict(found)
    kind = fields.pop("entry", None)
    if kind not in _KINDS:
        raise LedgerError(f"{str(found)[:80]}: is no entry of a study ({', '.join(_KINDS)})")
    try:
        match kind:
            case "study":
                if (version := fields.pop("format")) != FORMAT:
                    raise LedgerError(f"the ledger has format {version}, this version of the program reads {FORMAT}")
                reference = fields["reference"]
                fields |= {"space": space_from_json(fields["space"]), "budget": Budget(**fields["budget"])}
                fields |= {"reference": reference and tuple(reference), "objectives": tuple(fields["objectives"])}
            case "budget":
                fields["budget"] = Budget(**fields["budget"])
            case "asked":
                fields["candidate"] = candidate_from_json(fields["candidate"])
            case "point":
                fields["point"] = _point(fields["point"])
        return _KINDS[kind](**fields)
    except (KeyError, TypeError, AttributeError) as error:
        raise LedgerError(f"{str(found)[:80]}: is damaged, {error}") from error


def candidate_to_json(candidate: Candidate) -> Json:
    """A candidate: its mask as bits, its numbers as they are."""
    return {"mask": "".join("1" if bit else "0" for bit in candidate.mask), "values": dict(candidate.values)}


def candidate_from_json(found: Mapping[str, Any]) -> Candidate:
    """The same candidate again."""
    return Candidate(mask=tuple(bit == "1" for bit in found["mask"]), values=dict(found["values"]))


def space_to_json(space: Space) -> Json:
    """A space: the names of its sites, and each number as a range or as options."""
    numbers = {
        name: {"options": list(kind.options)} if isinstance(kind, Choice) else {"low": kind.low, "high": kind.high}
        for name, kind in space.numbers.items()
    }
    return {"sites": list(space.sites), "numbers": numbers}


def space_from_json(found: Mapping[str, Any]) -> Space:
    """The same space again."""
    numbers: dict[str, Range] = {
        name: Choice(options=tuple(kind["options"])) if "options" in kind else LogUniform(**kind)
        for name, kind in found["numbers"].items()
    }
    return Space(sites=tuple(found["sites"]), numbers=numbers)


def _point(found: Json) -> Point:
    numbers = {name: math.nan if found[name] is None else found[name] for name in ("quality", "copying")}
    metrics = {name: math.nan if value is None else value for name, value in found["metrics"].items()}
    return Point(**{**found, **numbers, "metrics": metrics})


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
