"""Opens a saved pipeline quietly: what a program shows while it loads is its own business."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from diffusers.utils import logging

from models.pipeline import AnimateXPipeline


def load_pipeline(folder: Path, *, dtype: torch.dtype) -> AnimateXPipeline:
    """Loads a pipeline from a folder in diffusers layout, without progress bars now and when it is called."""
    with _without_bars():
        pipeline = AnimateXPipeline.from_pretrained(folder, torch_dtype=dtype, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@contextmanager
def _without_bars() -> Iterator[None]:
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
