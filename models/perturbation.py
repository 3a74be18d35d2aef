"""Prompts that are not quite those of the training data, so that a model that knows a caption by heart is not set off.

Both kinds are of Somepalli et al. 2023 (arXiv 2305.20086).
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

import torch
from diffusers.utils.torch_utils import randn_tensor
from jaxtyping import Float
from torch import Tensor

Generators = torch.Generator | list[torch.Generator] | None
"""One for all, or one for each prompt."""

_WHOLE: Final = re.compile(r"(?:▁([a-z]{3,})|([a-z]{3,})</w>)")
"""A token that is a whole word, as T5 (▁word) and CLIP (word</w>) write it."""


def noisy_prompt(
    embeds: Float[Tensor, "batch tokens dim"], noise: float, generator: Generators = None
) -> Float[Tensor, "batch tokens dim"]:
    """Adds Gaussian noise to the embeddings of prompts; padding, which is zeros, stays.

    Args:
        noise: its standard deviation, as a multiple of the root mean square of the prompt's own numbers; 0 changes
            and draws nothing.

    Raises:
        ValueError: it is negative.
    """
    if noise < 0:
        raise ValueError(f"prompt_noise must be 0 or more, got {noise}")
    if not noise:
        return embeds
    told = (embeds != 0).any(-1, keepdim=True)
    size = (embeds.float().square().sum((1, 2), keepdim=True) / (told.sum(1, keepdim=True) * embeds.shape[2])).sqrt()
    drawn = randn_tensor(embeds.shape, generator=generator, device=embeds.device, dtype=torch.float32)
    return embeds + (noise * size * drawn * told).to(embeds.dtype)


def add_random_words(prompts: Sequence[str], tokenizer: Any, count: int, generator: Generators = None) -> list[str]:
    """Inserts `count` words of the tokenizer's vocabulary at random places of each prompt (RWA).

    Args:
        tokenizer: of transformers, or open_clip's `SimpleTokenizer`.

    Raises:
        ValueError: the count is negative, or the vocabulary has no whole words.
    """
    if count < 0:
        raise ValueError(f"prompt_random_words must be 0 or more, got {count}")
    if not count:
        return list(prompts)
    known = _words(tokenizer.get_vocab() if hasattr(tokenizer, "get_vocab") else tokenizer.encoder)
    if not known:
        raise ValueError(
            f"prompt_random_words: the vocabulary of {type(tokenizer).__name__} has no whole words; use prompt_noise"
        )
    own = generator if isinstance(generator, list) else [generator] * len(prompts)
    return [_with_words(prompt, known, count, one) for prompt, one in zip(prompts, own, strict=True)]


def _words(tokens: Iterable[str]) -> list[str]:
    found = (_WHOLE.fullmatch(token) for token in tokens)
    return sorted({match[1] or match[2] for match in found if match})


def _with_words(prompt: str, known: Sequence[str], count: int, generator: torch.Generator | None) -> str:
    def draw(below: int) -> int:
        device = "cpu" if generator is None else generator.device
        return int(torch.randint(below, (), generator=generator, device=device))

    words = prompt.split()
    for _ in range(count):
        word = known[draw(len(known))]
        words.insert(draw(len(words) + 1), word)
    return " ".join(words)
