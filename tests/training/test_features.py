"""Feature spaces, and distances in them."""

import math

import pytest
import torch


@pytest.fixture(scope="module", params=["mini-clip", "efficientnet-lite0", "pixels"])
def features(request):
    from studio.weights import mini_folder
    from training.metrics.features import EfficientNetLite, open_features

    if request.param == EfficientNetLite.form and not EfficientNetLite.installed():
        pytest.skip("the extra `features` is not installed")
    return open_features(request.param, mini_folder())


def test_features_are_of_unit_length_and_do_not_depend_on_the_batch(features):
    pictures = torch.rand(3, 3, 40, 56, generator=torch.Generator().manual_seed(0))
    together, alone = features(pictures), features(pictures[1:2])
    assert torch.allclose(together.norm(dim=1), torch.ones(3), atol=1e-5)
    assert torch.allclose(together[1:2], alone, atol=1e-4)


def test_alike_pictures_are_nearer_than_unlike_ones(features):
    generator = torch.Generator().manual_seed(0)
    ramp = torch.linspace(0, 1, 64).expand(3, 64, 64)
    noisy = (ramp + 0.02 * torch.randn(ramp.shape, generator=generator)).clamp(0, 1)
    checks = ((torch.arange(64)[:, None] // 8 + torch.arange(64) // 8) % 2).float().expand(3, 64, 64)
    one, same, other = features(torch.stack([ramp, noisy, checks]))
    assert one @ same > one @ other


def test_an_unknown_space_lists_the_known_ones(tmp_path):
    from training.metrics.features import open_features

    with pytest.raises(ValueError, match="known are efficientnet-lite0, mini-clip, open_clip, pixels, sscd"):
        open_features("inception", tmp_path)


def test_a_missing_package_is_named_with_the_remedy(tmp_path, monkeypatch):
    from training.metrics import features as module

    monkeypatch.setattr(module.EfficientNetLite, "installed", classmethod(lambda cls: False))
    assert module.default_features() == "mini-clip"
    with pytest.raises(ValueError, match=r"pip install 'animatex-studio\[features\]'"):
        module.open_features("efficientnet-lite0", tmp_path)


def test_the_kernel_distance_of_two_pairs_by_hand():
    from training.metrics.quality import kernel_distance

    x, y = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[-1.0, 0.0], [0.0, -2.0]])
    # within: k(e1, e2) = 1 on either side; across: e1.-e1 and e2.-e2 give 0, the other two 1
    assert kernel_distance(x, y) == pytest.approx(1 + 1 - 2 * (0 + 1 + 1 + 0) / 4)


def test_the_kernel_distance_of_samples_of_one_kind_is_0_on_average():
    from training.metrics.quality import kernel_distance

    generator = torch.Generator().manual_seed(0)
    found = [
        kernel_distance(torch.randn(8, 5, generator=generator), torch.randn(20, 5, generator=generator))
        for _ in range(300)
    ]
    spread = torch.tensor(found).std() / math.sqrt(len(found))
    assert abs(sum(found) / len(found)) < 4 * spread
    far = torch.randn(8, 5, generator=generator) + torch.tensor([3.0, 0, 0, 0, 0])
    assert kernel_distance(far, torch.randn(20, 5, generator=generator)) > 1


def test_one_sample_is_too_few():
    from training.metrics.quality import kernel_distance

    with pytest.raises(ValueError, match="needs two samples a side"):
        kernel_distance(torch.ones(1, 3), torch.ones(5, 3))
