"""Tags to the texts that SAM 3 is asked: one concept a row, 32 tokens at most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rasa.errors import InputError

# Of the text encoder, with its first and last token (Sam3Processor of transformers; context_length of sam3).
MAX_TOKENS = 32


@dataclass(frozen=True, slots=True)
class Prompt:
    """A text to look for.

    Attributes:
        text: What the model is asked.
        tag: What its boxes are called.
    """

    text: str
    tag: str


def read_prompts(prompts: Mapping[str, str | Sequence[str]] | None) -> dict[str, tuple[str, ...]]:
    """Check a mapping of tags to what the model is asked in their place, one text or several.

    Raises:
        InputError: If a tag has no text, or a text is empty.
    """
    found = {}
    for tag, texts in (prompts or {}).items():
        given = (texts,) if isinstance(texts, str) else tuple(texts)
        if not given or not all(isinstance(text, str) and text.strip() for text in given):
            raise InputError(f"the prompts of tag {tag!r} must be one or more texts, got {texts!r}")
        found[tag] = given
    return found


def prompts_of(tags: Sequence[str], ontology: Mapping[str, tuple[str, ...]]) -> list[Prompt]:
    """The distinct texts to ask for ``tags``; equal ones are asked once and belong to the first tag."""
    asked: dict[str, str] = {}
    for tag in tags:
        for text in ontology.get(tag, (tag,)):
            asked.setdefault(text, tag)
    return [Prompt(text, tag) for text, tag in asked.items()]


def tokenize(tokenizer: Any, prompts: Sequence[Prompt]) -> tuple[Tensor, Tensor]:
    """Token ids and the mask of what is no padding, each int64 ``(N, 32)``.

    Raises:
        InputError: If a text has no token of its own, or more than 30; it names the tag.
    """
    encoded = [tokenizer(prompt.text, verbose=False)["input_ids"] for prompt in prompts]
    for prompt, tokens in zip(prompts, encoded, strict=True):
        if len(tokens) > MAX_TOKENS:
            raise InputError(
                f"tag {prompt.tag!r} has a prompt of {len(tokens)} tokens, and SAM 3 reads at most {MAX_TOKENS} with "
                "the first and the last; give it a shorter one with prompts={tag: text}"
            )
        if len(tokens) <= 2:
            raise InputError(f"tag {prompt.tag!r} has the prompt {prompt.text!r}, in which there is nothing to read")
    ids = torch.full((len(prompts), MAX_TOKENS), tokenizer.pad_token_id)
    kept = torch.zeros_like(ids)
    for row, tokens in enumerate(encoded):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        kept[row, : len(tokens)] = 1
    return ids, kept
