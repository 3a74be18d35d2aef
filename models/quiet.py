"""Keeps the libraries' loading bars away where a program shows its own progress."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import diffusers.utils.logging
import transformers.utils.logging

_LIBRARIES: tuple[Any, ...] = (diffusers.utils.logging, transformers.utils.logging)


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Silences the loading bars of diffusers and transformers; those of downloads stay."""
    silenced = [library for library in _LIBRARIES if library.is_progress_bar_enabled()]
    for library in silenced:
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library in silenced:
            library.enable_progress_bar()
