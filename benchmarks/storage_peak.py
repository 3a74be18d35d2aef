"""The most bytes of tensors alive at a time, on any device, counted by storage and not by process."""

import weakref
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class StoragePeak(TorchDispatchMode):
    """Counts every storage from the operation that made it until nothing holds it.

    What a kernel takes for itself and gives back before it returns is not seen.
    """

    def __init__(self, *known: Tensor) -> None:
        super().__init__()
        self._alive: dict[int, Any] = {}
        self.now = self.peak = 0
        for tensor in known:
            self._see(tensor)

    def _see(self, tensor: Tensor) -> None:
        if tensor.is_sparse:
            self._see(tensor._indices())
            self._see(tensor._values())
            return
        if tensor.layout == torch.sparse_csr:
            for part in (tensor.crow_indices(), tensor.col_indices(), tensor.values()):
                self._see(part)
            return
        storage = tensor.untyped_storage()
        key = id(storage)
        if key in self._alive:
            return
        size = storage.nbytes()

        def gone(_: Any) -> None:
            del self._alive[key]
            self.now -= size

        self._alive[key] = weakref.ref(storage, gone)
        self.now += size
        self.peak = max(self.peak, self.now)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._see(leaf)
        return out
