"""Real pictures and dances, with the shipped weights: each task of the animator learns from them."""

from pathlib import Path

import pytest

from training.events import Evaluated
from training.finetune.cache import Cache
from training.finetune.config import FinetuneConfig
from training.finetune.families import open_family
from training.finetune.gather import gather
from training.finetune.learner import FinetuneLearner
from training.finetune.run import finetune


@pytest.fixture
def shared_data():
    folder = Path(__file__).parents[3].parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the folder ../shared/data with real inputs is not here")
    return folder


@pytest.fixture
def mini():
    from models.loading import resolve_folder

    folder = resolve_folder("mini")
    if not (folder / "model_index.json").is_file() or not (folder / "pose" / "model.onnx").is_file():
        pytest.skip("the mini weights are not here")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "where"), [("text-to-image", "subjects/dog"), ("ti2v", "driving"), ("animation", "driving")]
)
def test_twenty_steps_of_each_task_lower_the_loss_at_fixed_noise(task, where, shared_data, mini, tmp_path):
    told = FinetuneConfig.model_validate(
        {
            "model": str(mini), "method": "sara", "task": task, "data": [{"folder": shared_data / where}],
            "resolution": 64, "clip_windows": 1, "max_train_steps": 20, "train_batch_size": 2, "learning_rate": 2e-3,
            "cache_dir": tmp_path / "cache", "validation_prompts": ["a dance"],
        }
    )  # fmt: skip
    family, cache = open_family(mini), Cache(tmp_path / "cache")
    found = gather(told, family, cache)
    assert not found.left_out
    before = FinetuneLearner(family, found.samples, [], told, cache).evaluate()["loss_at_fixed_noise"]
    events = list(finetune(told, tmp_path / "run", device="cpu"))
    (after,) = [event.metrics["loss_at_fixed_noise"] for event in events if isinstance(event, Evaluated)]
    assert after < before
