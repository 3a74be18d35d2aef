"""What is drawn for each sample, and how much of each data set comes."""

from collections import Counter

import pytest

from training.finetune.config import DataSet, FinetuneConfig
from training.finetune.data import DataError, Order, Stream, Wanted, find_samples

from .conftest import picture


def stream(folder, *, sets=None, wanted=None, **options):
    config = FinetuneConfig.model_validate(
        {"data": sets or [{"folder": folder}], "train_batch_size": 4, "caption_dropout": 0.0, **options}
    )
    found = find_samples(config.data, {"t": wanted or Wanted()}, resolution=32, multiple=16)
    return Stream(found.samples, config)


def taken(source, batches):
    return [view for batch in range(batches) for view in source.take(4 * batch, 4)]


@pytest.fixture
def two_sets(tmp_path):
    for k in range(12):
        picture(tmp_path / "many" / f"{k}.png", (k, 0, 0), size=(40, 40))
    for k in range(3):
        picture(tmp_path / "few" / f"{k}.png", (0, k, 0), size=(40, 40))
    return tmp_path


def sets(folder, many, few):
    return [{"folder": folder / "many", **many}, {"folder": folder / "few", **few}]


def test_weights_are_shares_of_the_draws_whatever_the_sets_hold(two_sets):
    source = stream(None, sets=sets(two_sets, {"weight": 1}, {"weight": 3}))
    views = taken(source, 40)
    share = sum(v.sample.path.parent.name == "few" for v in views) / len(views)
    assert abs(share - 0.75) < 0.03
    assert len({v.sample.path for v in views}) == 15  # what did not fit in one pass came in the next


def test_a_set_without_a_weight_beside_one_with_counts_one(two_sets):
    views = taken(stream(None, sets=sets(two_sets, {}, {"weight": 1})), 40)
    assert abs(sum(v.sample.path.parent.name == "few" for v in views) / len(views) - 0.5) < 0.03


def test_a_set_of_weight_zero_does_not_come(two_sets):
    views = taken(stream(None, sets=sets(two_sets, {"weight": 0}, {"weight": 2})), 10)
    assert {v.sample.path.parent.name for v in views} == {"few"}


def test_weights_that_are_all_zero_are_refused(two_sets):
    data = [DataSet(folder=two_sets / name, weight=0) for name in ("many", "few")]
    with pytest.raises(DataError, match="every data set has the weight 0"):
        find_samples(data, {"t": Wanted()}, resolution=32, multiple=16)


def test_a_weighted_order_goes_on_where_another_one_stopped():
    kinds, groups = [0, 0, 1, 1, 1, 0, 1], [0, 0, 0, 1, 1, 1, 1]
    whole, again = (Order(kinds, 2, 5, groups=groups, weights=(1.0, 2.5)) for _ in range(2))
    seen = [whole.take(2 * batch, 2) for batch in range(60)]
    assert [again.take(2 * batch, 2) for batch in (59, 7, 31)] == [seen[59], seen[7], seen[31]]
    assert all(kinds[a] == kinds[b] for a, b in seen)


def test_several_captions_of_a_file_all_come_in_time_and_follow_from_the_seed(tmp_path):
    picture(tmp_path / "a.png", "red")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png", "text": ["one", "two", "three"]}')
    said = [view.caption for view in taken(stream(tmp_path), 12)]
    assert set(said) == {"one", "two", "three"}
    assert said == [view.caption for view in taken(stream(tmp_path), 12)]
    assert said != [view.caption for view in taken(stream(tmp_path, seed=1), 12)]


def test_random_crops_come_from_few_places_and_only_where_something_stands_over(tmp_path):
    picture(tmp_path / "wide.png", "red", size=(500, 100))
    picture(tmp_path / "square.png", "red", size=(64, 64))
    views = taken(stream(tmp_path, crop="random"), 40)
    crops = {name: {v.crop for v in views if v.sample.path.name == name} for name in ("wide.png", "square.png")}
    assert crops == {"wide.png": {0.0, 0.25, 0.5, 0.75, 1.0}, "square.png": {0.5}}
    assert {v.crop for v in taken(stream(tmp_path), 10)} == {0.5}


def test_flip_doubles_the_samples_and_tells_which_captions_it_contradicts(tmp_path):
    for k, text in enumerate(("a man looks left", "a dog", "a sign that says stop")):
        picture(tmp_path / f"{k}.png", (k, 0, 0))
        (tmp_path / f"{k}.txt").write_text(text)
    seen = Counter((v.sample.path.name, v.mirrored) for v in taken(stream(tmp_path, flip=True), 6))
    assert len(seen) == 6
    found = find_samples([DataSet(folder=tmp_path)], {"t": Wanted()}, resolution=32, multiple=16, flip=True)
    assert any("1 captions say left or right, such as that of" in note and "0.png" in note for note in found.notes)
    assert any("1 captions speak of writing" in note and "2.png" in note for note in found.notes)
