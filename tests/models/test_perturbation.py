"""Prompts that are changed a little: by noise on their embeddings, and by random words."""

import pytest
import torch

from models.perturbation import add_random_words, noisy_prompt


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_noise_has_the_size_that_is_asked_for_and_leaves_padding_alone():
    embeds = torch.zeros(2, 400, 64)
    embeds[0, :300], embeds[1, :100] = 3.0, 0.5
    added = noisy_prompt(embeds, 0.1, generator()) - embeds
    assert added[0, :300].std() == pytest.approx(0.3, rel=0.02)
    assert added[1, :100].std() == pytest.approx(0.05, rel=0.02)
    assert not added[0, 300:].any() and not added[1, 100:].any()


def test_no_noise_draws_nothing():
    drawing = generator()
    before = drawing.get_state()
    embeds = torch.ones(1, 4, 8)
    assert noisy_prompt(embeds, 0.0, drawing) is embeds and torch.equal(drawing.get_state(), before)
    assert add_random_words(["a  b"], None, 0, drawing) == ["a  b"] and torch.equal(drawing.get_state(), before)


def test_each_prompt_has_its_own_generator():
    embeds = torch.ones(2, 4, 8)
    both = noisy_prompt(embeds, 0.5, [generator(1), generator(2)])
    assert torch.equal(both[1:], noisy_prompt(embeds[1:], 0.5, [generator(2)]))


@pytest.mark.parametrize("count", [1, 4])
def test_words_of_the_vocabulary_are_put_between_those_of_the_prompt(count):
    from models.clip import clip_tokenizer

    prompt = "a red cat on a mat"
    (made,) = add_random_words([prompt], clip_tokenizer(), count, generator(5))
    words = made.split()
    assert len(words) == 6 + count and made == add_random_words([prompt], clip_tokenizer(), count, generator(5))[0]
    rest = iter(words)
    assert all(word in rest for word in prompt.split())  # in their order
    places = {add_random_words([prompt], clip_tokenizer(), 1, generator(k))[0] for k in range(12)}
    assert len(places) == 12
    assert all(f"{word}</w>" in clip_tokenizer().encoder for word in words)


def test_tokenizers_of_transformers_serve_as_well():
    class T5:
        def get_vocab(self):
            return {"▁house": 1, "▁a": 2, "ing": 3, "▁Mäuse": 4}

    assert sorted(add_random_words(["x"], T5(), 1, generator())[0].split()) == ["house", "x"]


def test_values_that_make_no_sense_are_refused():
    class Letters:
        encoder = {"a</w>": 0, "b": 1}  # noqa: RUF012

    with pytest.raises(ValueError, match="prompt_noise must be 0 or more, got -1"):
        noisy_prompt(torch.ones(1, 2, 3), -1)
    with pytest.raises(ValueError, match="prompt_random_words must be 0 or more, got -1"):
        add_random_words(["a"], Letters(), -1)
    with pytest.raises(ValueError, match="Letters has no whole words; use prompt_noise"):
        add_random_words(["a"], Letters(), 1)


@pytest.fixture
def draw(tiny):
    reference = torch.randint(0, 256, (32, 32, 3), generator=generator(1), dtype=torch.uint8)

    def call(seed=0, **changes):
        request = {"prompt": "a red jelly dances", "num_inference_steps": 2, "output_type": "latent"}
        return tiny(reference=reference, generator=generator(seed), **{**request, **changes}).frames

    return call


@pytest.mark.parametrize("option", [{"prompt_noise": 0.3}, {"prompt_random_words": 3}], ids=lambda o: next(iter(o)))
def test_the_animator_takes_both_and_they_follow_from_the_seed(option, draw):
    plain, changed = draw(), draw(**option)
    assert torch.equal(plain, draw(**dict.fromkeys(option, 0)))
    assert torch.equal(changed, draw(**option)) and not torch.equal(changed, plain)
    assert not torch.equal(changed, draw(seed=1, **option))


def test_the_noise_changes_the_prompt_and_not_the_first_latents(draw, tiny, monkeypatch):
    seen = []
    forward = tiny.transformer.forward
    monkeypatch.setattr(tiny.transformer, "forward", lambda **told: seen.append(told) or forward(**told))
    draw(num_inference_steps=1)
    draw(num_inference_steps=1, prompt_noise=0.3)
    (positive, negative), (noisy, same) = seen[:2], seen[2:]
    assert torch.equal(positive["hidden_states"], noisy["hidden_states"])
    assert not torch.equal(positive["encoder_hidden_states"], noisy["encoder_hidden_states"])
    assert torch.equal(negative["encoder_hidden_states"], same["encoder_hidden_states"])


def test_words_need_a_prompt_as_text(draw, tiny):
    embeds, _ = tiny.encode_prompt("a", "", 1)
    with pytest.raises(ValueError, match="prompt_random_words needs the prompt as text"):
        draw(prompt=None, prompt_embeds=embeds, prompt_random_words=1)
