"""The library: what the studio made and what it brings, found by words, and thrown away with a way back."""

from studio.library.index import Library
from studio.library.thing import KINDS, Kind, Order, Thing

__all__ = ["KINDS", "Kind", "Library", "Order", "Thing"]
