"""Methods of equal size."""

import pytest
import torch
from torch import nn


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 64), nn.Conv2d(16, 32, 3), nn.Linear(96, 64), nn.LayerNorm(64))


def sized_methods():
    from training.methods import METHODS

    return [name for name in METHODS if METHODS[name].sized_by is not None]


@pytest.mark.parametrize("method", sized_methods())
def test_a_share_is_met_as_nearly_as_the_method_can_and_the_model_stays_as_it_was(method, model):
    from training.methods import METHODS, Scope
    from training.methods.adapter import weights_hash
    from training.methods.sizing import at_share

    before, total = weights_hash(model), sum(p.numel() for p in model.parameters())
    config = METHODS[method]()
    sized = at_share(config, model, Scope(), 0.1)
    assert weights_hash(model) == before and all(p.requires_grad for p in model.parameters())
    if config.sized_by == "fraction":
        assert sized.fraction == pytest.approx(0.1)
        return
    rng = torch.Generator().manual_seed(0)
    wanted = abs(sized.attach(model, Scope(), rng).count - 0.1 * total)
    for other in (sized.rank // 2, sized.rank * 2):
        # none of the other sizes that fit is nearer
        again = nn.Sequential(nn.Linear(64, 64), nn.Conv2d(16, 32, 3), nn.Linear(96, 64), nn.LayerNorm(64))
        try:
            count = type(config)(rank=other).attach(again, Scope(), rng).count
        except ValueError:
            continue
        assert wanted <= abs(count - 0.1 * total)


def test_a_share_is_of_the_whole_network_whatever_the_scope(model):
    from training.methods import METHODS, Scope
    from training.methods.sizing import at_share

    total = sum(p.numel() for p in model.parameters())
    sized = at_share(METHODS["sara"](), model, Scope(("2",)), 0.05)
    within = sum(p.numel() for p in model[2].parameters())
    assert sized.fraction * within == pytest.approx(0.05 * total)


def test_a_threshold_or_budget_gives_way_to_the_share(model):
    from training.methods import METHODS, Scope
    from training.methods.sizing import at_share

    sized = at_share(METHODS["sara"](budget=7), model, Scope(), 0.05)
    assert (sized.fraction, sized.budget) == (0.05, None)


def test_a_method_without_a_size_says_so(model):
    from training.methods import METHODS, Scope
    from training.methods.sizing import at_share

    with pytest.raises(ValueError, match="has no size"):
        at_share(METHODS["bitfit"](), model, Scope(), 0.05)
