"""Gets the server ready while the first visitor still reads: what pages import, and a cheap end of each run."""

import gc
import threading
from importlib import import_module
from pkgutil import iter_modules
from typing import Final

from studio.ui import pages

# what pages import when somebody first looks at them; each takes seconds
HEAVY: Final = ("training.methods", "training.finetune.config")


def warm_up() -> threading.Thread:
    """Imports in a thread what the pages need, then takes all of it out of the garbage collector's sight.

    Streamlit collects after every run of a page or a fragment. With torch and PEFT imported that is half a million
    objects and 0.24 s in which no other session moves; frozen, it is what the run itself left behind.
    """
    thread = threading.Thread(target=_warm_up, name="warm-up", daemon=True)
    thread.start()
    return thread


def _warm_up() -> None:
    drawn = [found.name for found in iter_modules(pages.__path__, f"{pages.__name__}.")]
    for module in (*drawn, *HEAVY):
        import_module(module)
    gc.collect()
    gc.freeze()
