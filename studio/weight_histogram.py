"""How large the weights of a network are: counted by |w| in fine bins, so that any threshold can be looked up at once.

The files are read as they lie on the disk, without torch and without a model: a page can ask for it.
"""

import hashlib
import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models.loading import component_names
from studio.errors import RequestError
from studio.files import moved_in

READ: Final = 40_000_000
"""At most so many numbers are read; of a larger network an even part, which takes about a second."""
_PIECE: Final = 4096
"""Numbers that are read in one go where not all are."""
_FIRST_EXPONENT, _LAST_EXPONENT = 127 - 40, 127 + 16
_SHIFT: Final = 18
"""Bits of a float32 below a bin's: 32 bins an octave, each 2 to 3 % wide."""
_FIRST: Final = _FIRST_EXPONENT << (23 - _SHIFT)
BINS: Final = (_LAST_EXPONENT - _FIRST_EXPONENT) << (23 - _SHIFT)
_DTYPES: Final = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_MAX_HEADER: Final = 100_000_000

KINDS: Final = {
    "attention": ("attn", "attention"), "self-attention": ("attn1", "self_attn"),
    "cross-attention": ("attn2", "cross_attn"), "feed-forward": ("ff", "ffn", "mlp"), "norms": ("norm",),
}  # fmt: skip
"""Words of a scope, and the parts of tensors' names that tell them; the trainer looks at the modules themselves."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A tensor in a safetensors file."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    file: Path
    at: int
    """Its first byte."""

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return int(np.prod(self.shape, dtype=np.int64))


def network_of(folder: Path) -> str:
    """The part of a pipeline's folder that is fine-tuned.

    Raises:
        RequestError: the folder is no pipeline, or has no such part.
    """
    try:
        names = component_names(folder)
    except (OSError, ValueError) as error:
        raise RequestError(str(error)) from error
    if not names:
        raise RequestError(f"model folder {folder} has no part with .safetensors weights; convert or download it again")
    return names[0]


def read_entries(folder: Path) -> list[Entry]:
    """Lists the tensors of all safetensors files right in a folder, from their headers alone.

    Raises:
        RequestError: a file is damaged.
    """
    found: dict[str, Entry] = {}
    for file in sorted(folder.glob("*.safetensors")):
        try:
            for entry in _entries(file):
                found.setdefault(entry.name, entry)
        except (OSError, ValueError, KeyError, TypeError, struct.error) as error:
            raise RequestError(f"{file} is damaged ({error}); copy, convert or download it again") from error
    return list(found.values())


def _entries(file: Path) -> Iterator[Entry]:
    length = file.stat().st_size
    with file.open("rb") as stream:
        (header,) = struct.unpack("<Q", stream.read(8))
        if header > min(length, _MAX_HEADER):
            raise ValueError("its header is longer than the file")
        told: dict[str, Any] = json.loads(stream.read(header))
    for name, row in told.items():
        if name == "__metadata__":
            continue
        begin, end = map(int, row["data_offsets"])
        entry = Entry(
            name=name, shape=tuple(map(int, row["shape"])), dtype=str(row["dtype"]), file=file, at=8 + header + begin
        )
        if not 0 <= begin <= end or 8 + header + end > length:
            raise ValueError(f"{name} lies outside of the file")
        if entry.dtype in _DTYPES and entry.size * np.dtype(_DTYPES[entry.dtype]).itemsize != end - begin:
            raise ValueError(f"{name} has {end - begin} bytes, which does not fit its shape {list(entry.shape)}")
        yield entry


@dataclass(frozen=True, kw_only=True, eq=False)
class WeightHistogram:
    """Counts of |w| by tensor and bin."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    counts: NDArray[np.float32]
    """Tensors x bins; of a tensor that was read in part, scaled to all of it."""
    read: int
    """How many numbers were looked at."""
    unread: int
    """Numbers of types that are not read, such as 8-bit ones."""

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """How many numbers each tensor has."""
        return np.array([np.prod(shape, dtype=np.int64) for shape in self.shapes], np.int64).reshape(len(self.shapes))

    @property
    def total(self) -> int:
        """How many numbers there are."""
        return int(self.sizes.sum())

    @property
    def is_sampled(self) -> bool:
        """Whether only a part was read."""
        return self.read < self.total

    @cached_property
    def _below(self) -> NDArray[np.float64]:
        """Tensors x (bins + 1): how many numbers are smaller than each edge."""
        sums = np.cumsum(self.counts, axis=1, dtype=np.float64)
        return np.concatenate([np.zeros((len(self.names), 1)), sums], axis=1)

    def inside(self, scope: Sequence[str] = ()) -> NDArray[np.bool_]:
        """Which tensors a scope's words take in, by their names."""
        return np.array([_holds(scope, name, shape) for name, shape in zip(self.names, self.shapes, strict=True)], bool)

    def below(self, threshold: float, *, inside: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
        """How many numbers of each tensor are smaller in magnitude."""
        bits = int(np.array(max(threshold, 0.0), np.float32).view(np.int32))
        place, rest = (bits >> _SHIFT) - _FIRST, (bits & ((1 << _SHIFT) - 1)) / (1 << _SHIFT)
        table = self._below if inside is None else self._below[inside]
        if place < 0:
            return np.zeros(len(table))
        if place >= BINS:
            return table[:, -1]
        return table[:, place] + rest * (table[:, place + 1] - table[:, place])

    def trained(
        self, threshold: float, *, cap: float = 1.0, inside: NDArray[np.bool_] | None = None
    ) -> NDArray[np.float64]:
        """How many numbers of each tensor SaRA trains: of a matrix or filter at most the share `cap`."""
        found = self.below(threshold, inside=inside)
        shapes = self.shapes if inside is None else [s for s, i in zip(self.shapes, inside, strict=True) if i]
        most = [int(cap * np.prod(shape, dtype=np.int64)) if len(shape) > 1 else np.inf for shape in shapes]
        return np.minimum(found, np.array(most, np.float64).reshape(len(found)))

    def threshold_for(self, count: float, *, inside: NDArray[np.bool_] | None = None) -> float:
        """Below which |w| so many numbers are; the cap is not looked at, as SaRA does not."""
        table = (self._below if inside is None else self._below[inside]).sum(axis=0)
        place = int(np.clip(np.searchsorted(table, count, side="left") - 1, 0, BINS - 1))
        within = table[place + 1] - table[place]
        share = float(np.clip((count - table[place]) / within, 0, 1)) if within else 1.0
        bits = ((_FIRST + place) << _SHIFT) + int(share * ((1 << _SHIFT) - 1))
        return float(np.array(bits, np.int32).view(np.float32))

    def bars(self, edges: Sequence[float], *, inside: NDArray[np.bool_] | None = None) -> list[float]:
        """How many numbers lie between each edge and the next."""
        sums = [float(self.below(edge, inside=inside).sum()) for edge in edges]
        return [after - before for before, after in pairwise(sums)]


def layer_of(name: str) -> str:
    """The part of a network that a tensor belongs to: up to the first number in its name, or its first word."""
    parts = name.split(".")
    for place, part in enumerate(parts):
        if part.isdigit():
            return ".".join(parts[: place + 1])
    return parts[0]


def _holds(scope: Sequence[str], name: str, shape: tuple[int, ...]) -> bool:
    """As `training.methods.scope.find_scope`, by names alone."""
    held = not scope or scope[0].startswith("!")
    for word in scope:
        bare = word.removeprefix("!")
        if bare == "convolutions":
            fits = len(shape) > 2
        elif bare in KINDS:
            fits = any(
                part == mark or (len(mark) > 3 and mark in part) for part in name.split(".") for mark in KINDS[bare]
            )
        else:
            fits = any(fnmatchcase(".".join(name.split(".")[:end]), bare) for end in range(1, name.count(".") + 2))
        if fits:
            held = not word.startswith("!")
    return held


def read_histogram(folder: Path, *, limit: int = READ) -> WeightHistogram:
    """Counts the weights of a folder's safetensors files.

    Args:
        limit: at most about so many numbers are read, evenly from every tensor.

    Raises:
        RequestError: a file is damaged, or there is none.
    """
    entries = read_entries(folder)
    known = [entry for entry in entries if entry.dtype in _DTYPES and entry.size]
    if not known:
        raise RequestError(f"{folder} has no .safetensors weights of 16 bits or more; nothing can be counted")
    step = max(1, -(-sum(entry.size for entry in known) // limit))
    counts = np.zeros((len(known), BINS), np.float32)
    read = 0
    for row, entry in enumerate(known):
        numbers = _numbers(entry, step)
        bits = np.abs(numbers).view(np.int32) >> _SHIFT
        found = np.bincount(np.clip(bits - _FIRST, 0, BINS - 1), minlength=BINS)
        counts[row] = found * (entry.size / len(numbers))
        read += len(numbers)
    return WeightHistogram(
        names=tuple(entry.name for entry in known), shapes=tuple(entry.shape for entry in known), counts=counts,
        read=read, unread=sum(entry.size for entry in entries) - sum(entry.size for entry in known),
    )  # fmt: skip


def _numbers(entry: Entry, step: int) -> NDArray[np.float32]:
    """A tensor's numbers; with a step, every step-th piece of them."""
    data: Any = np.memmap(entry.file, mode="r", dtype=_DTYPES[entry.dtype], offset=entry.at, shape=(entry.size,))
    if step > 1 and entry.size > _PIECE * 2:
        whole = len(data) // _PIECE
        data = data[: whole * _PIECE].reshape(whole, _PIECE)[::step].reshape(-1)
    if entry.dtype == "BF16":
        return (np.asarray(data).astype(np.uint32) << 16).view(np.float32)
    return np.array(data, np.float32)


def cached_histogram(folder: Path, cache: Path) -> WeightHistogram:
    """The same, kept in a cache folder under the files' names, sizes and times.

    Raises:
        RequestError: a file is damaged, or there is none.
    """
    files = [(file, file.stat()) for file in sorted(folder.glob("*.safetensors"))]
    told = [[str(file.absolute()), stat.st_size, stat.st_mtime_ns] for file, stat in files]
    path = cache / f"weights-{hashlib.sha256(json.dumps([READ, BINS, told]).encode()).hexdigest()[:16]}.npz"
    if path.is_file():
        try:
            return _load(path)
        except (OSError, ValueError, KeyError, EOFError):
            pass  # made again: a cache may be damaged
    made = read_histogram(folder)
    text = json.dumps({"names": made.names, "shapes": made.shapes, "read": made.read, "unread": made.unread})
    with moved_in(path) as beside, beside.open("wb") as file:
        np.savez_compressed(file, counts=made.counts, told=np.frombuffer(text.encode(), np.uint8))
    return made


def _load(path: Path) -> WeightHistogram:
    with np.load(path, allow_pickle=False) as kept:
        told = json.loads(kept["told"].tobytes())
        counts = kept["counts"]
    if counts.shape != (len(told["names"]), BINS):
        raise ValueError("another shape")
    return WeightHistogram(
        names=tuple(told["names"]), shapes=tuple(tuple(shape) for shape in told["shapes"]), counts=counts,
        read=int(told["read"]), unread=int(told["unread"]),
    )  # fmt: skip
