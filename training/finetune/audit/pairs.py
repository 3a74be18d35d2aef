"""Duplicates among the trained pictures, and trained pictures that are held out as well."""

from collections.abc import Sequence
from dataclasses import dataclass

from training.finetune.data import Sample
from training.finetune.data.leakage import across
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
        leaked=tuple(across(pairs, opened.trained)),
    )
