"""Undo and redo over any kind of state that is replaced, not changed."""

from dataclasses import dataclass
from typing import Final, Generic, TypeVar

S = TypeVar("S")

DEEPEST: Final = 200
"""Steps that are kept."""


@dataclass(frozen=True)
class History(Generic[S]):
    """A state, those before it and those that were undone."""

    present: S
    past: tuple[S, ...] = ()
    future: tuple[S, ...] = ()

    def then(self, state: S) -> "History[S]":
        """Goes on to another state; what was undone is forgotten. The same state is no step."""
        if state == self.present:
            return self
        return History(state, (*self.past, self.present)[-DEEPEST:])

    def undo(self) -> "History[S]":
        """Goes one step back; stays where nothing is before."""
        if not self.past:
            return self
        return History(self.past[-1], self.past[:-1], (self.present, *self.future))

    def redo(self) -> "History[S]":
        """Takes an undo back; stays where there was none."""
        if not self.future:
            return self
        return History(self.future[0], (*self.past, self.present), self.future[1:])
