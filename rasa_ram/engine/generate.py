"""The data engine's first half: a trained tagger and a captioner add what the captions of an image do not say.

Source:
    Zhang et al., "Recognize Anything", arXiv:2306.03514, section 3: generation took the tags of 4M images from
    12.0M to 41.7M. No thresholds are stated; those used here are kept in the journal beside the result.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from rasa.errors import ContractError, InputError
from rasa.protocols import Tagger
from rasa.types import Failure, Image, Tags
from rasa_ram.data.captions import clean_caption
from rasa_ram.data.records import Record
from rasa_ram.engine.journal import shards_of
from rasa_ram.engine.provenance import CAPTIONED, GENERATED, GIVEN, PARSED, TagNote, identity
from rasa_ram.engine.reading import Batch, read_batches
from rasa_ram.engine.region_models import Scorer, own_thresholds
from rasa_ram.images import ImageReader


class HasText(Protocol):
    """What is asked of a caption."""

    @property
    def text(self) -> str:
        """The sentence."""
        ...


class Captioner(Protocol):
    """Writes captions, as :class:`rasa_ram.captioner.RamCaptioner` does."""

    def caption(self, images: Sequence[Image]) -> Sequence[HasText]:
        """One caption per image."""
        ...


class HasIds(Protocol):
    """What is asked of a parsed caption."""

    @property
    def ids(self) -> Sequence[int]:
        """Ids of its tags, in the vocabulary of the records."""
        ...


class Parser(Protocol):
    """Reads tags out of captions, as :class:`rasa_ram.engine.parse.CaptionParser` does."""

    def parse(self, captions: Iterable[str]) -> Iterable[HasIds]:
        """One answer per caption, in order."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateSettings:
    """How tags are generated.

    Attributes:
        names: The vocabulary of the records: ``names[i]`` is the tag with id i. The tagger's tags are found in it by
            name, the first where a name repeats; those it lacks are not added.
        min_score: In [0, 1); a tag is added if the tagger gives it, by its own thresholds, with a score greater than
            this.
        max_words: Words kept of a generated caption, at least 1.
        batch_size: Images at once; it may differ when a run is continued.
        readers: Threads that read images; likewise.

    Raises:
        InputError: If a number is out of its range, or there is no name.
    """

    names: tuple[str, ...]
    min_score: float = 0.0
    max_words: int = 30
    batch_size: int = 8
    readers: int = 4

    def __post_init__(self) -> None:
        if not self.names:
            raise InputError("names must be the vocabulary of the records, got none")
        if not 0 <= self.min_score < 1:
            raise InputError(f"min_score must be in [0, 1), got {self.min_score}")
        for name in ("max_words", "batch_size", "readers"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    """A record after generation.

    Attributes:
        record: With all that it had, and what was added behind it.
        notes: The origin of each of its tags, in their order.
        failure: Why the image could not be read; the record is as it was then.
    """

    record: Record
    notes: tuple[TagNote, ...]
    failure: Failure | None = None

    @property
    def known_before(self) -> tuple[int, ...]:
        """Tags that the record had."""
        return tuple(note.tag for note in self.notes if note.what in {GIVEN, PARSED})


@dataclass(frozen=True)
class Generation:
    """Adds tags and captions to records.

    Attributes:
        images: Reads the image of a record.
        tagger: Gives tags by name.
        settings: Thresholds and sizes.
        captioner: Adds a caption to each record; None adds none.
        parser: Reads the tags of added captions; without it these have none.
        provenance: Plain JSON values that :meth:`describe` adds, such as the name of the captioner's weights.

    Raises:
        InputError: If there is a parser and no captioner.
    """

    images: ImageReader
    tagger: Tagger
    settings: GenerateSettings
    captioner: Captioner | None = None
    parser: Parser | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.parser is not None and self.captioner is None:
            raise InputError("the parser reads generated captions, and there is no captioner; pass one, or no parser")

    def describe(self) -> Mapping[str, Any]:
        """JSON values that decide what comes out."""
        models = {"tagger": self.tagger, "captioner": self.captioner, "parser": self.parser}
        return {
            "step": "generate",
            **{role: None if model is None else identity(model) for role, model in models.items()},
            "names": list(self.settings.names),
            **self._thresholds(),
            "min_score": self.settings.min_score,
            "max_words": self.settings.max_words,
            **self.provenance,
        }

    def _thresholds(self) -> dict[str, Any]:
        """Those of the tagger, tag by tag, where it tells."""
        if not isinstance(self.tagger, Scorer):
            return {}
        known = set(self.tagger.vocabulary.names)
        names = [name for name in self.settings.names if name in known]
        return {"thresholds": own_thresholds(self.tagger, names)}

    def __call__(self, records: Sequence[Record]) -> Iterator[Generated]:
        """One result per record, in order.

        Raises:
            ContractError: If a model does not give one answer per image.
        """
        ids = {name: tag for tag, name in reversed([*enumerate(self.settings.names)])}
        sizes = {"batch_size": self.settings.batch_size, "readers": self.settings.readers}
        for batch in read_batches(records, self.images, **sizes):
            yield from self._batch(batch, ids)

    def _batch(self, batch: Batch, ids: Mapping[str, int]) -> Iterator[Generated]:
        images = [image for _, image in batch if isinstance(image, Image)]
        tags = iter(_one_each("tagger", self.tagger.tag(images) if images else [], images))
        captions = iter(self._captions(images))
        for record, image in batch:
            if isinstance(image, Failure):
                yield Generated(record=record, notes=_origins(record), failure=image)
            else:
                yield self._extended(record, next(captions, None), _wanted(next(tags), ids, self.settings.min_score))

    def _captions(self, images: Sequence[Image]) -> list[tuple[str, tuple[int, ...]]]:
        if self.captioner is None or not images:
            return []
        written = _one_each("captioner", self.captioner.caption(images), images)
        texts = [clean_caption(caption.text, max_words=self.settings.max_words) for caption in written]
        rows: Sequence[Sequence[int]] = [()] * len(texts)
        if self.parser is not None:
            rows = [parsed.ids for parsed in _one_each("parser", [*self.parser.parse(texts)], texts)]
        return [(text, tuple(dict.fromkeys(map(int, row)))) for text, row in zip(texts, rows, strict=True)]

    def _extended(
        self, record: Record, caption: tuple[str, tuple[int, ...]] | None, scores: Mapping[int, float]
    ) -> Generated:
        captions, rows = record.captions, record.parsed_ids
        notes = {note.tag: replace(note, score=scores.get(note.tag)) for note in _origins(record)}
        if caption is not None and caption[0] and caption[0] not in captions:
            captions, rows = (*captions, caption[0]), (*rows, caption[1])
            for tag in caption[1]:
                notes.setdefault(tag, TagNote(tag, CAPTIONED, scores.get(tag)))
        for tag, score in scores.items():
            notes.setdefault(tag, TagNote(tag, GENERATED, score))
        extended = replace(record, captions=captions, parsed_ids=rows, tag_ids=tuple(notes))
        return Generated(record=extended, notes=tuple(notes.values()))


def generate(
    records: Iterable[Record],
    *,
    images: ImageReader,
    tagger: Tagger,
    captioner: Captioner | None = None,
    parser: Parser | None = None,
    settings: GenerateSettings,
) -> Iterator[Record]:
    """Add generated tags and captions to records, which are streamed; nothing that they had is lost.

    A record whose image cannot be read stays as it is. For work that can be interrupted, with provenance and a
    report, see :func:`rasa_ram.engine.runs.generate_into`.

    Args:
        records: Any number.
        images: A record's ``image_path`` to its image.
        tagger: A trained one; its thresholds decide, and ``settings.min_score``.
        captioner: Adds one caption a record.
        parser: Adds the tags of generated captions.
        settings: See :class:`GenerateSettings`.

    Raises:
        InputError: If there is a parser and no captioner.
        ContractError: If a model does not give one answer per image.
    """
    work = Generation(images, tagger, settings, captioner, parser)
    for shard in shards_of(records):
        for done in work(shard.records):
            yield done.record


def _origins(record: Record) -> tuple[TagNote, ...]:
    parsed = {tag for row in record.parsed_ids for tag in row}
    return tuple(TagNote(tag, PARSED if tag in parsed else GIVEN) for tag in dict.fromkeys(record.known_ids))


def _wanted(tags: Tags, ids: Mapping[str, int], min_score: float) -> dict[int, float]:
    # Of two names with one id the better score stands: tags come best first.
    pairs = zip(tags.names, np.asarray(tags.scores).tolist(), strict=True)
    return {ids[name]: score for name, score in pairs if name in ids and score > min_score}


def _one_each(role: str, answers: Sequence[Any], asked: Sequence[Any]) -> Sequence[Any]:
    if len(answers) != len(asked):
        raise ContractError(f"the {role} must give one answer for each of {len(asked)}, got {len(answers)}")
    return answers
