"""RamTagger: RAM, RAM++ and Tag2Text as a tagger, for their own vocabulary or any tags."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from rasa._torch.loading import torch_device
from rasa.arrays import FloatArray
from rasa.errors import ContractError, InputError
from rasa.types import Image, Tags
from rasa_ram._fingerprint import Provenance, provenance_of
from rasa_ram.checkpoint import load
from rasa_ram.config import RamConfig
from rasa_ram.modeling.label_embedding import LabelQueries
from rasa_ram.open_vocabulary import LabelGroup, fingerprint, label_groups
from rasa_ram.preprocess import preprocess
from rasa_ram.published import model_tags
from rasa_ram.vocabulary import Vocabulary

if TYPE_CHECKING:  # open_clip is needed for tags outside the vocabulary alone
    from rasa_ram.text_encoder import TextEncoder

# For a vocabulary without thresholds, as the published constructor has it (recognize-anything, ram.py).
THRESHOLD = 0.68
# For tags that the model was not trained on, as in the published open-set script.
OPEN_THRESHOLD = 0.5


class TaggingModel(Protocol):
    """What :class:`RamTagger` runs: a :class:`rasa_ram.modeling.ram.Ram`, or a runtime that answers like one."""

    training: bool

    @property
    def config(self) -> RamConfig:
        """Sizes of the model."""
        ...

    def parameters(self) -> Iterator[Any]:
        """Parameters; the first tells the device and the dtype."""
        ...

    def queries(self, vectors: Any = None, *, rows: Any = None, present: Any = None) -> LabelQueries:
        """See :meth:`rasa_ram.modeling.ram.Ram.queries`."""
        ...

    def encode_image(self, pixels: Tensor) -> Tensor:
        """See :meth:`rasa_ram.modeling.ram.Ram.encode_image`."""
        ...

    def decode(self, memory: Tensor, queries: LabelQueries, *, chunk: int | None = None) -> Tensor:
        """See :meth:`rasa_ram.modeling.ram.Ram.decode`."""
        ...


class RamTagger:
    """Names what images show; a :class:`rasa.protocols.Tagger`.

    A tag is given if its score is greater than its threshold. What depends on the tags alone is computed here,
    once; the model's weights must not change afterwards.

    Args:
        model: In evaluation mode, on its device and in its dtype.
        vocabulary: One tag per row of the model's label table, in its order.
        threshold: In [0, 1], for all tags; None uses the vocabulary's, or :data:`THRESHOLD` if it has none.
        top_k: Most tags of an image; None gives all above the threshold.
        allow: The only tags to look for; they are cut out before the decoder, so few of them cost little.
        deny: Tags not to look for.
        chunk: Tags decoded at once, which bounds the memory; None chooses by the number of images.
        batch_size: Images at once.
        provenance: Plain JSON values that :meth:`describe` adds, such as the checkpoint's name and sha256.
            Without a ``sha256`` it adds that of the model's weights.

    Raises:
        InputError: If the vocabulary does not fit the model, a number is out of range, or a name is unknown.
    """

    _queries: list[tuple[Tensor, LabelQueries]]  # positions of tags in the vocabulary, and what the decoder asks

    def __init__(  # noqa: PLR0913  (each is an independent choice, and all but two have defaults)
        self,
        model: TaggingModel,
        vocabulary: Vocabulary,
        *,
        threshold: float | None = None,
        top_k: int | None = None,
        allow: Iterable[str] | None = None,
        deny: Iterable[str] | None = None,
        chunk: int | None = None,
        batch_size: int = 8,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        _check_fit(model, vocabulary)
        _check_numbers(threshold, top_k=top_k, chunk=chunk, batch_size=batch_size)
        self._model = model
        self._own = vocabulary if threshold is None else vocabulary.with_thresholds(threshold)
        self._threshold, self._top_k, self._chunk, self._batch_size = threshold, top_k, chunk, batch_size
        self._provenance = Provenance(model, provenance)
        kept = self._own.take(_kept(vocabulary, allow, deny))
        self._ask(kept, [LabelGroup(np.arange(len(kept)), rows=kept.ids)])

    @property
    def vocabulary(self) -> Vocabulary:
        """The tags that are looked for; the ids of :class:`rasa.Tags` are this table's."""
        return self._vocabulary

    def tag(self, images: Sequence[Image]) -> list[Tags]:
        """One :class:`rasa.Tags` per image, best first; equal scores in the order of the vocabulary.

        Raises:
            ContractError: If the model gives no number for an image, as float16 may overflow.
        """
        return [self._tags(row) for scores in self._scores(images) for row in scores]

    def scores(self, images: Sequence[Image]) -> FloatArray:
        """The score of every tag, whatever its threshold.

        Returns:
            float32 ``(B, T)`` in [0, 1]; T is the length of :attr:`vocabulary`.

        Raises:
            ContractError: If the model gives no number for an image, as float16 may overflow.
        """
        return np.concatenate([np.zeros((0, len(self._vocabulary)), np.float32), *self._scores(images)])

    def with_tags(
        self,
        names: Iterable[str],
        *,
        descriptions: Mapping[str, Sequence[str]] | None = None,
        thresholds: float | Mapping[str, float] | ArrayLike | None = None,
        text_encoder: TextEncoder | None = None,
    ) -> RamTagger:
        """A tagger like this one that looks for ``names`` instead, whether or not the model was trained on them.

        A name of the model's vocabulary keeps its kind, and its label vectors unless it is described anew; any other
        is encoded. Vectors of the text encoder are kept in the cache folder, see :mod:`rasa_ram.label_cache`.

        Args:
            names: T distinct tags.
            descriptions: Some of the tags to what they look like, in any number of sentences (RAM++ alone).
            thresholds: One for all tags, T of them, or some by name. Without it a tag keeps its threshold, and
                new ones get the ``threshold`` of this tagger, else :data:`OPEN_THRESHOLD`.
            text_encoder: Encodes the names and descriptions; unless given, the one of the published models.

        Raises:
            InputError: If a name is malformed or repeats, a description belongs to no name, or the model cannot
                be asked for such tags.
            WeightsError: If the text encoder's weights cannot be had.
        """
        table = Vocabulary(tuple(_listed(names)))
        device = str(next(self._model.parameters()).device)
        groups = label_groups(
            self._model.config,
            self._own,
            table,
            descriptions=descriptions or {},
            load_encoder=lambda: _default_encoder(device) if text_encoder is None else text_encoder,
        )
        fallback = OPEN_THRESHOLD if self._threshold is None else self._threshold
        table = table.with_thresholds([self._threshold_of(name, fallback) for name in table.names])
        if self._own.kinds is not None:
            table = replace(table, kinds=tuple(self._kind_of(name) for name in table.names))
        other = copy(self)
        if thresholds is not None:
            table, other._threshold = table.with_thresholds(thresholds), None  # noqa: SLF001  (as below)
        other._ask(table, groups)  # noqa: SLF001  (a tagger that nobody else has seen)
        return other

    def to(self, device: str) -> RamTagger:
        """Move the model, which :meth:`with_tags` shares, and what was computed of the tags to ``device``, in place.

        Raises:
            InputError: If torch knows no such device, or the model cannot be moved, as that of a CPU runtime.
        """
        where, move = torch_device(device), getattr(self._model, "to", None)
        if move is None:
            raise InputError(f"{type(self._model).__name__} cannot be moved to {device}; load the model with PyTorch")
        move(where)
        self._queries = [(positions.to(where), queries.to(where)) for positions, queries in self._queries]
        return self

    def describe(self) -> Mapping[str, Any]:
        """Family, weights, vocabulary, thresholds and dtype, and the provenance that was given."""
        weight = next(self._model.parameters())
        return {
            "model": self._model.config.family,
            **self._provenance.facts,
            "tags": len(self._vocabulary),
            "vocabulary": self._vocabulary.fingerprint,
            "labels": self._labels,
            "threshold": "by tag" if self._threshold is None else self._threshold,
            "top_k": self._top_k,
            "dtype": str(weight.dtype).removeprefix("torch."),
        }

    def _ask(self, vocabulary: Vocabulary, groups: Sequence[LabelGroup]) -> None:
        self._vocabulary = vocabulary
        self._thresholds = np.full(len(vocabulary), THRESHOLD, np.float32)
        if vocabulary.thresholds is not None:
            self._thresholds = vocabulary.thresholds
        self._labels = fingerprint(groups)
        with torch.inference_mode():
            self._queries = [_prepared(self._model, group) for group in groups]

    def _threshold_of(self, name: str, fallback: float) -> float:
        if name not in self._own:
            return fallback
        position = self._own.positions([name])[0]
        return THRESHOLD if self._own.thresholds is None else float(self._own.thresholds[position])

    def _kind_of(self, name: str) -> str | None:
        if name not in self._own or self._own.kinds is None:
            return None
        return self._own.kinds[self._own.positions([name])[0]]

    def _scores(self, images: Sequence[Image]) -> Iterator[FloatArray]:
        for start in range(0, len(images), self._batch_size):
            batch = images[start : start + self._batch_size]
            scores = self._score(batch)
            for image, row in zip(batch, scores, strict=True):
                if not np.isfinite(row).all():
                    cure = "use bfloat16 or float32 if it runs in float16, else check its weights"
                    raise ContractError(f"the model gave a score that is no number on {image.name!r}; {cure}")
            yield scores

    def _score(self, images: Sequence[Image]) -> FloatArray:
        weight = next(self._model.parameters())
        size = self._model.config.vision.image_size
        pixels = torch.from_numpy(preprocess(images, size)).to(weight.device, weight.dtype)
        with torch.inference_mode():
            memory = self._model.encode_image(pixels)
            logits = self._decode(memory)
            scores: FloatArray = logits.sigmoid().cpu().numpy()
        return scores

    def _decode(self, memory: Tensor) -> Tensor:
        logits = torch.empty(len(memory), len(self._vocabulary), device=memory.device)
        for positions, queries in self._queries:
            # Back to float32 before the sigmoid: bfloat16 has no number between 0.996 and 1.
            asked = queries.to(memory.device)  # another tagger may have moved the model that they share
            logits[:, positions.to(memory.device)] = self._model.decode(memory, asked, chunk=self._chunk).float()
        return logits

    def _tags(self, scores: FloatArray) -> Tags:
        above = np.flatnonzero(scores > self._thresholds)
        best = above[np.argsort(-scores[above], kind="stable")]
        if self._vocabulary.allow_repeats:
            # Two meanings of a word are one tag of an image: the better score stands.
            first: dict[str, int] = {}
            for i in best:
                first.setdefault(self._vocabulary.names[i], i)
            best = np.array([*first.values()], np.int64)
        best = best[: self._top_k]
        table = self._vocabulary
        kinds = None if table.kinds is None else tuple(table.kinds[i] or "" for i in best)
        return Tags(tuple(table.names[i] for i in best), scores[best], table.ids[best], kinds)


def _prepared(model: TaggingModel, group: LabelGroup) -> tuple[Tensor, LabelQueries]:
    weight = next(model.parameters())
    positions = torch.as_tensor(group.positions, device=weight.device)
    if group.vectors is not None:
        vectors = torch.as_tensor(group.vectors).to(weight.device, weight.dtype)
        present = None if group.present is None else torch.as_tensor(group.present, device=weight.device)
        return positions, model.queries(vectors, present=present)
    if group.rows is None or np.array_equal(group.rows, np.arange(model.config.num_tags)):
        return positions, model.queries()  # without a copy of the label table
    return positions, model.queries(rows=torch.tensor(group.rows, device=weight.device))


def _kept(vocabulary: Vocabulary, allow: Iterable[str] | None, deny: Iterable[str] | None) -> list[int]:
    allowed = range(len(vocabulary)) if allow is None else sorted(vocabulary.positions(allow))
    denied = set() if deny is None else set(vocabulary.positions(deny))
    kept = [position for position in allowed if position not in denied]
    if not kept:
        raise InputError("allow and deny leave no tag to look for; allow at least one that is not denied")
    return kept


def _listed(names: Iterable[str]) -> Iterable[str]:
    if isinstance(names, str):
        raise InputError(f"names must be a sequence of tags, got the single string {names!r}; pass [{names!r}]")
    return names


def _default_encoder(device: str) -> TextEncoder:
    # open_clip takes seconds to import, and most users never need it.
    from rasa_ram.text_encoder import load_text_encoder  # noqa: PLC0415

    return load_text_encoder(device=device)


def _check_fit(model: TaggingModel, vocabulary: Vocabulary) -> None:
    if model.training:
        raise InputError("the model is in training mode, in which its answers are random; call model.eval() first")
    rows = model.config.num_tags
    cure = "pass the whole vocabulary, and allow= for a part of it"
    if len(vocabulary) != rows:
        raise InputError(f"the vocabulary has {len(vocabulary)} tags, the model {rows}; {cure}")
    if not np.array_equal(vocabulary.ids, np.arange(rows)):
        raise InputError(f"the ids must count the model's rows from 0 to {rows - 1}, in order; {cure}")


def _check_numbers(threshold: float | None, **counts: int | None) -> None:
    if threshold is not None and not 0 <= threshold <= 1:
        raise InputError(f"threshold must be in [0, 1], got {threshold}")
    for name, value in counts.items():
        if value is not None and value < 1:
            raise InputError(f"{name} must be at least 1, got {value}")


def load_tagger(
    source: str | os.PathLike[str],
    vocabulary: Vocabulary | None = None,
    *,
    device: str = "cpu",
    dtype: str = "float32",
    compile: bool = False,  # noqa: A002  (torch's own word for it)
    **options: Any,
) -> RamTagger:
    """A tagger from a published model's name, or from a file or folder of weights.

    Args:
        source: See :func:`rasa_ram.load`.
        vocabulary: One tag per row of the model; None takes the published one, or ``vocabulary.json`` of a folder.
        device: As torch names it.
        dtype: ``"float32"``, ``"bfloat16"``, ``"float16"`` or ``"float64"``.
        compile: Whether torch.compile makes kernels of the model at the first call, which takes minutes for
            Swin-L; on the CPU it gained 5 % or nothing (see :mod:`rasa_ram.runtime` for what does).
        options: Keywords of :class:`RamTagger`. Tag2Text's ``deny`` is as its authors have it unless given.

    Raises:
        InputError: If an option or the vocabulary is wrong.
        UnknownModelError: If ``source`` is neither a published model nor a file or folder.
        WeightsError: If weights or lists cannot be had or are refused.
    """
    provenance, tags = provenance_of(source), model_tags(source, vocabulary)
    model = load(source, device=device, dtype=dtype)
    if compile:
        model.visual_encoder.compile()
        model.tag_decoder.compile()
    return RamTagger(model, tags.vocabulary, **{"provenance": provenance, "deny": tags.denied, **options})


def build_tagger(
    name: str,
    *,
    device: str = "cpu",
    dtype: str = "float32",
    compile: bool = False,  # noqa: A002  (torch's own word for it)
    tag_threshold: float | None = None,
) -> RamTagger:
    """The tagger of a published model, fetched if need be.

    Args:
        name: Such as ``"ram-swin-l.14m"``.
        device: As torch names it.
        dtype: Name of a torch floating-point type.
        compile: See :func:`load_tagger`.
        tag_threshold: In [0, 1], for all tags; None uses each tag's own.

    Raises:
        UnknownModelError: If no published model has this name.
        WeightsError: If its weights or lists cannot be had.
        InputError: If an argument is out of range.
    """
    _check_numbers(tag_threshold)
    return load_tagger(name, device=device, dtype=dtype, compile=compile, threshold=tag_threshold)


# What :mod:`rasa.registry` names: `build_tagger` of one model each, with its keywords.
build_ram_tagger = partial(build_tagger, "ram-swin-l.14m")
build_ram_plus_tagger = partial(build_tagger, "ram-plus-swin-l.14m")
build_tag2text_tagger = partial(build_tagger, "tag2text-swin-b.14m")
