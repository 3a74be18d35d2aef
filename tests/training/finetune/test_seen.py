"""Features of the pictures of a run, and where they are kept."""

import pytest
import torch
from PIL import Image


@pytest.fixture
def samples(tmp_path):
    from training.finetune.cache import Cache
    from training.finetune.config import DataSet
    from training.finetune.data import Wanted, find_samples

    for k in range(5):
        size = (64, 32) if k == 2 else (32, 32)
        Image.new("RGB", size, (40 * k, 10, 200)).save(tmp_path / f"{k}.png")
    found = find_samples(
        (DataSet(folder=tmp_path, caption="a thing"),), {"text-to-image": Wanted(frames=1, factor=0)}, resolution=32,
        multiple=16, cache=Cache(tmp_path / "cache"),
    )  # fmt: skip
    assert len({sample.size for sample in found.samples}) == 2
    return found.samples


def counting(version="1"):
    """The space `pixels`, that counts what it looks at."""
    from training.metrics.features import Pixels

    class Counting(Pixels):
        batches: list[int]

        def _features(self, pictures):
            self.batches.append(len(pictures))
            return super()._features(pictures)

    space = Counting(torch.device("cpu"))
    space.batches, space.version = [], version
    return space


def test_features_are_those_of_each_picture_whatever_its_shape(samples, tmp_path):
    from training.finetune.cache import Cache
    from training.finetune.seen import middle_picture, sample_features

    space = counting()
    found = sample_features(samples, space, Cache(tmp_path / "features"))
    assert sorted(space.batches) == [1, 4]  # those of one shape go together
    assert torch.allclose(found, torch.cat([space(middle_picture(sample)) for sample in samples]), atol=1e-6)


def test_pictures_are_looked_at_once_until_the_space_or_their_content_changes(samples, tmp_path):
    from training.finetune.cache import Cache
    from training.finetune.seen import sample_features

    cache = Cache(tmp_path / "features")
    first, again, other = counting(), counting(), counting("2")
    found = sample_features(samples[:3], first, cache)
    assert torch.equal(sample_features(samples, again, Cache(tmp_path / "features"))[:3], found)
    assert (sum(first.batches), sum(again.batches)) == (3, 2)
    sample_features(samples, other, cache)
    assert sum(other.batches) == 5


def test_the_same_picture_twice_is_looked_at_once(samples, tmp_path):
    from training.finetune.cache import Cache
    from training.finetune.seen import sample_features

    space = counting()
    found = sample_features([samples[0], samples[0]], space, Cache(tmp_path / "features"))
    assert space.batches == [1] and torch.equal(found[0], found[1])


def test_a_damaged_file_of_the_cache_is_made_again(samples, tmp_path):
    from training.finetune.cache import Cache
    from training.finetune.seen import sample_features

    found = sample_features(samples, counting(), Cache(tmp_path / "features"))
    for file in (tmp_path / "features").rglob("*.safetensors"):
        file.write_bytes(b"damaged")
    space = counting()
    assert torch.equal(sample_features(samples, space, Cache(tmp_path / "features")), found)
    assert sum(space.batches) == 5


def test_a_choice_is_spread_over_the_whole_list():
    from training.finetune.seen import evenly

    assert evenly(range(10), 5) == [0, 2, 4, 6, 8]
    assert evenly(range(3), 3) == [0, 1, 2]
    # what comes twice is spread as well
    assert evenly(range(4), 6) == [0, 0, 1, 2, 2, 3]
    assert evenly(range(4), 0) == []
