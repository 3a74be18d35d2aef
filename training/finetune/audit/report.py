"""All that an audit found."""

from dataclasses import dataclass

from jaxtyping import UInt8
from torch import Tensor

from training.finetune.audit.canaries import Canary
from training.finetune.audit.figure import Figure
from training.finetune.audit.pairs import Twins

Picture = UInt8[Tensor, "height width 3"]


@dataclass(frozen=True, kw_only=True)
class Risk:
    """One caption, by what it gives away."""

    caption: str
    pictures: int
    """Trained pictures that have it."""
    magnitude: float | None
    """How much it changes what the network says."""
    nearest: float | None
    """Distance of its nearest sample to a trained picture, as the share of held-out pictures that are nearer."""
    extracted: bool
    """Several of its seeds made one trained picture."""
    rank: float
    """Mean of its places by the three, 1 the most at risk of all, 0 the least."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A sample beside the trained picture that it is nearest to."""

    caption: str
    seed: int
    file: str
    space: str
    """What they are near in."""
    distance: float
    made: Picture
    trained: Picture


@dataclass(frozen=True, kw_only=True)
class Audit:
    """The figures with what they are of."""

    run: str
    trained: int
    held_out: int
    samples: int
    steps: int | None
    seed: int
    space: str
    figures: tuple[Figure, ...]
    risks: tuple[Risk, ...]
    """Most at risk first."""
    canaries: tuple[Canary, ...]
    twins: Twins
    pairs: tuple[Pair, ...]
    """Nearest first."""
    distances: dict[str, tuple[float, ...]]
    """To the nearest trained picture: of samples, held-out pictures, and those as soft as the samples."""

    def figure(self, name: str) -> Figure:
        """A figure by name."""
        return next(figure for figure in self.figures if figure.name == name)

    @property
    def copies(self) -> bool | None:
        """Whether what the model makes is copied; None where that could not be measured.

        The plain and the blurred copy rate must both say so, or extraction alone, which is the harder proof.
        """
        plain, blurred = self.figure("copy-rate"), self.figure("copy-rate-blurred")
        if self.figure("extraction").verdict == "copying":
            return True
        if plain.verdict == "not measured":
            return None
        return plain.verdict == blurred.verdict == "copying"

    @property
    def words(self) -> str:
        """The verdict for someone who knows none of the figures."""
        rate, extracted = self.figure("copy-rate"), self.figure("extraction")
        said = ""
        if rate.value is not None:
            said = (
                f"{rate.value:.0%} of its {rate.count} samples are nearer to a trained picture than all but the "
                f"nearest 5 % of unseen pictures are; without copying that would be 5 %"
            )
            if rate.low is not None and rate.background_low is not None:
                said += (
                    f" (95 % intervals {rate.low:.0%} to {rate.high:.0%}, and {rate.background_low:.0%} to "
                    f"{rate.background_high:.0%})"
                )
        if self.copies:
            text = f"This model copies what it was trained on. {_sentence(said)}"
            if extracted.verdict == "copying":
                text = (
                    "This model copies what it was trained on. For "
                    f"{extracted.value:.0%} of the captions that it was asked, {extracted.count} times in all, several "
                    f"seeds make one and the same picture, a trained one. {_sentence(said)}"
                )
        elif self.copies is None:
            text = f"Whether this model copies could not be measured: {_sentence(rate.why)}"
        elif rate.verdict == "copying":
            text = (
                f"This model's samples are near to what it was trained on, but no nearer than pictures as soft as they "
                f"are: blur, not copying. {_sentence(said)}"
            )
        else:
            text = f"No copying was found in what this model makes. {_sentence(said)}"
        return text + self._tells()

    def _tells(self) -> str:
        told = [f for f in self.figures if f.name.startswith("membership") and f.verdict == "copying"]
        if not told or self.copies:
            return ""
        best = max(told, key=lambda figure: figure.value or 0)
        return (
            f" But it tells trained pictures from unseen ones (area {best.value:.2f}, 0.5 is luck): it has learned "
            "single pictures, and may show them with other prompts, seeds or more training."
        )


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}." if text else ""
