"""The adapter file: what a tuner learned, in one safetensors file, with what it belongs to.

Numbers that are trained in place are packed: all values in one vector, all positions in one code of a byte or two each
(`training.methods.packing`), and a compressed table of the tensors. What other methods store stands under its own
name.
"""

import functools
import hashlib
import json
import math
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from training.hashing import file_sha256
from training.methods.base import METHODS, MethodConfig, Tuner
from training.methods.merged import MERGED, Merged
from training.methods.packing import pack_gaps, unpack_gaps
from training.methods.scope import Scope
from training.methods.supports import SUPPORTS

FORMAT = "animatex-studio adapter 1"
VALUES, GAPS, INDICES, TABLE = "in_place.values", "in_place.gaps", "in_place.indices", "in_place.tensors"
LARGEST_TABLE = 64 << 20
"""Bytes that a table may have when it is unpacked: a file is not to be trusted."""


class AdapterError(ValueError):
    """An adapter file is damaged, or belongs to another model."""


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """What was learned, and of what."""

    method: str
    config: MethodConfig
    scope: Scope
    base: str
    """`weights_hash` of the model that it changes, in float32."""
    files: str = ""
    """`files_hash` of the folder that the model came from."""
    delta: dict[str, Tensor]
    notes: dict[str, str] = field(default_factory=dict)
    """Anything else: the base's name, a licence, metrics, the captions' trigger word."""


def weights_hash(model: nn.Module) -> str:
    """SHA-256 of all parameters, their names, types and shapes; to be taken before a method is attached."""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        digest.update(f"{name} {parameter.dtype} {tuple(parameter.shape)}\n".encode())
        raw = parameter.detach().cpu().contiguous().view(-1)
        digest.update(raw.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def files_hash(folder: Path) -> str:
    """SHA-256 of the weight files of a component's folder: the same in whatever type the model is loaded."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        stat = path.stat()
        digest.update(bytes.fromhex(_hash_once(path, stat.st_size, stat.st_mtime_ns)))
    return digest.hexdigest()


@functools.lru_cache(maxsize=256)
def _hash_once(path: Path, size: int, changed_ns: int) -> str:
    """A file's hash, kept while it stays what it is: several adapters of one model ask for the same tens of GB."""
    return file_sha256(path)


def is_adapter(path: Path) -> bool:
    """Tells an adapter file of this studio from another program's."""
    try:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get("format") == FORMAT
    except (OSError, SafetensorError):
        return False


def save_adapter(
    path: Path, adapter: Adapter, sizes: Mapping[str, int], *, dtype: Literal["bf16", "fp32"] = "bf16"
) -> None:
    """Writes an adapter beside its place and moves it in.

    Args:
        sizes: numbers of every tensor of the model, by name.
        dtype: of the values. The changes lose a 256th of themselves at most in bf16.
    """
    kind = torch.bfloat16 if dtype == "bf16" else torch.float32
    tensors, word = _pack(adapter.delta, sizes, kind)
    metadata = {
        "format": FORMAT, "method": adapter.method, "config": adapter.config.model_dump_json(),
        "scope": json.dumps(adapter.scope.modules), "base": adapter.base, "files": adapter.files, "word": str(word),
        "notes": json.dumps(adapter.notes),
    }  # fmt: skip
    staged = path.with_name(f".{path.name}.tmp")
    save_file(tensors, staged, metadata)
    with staged.open("rb") as file:
        os.fsync(file.fileno())
    staged.replace(path)


def _pack(delta: Mapping[str, Tensor], sizes: Mapping[str, int], kind: torch.dtype) -> tuple[dict[str, Tensor], int]:
    table, positions, indices, values, start = [], [], [], [], 0
    tensors: dict[str, Tensor] = {}
    for key, value in delta.items():
        name, _, what = key.rpartition(".")
        if what in SUPPORTS and f"{name}.change" in delta:
            change = delta[f"{name}.change"]
            table.append([name, what, sizes[name], len(value), len(change)])
            values.append(change.to(kind))
            if what == "scattered":
                positions.append(value.long() + start)
                start += sizes[name]
            else:
                indices.append(value.to(torch.int32))
        elif not (what == "change" and any(f"{name}.{s}" in delta for s in SUPPORTS)):
            tensors[key] = value.to(kind).contiguous()
    word = 1
    if table:
        none = torch.zeros(0, dtype=torch.int64)
        tensors[GAPS], word = pack_gaps(torch.cat([none, *positions]))
        tensors[INDICES] = torch.cat([none.int(), *indices])
        tensors[VALUES] = torch.cat(values)
        raw = zlib.compress(json.dumps(table, separators=(",", ":")).encode(), 9)
        tensors[TABLE] = torch.frombuffer(bytearray(raw), dtype=torch.uint8)
    return tensors, word


def load_adapter(path: Path) -> Adapter:
    """Reads an adapter file.

    Raises:
        AdapterError: it is missing, damaged, or not one of ours.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, Any] = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise AdapterError(f"{path} cannot be read as a safetensors file ({error}); copy it again") from error
    if metadata.get("format") != FORMAT:
        raise AdapterError(
            f"{path} is not an adapter of this studio (its format is {metadata.get('format')!r}, not {FORMAT!r})"
        )
    try:
        delta = _unpack(tensors, int(metadata["word"]))
        method = Merged if metadata["method"] == MERGED else METHODS[metadata["method"]]
        config = method.model_validate_json(metadata["config"])
        scope = Scope(tuple(json.loads(metadata["scope"])))
        notes = dict(json.loads(metadata["notes"]))
    except (KeyError, ValueError, RuntimeError, zlib.error) as error:
        raise AdapterError(f"{path} is damaged ({error}); copy it again or train it anew") from error
    return Adapter(
        method=metadata["method"], config=config, scope=scope, base=metadata["base"],
        files=metadata.get("files", ""), delta=delta, notes=notes,
    )  # fmt: skip


def _unpack(tensors: Mapping[str, Tensor], word: int) -> dict[str, Tensor]:
    delta = {n: t.float() for n, t in tensors.items() if n not in (VALUES, GAPS, INDICES, TABLE)}
    if TABLE not in tensors:
        return delta
    packer = zlib.decompressobj()
    raw = packer.decompress(tensors[TABLE].numpy().tobytes(), LARGEST_TABLE)
    if packer.unconsumed_tail:
        raise ValueError("its table is too long")
    positions, indices = unpack_gaps(tensors[GAPS], word), tensors[INDICES]
    values, start = tensors[VALUES].float(), 0
    for name, what, size, count, changes in json.loads(raw):
        if what == "scattered":
            delta[f"{name}.{what}"], positions = positions[:count] - start, positions[count:]
            start += size
        else:
            delta[f"{name}.{what}"], indices = indices[:count], indices[count:]
        delta[f"{name}.change"], values = values[:changes], values[changes:]
    if len(positions) or len(indices) or len(values):
        raise ValueError("it holds more numbers than its table says")
    return delta


def check_base(model: nn.Module, adapter: Adapter, folder: Path | None = None) -> None:
    """Makes sure that a model is the one that an adapter was trained on; see `apply_adapter`.

    Raises:
        AdapterError: it is another one.
    """
    if folder is not None and adapter.files:
        wanted, found = adapter.files, files_hash(folder)
    else:
        wanted, found = adapter.base, weights_hash(model)
    if found != wanted:
        raise AdapterError(
            f"the adapter was trained on a model with the hash {wanted[:12]}, this one has {found[:12]}; "
            f"use {adapter.notes.get('base', 'that model')}"
        )


def apply_adapter(model: nn.Module, adapter: Adapter, *, scale: float = 1.0, folder: Path | None = None) -> Tuner:
    """Attaches an adapter to a model; `unload` of the result takes it off again, bit for bit.

    Args:
        folder: where the model was loaded from; needed when it is not in float32, or has another adapter on already.

    Raises:
        AdapterError: the model is not the one that was trained.
    """
    check_base(model, adapter, folder)
    tuner = adapter.config.restore(model, adapter.scope, adapter.delta)
    if not math.isclose(scale, 1.0):
        tuner.set_scale(scale)
    return tuner
