"""Whole fine-tuning runs of tiny models."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from training.checkpoint import CheckpointError
from training.events import Evaluated, Finished, Note, Step
from training.finetune.config import FinetuneConfig
from training.finetune.families import open_family
from training.finetune.run import finetune, read_finetune
from training.going import NotFiniteError
from training.memory import NoMemoryLeftError
from training.methods.adapter import apply_adapter, load_adapter


def config(model, pictures, **changes):
    values = {
        "model": str(model), "data": [{"folder": pictures}], "resolution": 32, "max_train_steps": 6,
        "train_batch_size": 2, "mixed_precision": "fp32", "checkpointing_steps": 100, "validation_steps": 100,
        "learning_rate": 1e-2, "adapter_dtype": "fp32", "validation_prompts": ["a red thing"],
    }  # fmt: skip
    return FinetuneConfig.model_validate({**values, **changes})


def losses(told, run):
    return [e.losses["loss"] for e in finetune(told, run, device="cpu") if isinstance(e, Step)]


@pytest.fixture(params=["animator", "stable_diffusion"])
def model(request):
    return request.getfixturevalue(request.param)


SARA = {"method": "sara", "method_options": {"fraction": 0.1}}


def test_a_run_learns_and_leaves_an_adapter_that_gives_what_was_trained(model, pictures, tmp_path):
    told = config(model, pictures, **SARA, max_train_steps=30, validation_prompts=())
    events = list(finetune(told, tmp_path / "run", device="cpu"))
    last = events[-1]
    assert isinstance(last, Finished) and last.complete
    family = open_family(model)
    before = {n: p.clone() for n, p in family.network.named_parameters()}
    tuner = apply_adapter(
        family.network, load_adapter(tmp_path / "run" / "adapter.safetensors"), folder=model / family.component
    )
    changed = sum(int((p != before[n]).sum()) for n, p in family.network.named_parameters())
    assert 0 < changed <= round(0.1 * sum(p.numel() for p in before.values()))
    tuner.unload()
    assert all(torch.equal(p, before[n]) for n, p in family.network.named_parameters())
    steps = [e for e in events if isinstance(e, Step)]
    assert sum(e.losses["loss"] for e in steps[-8:]) < sum(e.losses["loss"] for e in steps[:8])
    assert (tmp_path / "run" / "samples" / "step-30.png").stat().st_size > 100
    assert "numbers trained" in (tmp_path / "run" / "README.md").read_text()
    (counts,) = [e.counts for e in events if isinstance(e, Note) and e.counts]
    assert 0 < counts["trainable_parameters"] < counts["total_parameters"]


def test_what_happens_halfway_or_in_rounds_fits_the_run(animator, pictures):
    def options(method, **given):
        return config(animator, pictures, method=method, method_options=given, max_train_steps=300).tuning()

    assert options("sara").reselect_step == options("lt-sft").select_step == 150
    assert options("sara", reselect_step=20).reselect_step == 20
    assert options("id3").round_steps == 30 and options("id3", rounds=4).round_steps == 75
    assert options("id3", round_steps=7).round_steps == 7
    assert options("hft").round_steps == 1000


@pytest.mark.parametrize("method", ["sara", "paca", "lora", "lt-sft", "id3", "difffit", "spt", "hft"])
def test_a_stopped_run_goes_on_bit_for_bit(method, animator, pictures, tmp_path):
    options = {
        "sara": {"fraction": 0.1}, "id3": {"rounds": 3, "round_steps": 2, "fraction": 0.1}, "hft": {"round_steps": 2},
        "spt": {"fraction": 0.05, "rank": 1}, "lt-sft": {"fraction": 0.1},
    }.get(method, {})  # fmt: skip
    told = config(animator, pictures, method=method, method_options=options, ema_decay=0.9)
    list(finetune(told, tmp_path / "straight", device="cpu"))
    run = finetune(told, tmp_path / "bent", device="cpu")
    for event in run:
        if isinstance(event, Step) and event.step == 4:
            run.close()  # as Ctrl-C does
    assert not (tmp_path / "bent" / "adapter.safetensors").exists()
    list(finetune(told, tmp_path / "bent", resume=True, device="cpu"))
    one, two = (load_adapter(tmp_path / n / "adapter.safetensors") for n in ("straight", "bent"))
    assert one.delta.keys() == two.delta.keys()
    for name in one.delta:
        assert torch.equal(one.delta[name], two.delta[name]), name


def test_accumulation_and_checkpointing_give_the_losses_of_a_plain_run(model, pictures, tmp_path):
    def trained(name, **changes):
        return losses(config(model, pictures, **SARA, train_batch_size=4, **changes), tmp_path / name)

    plain = trained("plain")
    assert trained("ckpt", gradient_checkpointing=True) == pytest.approx(plain, rel=1e-4)
    assert trained("parts", gradient_accumulation_steps=2) == pytest.approx(plain, rel=1e-4)


LORA = {"method": "lora", "method_options": {"rank": 2}}


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """The losses of a model and method in single precision, trained when they are first asked for."""
    made = {}

    def of(model, pictures, method):
        key = model.name, method["method"]
        if key not in made:
            made[key] = losses(config(model, pictures, **method), tmp_path_factory.mktemp("single") / "run")
        return made[key]

    return of


@pytest.mark.parametrize(
    "types",
    [
        {"mixed_precision": "fp16"}, {"mixed_precision": "bf16", "weights_dtype": "bf16"},
        {"mixed_precision": "fp16", "weights_dtype": "fp16"},
    ],
    ids=lambda t: "-".join(t.values()),
)  # fmt: skip
@pytest.mark.parametrize("method", [SARA, LORA], ids=["sara", "lora"])
def test_half_precision_gives_nearly_the_losses_of_single(method, types, model, single, pictures, tmp_path):
    half = losses(config(model, pictures, **method, **types), tmp_path / "half")
    assert half == pytest.approx(single(model, pictures, method), rel=0.05)
    # the base is hashed by its files, so the adapter of half weights fits the same model
    family = open_family(model)
    adapter = load_adapter(tmp_path / "half" / "adapter.safetensors")
    apply_adapter(family.network, adapter, folder=model / family.component)


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_products_of_a_training_are_made_in_the_type_that_is_asked_for(precision, animator, pictures, tmp_path):
    seen = set()

    def look(module, inputs, made):
        if isinstance(module, torch.nn.Linear) and made.requires_grad:
            seen.add(made.dtype)

    hook = torch.nn.modules.module.register_module_forward_hook(look)
    run = finetune(config(animator, pictures, **SARA, mixed_precision=precision), tmp_path / "run", device="cpu")
    next(e for e in run if isinstance(e, Step))
    run.close()
    hook.remove()
    assert seen == {torch.bfloat16 if precision == "bf16" else torch.float32}


def test_half_weights_are_frozen_half_and_the_trained_numbers_are_not(animator, pictures, tmp_path):
    told = config(animator, pictures, **SARA, weights_dtype="bf16", mixed_precision="bf16")
    run = finetune(told, tmp_path / "run", device="cpu")
    next(e for e in run if isinstance(e, Step))
    run.close()
    from training.checkpoint import load_checkpoint

    stored = load_checkpoint(tmp_path / "run" / "checkpoint-1")[0]
    assert stored["model"]["values"].dtype == torch.float32
    # values that were rounded to bfloat16 have no digits beyond it; trained ones do
    assert not torch.equal(stored["model"]["values"], stored["model"]["values"].bfloat16().float())


def test_half_weights_that_would_meet_single_inputs_or_be_trained_themselves_are_refused(animator, pictures, tmp_path):
    with pytest.raises(ValueError, match=r'weights_dtype bf16: .* use mixed_precision = "bf16"'):
        list(finetune(config(animator, pictures, **SARA, weights_dtype="bf16"), tmp_path / "run", device="cpu"))
    told = config(animator, pictures, method="bitfit", weights_dtype="bf16", mixed_precision="bf16")
    with pytest.raises(ValueError, match="weights_dtype bf16: bitfit trains the model's own tensors"):
        list(finetune(told, tmp_path / "run", device="cpu"))
    assert not (tmp_path / "run" / "config.toml").exists()


def test_encoders_that_do_not_fit_wait_in_main_memory(animator, pictures, tmp_path, monkeypatch):
    from training.finetune.families.animator import Animator

    told, real, moved = config(animator, pictures, **SARA), Animator.to, []

    def cramped(family, device, *, stay=()):
        moved.append({name for name, part in family.pipeline.components.items() if any(part is s for s in stay)})
        if not moved[-1]:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")
        real(family, device, stay=stay)

    monkeypatch.setattr(Animator, "to", cramped)
    events = list(finetune(told, tmp_path / "run", device="cpu"))
    assert moved[0] == set() and {"text_encoder", "vae"} <= moved[1] and "transformer" not in moved[1]
    assert any("wait in main memory" in e.text for e in events if isinstance(e, Note))
    assert events[-1].complete


def test_no_memory_to_measure_is_told_and_the_run_ends_with_its_adapter(animator, pictures, tmp_path, monkeypatch):
    from training.finetune.learner import FinetuneLearner

    def cramped(learner):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")

    monkeypatch.setattr(FinetuneLearner, "evaluate", cramped)
    events = list(finetune(config(animator, pictures, **SARA), tmp_path / "run", device="cpu"))
    assert any("out of memory while measuring (CUDA out of memory" in e.text for e in events if isinstance(e, Note))
    assert events[-1].complete and (tmp_path / "run" / "adapter.safetensors").is_file()


def test_what_is_kept_for_later_runs_is_made_in_single_precision(animator, pictures, tmp_path):
    cache = tmp_path / "cache"
    half = {"weights_dtype": "bf16", "mixed_precision": "bf16", "validation_share": 0.4}
    list(finetune(config(animator, pictures, **SARA, **half, cache_dir=cache), tmp_path / "half", device="cpu"))
    kept = {path.name: path.read_bytes() for path in cache.rglob("*") if path.is_file()}
    others = config(animator, pictures, **SARA, validation_share=0.4, cache_dir=tmp_path / "other")
    list(finetune(others, tmp_path / "single", device="cpu"))
    single = {path.name: path.read_bytes() for path in (tmp_path / "other").rglob("*") if path.is_file()}
    assert kept == single


def test_too_little_memory_turns_on_checkpointing_and_then_smaller_parts(animator, pictures, tmp_path, monkeypatch):
    from training.finetune.families.animator import Animator

    told = config(animator, pictures, **SARA, train_batch_size=4)
    plain = losses(told, tmp_path / "plain")
    whole = Animator.loss
    checkpointed = []

    def cramped(self, encoded, *args):
        checkpointed.append(self.network.is_gradient_checkpointing)
        if self.network.training and len(encoded["latents"]) > 2:
            torch.empty(1 << 60)  # more than there is
        return whole(self, encoded, *args)

    monkeypatch.setattr(Animator, "loss", cramped)
    run = finetune(told, tmp_path / "cramped", device="cpu")
    found = []
    for event in run:
        found.append(event)
        if event.kind == "step" and event.step == 3:
            run.close()
            break
    remedies = [e.remedy for e in found if e.kind == "out_of_memory"]
    assert remedies == [
        "gradient checkpointing is on",
        "a batch goes through the network in 2 parts of 2 of its samples",
    ]
    assert checkpointed[:3] == [False, True, True]
    rest = list(finetune(told, tmp_path / "cramped", resume=True, device="cpu"))
    assert "out_of_memory" not in [e.kind for e in rest]
    together = [e.losses["loss"] for e in [*found, *rest] if isinstance(e, Step)]
    assert together == pytest.approx(plain, rel=1e-4)
    rows = [json.loads(line) for line in (tmp_path / "cramped" / "events.jsonl").read_text().splitlines()]
    assert [row["remedy"] for row in rows if row["event"] == "out_of_memory"] == remedies


@pytest.mark.slow
def test_two_processes_give_the_losses_and_the_adapter_of_one(animator, pictures, tmp_path):
    told = config(animator, pictures, **SARA, train_batch_size=4)
    one = losses(told, tmp_path / "one")
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
         "-m", "studio", "train", tmp_path / "one" / "config.toml", "--output-dir", tmp_path / "two"],
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [json.loads(line) for line in (tmp_path / "two" / "events.jsonl").read_text().splitlines()]
    assert [row["losses"]["loss"] for row in rows if row["event"] == "step"] == pytest.approx(one, rel=1e-3)
    first, second = (load_adapter(tmp_path / n / "adapter.safetensors").delta for n in ("one", "two"))
    moved = torch.cat([v for k, v in first.items() if k.endswith(".change")])
    other = torch.cat([v for k, v in second.items() if k.endswith(".change")])
    assert (moved - other).norm() < 0.02 * moved.norm()


def test_the_encoded_pictures_are_used_again(animator, pictures, tmp_path, monkeypatch):
    from training.finetune.families.animator import Animator

    list(finetune(config(animator, pictures, **SARA), tmp_path / "run", device="cpu"))

    def refuse(self, pixels):
        raise AssertionError("encoded twice")

    monkeypatch.setattr(Animator, "encode", refuse)
    kinds = [
        type(e)
        for e in finetune(
            config(animator, pictures, **SARA, max_train_steps=7), tmp_path / "run", resume=True, device="cpu"
        )
    ]
    assert Finished in kinds


def test_held_out_pictures_are_not_trained_and_are_measured(animator, pictures, tmp_path):
    told = config(animator, pictures, **SARA, validation_share=0.4, max_train_steps=2)
    measured = [e.metrics for e in finetune(told, tmp_path / "run", device="cpu") if isinstance(e, Evaluated)]
    assert measured[-1].keys() == {"validation_loss"}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"seed": 3}, "seed"), ({"learning_rate": 0.1}, "learning_rate"),
        ({"method": "paca", "method_options": {}}, "method"),
    ],
)  # fmt: skip
def test_going_on_with_another_config_is_refused_by_name(change, field, animator, pictures, tmp_path):
    list(finetune(config(animator, pictures, **SARA), tmp_path / "run", device="cpu", time_limit_s=1e-3))
    with pytest.raises(CheckpointError, match=f"was trained with {field} = "):
        list(finetune(config(animator, pictures, **{**SARA, **change}), tmp_path / "run", resume=True, device="cpu"))


def test_going_on_where_a_version_has_another_default_is_refused_by_name(animator, pictures, tmp_path, monkeypatch):
    told = config(animator, pictures, **SARA)
    list(finetune(told, tmp_path / "run", device="cpu", time_limit_s=1e-3))
    now = told.tuning().model_copy(update={"nuclear_every": 3})
    monkeypatch.setattr(FinetuneConfig, "tuning", lambda self: now)
    with pytest.raises(CheckpointError, match=r"was trained with method_options\.nuclear_every = 8, now it is 3"):
        list(finetune(told, tmp_path / "run", resume=True, device="cpu"))


@pytest.mark.parametrize(("own", "told"), [("", "openrail++"), ("cc-by-4.0", "cc-by-4.0")])
def test_the_licence_is_in_the_adapter_and_on_its_card(own, told, animator, pictures, tmp_path):
    model = shutil.copytree(animator, tmp_path / "model")
    (model / "README.md").write_text("---\ntags: [x]\nlicense: openrail++\n---\n\nlicense: none of this\n")
    list(finetune(config(model, pictures, **SARA, max_train_steps=1, license=own), tmp_path / "run", device="cpu"))
    assert load_adapter(tmp_path / "run" / "adapter.safetensors").notes["license"] == told
    assert f"- licence: {told}\n" in (tmp_path / "run" / "README.md").read_text()


def test_two_runs_in_one_folder_are_refused(animator, pictures, tmp_path):
    going = finetune(config(animator, pictures, **SARA), tmp_path / "run", device="cpu")
    next(going)
    with pytest.raises(CheckpointError, match="another process trains in this folder"):
        list(finetune(config(animator, pictures, **LORA), tmp_path / "run", device="cpu"))
    going.close()


@pytest.mark.parametrize(("part", "field"), [("vae", "encoders"), ("scheduler", r"scheduler\.shift")])
def test_going_on_with_another_part_of_the_model_is_refused_by_name(part, field, animator, pictures, tmp_path):
    model = shutil.copytree(animator, tmp_path / "model")
    told = config(model, pictures, **SARA)
    list(finetune(told, tmp_path / "run", device="cpu", time_limit_s=1e-3))
    if part == "vae":
        (file,) = (model / part).glob("*.safetensors")
        save_file({name: tensor * 1.5 for name, tensor in load_file(file).items()}, file)
    else:
        file = model / part / "scheduler_config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "shift": 7.0}))
    with pytest.raises(CheckpointError, match=f"was trained with {field} = "):
        list(finetune(told, tmp_path / "run", resume=True, device="cpu"))


@pytest.mark.parametrize("method", ["sara", "lt-sft", "id3"])
def test_a_longer_run_keeps_what_was_fitted_to_its_first_length(method, animator, pictures, tmp_path):
    told = config(animator, pictures, method=method, method_options={"fraction": 0.1}, max_train_steps=4)
    list(finetune(told, tmp_path / "run", device="cpu", time_limit_s=1e-3))
    longer = told.model_copy(update={"max_train_steps": 40})
    going = finetune(longer, tmp_path / "run", resume=True, device="cpu")
    for event in going:
        if isinstance(event, Step):
            break
    going.close()
    kept = read_finetune(tmp_path / "run")
    assert (kept.max_train_steps, kept.fitted_to) == (40, 4)
    assert told.fitted_options()
    assert kept.tuning() == told.tuning()


def test_a_finished_run_goes_on_for_longer(animator, pictures, tmp_path):
    told = config(animator, pictures, **SARA, max_train_steps=4)
    list(finetune(told, tmp_path / "run", device="cpu"))
    longer = told.model_copy(update={"max_train_steps": 6})
    events = list(finetune(longer, tmp_path / "run", resume=True, device="cpu"))
    assert [e.step for e in events if isinstance(e, Step)] == [5, 6]


def test_going_on_with_other_pictures_is_refused(animator, pictures, tmp_path):
    list(finetune(config(animator, pictures, **SARA), tmp_path / "run", device="cpu", time_limit_s=1e-3))
    (pictures / "0.txt").write_text("something else")
    with pytest.raises(CheckpointError, match="was trained with pictures = "):
        list(finetune(config(animator, pictures, **SARA), tmp_path / "run", resume=True, device="cpu"))


def test_an_infinite_gradient_names_the_pictures_of_all_parts(animator, pictures, tmp_path, monkeypatch):
    from training.finetune.families.animator import Animator

    told = config(animator, pictures, **SARA, gradient_accumulation_steps=2)
    plain, calls = Animator.loss, []

    def steep(self, *args):
        calls.append(1)
        loss = plain(self, *args)
        # 0, with the slope of a root at 0, in the first of a step's two parts
        return loss + (loss * 0).sqrt() if len(calls) == 1 else loss

    monkeypatch.setattr(Animator, "loss", steep)
    with pytest.raises(NotFiniteError, match=r"the gradient's norm .*the batch is of .*\.png, .*\.png"):
        list(finetune(told, tmp_path / "run", device="cpu"))


def test_choosing_by_gradients_looks_at_batches_in_the_parts_they_are_trained_in(
    animator, pictures, tmp_path, monkeypatch
):
    from training.finetune.families.animator import Animator

    plain, sizes = Animator.loss, []

    def seen(self, encoded, *args):
        sizes.append(len(encoded["latents"]))
        return plain(self, encoded, *args)

    monkeypatch.setattr(Animator, "loss", seen)
    snip = {"method": "sparse", "method_options": {"selector": "snip"}}
    told = config(animator, pictures, **snip, gradient_accumulation_steps=2)
    going = finetune(told, tmp_path / "run", device="cpu")
    next(event for event in going if isinstance(event, Step))
    going.close()
    assert sizes == [1] * (8 * 2 + 2)


def test_memory_that_runs_out_while_choosing_is_told_with_what_helps(animator, pictures, tmp_path, monkeypatch):
    from training.methods import sparse

    def full(*args):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(sparse, "gradient_scores", full)
    told = config(animator, pictures, method="sparse", method_options={"selector": "snip"})
    with pytest.raises(NoMemoryLeftError, match=r"choosing what is trained.*gradient_accumulation_steps"):
        list(finetune(told, tmp_path / "run", device="cpu"))
    assert not (tmp_path / "run" / "config.toml").exists()


def test_a_loss_that_is_not_a_number_names_the_pictures_and_keeps_the_last_checkpoint(
    animator, pictures, tmp_path, monkeypatch
):
    from training.finetune.families.animator import Animator

    told = config(animator, pictures, **SARA, checkpointing_steps=2)
    plain = Animator.loss
    calls = []

    def poisoned(self, *args):
        calls.append(1)
        return plain(self, *args) * (float("nan") if len(calls) > 3 else 1)

    monkeypatch.setattr(Animator, "loss", poisoned)
    with pytest.raises(
        NotFiniteError, match=r"the batch is of .*\.png, .*\.png; the last checkpoint is .*checkpoint-2"
    ):
        list(finetune(told, tmp_path / "run", device="cpu"))


def test_a_folder_of_another_run_is_refused(animator, pictures, tmp_path):
    list(finetune(config(animator, pictures, **SARA), tmp_path / "run", device="cpu"))
    with pytest.raises(CheckpointError, match="holds a run already"):
        list(finetune(config(animator, pictures, **SARA), tmp_path / "run", device="cpu"))


def test_events_are_one_json_object_a_line(animator, pictures, tmp_path):
    list(finetune(config(animator, pictures, **SARA), tmp_path / "run", device="cpu"))
    kinds = [json.loads(line)["event"] for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    assert kinds[0] == "note" and kinds[-1] == "finished" and kinds.count("step") == 6
