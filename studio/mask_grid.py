"""A mask as a picture of the network: blocks from left to right as data goes through them, kinds of layers below."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

_SHORT: Final = {"transformer_blocks": "", "attentions": "", "down_blocks": "down", "up_blocks": "up",
                 "mid_block": "mid", "blocks": ""}  # fmt: skip
_WORDS: Final = {
    "attn1": "self-attention", "attn2": "cross-attention", "ffn": "feed-forward", "ff": "feed-forward",
    "to_q": "q", "to_k": "k", "to_v": "v", "to_out": "out",
}  # fmt: skip
WHOLE: Final = "whole block"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A site in the picture."""

    site: str
    block: str
    """Its column, such as "0" or "down 1.0"."""
    kind: str
    """Its row, such as "self-attention"."""
    place: int
    """Of the column, from the left."""
    on: bool
    """Whether it is trained."""


def grid_of(sites: Sequence[str], trained: Collection[str]) -> list[Cell]:
    """Places every site in a grid. Sites that are no paths of layers stand in the column of their own half or name."""
    found: list[Cell] = []
    columns: dict[str, int] = {}
    for site in sites:
        block, kind = _split(site)
        place = columns.setdefault(block, len(columns))
        found.append(Cell(site=site, block=block, kind=kind, place=place, on=site in trained))
    return found


def _split(site: str) -> tuple[str, str]:
    if match := re.fullmatch(r"(?P<kind>.+), (?P<half>first half|second half)", site):
        return match["half"], match["kind"]
    parts = site.split(".")
    numbers = [place for place, part in enumerate(parts) if part.isdigit()]
    if not numbers:
        return (site, WHOLE) if len(parts) == 1 else (parts[0], ".".join(parts[1:]))
    last = numbers[-1]
    kind = " ".join(_WORDS.get(part, part) for part in parts[last + 1 :] if part != "*")
    if kind in _SHORT:
        kind = ""  # a mask of the paper: all the transformer blocks of a place
    return _block_name(parts[: last + 1]), kind or WHOLE


def _block_name(parts: Sequence[str]) -> str:
    words: list[str] = []
    for part in parts:
        short = _SHORT.get(part, part)
        if not short:
            continue
        if part.isdigit() and words:
            words[-1] += ("." if words[-1][-1].isdigit() else " ") + part
        else:
            words.append(short)
    return " ".join(words) or "0"


def in_words(cells: Sequence[Cell]) -> str:
    """What a mask trains, for those who do not see the picture."""
    on = [cell.site for cell in cells if cell.on]
    if not on:
        return f"None of {len(cells)} sites is trained: the base model."
    if len(on) == len(cells):
        return f"All {len(cells)} sites are trained."
    return f"{len(on)} of {len(cells)} sites are trained: {', '.join(on)}."
