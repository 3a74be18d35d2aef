"""The audit's line on the model card of a run."""

from pathlib import Path
from typing import TYPE_CHECKING, Final

from studio.files import moved_in

if TYPE_CHECKING:
    from training.finetune.audit import Audit

_BEGINS: Final = "- Memorization: "


def write_card_line(card: Path, audit: "Audit") -> None:
    """Writes the line after the card's other facts, in the place of an earlier one; without a card it does nothing."""
    if not card.is_file():
        return
    lines = [line for line in card.read_text(encoding="utf-8").splitlines() if not line.startswith(_BEGINS)]
    last = max((k for k, line in enumerate(lines) if line.startswith("- ")), default=len(lines) - 1)
    lines.insert(last + 1, _BEGINS + card_line(audit))
    with moved_in(card) as staged:
        staged.write_text("\n".join(lines) + "\n", encoding="utf-8")


def card_line(audit: "Audit") -> str:
    """The copy rate with its background, or why there is none."""
    rate = audit.figure("copy-rate")
    if rate.value is None:
        return f"{rate.title} not measured ({rate.why}); see memorization/report.html"
    said = {True: "copies", False: "no copying found", None: "not clear"}[audit.copies]
    beside = f"{rate.background:.3g} ({rate.background_low:.2g} to {rate.background_high:.2g}) without copying"
    return (
        f"{rate.title} {rate.value:.3g} (95 % interval {rate.low:.3g} to {rate.high:.3g}; {beside}): {said}; see "
        "memorization/report.html"
    )
