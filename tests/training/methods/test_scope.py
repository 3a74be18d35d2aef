"""What the words of a scope find."""

import pytest

from training.methods import Scope, find_scope

from . import toys


@pytest.fixture
def model():
    return toys.make("linear")


def test_without_words_it_is_everything(model):
    assert all(find_scope(model).holds(n) for n, _ in model.named_parameters())


def test_kinds_paths_and_exceptions(model):
    assert find_scope(model, ["attention"]).modules == ("blocks.0.attn", "blocks.1.attn")
    assert find_scope(model, ["feed-forward", "head"]).modules == ("blocks.0.ff", "blocks.1.ff", "head")
    assert find_scope(model, ["blocks.*", "!blocks.0"]).modules == ("blocks.1",)
    scope = find_scope(model, ["blocks.1", "!blocks.1.ff.2"])
    assert scope.holds("blocks.1.attn.to_q.weight") and scope.holds("blocks.1.ff.0.bias")
    assert not scope.holds("blocks.1.ff.2.bias") and not scope.holds("blocks.0.norm.weight")


def test_a_path_is_not_the_beginning_of_another_name():
    scope = Scope(("block.1",))
    assert scope.holds("block.1.weight") and not scope.holds("block.10.weight")


def test_a_word_that_finds_nothing_says_what_there_is(model):
    with pytest.raises(ValueError, match=r"'attnetion' finds nothing .*self-attention.*parts are embed, blocks, head"):
        find_scope(model, ["attnetion"])
