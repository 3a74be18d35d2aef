"""What the measures say of real chest X-rays, and of what is done to them."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

XRAYS = Path(__file__).parents[2].parent / "shared" / "data" / "chest_xray"


@pytest.fixture(scope="module")
def spaces():
    """Features of 80 X-rays, of 80 others of the same kind, of the first 80 blurred, and of four of them repeated."""
    from pose.media import read_image
    from studio.weights import mini_folder
    from training.metrics.features import open_features

    if not XRAYS.is_dir():
        pytest.skip("needs ../shared/data/chest_xray (not part of the repository)")
    pictures = torch.stack([read_image(XRAYS / f"no_finding_{k:04d}.png") for k in range(1, 161)])
    first, second = (pictures.permute(0, 3, 1, 2).float() / 255).split(80)
    small = F.interpolate(first, size=16, mode="bicubic", antialias=True)
    blurred = F.interpolate(small, size=128, mode="bicubic").clamp(0, 1)
    found = {}
    for name in ("pixels", "mini-clip"):
        space = open_features(name, mini_folder())
        seen = space(first)
        found[name] = {
            "real": space(second), "same": seen, "blurred": space(blurred), "repeated": seen[:4].repeat(20, 1)
        }  # fmt: skip
    return found


@pytest.mark.parametrize("space", ["pixels", "mini-clip"])
def test_pictures_of_one_kind_are_at_no_distance_and_cover_each_other(spaces, space):
    from training.metrics.coverage import expected_coverage, support
    from training.metrics.quality import kernel_estimate

    found = spaces[space]
    distance = kernel_estimate(found["same"], found["real"])
    assert abs(distance.value) < 3 * distance.error
    assert support(found["same"], found["real"]).coverage == pytest.approx(expected_coverage(80, 80), abs=0.12)


@pytest.mark.parametrize("space", ["pixels", "mini-clip"])
def test_four_pictures_repeated_look_real_and_stand_for_few(spaces, space):
    from training.metrics.coverage import support, vendi_score

    found = spaces[space]
    collapsed, whole = (support(found[name], found["real"]) for name in ("repeated", "same"))
    assert collapsed.precision >= 0.75
    assert collapsed.recall == 0 and collapsed.coverage < 0.25 < 0.7 < min(whole.recall, whole.coverage)
    assert vendi_score(found["repeated"]) < 4.001 < vendi_score(found["same"])


def test_blur_is_far_for_a_network_and_near_for_small_pictures(spaces):
    from training.metrics.quality import kernel_estimate

    clip, pixels = (kernel_estimate(spaces[name]["blurred"], spaces[name]["real"]) for name in ("mini-clip", "pixels"))
    assert clip.value > 4 * clip.error
    assert abs(pixels.value) < 3 * pixels.error
