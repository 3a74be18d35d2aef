"""A watcher of the training loop: what it is asked, and that what it asks for outlives a stop."""

import pytest
import torch

from training.checkpoint import latest_checkpoint, load_checkpoint
from training.events import Evaluated, Finished, Note, Step
from training.loop import train
from training.schedules import rate_at
from training.watch import Asked


def rates(events):
    return {e.step: e.learning_rate for e in events if isinstance(e, Step)}


def halves_at(*steps, asked=None):
    def watch(step, metrics):
        if asked is not None:
            asked.append((step, dict(metrics)))
        return Asked(rate_factor=0.5 if step in steps else 1.0, events=(Note(step=step, text="seen"),))

    return watch


def test_it_is_asked_before_the_first_step_and_after_every_measurement_with_the_average_in_place(toys, tmp_path):
    asked = []
    learner = toys.Toy()
    events = list(train(learner, toys.config(evaluate_every=2), tmp_path, watch=halves_at(asked=asked), device="cpu"))
    assert [step for step, _ in asked] == [0, 2, 4, 6]
    assert [m for _, m in asked] == [e.metrics for e in events if isinstance(e, Evaluated)]
    average = load_checkpoint(tmp_path / "checkpoint-6")[0]["average"]["head.weight"]
    assert asked[-1][1]["weight"] == float(average.sum()) != learner.head.weight.sum().item()
    assert sum(isinstance(e, Note) for e in events) == 4


def test_without_one_nothing_is_measured_before_the_first_step(toys, tmp_path):
    events = list(train(toys.Toy(), toys.config(evaluate_every=2), tmp_path, device="cpu"))
    assert [e.step for e in events if isinstance(e, Evaluated)] == [2, 4, 6]


def test_a_lowered_rate_counts_from_the_next_step_and_adds_up(toys, tmp_path):
    settings = toys.config(evaluate_every=2)
    made = rates(train(toys.Toy(), settings, tmp_path, watch=halves_at(2, 4), device="cpu"))
    plain = {step: rate_at(step - 1, settings) for step in range(1, 7)}
    assert made == {s: plain[s] * (1 if s <= 2 else 0.5 if s <= 4 else 0.25) for s in plain}


@pytest.mark.parametrize("stopped_at", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("every", [1, 2, 100])
def test_a_run_that_stops_anywhere_goes_on_bit_for_bit(stopped_at, every, toys, tmp_path):
    settings = toys.config(evaluate_every=2, checkpoint_every=every)
    straight = list(train(toys.Toy(), settings, tmp_path / "straight", watch=halves_at(2, 4), device="cpu"))
    first = []
    run = train(toys.Toy(), settings, tmp_path / "bent", watch=halves_at(2, 4), device="cpu")
    for event in run:
        first.append(event)
        if isinstance(event, Step) and event.step == stopped_at:
            run.close()  # before its watcher was asked at this step
    rest = list(train(toys.Toy(), settings, tmp_path / "bent", watch=halves_at(2, 4), resume=True, device="cpu"))
    assert {**rates(first), **rates(rest)} == rates(straight)
    (one, state), (two, other) = (load_checkpoint(tmp_path / n / "checkpoint-6") for n in ("straight", "bent"))
    assert state == other and state["rate_factor"] == 0.25
    assert all(torch.equal(one[kind][name], two[kind][name]) for kind in one for name in one[kind])


def test_a_kill_between_a_checkpoint_and_the_question_loses_no_answer(toys, tmp_path):
    settings = toys.config(evaluate_every=2, checkpoint_every=2, keep_checkpoints=9)
    straight = rates(train(toys.Toy(), settings, tmp_path / "run", watch=halves_at(2), device="cpu"))
    (tmp_path / "run" / "latest").write_text("checkpoint-2")  # which was saved before the rate was lowered
    assert load_checkpoint(tmp_path / "run" / "checkpoint-2")[1]["rate_factor"] == 1
    rest = rates(train(toys.Toy(), settings, tmp_path / "run", watch=halves_at(2), resume=True, device="cpu"))
    assert rest == {step: rate for step, rate in straight.items() if step > 2}


def test_it_may_end_a_run_with_its_result_and_is_asked_again_when_that_is_resumed(toys, tmp_path):
    settings = toys.config(evaluate_every=2)
    events = list(train(toys.Toy(), settings, tmp_path, watch=toys.slower, device="cpu"))
    last = events[-1]
    assert isinstance(last, Finished) and (last.step, last.complete, last.reason) == (4, True, "seen enough")
    assert last.metrics and latest_checkpoint(tmp_path) == tmp_path / "checkpoint-4"
    again = list(train(toys.Toy(), settings, tmp_path, watch=toys.slower, resume=True, device="cpu"))
    assert [type(e) for e in again] == [Evaluated, Finished] and again[-1].reason == "seen enough"
    on = list(train(toys.Toy(), settings, tmp_path, resume=True, device="cpu"))
    assert on[-1].step == 6 and on[-1].complete


def test_one_that_ends_a_run_without_a_result_leaves_it_to_be_resumed(toys, tmp_path):
    def watch(step, metrics):
        return Asked(stop="bad from the start" if step else None)

    *_, last = train(toys.Toy(), toys.config(evaluate_every=2), tmp_path, watch=watch, device="cpu")
    assert (last.step, last.complete, last.metrics) == (2, False, {})


def test_it_may_refuse_the_end(toys, tmp_path):
    def watch(step, metrics):
        return Asked(stop="bad at the end" if step == 6 else None)

    *_, last = train(toys.Toy(), toys.config(), tmp_path, watch=watch, device="cpu")
    assert (last.step, last.complete, last.reason) == (6, False, "bad at the end")
