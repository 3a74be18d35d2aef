"""The guard: a tiny network behind the mini codec learns two pictures by heart in a second, and is found out."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from training.checkpoint import load_checkpoint
from training.events import Finished, Guarded, Note, Step
from training.finetune.config import FinetuneConfig
from training.finetune.data.leakage import LeakageError
from training.finetune.guard import GuardError
from training.finetune.run import finetune, read_finetune
from training.methods.adapter import load_adapter
from training.verify import verify_resume


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The tiny pipeline with a codec that shows what is in its latents."""
    from diffusers import AutoencoderKLWan

    from models.loading import resolve_folder
    from models.presets import tiny_pipeline

    mini = resolve_folder("mini")
    if not (mini / "vae").is_dir():
        pytest.skip("the mini codec's weights are not here")
    pipeline = tiny_pipeline()
    pipeline.register_modules(vae=AutoencoderKLWan.from_pretrained(mini / "vae", torch_dtype=torch.float32))
    folder = tmp_path_factory.mktemp("models") / "tiny"
    pipeline.save_pretrained(folder)
    return folder


def draw(folder, count, seed=0, size=(32, 32)):
    """Pictures of coloured squares, none like another."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for k in range(count):
        squares = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
        Image.fromarray(squares).resize(size).save(folder / f"{k}.png")
        (folder / f"{k}.txt").write_text(f"squares {k}")
    return folder


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("data") / "squares", 24)


def config(model, folder, guard, **changes):
    values = {
        "model": str(model), "data": [{"folder": folder}], "resolution": 32, "max_train_steps": 20,
        "train_batch_size": 8, "mixed_precision": "fp32", "validation_steps": 10, "validation_share": 0.917,
        "method": "full", "learning_rate": 1e-2, "lr_scheduler": "constant", "caption_dropout": 0.0,
        "validation_prompts": ["squares"], "adapter_dtype": "fp32", "checkpointing_steps": 100,
        "guard": {"samples": 24, "num_inference_steps": 6, **guard}, "cache_dir": folder.parent / "cache",
    }  # fmt: skip
    return FinetuneConfig.model_validate({**values, **changes})


def seen(events):
    return [e for e in events if isinstance(e, Guarded)]


def warnings(events):
    return [e.text for e in events if isinstance(e, Note) and e.text.startswith("guard")]


def test_copies_are_found_shown_and_told_on_the_card_and_in_the_adapter(model, squares, tmp_path):
    run = tmp_path / "run"
    events = list(finetune(config(model, squares, {}), run, device="cpu"))
    looks = seen(events)
    assert [(e.step, e.action) for e in looks] == [(0, "none"), (10, "warn"), (20, "warn")]
    assert looks[0].copy_rate == 0 and looks[-1].low > looks[-1].background_high > looks[-1].background == 0.05
    assert looks[-1].loss_gap > looks[0].loss_gap + 0.5
    assert len(warnings(events)) == 2 and looks[-1].path in warnings(events)[-1]
    picture = np.asarray(Image.open(looks[-1].path))
    assert picture.shape[1] > 8 * 128 and ((picture == (200, 30, 30)).all(-1)).any()
    assert not list((run / "samples").glob(".*"))
    assert f"- guard, step 20: {looks[-1].worded()}" in (run / "README.md").read_text()
    assert json.loads(load_adapter(run / "adapter.safetensors").notes["guard"]) == looks[-1].as_dict()
    rows = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    assert [row["copy_rate"] for row in rows if row["event"] == "guarded"] == [e.copy_rate for e in looks]


def test_a_run_that_does_not_copy_is_left_alone(model, tmp_path):
    folder = draw(tmp_path / "many", 70, seed=1)
    told = config(model, folder, {"action": "stop"}, validation_share=0.35, learning_rate=2e-3)
    events = list(finetune(told, tmp_path / "run", device="cpu"))
    assert [e.action for e in seen(events)] == ["none"] * 3 and not warnings(events)
    assert events[-1].complete and events[-1].reason == "all steps done"
    # with nothing to hide the adapter is that of the last step, and so is the one that was kept
    assert json.loads(load_adapter(tmp_path / "run" / "adapter.safetensors").notes["guard"])["step"] == 20


def test_softness_alone_is_no_copying(model, squares, tmp_path, monkeypatch):
    from training.finetune.families.animator import Animator

    def grey(self, prompts, size, seeds, **_):
        return torch.full((len(prompts), size[1], size[0], 3), 127, dtype=torch.uint8)

    monkeypatch.setattr(Animator, "sample_many", grey)
    events = list(finetune(config(model, squares, {}, max_train_steps=1), tmp_path / "run", device="cpu"))
    assert [e.action for e in seen(events)] == ["none", "none"]


def test_the_rate_is_lowered_and_a_resumed_run_knows_it_bit_for_bit(model, squares, tmp_path):
    told = config(model, squares, {"action": "lower-rate", "rate_factor": 0.25}, validation_steps=4)

    def start(run, *, resume, on_batch):
        return finetune(told, run, resume=resume, device="cpu", on_batch=on_batch)

    rates = {}

    def watched(run, **more):
        for event in start(run, **more):
            if isinstance(event, Step):
                rates.setdefault(event.learning_rate, event.step)
            yield event

    verdict = verify_resume(watched, tmp_path, 16)
    assert verdict.identical, verdict.differences
    assert verdict.stopped_at == 8  # where a look was due, and a lowering
    assert len(rates) >= 3 and max(rates) == 1e-2 and rates[1e-2 / 4] in (5, 9)
    state = load_checkpoint(tmp_path / "bent" / "checkpoint-16")[1]
    assert state["rate_factor"] == pytest.approx(min(rates) / 1e-2) and state["watched"] == 12


@pytest.fixture(scope="module")
def stopped(model, squares, tmp_path_factory):
    run = tmp_path_factory.mktemp("stopped") / "run"
    told = config(model, squares, {"action": "stop", "limit": 0.3}, max_train_steps=100, validation_steps=10)
    return run, list(finetune(told, run, device="cpu"))


def test_a_stopped_run_leaves_the_adapter_from_before_the_copies(stopped):
    run, events = stopped
    *good, bad = seen(events)
    assert len(good) >= 2 and bad.action == "stop" and bad.low > 0.3 >= max(e.low for e in good)
    last = events[-1]
    assert isinstance(last, Finished) and last.complete and last.step == bad.step < 100
    assert last.reason == f"the guard found copies at step {bad.step}; the adapter is that of step {good[-1].step}"
    notes = load_adapter(run / "adapter.safetensors").notes
    assert json.loads(notes["guard"]) == good[-1].as_dict() and "validation_loss" in json.loads(notes["metrics"])
    card = (run / "README.md").read_text()
    assert f"- steps: {good[-1].step}," in card and last.reason in card and good[-1].worded() in card


def test_the_kept_adapter_is_what_a_run_to_that_step_would_have_left(stopped, model, squares, tmp_path):
    run, events = stopped
    step = seen(events)[-2].step
    told = config(model, squares, {"action": "warn"}, max_train_steps=step)
    list(finetune(told, tmp_path / "short", device="cpu"))
    one, two = (load_adapter(p / "adapter.safetensors").delta for p in (run, tmp_path / "short"))
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_a_stopped_run_stops_again_unless_it_is_told_only_to_warn(stopped):
    run, events = stopped
    told = read_finetune(run)
    again = list(finetune(told, run, resume=True, device="cpu"))
    assert not [e for e in again if isinstance(e, Step)] and again[-1].reason == events[-1].reason
    assert seen(again)[0].as_dict() == seen(events)[-1].as_dict()
    warned = told.model_copy(
        update={"guard": told.guard.model_copy(update={"action": "warn"}), "max_train_steps": events[-1].step + 2}
    )
    on = list(finetune(warned, run, resume=True, device="cpu"))
    assert [e.step for e in on if isinstance(e, Step)] == [events[-1].step + 1, events[-1].step + 2]
    assert on[-1].complete
    assert json.loads(load_adapter(run / "adapter.safetensors").notes["guard"])["step"] == on[-1].step


def test_copies_at_the_first_look_leave_no_adapter_and_say_what_to_do(model, squares, tmp_path):
    events = list(finetune(config(model, squares, {"action": "stop"}), tmp_path / "run", device="cpu"))
    last = events[-1]
    assert not last.complete and last.step == 10 and "validation_steps below 10" in last.reason
    assert not (tmp_path / "run" / "adapter.safetensors").exists()


def test_pictures_of_several_shapes_and_their_mirror_images_are_compared(model, tmp_path):
    folder = draw(tmp_path / "wide", 12, size=(64, 32))
    draw(tmp_path / "wide" / "tall", 12, seed=2, size=(32, 64))
    told = config(model, folder, {}, flip=True, max_train_steps=1, validation_share=0.85)
    look = seen(finetune(told, tmp_path / "run", device="cpu"))[-1]
    assert look.samples == 24 and 0 <= look.copy_rate <= 1


def test_the_trained_pictures_are_encoded_once(model, squares, tmp_path, monkeypatch):
    from training.finetune.latent_space import LatentSpace

    list(finetune(config(model, squares, {}, max_train_steps=1), tmp_path / "one", device="cpu"))
    encoded = []
    plain = LatentSpace._features
    monkeypatch.setattr(LatentSpace, "_features", lambda self, p: encoded.append(len(p)) or plain(self, p))
    finetune(config(model, squares, {}, max_train_steps=1), tmp_path / "two", device="cpu")
    run = finetune(config(model, squares, {}, max_train_steps=1), tmp_path / "two", device="cpu")
    for event in run:
        if isinstance(event, Note):
            run.close()
    assert encoded == []  # two new runs on the same cache, up to the first look


def test_too_few_pictures_are_refused_with_what_is_needed(model, tmp_path):
    told = config(model, draw(tmp_path / "five", 5), {}, validation_share=0.2)
    with pytest.raises(GuardError, match="needs 20 held-out pictures, and 1 of 5 are; add 16 pictures or more"):
        list(finetune(told, tmp_path / "run", device="cpu"))
    told = config(model, draw(tmp_path / "more", 40), {}, validation_share=0.0)
    with pytest.raises(GuardError, match=r"0 of 40 are; set validation_share = 0\.5"):
        list(finetune(told, tmp_path / "run", device="cpu"))
    assert not (tmp_path / "run").exists() or not (tmp_path / "run" / "config.toml").exists()


def test_near_duplicates_on_both_sides_are_refused_by_name(model, tmp_path):
    folder = draw(tmp_path / "twins", 24)
    told = config(model, folder, {})
    from training.finetune.workbench import Workbench

    bench = Workbench(told)
    bench.load(tmp_path / "cache", "cpu")
    trained, unseen = bench.samples[0].path, bench.held_out[0].path
    rough = np.random.default_rng(5).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    pixels = np.asarray(Image.fromarray(rough).resize((32, 32))).copy()
    for shade in range(200):  # which side a picture is on follows from its file's hash
        for path in (trained, unseen):
            pixels[0, 0, 0 if path == trained else 1] = shade
            Image.fromarray(pixels).save(path)
        bench.load(tmp_path / "cache", "cpu")
        if unseen in [s.path for s in bench.held_out] and trained in [s.path for s in bench.samples]:
            break
    with pytest.raises(LeakageError, match=f"guard: .*{unseen.name} shows what .*{trained.name} does"):
        list(finetune(told, tmp_path / "run", device="cpu"))


def test_tasks_that_see_more_than_text_are_refused(model, dances, tmp_path):
    told = config(model, dances, {}, task="ti2v", validation_share=0.5)
    with pytest.raises(ValueError, match="guard: ti2v sees more than text"):
        list(finetune(told, tmp_path / "run", device="cpu"))


def test_a_limit_that_luck_reaches_is_refused():
    from training.finetune.config import GuardOptions

    with pytest.raises(ValueError, match=r"limit 0\.02 is below the quantile 0\.05"):
        GuardOptions(limit=0.02)
