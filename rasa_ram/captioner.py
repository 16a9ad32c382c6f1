"""RamCaptioner: captions of images, steered by tags from the model or from the user."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rasa._suggest import did_you_mean
from rasa.errors import ContractError, InputError, RasaWarning
from rasa.types import Image
from rasa_ram._fingerprint import Provenance, provenance_of
from rasa_ram.checkpoint import load
from rasa_ram.config import TextConfig
from rasa_ram.modeling.beam_search import Generated, SearchOptions, search
from rasa_ram.modeling.ram import Ram
from rasa_ram.preprocess import preprocess
from rasa_ram.published import model_tags
from rasa_ram.tagger import THRESHOLD
from rasa_ram.tokenizer import MAX_TOKENS, CaptionTokenizer
from rasa_ram.vocabulary import Vocabulary

__all__ = ["Caption", "RamCaptioner", "SearchOptions", "load_captioner"]


@dataclass(frozen=True, slots=True)
class Caption:
    """A sentence about an image.

    Attributes:
        text: Lower case, without the prompt it was started with; may be empty.
        score: Mean log-probability of its tokens in nats, at most 0; with beams, that after the repetition penalty.
        tags: The tags that steered it, as the tag encoder got them; it reads the first ``MAX_TOKENS`` tokens.
    """

    text: str
    score: float
    tags: tuple[str, ...]


class RamCaptioner:
    """Writes captions with Tag2Text, or with RAM's captioner.

    RAM's authors publish a captioner with their weights but no way to run it and no tuning of it; captions for use
    come from Tag2Text. A :class:`rasa.RasaWarning` says so when a captioner is made of a RAM.

    Args:
        model: With a captioner, in evaluation mode, on its device and in its dtype.
        vocabulary: One tag per row of the model's label table, in its order, for tags from the model: those whose
            score is greater than their threshold, 0.68 where the vocabulary has none.
        tokenizer: For the WordPiece vocabulary that the model was trained with.
        deny: Tags that the model must not steer by, such as those that Tag2Text's authors delete.
        batch_size: Images at once.
        options: How to search, where a call does not say otherwise.
        provenance: Plain JSON values that :meth:`describe` adds, such as the checkpoint's name and sha256.
            Without a ``sha256`` it adds that of the model's weights.

    Raises:
        InputError: If the model has no captioner, the vocabulary or the tokenizer does not fit it, or a
            denied tag is unknown.
    """

    def __init__(  # noqa: PLR0913  (each is an independent choice, and all but three have defaults)
        self,
        model: Ram,
        vocabulary: Vocabulary,
        *,
        tokenizer: CaptionTokenizer,
        deny: Iterable[str] = (),
        batch_size: int = 4,
        options: SearchOptions | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        self._positions = _check_parts(model, vocabulary, tokenizer).max_positions
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1 image, got {batch_size}")
        self._model, self._names, self._tokenizer = model, vocabulary.names, tokenizer
        self._batch_size, self._options = batch_size, options or SearchOptions()
        self._thresholds = np.full(len(vocabulary), THRESHOLD, np.float32)
        if vocabulary.thresholds is not None:
            self._thresholds = vocabulary.thresholds.copy()
        # No score is greater than 1.
        denied = vocabulary.positions(deny)
        self._thresholds[denied] = 1
        self._steering = {"vocabulary": vocabulary.fingerprint, "denied": sorted(denied)}
        self._provenance = Provenance(model, provenance)
        with torch.inference_mode():
            self._queries = model.queries()
        if model.config.family == "ram":
            warnings.warn(
                "RAM's own captioner was not tuned by its authors; use Tag2Text weights for captions",
                RasaWarning,
                stacklevel=2,
            )

    def caption(
        self, images: Sequence[Image], tags: Sequence[Sequence[str]] | None = None, **options: Any
    ) -> list[Caption]:
        """One caption per image; the batch makes no difference.

        Args:
            images: B images.
            tags: B lists of tags to steer by; an empty list steers by nothing. None lets the model find them.
                Only the first ``MAX_TOKENS`` tokens are read, as published; a :class:`rasa.RasaWarning` says
                so when tags given here are too many.
            **options: Fields of :class:`SearchOptions` to change for this call, such as ``beams=5``.

        Raises:
            InputError: If the lists and the images differ in number, a tag is no or an empty string, or an option
                is unknown or out of range.
            ContractError: If the model gives no number for an image, as float16 may overflow.
        """
        chosen = self._with(options)
        given = None if tags is None else _checked_tags(tags, len(images))
        captions: list[Caption] = []
        for start in range(0, len(images), self._batch_size):
            part = slice(start, start + self._batch_size)
            captions += self._caption(images[part], None if given is None else given[part], chosen)
        return captions

    def describe(self) -> Mapping[str, Any]:
        """Family, weights, vocabulary, search options and dtype, and the provenance that was given."""
        return {
            "model": f"{self._model.config.family}-captioner",
            **self._provenance.facts,
            **self._steering,
            "options": asdict(self._options),
            "dtype": str(next(self._model.parameters()).dtype).removeprefix("torch."),
        }

    def _with(self, changes: dict[str, Any]) -> SearchOptions:
        known = [field.name for field in fields(SearchOptions)]
        if unknown := [name for name in changes if name not in known]:
            guess = did_you_mean(unknown[0], known)
            raise InputError(f"unknown option {unknown[0]!r}{guess} (there are {', '.join(known)})")
        options = replace(self._options, **changes)
        if options.max_length > self._positions:
            raise InputError(f"max_length must be at most the model's {self._positions}, got {options.max_length}")
        return options

    def _caption(
        self, images: Sequence[Image], tags: list[tuple[str, ...]] | None, options: SearchOptions
    ) -> list[Caption]:
        with torch.inference_mode():
            memory = self._encode(images)
            used = self._find_tags(memory) if tags is None else tags
            tokens = self._tokenizer.encode_tags(used)
            ids, mask = (torch.from_numpy(array).to(memory.device) for array in (tokens.ids, tokens.mask))
            tag_states = self._model.captioner.encode_tags(ids, mask, memory)
            _check_numbers(tag_states, images)
            found = self._search(tag_states, options)
        if tags is not None and tokens.cut.any():
            first = int(tokens.cut.argmax())
            warnings.warn(
                f"the tag encoder reads {MAX_TOKENS} tokens and the {len(tags[first])} tags of "
                f"{images[first].name!r} are longer; the last ones are not read",
                RasaWarning,
                stacklevel=3,
            )
        return [
            Caption(self._tokenizer.decode(sequence.ids), sequence.score, names)
            for sequence, names in zip(found, used, strict=True)
        ]

    def _encode(self, images: Sequence[Image]) -> Tensor:
        weight = next(self._model.parameters())
        pixels = torch.from_numpy(preprocess(images, self._model.config.vision.image_size))
        memory: Tensor = self._model.encode_image(pixels.to(weight.device, weight.dtype))
        return memory

    def _find_tags(self, memory: Tensor) -> list[tuple[str, ...]]:
        scores = self._model.decode(memory, self._queries).float().sigmoid().cpu().numpy()
        # In the order of the vocabulary, not of the scores: the captioner was trained so.
        return [tuple(self._names[i] for i in np.flatnonzero(row > self._thresholds)) for row in scores]

    def _search(self, tag_states: Tensor, options: SearchOptions) -> list[Generated]:
        captioner, cache = self._model.captioner, self._model.captioner.new_cache()
        states = tag_states.repeat_interleave(options.beams, dim=0)

        def step(tokens: Tensor, rows: Tensor) -> Tensor:
            if cache.get_seq_length() and options.beams > 1:
                # The cross-attention's cache stays: all beams of an image see the same tag states.
                cache.self_attention_cache.reorder_cache(rows.to(states.device))
            logits: Tensor = captioner.step(tokens.to(states.device), states, cache)
            return logits

        start, end = self._tokenizer.prompt_ids, self._tokenizer.sep_id
        return search(step, start, len(tag_states), end_id=end, options=options)


def load_captioner(
    source: str | os.PathLike[str],
    vocabulary: Vocabulary | None = None,
    *,
    device: str = "cpu",
    dtype: str = "float32",
    **options: Any,
) -> RamCaptioner:
    """A captioner from a published model's name, or from a file or folder of weights.

    Args:
        source: See :func:`rasa_ram.load`.
        vocabulary: One tag per row of the model; None takes the published one, or ``vocabulary.json`` of a folder.
        device: As torch names it.
        dtype: ``"float32"``, ``"bfloat16"``, ``"float16"`` or ``"float64"``.
        options: Keywords of :class:`RamCaptioner`; the published tokenizer and denied tags unless given.

    Raises:
        InputError: If an option or the vocabulary is wrong.
        UnknownModelError: If ``source`` is neither a published model nor a file or folder.
        WeightsError: If weights or lists cannot be had or are refused, or the weights hold no captioner.
    """
    tags = model_tags(source, vocabulary)
    tokenizer = options.pop("tokenizer", None) or CaptionTokenizer.published()
    model = load(source, device=device, dtype=dtype, text=True)
    given = {"provenance": provenance_of(source), "deny": tags.denied, **options}
    return RamCaptioner(model, tags.vocabulary, tokenizer=tokenizer, **given)


def _check_parts(model: Ram, vocabulary: Vocabulary, tokenizer: CaptionTokenizer) -> TextConfig:
    config = model.config
    if config.text is None:
        raise InputError(f"this {config.family} has no captioner; load Tag2Text, with its captioner")
    if len(vocabulary) != config.num_tags:
        raise InputError(f"the vocabulary must have the model's {config.num_tags} tags, got {len(vocabulary)}")
    if len(tokenizer) != config.text.vocab_size:
        raise InputError(
            f"the tokenizer must have the model's {config.text.vocab_size} ids, got {len(tokenizer)}; "
            "published weights need the vocabulary of bert-base-uncased"
        )
    return config.text


def _checked_tags(tags: Sequence[Sequence[str]], images: int) -> list[tuple[str, ...]]:
    if isinstance(tags, str) or any(isinstance(names, str) for names in tags):
        raise InputError(
            'tags must be one list of strings per image, got a string; for one image pass [["dog", "hat"]]'
        )
    if len(tags) != images:
        raise InputError(f"tags must be one list per image, {images}, got {len(tags)}")
    for name in (name for names in tags for name in names):
        if not isinstance(name, str) or not name.strip():
            raise InputError(f"tags must be non-empty strings, got {name!r}; an empty list steers by nothing")
    return [tuple(names) for names in tags]


def _check_numbers(tag_states: Tensor, images: Sequence[Image]) -> None:
    for image, states in zip(images, tag_states, strict=True):
        if not torch.isfinite(states).all():
            cure = "use bfloat16 or float32" if states.dtype == torch.float16 else "check its weights"
            raise ContractError(f"the model gave no number for the tags of {image.name!r}; {cure}")
