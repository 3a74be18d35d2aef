"""The training loop: exact resume, safe stops, and what it refuses."""

import math
from pathlib import Path

import pytest
import torch

from training.checkpoint import CheckpointError, latest_checkpoint, load_checkpoint
from training.events import Evaluated, Finished, Note, Saved, Skipped, Step
from training.going import NotFiniteError, step_generator
from training.loop import load_average, train


def run_until(steps: int, events) -> list[Step]:
    """Takes steps up to a number and closes the run, as Ctrl-C in a notebook does."""
    taken = []
    for event in events:
        if isinstance(event, Step):
            taken.append(event)
            if event.step == steps:
                break
    events.close()
    return taken


def assert_equal_checkpoints(one: Path, other: Path) -> None:
    (a, state_a), (b, state_b) = load_checkpoint(one), load_checkpoint(other)
    assert state_a == state_b
    assert a.keys() == b.keys() == {"model", "average", "optimizer"}
    for group in a:
        assert a[group].keys() == b[group].keys()
        for name, value in a[group].items():
            assert torch.equal(value, b[group][name]), (group, name)


def test_a_resumed_run_equals_one_that_never_stopped_bit_for_bit(toys, tmp_path):
    straight = list(train(toys.Toy(), toys.config(), tmp_path / "straight", device="cpu"))
    first = run_until(3, train(toys.Toy(), toys.config(), tmp_path / "pieces", device="cpu"))
    # the new learner starts elsewhere: all that counts comes from the checkpoint
    rest = list(train(toys.Toy(seed=9), toys.config(), tmp_path / "pieces", resume=True, device="cpu"))
    losses = [e.losses for e in straight if isinstance(e, Step)]
    assert [e.losses for e in [*first, *rest] if isinstance(e, Step)] == losses
    assert_equal_checkpoints(tmp_path / "straight/checkpoint-6", tmp_path / "pieces/checkpoint-6")


def test_the_codec_recipe_resumes_bit_for_bit_over_its_change_from_images_to_video(tmp_path):
    from training.recipes.codec import CodecRecipe

    recipe = CodecRecipe(steps=4, batch_size=1, crop=32, image_share=0.3, image_factor=2, warmup_steps=0)

    def start(folder, resume=False):
        return train(recipe.build(tmp_path), recipe, tmp_path / folder, resume=resume, device="cpu")

    run_until(3, start("straight"))
    run_until(2, start("pieces"))
    run_until(3, start("pieces", resume=True))
    assert_equal_checkpoints(tmp_path / "straight/checkpoint-3", tmp_path / "pieces/checkpoint-3")


def test_closing_the_iterator_saves_the_step_it_stopped_at(toys, tmp_path):
    run_until(2, train(toys.Toy(), toys.config(), tmp_path, device="cpu"))
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoint-2"


def test_a_reason_to_stop_ends_the_run_with_a_checkpoint(toys, tmp_path):
    answers = iter([None, "enough"])
    events = list(train(toys.Toy(), toys.config(), tmp_path, device="cpu", should_stop=lambda: next(answers)))
    assert [type(e) for e in events] == [Step, Step, Saved, Finished]
    assert (events[-1].complete, events[-1].reason) == (False, "enough")
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoint-2"


def test_a_complete_run_says_so_and_has_measured_the_average(toys, tmp_path):
    learner = toys.Toy()
    *_, evaluated, finished = train(learner, toys.config(), tmp_path, device="cpu")
    assert isinstance(evaluated, Evaluated) and finished.complete and finished.metrics == evaluated.metrics
    trained = learner.head.weight.sum().item()
    assert load_average(learner, tmp_path / "checkpoint-6") == 6
    assert evaluated.metrics["weight"] == learner.head.weight.sum().item() != trained


def test_a_nan_loss_raises_and_leaves_the_last_checkpoint_alone(toys, tmp_path):
    learner = toys.Toy()
    learner.poisoned_at = 4 * 4
    run = train(learner, toys.config(checkpoint_every=2, keep_checkpoints=1), tmp_path, device="cpu")
    with pytest.raises(NotFiniteError, match=r"step 4: the losses are .*checkpoint-4"):
        list(run)
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoint-4"
    assert all(v.isfinite().all() for v in load_checkpoint(tmp_path / "checkpoint-4")[0]["model"].values())


def test_an_infinite_gradient_of_a_finite_loss_raises_before_it_reaches_the_weights(toys, tmp_path):
    learner = toys.Toy()
    learner.infinite_gradient_at = 3 * 4
    with pytest.raises(NotFiniteError, match="step 3: the gradient's norm"):
        list(train(learner, toys.config(checkpoint_every=2), tmp_path, device="cpu"))
    assert all(p.isfinite().all() for p in learner.parameters())
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoint-2"


def test_an_interrupted_evaluation_does_not_save_the_average_as_the_weights(toys, tmp_path):
    class Interrupted(toys.Toy):
        def evaluate(self):
            raise KeyboardInterrupt

    learner = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        list(train(learner, toys.config(evaluate_every=3), tmp_path, device="cpu"))
    saved = load_checkpoint(tmp_path / "checkpoint-3")[0]
    assert torch.equal(saved["model"]["head.weight"], learner.head.weight)
    assert not torch.equal(saved["model"]["head.weight"], saved["average"]["head.weight"])


def test_half_a_step_is_never_saved(toys, tmp_path, monkeypatch):
    from training.muon import Muon

    whole_step = Muon.step
    calls = []

    def step(self, closure=None):
        calls.append(1)
        whole_step(self)
        if len(calls) == 3:
            raise KeyboardInterrupt  # the weights have moved, the average has not

    monkeypatch.setattr(Muon, "step", step)
    with pytest.raises(KeyboardInterrupt):
        list(train(toys.Toy(), toys.config(checkpoint_every=1), tmp_path, device="cpu"))
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoint-2"


def test_a_different_setting_is_refused_by_name(toys, tmp_path):
    run_until(1, train(toys.Toy(), toys.config(), tmp_path, device="cpu", fingerprint={"recipe": "toy", "rate": 1}))
    resumed = train(
        toys.Toy(), toys.config(), tmp_path, resume=True, device="cpu", fingerprint={"recipe": "toy", "rate": 2}
    )
    with pytest.raises(CheckpointError, match="rate = 1, now it is 2"):
        list(resumed)


def test_another_network_is_refused_by_name_and_by_shape(toys, tmp_path):
    run_until(1, train(toys.Toy(), toys.config(), tmp_path, device="cpu"))
    renamed, wider = toys.Toy(), toys.Toy()
    renamed.extra = torch.nn.Linear(2, 2)
    wider.head = torch.nn.Linear(12, 1)
    with pytest.raises(CheckpointError, match=r"another network: 'extra\.bias'"):
        list(train(renamed, toys.config(), tmp_path, resume=True, device="cpu"))
    with pytest.raises(CheckpointError, match=r"head\.weight has the shape \(2, 12\), now it is \(1, 12\)"):
        list(train(wider, toys.config(), tmp_path, resume=True, device="cpu"))


def test_there_must_be_something_to_resume(toys, tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint to resume"):
        list(train(toys.Toy(), toys.config(), tmp_path, resume=True, device="cpu"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="the message is about machines without CUDA")
def test_a_device_that_is_not_here_is_refused_instead_of_training_on_the_cpu(toys, tmp_path):
    with pytest.raises(ValueError, match="device cuda:1: there are 0 CUDA devices here"):
        list(train(toys.Toy(), toys.config(), tmp_path, device="cuda:1"))


@pytest.mark.parametrize(("flag", "name"), [("ACCELERATE_USE_FSDP", "FSDP"), ("ACCELERATE_USE_DEEPSPEED", "DeepSpeed")])
def test_sharded_weights_are_refused_instead_of_being_trained_whole(flag, name, toys, tmp_path, monkeypatch):
    monkeypatch.setenv(flag, "true")
    with pytest.raises(ValueError, match=f"{name}: launch without it .*, and split the frozen weights"):
        list(train(toys.Toy(), toys.config(), tmp_path, device="cpu"))


def test_runs_of_both_precisions_follow_each_other_in_one_process(toys, tmp_path):
    for folder, precision in (("one", "fp32"), ("half", "bf16"), ("again", "fp32")):
        *_, last = train(toys.Toy(), toys.config(precision=precision), tmp_path / folder, device="cpu")
        assert last.complete
    assert not torch.equal(
        load_checkpoint(tmp_path / "one/checkpoint-6")[0]["model"]["head.weight"],
        load_checkpoint(tmp_path / "half/checkpoint-6")[0]["model"]["head.weight"],
    )
    assert_equal_checkpoints(tmp_path / "one/checkpoint-6", tmp_path / "again/checkpoint-6")


def test_the_average_follows_its_formula(toys, tmp_path):
    learner = toys.Toy()
    expected = learner.head.weight.detach().clone()
    for event in train(learner, toys.config(ema_decay=0.3), tmp_path, device="cpu"):
        if isinstance(event, Step):
            decay = min(0.3, event.step / (event.step + 9))
            expected = decay * expected + (1 - decay) * learner.head.weight.detach()
    average = load_checkpoint(tmp_path / "checkpoint-6")[0]["average"]["head.weight"]
    torch.testing.assert_close(average, expected, atol=1e-6, rtol=1e-6)


def test_a_file_asks_for_a_checkpoint_and_the_run_goes_on(toys, tmp_path):
    asked = iter([False, True, False, False, False, False])
    events = list(train(toys.Toy(), toys.config(), tmp_path, device="cpu", should_save=lambda: next(asked)))
    assert [e.step for e in events if isinstance(e, Saved)] == [2, 6]
    assert events[-1].complete


def test_a_damaged_checkpoint_is_left_for_an_older_one_and_the_run_still_ends_the_same(toys, tmp_path):
    settings = toys.config(checkpoint_every=1, keep_checkpoints=3)
    list(train(toys.Toy(), toys.config(), tmp_path / "straight", device="cpu"))
    run_until(4, train(toys.Toy(), settings, tmp_path / "bent", device="cpu"))
    weights = tmp_path / "bent" / "checkpoint-4" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    events = list(train(toys.Toy(seed=9), settings, tmp_path / "bent", resume=True, device="cpu"))
    notes = [e.text for e in events if isinstance(e, Note)]
    assert "checkpoint-4 is damaged: model.safetensors does not have its hash" in notes
    assert "going on from checkpoint-3 instead" in notes
    assert [e.step for e in events if isinstance(e, Step)] == [4, 5, 6]
    assert_equal_checkpoints(tmp_path / "straight/checkpoint-6", tmp_path / "bent/checkpoint-6")


def test_dropout_draws_the_same_after_a_resume(toys, tmp_path):
    class Dropping(toys.Toy):
        def forward(self, batch, task, generator):
            return super().forward({**batch, "x": torch.dropout(batch["x"], 0.5, self.training)}, task, generator)

    straight = list(train(Dropping(), toys.config(), tmp_path / "straight", device="cpu"))
    first = run_until(3, train(Dropping(), toys.config(), tmp_path / "bent", device="cpu"))
    torch.rand(7)  # another process is elsewhere in torch's own generator
    rest = list(train(Dropping(seed=9), toys.config(), tmp_path / "bent", resume=True, device="cpu"))
    losses = [e.losses for e in straight if isinstance(e, Step)]
    assert [e.losses for e in [*first, *rest] if isinstance(e, Step)] == losses
    assert_equal_checkpoints(tmp_path / "straight/checkpoint-6", tmp_path / "bent/checkpoint-6")


def test_half_precision_skips_steps_until_the_loss_scale_fits_and_resumes_bit_for_bit(toys, tmp_path):
    class Steep(toys.Toy):
        """Its gradients in float16 are infinite at the first scales, 65536 and half of it and so on."""

        def forward(self, batch, task, generator):
            losses = super().forward(batch, task, generator)
            return {"loss": losses["loss"] * 300}

    settings = toys.config(steps=16, precision="fp16", warmup_steps=0)
    straight = list(train(Steep(), settings, tmp_path / "straight", device="cpu"))
    skipped = [e for e in straight if isinstance(e, Skipped)]
    assert 1 <= len(skipped) < 14
    assert [e.skipped for e in skipped] == list(range(1, len(skipped) + 1))
    assert [e.scale for e in skipped] == [2.0 ** (15 - k) for k in range(len(skipped))]
    assert len([e for e in straight if isinstance(e, Step)]) == 16  # a skipped step has had its turn
    for stop in (1, len(skipped) + 3):  # amid the skipping, and after it
        run_until(stop, train(Steep(), settings, tmp_path / f"bent{stop}", device="cpu"))
        list(train(Steep(seed=9), settings, tmp_path / f"bent{stop}", resume=True, device="cpu"))
        assert_equal_checkpoints(tmp_path / "straight/checkpoint-16", tmp_path / f"bent{stop}/checkpoint-16")


def test_a_gradient_that_no_scale_helps_ends_the_run(toys, tmp_path):
    class Endless(toys.Toy):
        def forward(self, batch, task, generator):
            losses = super().forward(batch, task, generator)
            return {"loss": losses["loss"] + (self.head.bias.sum() * 0).sqrt()}

    settings = toys.config(steps=60, precision="fp16", batch_size=1)
    with pytest.raises(NotFiniteError, match=r"the gradient's norm is (nan|inf)"):
        list(train(Endless(), settings, tmp_path, device="cpu"))


def test_every_step_and_process_draws_its_own_numbers():
    drawn = {
        torch.rand(1, generator=step_generator(seed, step, process)).item()
        for seed in (0, 1) for step in range(40) for process in (-1, 0, 1)
    }  # fmt: skip
    assert len(drawn) == 2 * 40 * 3


def test_each_process_gets_its_share_of_the_stream(toys, tmp_path):
    learner = toys.Toy()
    list(train(learner, toys.config(steps=3), tmp_path, device="cpu"))
    assert [(first, count) for _, first, count in learner.asked] == [(0, 4), (4, 4), (8, 4)]


def test_events_are_json_even_when_a_number_is_not_finite():
    event = Evaluated(step=3, metrics={"psnr": math.inf, "ssim": 0.5})
    assert event.as_dict() == {"event": "evaluated", "step": 3, "metrics": {"psnr": None, "ssim": 0.5}}


def low_rank(toys, folder, **changes):
    learner = toys.Matrix()
    events = list(train(learner, toys.config(**changes), folder, trained=toys.sara(learner), device="cpu"))
    return [e.losses for e in events if isinstance(e, Step)], load_checkpoint(folder / "checkpoint-6")[0]["model"]


def test_a_methods_penalty_counts_once_however_many_parts_a_batch_has(toys, tmp_path):
    whole, weights = low_rank(toys, tmp_path / "whole")
    parts, others = low_rank(toys, tmp_path / "parts", gradient_accumulation_steps=4)
    assert whole[0]["penalty"] > 0.01
    for row, other in zip(whole, parts, strict=True):
        assert other == pytest.approx(row, rel=1e-5)
    torch.testing.assert_close(others["values"], weights["values"], rtol=1e-4, atol=1e-5)
