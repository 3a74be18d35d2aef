"""The page on kinds of models: its table names them all, and its example is a kind that can be trained."""

import re
from pathlib import Path

import pytest
import torch
from PIL import Image

from . import makers

PAGE = (Path(__file__).parents[4] / "docs" / "model-kinds.md").read_text(encoding="utf-8")


@pytest.fixture
def aura_flow(tmp_path, monkeypatch):
    """The page's example in the registry for a while, and a model that it is for."""
    from diffusers import AuraFlowPipeline, AuraFlowTransformer2DModel, FlowMatchEulerDiscreteScheduler

    from training.finetune.families import FAMILIES

    monkeypatch.setattr(FAMILIES, "_items", dict(FAMILIES._items))
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(example, "docs/model-kinds.md", "exec"), {})

    def make():
        transformer = AuraFlowTransformer2DModel(
            sample_size=16, num_mmdit_layers=1, num_single_dit_layers=1, attention_head_dim=8, num_attention_heads=2,
            joint_attention_dim=32, caption_projection_dim=16, pos_embed_max_size=256,
        )  # fmt: skip
        return AuraFlowPipeline(
            tokenizer=makers.t5_tokenizer(), text_encoder=makers.t5(multilingual=True), vae=makers.codec(),
            transformer=transformer, scheduler=FlowMatchEulerDiscreteScheduler(shift=1.73),
        )  # fmt: skip

    return makers.save(make, tmp_path / "aura")


def test_the_example_is_a_kind_that_studio_trains(aura_flow, tmp_path, capfd):
    from studio.__main__ import main

    (tmp_path / "red").mkdir()
    for k in range(3):
        Image.new("RGB", (40, 60), (60 * k, 0, 0)).save(tmp_path / "red" / f"{k}.png")
    words = [
        "train", "--pretrained-model-name-or-path", aura_flow, "--train-data-dir", tmp_path / "red", "--resolution",
        32, "--max-train-steps", 3, "--train-batch-size", 2, "--output-dir", tmp_path / "run", "--json",
    ]  # fmt: skip
    code = main([str(word) for word in words])
    assert code == 0, capfd.readouterr().err
    assert (tmp_path / "run" / "adapter.safetensors").is_file()


def test_the_examples_loss_is_that_of_its_scheduler(aura_flow):
    from training.finetune.families import draw, open_family

    family = open_family(aura_flow)
    encoded = {name: value[None] for name, value in family.encode(torch.zeros(1, 3, 32, 48)).items()}
    embedded = {name: value[None] for name, value in family.embed("red").items()}
    draws = draw(encoded["latents"].shape[1:], [5], torch.device("cpu"))
    even = 1 - int(draws.normal.sigmoid() * 1000) / 1000
    level = 1.73 * even / (1 + 0.73 * even)
    noisy = (1 - level) * encoded["latents"] + level * draws.noise
    with torch.no_grad():
        velocity = family.network(noisy, embedded["tokens"], torch.tensor([level])).sample
        wanted = (velocity - draws.noise + encoded["latents"]).square().mean((1, 2, 3))
        torch.testing.assert_close(family.loss(encoded, embedded, draws, None), wanted, rtol=1e-4, atol=1e-5)


def test_the_table_names_every_kind_with_what_is_trained():
    from training.finetune.families import FAMILIES

    rows = dict(re.findall(r"^\| `(\w+)` \|[^|]*\| `(\w+)` \|", PAGE, re.MULTILINE))
    assert rows == {name: FAMILIES[name].component for name in FAMILIES}
