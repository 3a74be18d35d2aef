"""What a finished run is scored by."""

import pytest


def train(animator, place, **options):
    from PIL import Image

    from training.finetune.config import DataSet, FinetuneConfig
    from training.finetune.run import finetune

    for name, colour in (("red", (250, 10, 10)), ("blue", (10, 10, 250))):
        (place / "data" / name).mkdir(parents=True)
        for k in range(3):
            Image.new("RGB", (40, 40), tuple(max(0, c - 9 * k) for c in colour)).save(
                place / "data" / name / f"{k}.png"
            )
    config = FinetuneConfig(
        model=str(animator), data=(DataSet(folder=place / "data"),), resolution=32, max_train_steps=4,
        train_batch_size=2, learning_rate=0.05, **options,
    )  # fmt: skip
    list(finetune(config, place / "run", device="cpu"))
    return place / "run"


@pytest.fixture(scope="module")
def run(animator, tmp_path_factory):
    return train(animator, tmp_path_factory.mktemp("scored"), method="full", mixed_precision="fp32")


@pytest.fixture(scope="module")
def features():
    from studio.weights import mini_folder
    from training.metrics.features import open_features

    return [open_features(name, mini_folder()) for name in ("mini-clip", "pixels")]


def test_a_run_is_scored_in_every_space_and_what_was_trained_hard_drifts(run, features):
    from training.finetune.measures import MEANINGS
    from training.finetune.scores import score_run

    told = []
    found = score_run(run, features, samples=6, device="cpu", on_sample=lambda done, total: told.append((done, total)))
    first, second = ({s.name: s for s in found.scores if s.features == space.name} for space in features)
    assert first.keys() == {"kd", "vendi", "caption-retrieval", "identity", "nearest", "retrieval", "drift"}
    assert first.keys() - second.keys() == {"caption-retrieval"} and first.keys() <= MEANINGS.keys()
    assert first["kd"].samples == 6 and first["kd"].label == "kd(mini-clip, N=6)"
    assert first["drift"].value > 1e-3
    assert {(one.name, one.features) for one in found.refused} == {
        (name, space.name) for name in ("fd", "precision", "recall", "density", "coverage") for space in features
    }
    assert told == [(6, 10), (8, 10), (10, 10)]
    assert [caption for caption, _ in found.samples] == ["blue", "red"] * 3
    assert any((before != now).any() for _, before, now in found.unrelated)


def test_scoring_twice_gives_the_same_numbers_and_other_steps_give_others(run, features, monkeypatch):
    from training.finetune import scores

    told, lots, make = [], [], scores._make
    monkeypatch.setattr(scores, "_make", lambda *args: (lots.append(len(args[1])), make(*args))[1])
    first, second, quick = (
        scores.score_run(run, features, samples=4, steps=steps, on_sample=lambda *done: told.append(done)).scores
        for steps in (3, 3, 1)
    )
    assert first == second and first != quick
    assert told == [(4, 8), (6, 8), (8, 8)] * 3
    assert lots == [4, 2, 2, 4, 2, 4, 2, 2], "the second time the last two, of the model as it was, are in the cache"


@pytest.mark.parametrize(
    ("kind", "precision", "weights"),
    [("bf16", "bf16", "bfloat16"), ("fp16", "bf16", "float16"), ("int8", "bf16", "float32")],
)
def test_a_model_is_measured_in_half_where_changes_were_trained_in_half(
    animator, features, tmp_path, kind, precision, weights
):
    import torch

    from training.finetune.audit.network import losses_of
    from training.finetune.families import open_family
    from training.finetune.frugal import cast_weights
    from training.finetune.opened import open_run
    from training.finetune.scores import score_run

    run = train(animator, tmp_path, method="sara", weights_dtype=kind, mixed_precision=precision)
    opened = open_run(run)
    block = opened.family.network.blocks[0]
    assert block.attn1.to_q.weight.dtype == getattr(torch, weights) and block.scale_shift_table.dtype == torch.float32
    fresh = open_family(animator)
    if weights != "float32":
        cast_weights(fresh.network, opened.config)
    with opened.measuring():
        changed = losses_of(opened, opened.trained, lambda: None)
        with opened.adapter.disabled():
            before = losses_of(opened, opened.trained, lambda: None)
            state = {name: tensor.clone() for name, tensor in opened.family.network.state_dict().items()}
    assert changed.isfinite().all() and not torch.equal(changed, before)
    assert all(torch.equal(tensor, state[name]) for name, tensor in fresh.network.state_dict().items())
    assert score_run(run, features[:1], samples=4, steps=2).scores


def test_an_adapter_is_measured_inside_of_the_weights(animator, tmp_path):
    import torch

    from training.finetune.audit.network import losses_of
    from training.finetune.opened import open_run
    from training.methods.adapter import apply_adapter, load_adapter

    run = train(animator, tmp_path, method="lora", mixed_precision="fp32")
    opened = open_run(run)
    assert type(opened.family.network.blocks[0].attn1.to_q) is torch.nn.Linear
    merged = losses_of(opened, opened.trained, lambda: None)
    with opened.adapter.disabled():
        before = losses_of(opened, opened.trained, lambda: None)
        apply_adapter(opened.family.network, load_adapter(run / "adapter.safetensors"))
        beside = losses_of(opened, opened.trained, lambda: None)
        torch.testing.assert_close(merged, beside, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(merged, before, rtol=1e-4, atol=1e-5)


def test_a_folder_without_a_finished_run_is_refused(tmp_path, features):
    from training.finetune.scores import score_run

    with pytest.raises(ValueError, match="holds no finished fine-tuning run"):
        score_run(tmp_path, features)


def test_a_run_that_saw_more_than_text_is_refused(run, features, tmp_path):
    import shutil

    from training.finetune.scores import score_run

    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    told = (copy / "config.toml").read_text()
    (copy / "config.toml").write_text(told.replace("[finetune]", '[finetune]\ntask = "ti2v"', 1))
    with pytest.raises(ValueError, match="was trained on ti2v, which sees more than text"):
        score_run(copy, features)
