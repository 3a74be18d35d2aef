"""What a finished run is scored by."""

import pytest
import torch

AXES = torch.eye(4)


def compared(made, asked, **more):
    from training.finetune.scores import compare_features

    given = {"real": AXES[:2], "captions": ["a cat", "a dog"], "trained": AXES[:2], "held_out": None, **more}
    return compare_features(made=torch.stack(made), asked=asked, **given)


def test_what_shows_its_caption_is_found_again_and_what_does_not_is_not():
    right = compared([AXES[0], AXES[1]], ["a cat", "a dog"])
    wrong = compared([AXES[1], AXES[0]], ["a cat", "a dog"])
    assert (right["retrieval"], right["identity"]) == (1, 1)
    assert (wrong["retrieval"], wrong["identity"]) == (0, 0)
    assert right["nearest"] == wrong["nearest"] == 1


def test_with_one_caption_there_is_nothing_to_retrieve():
    assert "retrieval" not in compared([AXES[0], AXES[1]], ["a cat"] * 2, captions=["a cat"] * 2)


def test_held_out_pictures_give_the_background_of_copying():
    half = torch.stack([AXES[0] + AXES[2], AXES[1] + AXES[3]]) / 2**0.5
    found = compared([AXES[0], AXES[1]], ["a cat", "a dog"], real=half, held_out=half)
    assert found["nearest"] == 1 and found["nearest-held-out"] == pytest.approx(2**-0.5)
    assert found["identity"] == pytest.approx(2**-0.5)


@pytest.fixture(scope="module")
def run(animator, tmp_path_factory):
    from PIL import Image

    from training.finetune.config import DataSet, FinetuneConfig
    from training.finetune.run import finetune

    place = tmp_path_factory.mktemp("scored")
    for name, colour in (("red", (250, 10, 10)), ("blue", (10, 10, 250))):
        (place / "data" / name).mkdir(parents=True)
        for k in range(3):
            Image.new("RGB", (40, 40), tuple(max(0, c - 9 * k) for c in colour)).save(
                place / "data" / name / f"{k}.png"
            )
    config = FinetuneConfig(
        model=str(animator), data=(DataSet(folder=place / "data"),), resolution=32, max_train_steps=4,
        train_batch_size=2, method="full", learning_rate=0.05, mixed_precision="fp32",
    )  # fmt: skip
    list(finetune(config, place / "run", device="cpu"))
    return place / "run"


@pytest.fixture(scope="module")
def features():
    from studio.weights import mini_folder
    from training.metrics.features import open_features

    return open_features("mini-clip", mini_folder())


def test_a_run_is_scored_and_what_was_trained_hard_drifts(run, features):
    from training.finetune.scores import MEANINGS, score_run

    told = []
    found = score_run(run, features, samples=6, device="cpu", on_sample=lambda done, total: told.append((done, total)))
    names = {score.name: score for score in found.scores}
    assert names.keys() == {"kd", "identity", "nearest", "retrieval", "drift"} <= MEANINGS.keys()
    assert names["kd"].samples == 6 and names["kd"].features == "mini-clip"
    assert names["drift"].value > 1e-3
    assert told == [(k + 1, 10) for k in range(10)]
    assert [caption for caption, _ in found.samples] == ["blue", "red"] * 3
    assert any((before != now).any() for _, before, now in found.unrelated)


def test_scoring_twice_gives_the_same_numbers(run, features):
    from training.finetune.scores import score_run

    first, second = (score_run(run, features, samples=4, device="cpu").scores for _ in range(2))
    assert first == second


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
