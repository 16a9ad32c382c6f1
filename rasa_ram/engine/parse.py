"""Captions to tags: objects, scenes, attributes and actions that a caption names, as ids of a vocabulary."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from rasa.errors import FormatError
from rasa_ram.data.manifest_faults import ReadReport
from rasa_ram.data.records import Record
from rasa_ram.engine.label_system_counter import BoundedCounter
from rasa_ram.engine.parse_matching import Dropped, Match, TagIndex
from rasa_ram.engine.parse_pool import BatchPool
from rasa_ram.engine.parse_sentences import MODEL, Problem, Sentence, SentenceReader
from rasa_ram.vocabulary import Vocabulary

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class ParsedCaption:
    """What a caption says is in the picture.

    Attributes:
        text: The caption as it came.
        matches: The words that name tags, in order.
        dropped: The nouns, modifiers and verbs that do not, in order, each with its reason.
        problem: ``"empty"``, ``"no words"`` or ``"not English"``: nothing was read; ``"too long"``: the beginning was;
            ``"control characters"``: they were read as spaces. None where nothing is wrong.
    """

    text: str
    matches: tuple[Match, ...] = ()
    dropped: tuple[Dropped, ...] = ()
    problem: Problem | None = None

    @property
    def ids(self) -> tuple[int, ...]:
        """Positions of the tags in the vocabulary, distinct, in order of appearance."""
        return tuple(dict.fromkeys(match.id for match in self.matches))

    @property
    def objects(self) -> tuple[Match, ...]:
        """What is seen."""
        return self._of_kind("object")

    @property
    def scenes(self) -> tuple[Match, ...]:
        """Where it is."""
        return self._of_kind("scene")

    @property
    def attributes(self) -> tuple[Match, ...]:
        """How it looks."""
        return self._of_kind("attribute")

    @property
    def actions(self) -> tuple[Match, ...]:
        """What it does."""
        return self._of_kind("action")

    def _of_kind(self, kind: str) -> tuple[Match, ...]:
        return tuple(match for match in self.matches if match.kind == kind)


class CaptionParser:
    """Finds the tags of a vocabulary in captions by what the words do in the sentence.

    Args:
        vocabulary: Tags with their synonyms; kinds, where it has them, decide which words may name which tag.
        model: Name of an installed model of spaCy's, or its folder.
        processes: Worker processes, each with a model of its own (0.8 GB at most, measured); 1 works in this process.
        batch_size: Captions that a process reads at once.

    Raises:
        InputError: If ``processes`` or ``batch_size`` is below 1.

    Source:
        The roles are those of SceneGraphParser (Wu et al. 2019), which RAM's authors used (arXiv:2306.03514, 3.2).
    """

    def __init__(
        self, vocabulary: Vocabulary, *, model: str = MODEL, processes: int = 1, batch_size: int = 256
    ) -> None:
        self.vocabulary = vocabulary
        self._pool = BatchPool(
            _Build(vocabulary_columns(vocabulary), model), processes=processes, batch_size=batch_size
        )

    def parse(self, captions: Iterable[str]) -> Iterator[ParsedCaption]:
        """One answer per caption, in order; captions are read as they are needed.

        Raises:
            DependencyError: If the model is not installed.
            FormatError: If the model cannot parse.
            WorkerError: If a worker process dies.
        """
        for batch in self._pool.run(captions):
            yield from batch


def vocabulary_columns(vocabulary: Vocabulary) -> dict[str, Any]:
    """What of a vocabulary parsing needs, as plain values that can go to another process."""
    columns = vocabulary.to_dict()
    return {key: columns[key] for key in ("names", "kinds", "synonyms", "allow_repeats")}


@dataclass(frozen=True)
class _Build:
    columns: dict[str, Any]
    model: str

    def __call__(self) -> Callable[[list[str]], list[ParsedCaption]]:
        index, reader = TagIndex(Vocabulary(**self.columns)), SentenceReader(self.model)

        def parse_batch(captions: list[str]) -> list[ParsedCaption]:
            sentences = zip(captions, reader.read(captions), strict=True)
            return [_parsed(caption, sentence, index) for caption, sentence in sentences]

        return parse_batch


def _parsed(caption: str, sentence: Sentence, index: TagIndex) -> ParsedCaption:
    matches, dropped = index.match(sentence.words)
    return ParsedCaption(caption, tuple(matches), tuple(dropped), sentence.problem)


@dataclass
class ParseReport:
    """What parsing gave and dropped, counted.

    Attributes:
        captions: Captions seen.
        with_tags: Captions that gave at least one tag.
        tags: Tags found, each once per caption.
        problems: Problem to number of captions.
        dropped: Reason to number of words.
        words: Words that are not in the vocabulary, with their number; bounded, see :class:`BoundedCounter`.
    """

    captions: int = 0
    with_tags: int = 0
    tags: int = 0
    problems: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    words: BoundedCounter = field(default_factory=lambda: BoundedCounter(100_000))

    def add(self, parsed: ParsedCaption) -> None:
        """Count one caption."""
        found = len(parsed.ids)
        self.captions += 1
        self.with_tags += found > 0
        self.tags += found
        if parsed.problem is not None:
            self.problems[parsed.problem] += 1
        for drop in parsed.dropped:
            self.dropped[drop.reason] += 1
            if drop.reason == "not in vocabulary":
                self.words.add(drop.lemma)

    def to_dict(self, *, top: int = 50) -> dict[str, Any]:
        """Plain JSON values; of the dropped words the ``top`` most frequent."""
        return {
            "captions": self.captions,
            "captions_with_tags": self.with_tags,
            "tags": self.tags,
            "problems": dict(sorted(self.problems.items())),
            "dropped": dict(sorted(self.dropped.items())),
            "not_in_vocabulary": dict(self.words.top(top)),
            "not_in_vocabulary_error": self.words.error,
        }


def parse_records(
    records: Iterable[Record], parser: CaptionParser, *, report: ParseReport | None = None
) -> Iterator[Record]:
    """The same records with tags from their captions: a row for each, and their union as the image's tags.

    A record without captions passes as it is.

    Args:
        records: Read as they are needed.
        parser: For the vocabulary that the ids shall mean.
        report: Counts what is found and dropped.
    """
    waiting: deque[Record] = deque()
    rows: list[tuple[int, ...]] = []
    for parsed in parser.parse(_captions_of(records, waiting)):
        if report is not None:
            report.add(parsed)
        while not waiting[0].captions:
            yield waiting.popleft()
        rows.append(parsed.ids)
        if len(rows) == len(waiting[0].captions):
            union = tuple(dict.fromkeys(tag for row in rows for tag in row))
            yield replace(waiting.popleft(), parsed_ids=tuple(rows), tag_ids=union)
            rows = []
    yield from waiting


def refuse_broken(items: Iterable[Item], path: Path, report: ReadReport) -> Iterator[Item]:
    """The records or captions of a manifest that is read with ``on_bad="skip"``, which a broken file gives none of.

    Args:
        items: What is read from the manifest.
        path: Its name.
        report: Of this reading alone.

    Raises:
        FormatError: At the end, if there were records and none of them could be read.
    """
    yield from items
    if report.bad and not report.records:
        first = next(iter(report.examples.values()))[0]
        raise FormatError(
            f"no record of {path} could be read: {first}; mend or fetch it again, or make a manifest of captions of "
            "COCO by `rasa-ram data convert`"
        )


def _captions_of(records: Iterable[Record], waiting: deque[Record]) -> Iterator[str]:
    for record in records:
        waiting.append(record)
        yield from record.captions
