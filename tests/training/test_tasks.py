"""Multi-task partial training: each task moves its own share of the parameters and nothing else."""

import pytest
import torch
from pydantic import ValidationError

from training.checkpoint import load_checkpoint
from training.events import Step
from training.loop import train
from training.tasks import Task, draw_task


def test_tasks_are_drawn_by_their_weights():
    tasks = (Task(name="a", weight=3), Task(name="b", weight=1))
    generator = torch.Generator().manual_seed(0)
    drawn = [draw_task(tasks, generator).name for _ in range(2000)]
    assert drawn.count("a") / 2000 == pytest.approx(0.75, abs=0.04)


def test_a_task_trains_the_names_that_its_whole_pattern_matches():
    task = Task(name="t", trainable=r"transformer\..*")
    assert task.trains("transformer.blocks.0.weight")
    assert not task.trains("epi.transformer.weight") and not task.trains("ipi.weight")


def test_a_broken_pattern_is_refused_when_the_task_is_made():
    with pytest.raises(ValidationError, match="is not a regular expression"):
        Task(name="t", trainable="(")


def test_what_a_task_may_not_move_is_bit_identical_after_it_with_its_optimizer_state(toys, tmp_path):
    settings = toys.config(steps=12, checkpoint_every=1, keep_checkpoints=20)
    steps = [e for e in train(toys.Toy(), settings, tmp_path, device="cpu") if isinstance(e, Step)]
    assert_partial(tmp_path, steps, "rest", ("adapter.",), moved="head.weight")


def assert_partial(run, steps, task, frozen, moved):
    """Compares the checkpoints before and after each step of a task."""
    compared = 0
    for step in steps:
        if step.task != task or step.step == 1:
            continue
        before, after = (load_checkpoint(run / f"checkpoint-{n}")[0] for n in (step.step - 1, step.step))
        assert not torch.equal(before["model"][moved], after["model"][moved])
        for group in ("model", "optimizer"):
            names = [name for name in after[group] if name.startswith(frozen)]
            assert all(torch.equal(before[group][name], after[group][name]) for name in names)
            compared += len(names)
    assert compared > 0


def test_a_background_step_leaves_the_pose_indicators_and_their_optimizer_state_alone(make_animator, tmp_path):
    learner = make_animator(checkpoint_every=1, keep_checkpoints=10, steps=6, ema_decay=0.5)
    steps = list(partial_run(learner, tmp_path))
    assert {s.task for s in steps} == {"animation", "background"}
    assert_partial(tmp_path, steps, "background", ("epi.", "ipi."), moved="transformer.patch_embedding.weight")
    # and an animation step does move them
    first, last = (load_checkpoint(tmp_path / f"checkpoint-{n}")[0]["model"] for n in (1, 6))
    assert any(not torch.equal(first[name], last[name]) for name in last if name.startswith("epi."))
    assert any(not torch.equal(first[name], last[name]) for name in last if name.startswith("ipi."))
    assert not [name for name in last if name.startswith(("vae.", "text_encoder.", "image_encoder."))]


def partial_run(learner, folder):
    """All steps without the measurement at the end, which draws 48 clips."""
    run = train(learner, learner.config, folder, device="cpu")
    for event in run:
        if isinstance(event, Step):
            yield event
            if event.step == event.total_steps:
                break
    run.close()


@pytest.mark.slow
def test_the_loss_of_both_tasks_falls_on_a_toy_set(make_animator, tmp_path):
    """Four clips again and again: the noise levels are drawn anew, so ends are compared by their means."""
    learner = make_animator(steps=120, batch_size=4, learning_rate=5e-3, shard_uses=1e6, warmup_steps=10)
    losses: dict[str, list[float]] = {"animation": [], "background": []}
    for step in partial_run(learner, tmp_path):
        losses[step.task].append(step.losses["loss"])
    for task, values in losses.items():
        assert len(values) > 30
        assert sum(values[-12:]) / 12 < 0.9 * sum(values[:6]) / 6, (task, values[:6], values[-12:])
