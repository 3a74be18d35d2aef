"""Duplicates among the trained pictures, and trained pictures that are held out as well."""

from collections.abc import Sequence
from dataclasses import dataclass

from training.finetune.data import Sample
from training.finetune.data.likeness import find_twins
from training.finetune.opened import OpenedRun


@dataclass(frozen=True, kw_only=True)
class Twins:
    """Pairs of files that show the same."""

    identical: tuple[tuple[str, int], ...]
    """Trained files of which there are copies, with how many there are in all."""
    trained: tuple[tuple[Sample, Sample], ...]
    """Near-duplicates among the trained pictures."""
    leaked: tuple[tuple[Sample, Sample], ...]
    """Trained pictures with the held-out ones that look the same."""

    def once(self, trained: Sequence[Sample]) -> tuple[int, ...]:
        """The trained pictures without those that look like an earlier one."""
        again = {other.piece for _, other in self.trained}
        return tuple(k for k, sample in enumerate(trained) if sample.piece not in again)


class LeakageError(ValueError):
    """Held-out pictures were trained on, so that nothing can be measured against them."""


def look_for_twins(opened: OpenedRun) -> Twins:
    """Looks at every file: identical ones by content, near ones as `studio data check` does."""
    learned = {sample.piece for sample in opened.trained}
    pairs = list(find_twins([*opened.trained, *opened.held_out]))
    return Twins(
        identical=tuple(
            (str(sample.path), opened.repeats[sample.piece])
            for sample in opened.trained
            if opened.repeats[sample.piece] > 1
        ),
        trained=tuple((one, other) for one, other in pairs if other.piece in learned),
        leaked=tuple((one, other) for one, other in pairs if one.piece in learned and other.piece not in learned),
    )


def refuse_leakage(twins: Twins) -> None:
    """Stops where pictures cross the split.

    Raises:
        LeakageError: some do; the first of them are named.
    """
    if not twins.leaked:
        return
    named = "; ".join(f"{other.path} shows what {one.path} does" for one, other in twins.leaked[:5])
    more = f"; and {len(twins.leaked) - 5} more" if len(twins.leaked) > 5 else ""
    raise LeakageError(
        f"{len(twins.leaked)} held-out pictures look like trained ones, so they say nothing of unseen ones: "
        f"{named}{more}. Remove one of each pair and train again, or report all the same with --allow-leakage"
    )
