"""Pictures on both sides of the split: nothing can be measured against held-out ones that were trained."""

from collections.abc import Sequence
from typing import Final

from training.finetune.data.find import Sample
from training.finetune.data.likeness import find_twins

_NAMED: Final = 5


class LeakageError(ValueError):
    """Held-out pictures look like trained ones."""


def across(pairs: Sequence[tuple[Sample, Sample]], trained: Sequence[Sample]) -> list[tuple[Sample, Sample]]:
    """Of pairs that look the same, trained ones first, those of which one side is held out."""
    learned = {sample.piece for sample in trained}
    return [(one, other) for one, other in pairs if one.piece in learned and other.piece not in learned]


def find_leakage(trained: Sequence[Sample], held_out: Sequence[Sample]) -> list[tuple[Sample, Sample]]:
    """Trained pictures with the held-out ones that look the same, as `studio data check` finds them."""
    return across(list(find_twins([*trained, *held_out])), trained)


def refuse_leakage(leaked: Sequence[tuple[Sample, Sample]], *, who: str = "", fix: str = "") -> None:
    """Stops where pictures cross the split.

    Args:
        who: what cannot be done then, to begin the message with.
        fix: what else there is to do than to remove one of each pair.

    Raises:
        LeakageError: some do; the first of them are named.
    """
    if not leaked:
        return
    named = "; ".join(f"{other.path} shows what {one.path} does" for one, other in leaked[:_NAMED])
    more = f"; and {len(leaked) - _NAMED} more" if len(leaked) > _NAMED else ""
    raise LeakageError(
        f"{f'{who}: ' if who else ''}{len(leaked)} held-out pictures look like trained ones, so they say nothing of "
        f"unseen ones: {named}{more}. Remove one of each pair (`studio data check` finds them){fix}"
    )
