"""What the training tests share: toy learners, and the animator at the size of `tiny_pipeline`."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture(scope="session")
def toys() -> ModuleType:
    """The module `toys.py` beside this file."""
    spec = importlib.util.spec_from_file_location("training_toys", Path(__file__).with_name("toys.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def make_animator(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Builds the recipe's learner around the components of `tiny_pipeline`: same code, smaller networks."""
    import training.recipes.animator as animator
    from models.presets import tiny_pipeline
    from training.data.latents import Encoders

    def make(**settings: object) -> Any:
        tiny = tiny_pipeline()
        monkeypatch.setattr(animator, "mini_transformer", lambda: tiny.transformer)
        monkeypatch.setattr(animator, "mini_epi", lambda dim: tiny.epi)
        monkeypatch.setattr(animator, "mini_ipi", lambda dim: tiny.ipi)
        values: dict[str, object] = {
            "steps": 8, "batch_size": 2, "num_frames": 5, "short_frames": 5, "short_share": 0.0, "shard_clips": 4,
            "pool_size": 2, "precision": "fp32", "background_weight": 0.5, "warmup_steps": 0,
        }  # fmt: skip
        recipe = animator.AnimatorRecipe(**{**values, **settings})
        encoders = Encoders(vae=tiny.vae, text=tiny.text_encoder, image=tiny.image_encoder)
        return animator.AnimatorLearner(recipe, encoders)

    return make
