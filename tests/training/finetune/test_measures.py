"""What generated pictures are measured by, and what real ones get in their place."""

from pathlib import Path

import pytest
import torch

AXES = torch.eye(4)


def shown(vectors, captions):
    from training.finetune.measures import Shown

    return Shown(vectors=torch.nn.functional.normalize(vectors, dim=1), captions=tuple(captions))


def measured(made, trained, held_out=None, space="pixels", k=3):
    from training.finetune.measures import measure
    from training.metrics.features import open_features

    nothing = shown(torch.empty(0, made.vectors.shape[1]), ())
    space = open_features(space, Path()) if isinstance(space, str) else space
    scores, refused = measure(space, made=made, trained=trained, held_out=held_out or nothing, k=k)
    return {score.name: score for score in scores}, {one.name: one.reason for one in refused}


def cats_and_dogs(made, asked, held_out=None):
    return measured(shown(torch.stack(made), asked), shown(AXES[:2], ["a cat", "a dog"]), held_out)[0]


def test_what_shows_its_caption_is_found_again_and_what_does_not_is_not():
    right = cats_and_dogs([AXES[0], AXES[1]], ["a cat", "a dog"])
    wrong = cats_and_dogs([AXES[1], AXES[0]], ["a cat", "a dog"])
    assert (right["retrieval"].value, right["identity"].value) == (1, 1)
    assert (wrong["retrieval"].value, wrong["identity"].value) == (0, 0)
    assert right["nearest"].value == wrong["nearest"].value == 1


def test_with_one_caption_there_is_nothing_to_retrieve():
    same = ["a cat"] * 2
    assert "retrieval" not in measured(shown(AXES[:2], same), shown(AXES[:2], same))[0]


def test_held_out_pictures_give_the_background_of_copying():
    half = shown(torch.stack([AXES[0] + AXES[2], AXES[1] + AXES[3]]), ["a cat", "a dog"])
    found = cats_and_dogs([AXES[0], AXES[1]], ["a cat", "a dog"], half)
    assert found["nearest"].value == 1
    assert found["nearest"].floor == found["nearest-held-out"].value == pytest.approx(2**-0.5)


def cloud(count, seed, dim=6, shift=0.0):
    points = torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))
    return shown(points + shift, [("a cat", "a dog")[k % 2] for k in range(count)])


def test_samples_of_the_real_kind_measure_as_real_pictures_do():
    found, refused = measured(cloud(60, 1), cloud(100, 2), cloud(80, 3))
    assert not refused
    kd = found["kd"]
    assert abs(kd.value - kd.floor) < 3 * (kd.error + kd.floor_error)
    assert (kd.samples, kd.real, kd.floor_samples) == (60, 80, 60)
    for name in ("precision", "recall", "density", "coverage"):
        assert found[name].value == pytest.approx(found[name].floor, abs=0.25)
    assert found["vendi"].value == pytest.approx(found["vendi"].floor, rel=0.1)
    assert found["fd"].value < 3 * found["fd"].floor
    assert found["coverage"].label == "coverage(pixels, N=60, k=3)" and kd.label == "kd(pixels, N=60)"


def test_collapse_shows_in_coverage_recall_and_vendi():
    one = cloud(1, 9).vectors.expand(60, 6) + 0.01 * cloud(60, 1).vectors
    found, _ = measured(shown(one, ["a cat"] * 60), cloud(100, 2), cloud(80, 3))
    for name in ("coverage", "recall"):
        assert found[name].value < 0.2 < 0.5 < found[name].floor and found[name].better == "more"
    assert found["vendi"].value < 1.1 < 4 < found["vendi"].floor and found["vendi"].better == "as real"
    assert found["kd"].value > found["kd"].floor + 5 * found["kd"].error and found["kd"].better == "less"


def test_few_real_pictures_are_halved_so_that_both_sides_count_as_many():
    found, _ = measured(cloud(60, 1), cloud(31, 2))
    assert (found["coverage"].samples, found["coverage"].floor_samples, found["coverage"].real) == (15, 15, 16)
    assert (found["kd"].samples, found["kd"].real, found["kd"].floor_samples) == (60, 31, 15)
    assert found["kd"].label == "kd(pixels, N=60)" and "kd-real" not in found


def test_what_so_few_cannot_tell_is_refused_with_what_it_needs():
    found, refused = measured(cloud(8, 1), cloud(10, 2))
    assert refused.keys() == {"fd", "precision", "recall", "density", "coverage"}
    assert "of 6 dimensions needs 13 pictures a side, there are 5 and 5" in refused["fd"]
    assert "need 7 pictures a side, there are 5 generated and 5 real" in refused["coverage"]
    assert {"kd", "vendi", "identity", "nearest"} <= found.keys()


def test_two_real_pictures_give_a_distance_without_a_floor():
    found, _ = measured(cloud(8, 1), cloud(2, 2))
    assert found["kd"].floor is None and found["kd"].floor_samples is None and found["kd"].error is None


def reader():
    """Reads cats as the first axis and dogs as the second."""
    from training.metrics.features import Pixels

    class Reader(Pixels):
        reads = True

        def texts(self, texts):
            return torch.stack([AXES[0 if "cat" in text else 1] for text in texts])

    return Reader(torch.device("cpu"))


def test_captions_are_looked_up_among_the_samples_by_a_space_that_reads():
    real = shown(AXES[[0, 1, 0, 1]], ["a cat", "a dog"] * 2)
    right, _ = measured(real, real, shown(AXES[[0, 1]].repeat(25, 1), ["a cat", "a dog"] * 25), reader())
    wrong, _ = measured(
        shown(AXES[[1, 0, 1, 0]], ["a cat", "a dog"] * 2), real,
        shown(AXES[[0, 1]].repeat(25, 1), ["a cat", "a dog"] * 25), reader(),
    )  # fmt: skip
    assert (right["caption-retrieval"].value, wrong["caption-retrieval"].value) == (1, 0)
    assert right["caption-retrieval"].floor == 1
    same = shown(AXES, ["a cat"] * 4)
    assert "all have the same one" in measured(same, same, space=reader())[1]["caption-retrieval"]


def test_every_score_has_a_meaning():
    from training.finetune.measures import BACKGROUND, LESS, MEANINGS, MORE

    found, refused = measured(cloud(8, 1), cloud(20, 2), cloud(4, 3))
    assert {*found, *refused, *LESS, *MORE, *BACKGROUND} <= MEANINGS.keys()
    assert [found[name].better for name in ("kd", "recall", "identity", "kd-real")] == ["less", "more", "as real", ""]
