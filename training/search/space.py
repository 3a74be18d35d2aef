"""What a search chooses from: a mask over named sites, and numbers."""

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch  # where a study is only read nothing is drawn, and torch takes seconds to load

Value = float | int | str


@dataclass(frozen=True, kw_only=True)
class LogUniform:
    """A number above 0 whose logarithm is drawn evenly, such as a learning rate."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.high:
            raise ValueError(f"a range of {self.low:g} to {self.high:g}: must be above 0 and in order")

    def at(self, place: float) -> float:
        """The number at a place of 0..1."""
        return self.nearest(math.exp(math.log(self.low) + place * (math.log(self.high) - math.log(self.low))))

    def nearest(self, value: Value) -> float:
        """What of the range is nearest to a value of another one; its middle for a word."""
        return self.at(0.5) if isinstance(value, str) else min(self.high, max(self.low, float(value)))


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One of a few values, from low to high where they have an order."""

    options: tuple[Value, ...]

    def __post_init__(self) -> None:
        if not self.options:
            raise ValueError("a choice needs an option at least")

    def at(self, place: float) -> Value:
        """The option at a place of 0..1."""
        return self.options[min(len(self.options) - 1, int(place * len(self.options)))]

    def nearest(self, value: Value) -> Value:
        """The option nearest to a value of another choice; the one in the middle where nothing is near to it."""
        numbers = [option for option in self.options if not isinstance(option, str)]
        if value in self.options or isinstance(value, str) or not numbers:
            return value if value in self.options else self.at(0.5)
        return min(numbers, key=lambda option: abs(option - value))


Range = LogUniform | Choice


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One way of training."""

    mask: tuple[bool, ...]
    """Of the space's sites, those that are trained."""
    values: Mapping[str, Value] = field(default_factory=dict)
    """The numbers, by name."""

    @property
    def key(self) -> str:
        """The same for the same candidate, different for different ones."""
        bits = "".join("1" if bit else "0" for bit in self.mask)
        return " ".join([bits, *(f"{name}={value!r}" for name, value in sorted(self.values.items()))])


@dataclass(frozen=True, kw_only=True)
class Space:
    """Named sites that can be trained or left, and the ranges of numbers."""

    sites: tuple[str, ...]
    numbers: Mapping[str, Range] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(set(self.sites)) < len(self.sites):
            raise ValueError("a site stands in the space twice")
        if not self.sites and not self.numbers:
            raise ValueError("the space is empty: there is nothing to choose")

    def random_mask(self, ones: int, generator: "torch.Generator") -> tuple[bool, ...]:
        """A mask with so many sites on."""
        import torch

        order = torch.randperm(len(self.sites), generator=generator)[:ones].tolist()
        return tuple(k in order for k in range(len(self.sites)))

    def random(self, generator: "torch.Generator") -> Candidate:
        """A candidate of which every bit and number is drawn evenly."""
        import torch

        mask = torch.randint(2, (len(self.sites),), generator=generator).bool().tolist()
        values = {name: kind.at(float(torch.rand((), generator=generator))) for name, kind in self.numbers.items()}
        return Candidate(mask=tuple(mask), values=values)

    def anchors(self) -> tuple[Candidate, ...]:
        """No site and every site, each at the middle of the numbers: what any search is compared to."""
        values = {name: kind.at(0.5) for name, kind in self.numbers.items()}
        if not self.sites:
            return ()
        return tuple(Candidate(mask=(bit,) * len(self.sites), values=values) for bit in (False, True))

    @property
    def is_finite(self) -> bool:
        """Whether there is an end to the candidates."""
        return all(isinstance(kind, Choice) or kind.low == kind.high for kind in self.numbers.values())

    def every(self) -> Iterator[Candidate]:
        """All candidates of a finite space, one after another."""
        options = [kind.options if isinstance(kind, Choice) else (kind.low,) for kind in self.numbers.values()]
        for mask in itertools.product((False, True), repeat=len(self.sites)):
            for values in itertools.product(*options):
                yield Candidate(mask=mask, values=dict(zip(self.numbers, values, strict=True)))

    def check(self, candidate: Candidate) -> None:
        """Makes sure that a candidate is of this space.

        Raises:
            ValueError: it is not.
        """
        if len(candidate.mask) != len(self.sites):
            raise ValueError(f"a mask of {len(candidate.mask)} bits: this space has {len(self.sites)} sites")
        if candidate.values.keys() != self.numbers.keys():
            odd = sorted(candidate.values.keys() ^ self.numbers.keys())
            raise ValueError(f"{', '.join(odd)}: this space has the numbers {', '.join(self.numbers) or 'none'}")
        for name, kind in self.numbers.items():
            value = candidate.values[name]
            inside = (
                value in kind.options
                if isinstance(kind, Choice)
                else isinstance(value, int | float) and kind.low <= value <= kind.high
            )
            if not inside:
                raise ValueError(f"{name} {value!r}: is not in {kind}")
