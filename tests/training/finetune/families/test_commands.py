"""`studio train` on every kind, as a user types it."""

import json
from itertools import pairwise

import pytest
import torch
from PIL import Image

from ..conftest import brightening, video
from . import makers

METHODS = {"sara": ("--set", "method_options.fraction=0.1"), "lora": (), "full": ()}


@pytest.fixture
def studio(capfd):
    """Runs the command line in this process."""

    def run(*words):
        from studio.__main__ import main

        capfd.readouterr()
        code = main([str(word) for word in words])
        told = capfd.readouterr()
        return code, json.loads(told.out.strip().splitlines()[-1]) if code == 0 else {}, told.err

    return run


@pytest.fixture
def flags(tmp_path):
    """Gives the command for a model: three pictures of two classes, three steps."""
    folder = tmp_path / "pets"
    folder.mkdir()
    for k, pet in enumerate(("cat", "dog", "dog")):
        Image.new("RGB", (40, 40), (60 * k, 0, 90)).save(folder / f"{k}.png")
        (folder / f"{k}.txt").write_text(pet)

    def words(model, method, *more):
        return (
            "train", "--pretrained-model-name-or-path", model, "--train-data-dir", folder, "--method", method,
            *METHODS[method], "--max-train-steps", 3, "--train-batch-size", 2, "--resolution", 32,
            "--set", 'validation_prompts=["dog"]', "--output-dir", tmp_path / "run", "--json", *more,
        )  # fmt: skip

    return words


def trial(number):
    """Kinds and methods, so that every kind meets one and every method meets kinds of every sort."""
    kinds = [*makers.PICTURES]
    return [(kind, [*METHODS][(place + number) % 3]) for place, kind in enumerate(kinds)]


@pytest.mark.parametrize(("kind", "method"), [*trial(0), *trial(1), *trial(2)])
def test_every_kind_is_trained_with_checkpointing_and_its_adapter_goes_on_and_off(
    kind, method, studio, flags, folder_of, tmp_path
):
    from training.finetune.families import open_family
    from training.methods.adapter import apply_adapter, load_adapter

    code, told, err = studio(*flags(folder_of(kind), method, "--set", "gradient_checkpointing=true"))
    assert code == 0, err
    assert told["steps"] == 3 and told["complete"]
    assert (tmp_path / "run" / "samples" / "step-3.png").stat().st_size > 100
    family = open_family(folder_of(kind))
    before = {name: p.clone() for name, p in family.network.named_parameters()}
    adapter = load_adapter(tmp_path / "run" / "adapter.safetensors")
    tuner = apply_adapter(family.network, adapter, folder=folder_of(kind) / family.component)
    assert any(float(value.abs().max()) > 0 for value in adapter.delta.values())
    tuner.unload()
    assert all(torch.equal(p, before[name]) for name, p in family.network.named_parameters())


@pytest.mark.parametrize("kind", list(makers.PICTURES))
def test_every_kind_goes_on_bit_for_bit(kind, studio, flags, folder_of, tmp_path):
    from training.methods.adapter import load_adapter

    words = flags(folder_of(kind), "sara", "--set", "mixed_precision=fp32", "--set", "adapter_dtype=fp32")
    assert studio(*words)[0] == 0
    straight = load_adapter(tmp_path / "run" / "adapter.safetensors").delta
    (tmp_path / "run").rename(tmp_path / "straight")
    code, told, err = studio(*words, "--time-limit", 0.001)
    assert code == 0 and not told["complete"], err
    code, told, err = studio("resume", tmp_path / "run", "--json")
    assert code == 0 and told["complete"], err
    bent = load_adapter(tmp_path / "run" / "adapter.safetensors").delta
    assert straight.keys() == bent.keys()
    assert all(torch.equal(straight[name], bent[name]) for name in straight)


@pytest.mark.parametrize("kind", ["wan", *makers.CLIPS])
def test_videos_are_trained_as_clips(kind, studio, flags, folder_of, tmp_path):
    for k in range(2):
        video(tmp_path / "pets" / f"clip-{k}.mp4", brightening(10), fps=16)
    words = flags(folder_of(kind), "sara", "--set", "num_frames=5", "--set", "gradient_checkpointing=true")
    code, told, err = studio(*words)
    assert code == 0, err
    assert told["steps"] == 3 and told["adapter"]


@pytest.mark.parametrize("kind", list(makers.CLIPS))
def test_pictures_for_a_kind_that_needs_clips_are_refused_in_words(kind, studio, flags, folder_of):
    code, _, err = studio(*flags(folder_of(kind), "sara"))
    assert code == 2
    assert "pets" in err and "Traceback" not in err


def test_a_caption_that_is_no_class_is_refused_in_words(studio, flags, folder_of, tmp_path):
    (tmp_path / "pets" / "0.txt").write_text("ctas")
    code, _, err = studio(*flags(folder_of("dit"), "sara", "--set", "max_train_steps=9"))
    assert code == 2
    # the last line: diffusers logs that it knows no names for classes, to a stream that pytest may have closed
    assert (
        err.strip().splitlines()[-1].startswith("error: caption 'ctas' is no class of this model; known are cat, dog")
    )


def test_min_snr_of_a_flow_is_refused_in_words(studio, flags, folder_of):
    code, _, err = studio(*flags(folder_of("stable_diffusion_3"), "sara", "--set", "snr_gamma=5"))
    assert code == 2
    assert "snr_gamma" in err and "Traceback" not in err


def test_losses_of_a_run_are_those_of_the_family(studio, flags, folder_of, tmp_path):
    """With accumulation as without, so that nothing of a sample depends on its place in a batch."""
    runs = []
    for parts in (1, 2):
        words = flags(folder_of("pixart_sigma"), "full", "--set", f"gradient_accumulation_steps={parts}")
        assert studio(*words, "--set", "mixed_precision=fp32")[0] == 0
        rows = map(json.loads, (tmp_path / "run" / "events.jsonl").read_text().splitlines())
        runs.append([row["losses"]["loss"] for row in rows if row["event"] == "step"])
        (tmp_path / "run").rename(tmp_path / f"run-{parts}")
    for one, two in pairwise(runs):
        assert one == pytest.approx(two, rel=1e-4)


def test_the_second_transformer_of_two_is_trained_used_and_exported(studio, flags, tmp_path):
    from diffusers import WanPipeline
    from safetensors.torch import load_file

    from studio import load_adapter

    model = makers.save(makers.wan_two, tmp_path / "wan_two")
    code, _, err = studio(*flags(model, "lora", "--set", "component=transformer_2", "--scope", "blocks.*"))
    assert code == 0, err
    adapter = tmp_path / "run" / "adapter.safetensors"
    pipeline = WanPipeline.from_pretrained(model)
    kept = {n: p.clone() for n, p in pipeline.transformer.named_parameters()}
    with load_adapter(pipeline, adapter) as loaded:
        assert loaded.component == "transformer_2"
        changed = {n: p.clone() for n, p in pipeline.transformer_2.named_parameters()}
    assert all(torch.equal(p, kept[n]) for n, p in pipeline.transformer.named_parameters())
    for form, output in (("merged", "merged"), ("diffusers", "lora.safetensors")):
        code, told, err = studio("export", adapter, "--format", form, "--output", tmp_path / output, "--json")
        assert code == 0, err
        assert told["component"] == "transformer_2" and told["max_error"] < 1e-5
    whole = WanPipeline.from_pretrained(tmp_path / "merged")
    for name, value in whole.transformer_2.named_parameters():
        torch.testing.assert_close(value, changed[name])
    assert all(torch.equal(p, kept[n]) for n, p in whole.transformer.named_parameters())
    assert all(name.startswith("transformer.blocks.") for name in load_file(tmp_path / "lora.safetensors"))
