"""In which order samples come."""

import math
from collections import defaultdict
from collections.abc import Sequence

import torch


class Order:
    """An endless stream over things, in which every batch is of one kind.

    Each pass is a new permutation, which follows from the seed and the number of the pass alone, so a resumed run goes
    on where it stopped without anything saved. With weights, a pass is as long as without, and holds as many things
    of each group as the group's weight says; what does not fit in one pass comes in the next ones.
    """

    def __init__(
        self,
        kinds: Sequence[object],
        batch_size: int,
        seed: int,
        *,
        groups: Sequence[int] | None = None,
        weights: Sequence[float] | None = None,
    ) -> None:
        """Orders things by their `kinds`; `groups` says which of the `weights` each has."""
        self._batch_size, self._seed = batch_size, seed
        members: dict[object, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
        for index, kind in enumerate(kinds):
            members[kind][groups[index] if groups else 0].append(index)
        self._members = [members[kind] for kind in sorted(members, key=str)]
        self._slots = _slots(self._members, weights)
        self.batches = sum(math.ceil(sum(slots.values()) / batch_size) for slots in self._slots)
        self._pass = -1
        self._order: list[list[int]] = []

    def take(self, first: int, count: int) -> list[int]:
        """Things `first` .. `first + count` of the stream; they lie within one batch."""
        batch, start = divmod(first, self._batch_size)
        number, place = divmod(batch, self.batches)
        if number != self._pass:
            self._pass, self._order = number, self._shuffled(number)
        return self._order[place][start : start + count]

    def _shuffled(self, number: int) -> list[list[int]]:
        generator = torch.Generator().manual_seed((self._seed * 1_000_003 + number) % (1 << 63))
        batches = []
        for members, slots in zip(self._members, self._slots, strict=True):
            chosen = [index for group in members for index in self._due(members[group], slots[group], number)]
            order = [chosen[k] for k in torch.randperm(len(chosen), generator=generator).tolist()]
            # the last batch is filled up from the beginning of the pass
            order += [order[k % len(order)] for k in range(-len(order) % self._batch_size)] if order else []
            batches += [order[k : k + self._batch_size] for k in range(0, len(order), self._batch_size)]
        return [batches[k] for k in torch.randperm(len(batches), generator=generator).tolist()]

    def _due(self, things: list[int], slots: int, number: int) -> list[int]:
        """What of a group comes in a pass: the next `slots` of its own endless round."""
        if slots == len(things):
            return things
        due: list[int] = []
        place = number * slots
        while len(due) < slots:
            turn, start = divmod(place + len(due), len(things))
            generator = torch.Generator().manual_seed((self._seed * 1_000_003 + things[0] * 7919 + turn) % (1 << 63))
            shuffled = torch.randperm(len(things), generator=generator).tolist()
            due += [things[k] for k in shuffled[start : start + slots - len(due)]]
        return due


def _slots(members: Sequence[dict[int, list[int]]], weights: Sequence[float] | None) -> list[dict[int, int]]:
    """How many things of each kind and group a pass holds: all once, or as the weights say."""
    counts: dict[int, int] = defaultdict(int)
    for kind in members:
        for group, things in kind.items():
            counts[group] += len(things)
    if weights is None:
        return [{group: len(things) for group, things in kind.items()} for kind in members]
    total, weight = sum(counts.values()), sum(weights[group] for group in counts)
    if not weight:
        raise ValueError("the weights of all groups that have anything are 0")
    share = {group: total * weights[group] / weight / count for group, count in counts.items()}
    return [
        # a kind of which a pass would hold less than one still comes
        {group: max(1, round(share[group] * len(things))) if share[group] else 0 for group, things in kind.items()}
        for kind in members
    ]
