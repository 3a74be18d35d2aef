"""The doors of animatex-studio: Python, command line and app.

from studio import AnimateXPipeline, animate
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from models.delayed_guidance import delay_guidance
    from models.perturbation import add_random_words, noisy_prompt
    from models.pipeline import AnimateXPipeline
    from studio.adapters import LoadedAdapter, load_adapter
    from studio.api import Animation, animate, background
    from training.methods.peft_tuner import SparseConfig

__all__ = [
    "AnimateXPipeline", "Animation", "LoadedAdapter", "SparseConfig", "add_random_words", "animate", "background",
    "delay_guidance", "load_adapter", "noisy_prompt",
]  # fmt: skip

_HOMES = {
    "AnimateXPipeline": "models.pipeline",
    "Animation": "studio.api",
    "LoadedAdapter": "studio.adapters",
    "SparseConfig": "training.methods.peft_tuner",
    "add_random_words": "models.perturbation",
    "animate": "studio.api",
    "background": "studio.api",
    "delay_guidance": "models.delayed_guidance",
    "load_adapter": "studio.adapters",
    "noisy_prompt": "models.perturbation",
}


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first asked for: torch takes seconds, `studio --help` must not."""
    if name not in _HOMES:
        raise AttributeError(f"module 'studio' has no attribute {name!r}; it offers {', '.join(__all__)}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
