"""The doors of animatex-studio: Python, command line and app.

from studio import AnimateXPipeline, animate
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from models.pipeline import AnimateXPipeline
    from studio.adapters import LoadedAdapter, load_adapter
    from studio.api import Animation, animate, background
    from training.methods.peft_tuner import SparseConfig

__all__ = ["AnimateXPipeline", "Animation", "LoadedAdapter", "SparseConfig", "animate", "background", "load_adapter"]

_HOMES = {
    "AnimateXPipeline": "models.pipeline",
    "Animation": "studio.api",
    "LoadedAdapter": "studio.adapters",
    "SparseConfig": "training.methods.peft_tuner",
    "animate": "studio.api",
    "background": "studio.api",
    "load_adapter": "studio.adapters",
}


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first asked for: torch takes seconds, `studio --help` must not."""
    if name not in _HOMES:
        raise AttributeError(f"module 'studio' has no attribute {name!r}; it offers {', '.join(__all__)}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
