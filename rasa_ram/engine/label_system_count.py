"""The words of a corpus of captions, counted by what they do in the sentence; in bounded memory, part by part."""

from __future__ import annotations

import gzip
import json
import os
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from rasa._files import write_atomically
from rasa.errors import FormatError, InputError
from rasa_ram.engine.label_system_counter import BoundedCounter
from rasa_ram.engine.lemmas import phrase_lemma
from rasa_ram.engine.parse_phrases import Word
from rasa_ram.engine.parse_pool import BatchPool
from rasa_ram.engine.parse_sentences import MODEL, SentenceReader
from rasa_ram.engine.wordnet import WordNet

SCHEMA = "rasa.caption-counts/1"
# Words kept while counting, at most twice as many at a time; 14M captions have some millions, most seen once.
CAPACITY = 500_000
# Letters of the roles in keys such as "n:fire hydrant".
ROLES = {"noun": "n", "modifier": "a", "verb": "v"}

PhraseMeaning = Literal["own", "literal", "unknown"]

_WORD = re.compile(r"[^\W\d_](?:[^\W\d_]|['\- ])*[^\W\d_]")
_MAX_LETTERS = 40
_MAX_PHRASE = 3  # words


@dataclass
class CaptionCounts:
    """How many captions hold each word, per role; parts of a corpus add up.

    Attributes:
        captions: Captions read.
        problems: Problem, as in :class:`rasa_ram.engine.parse.ParsedCaption`, to number of captions.
        words: ``"n:"``, ``"a:"`` or ``"v:"`` and the word or phrase as it stands, to number of captions.
        pairs: Two nouns or modifiers that an "and" or "or" joins, by alphabet with ``|`` between, likewise: what is
            counted beside each other is not the same.
    """

    captions: int = 0
    problems: Counter[str] = field(default_factory=Counter)
    words: BoundedCounter = field(default_factory=lambda: BoundedCounter(CAPACITY))
    pairs: BoundedCounter = field(default_factory=lambda: BoundedCounter(CAPACITY))

    def merge(self, other: CaptionCounts) -> None:
        """Add the counts of another part of the corpus."""
        self.captions += other.captions
        self.problems.update(other.problems)
        self.words.update(other.words.counts, error=other.words.error)
        self.pairs.update(other.pairs.counts, error=other.pairs.error)


def count_captions(
    captions: Iterable[str],
    *,
    model: str = MODEL,
    wordnet: str | os.PathLike[str] | None = None,
    processes: int = 1,
    batch_size: int = 256,
    capacity: int = CAPACITY,
) -> CaptionCounts:
    """Count the nouns, modifiers and verbs of captions, each once per caption; what is denied does not count.

    Nouns in a row count as a phrase and by their last, and so does a phrase that WordNet knows. One whose last word
    does not say what it is, by WordNet's hypernyms, counts as itself alone: a hot dog is no dog.

    Args:
        captions: Read as they are needed.
        model: Name of an installed model of spaCy's, or its folder.
        wordnet: Folder of WordNet's files, for phrases; without, no adjective is part of one.
        processes: Worker processes, each with a model of its own; 1 works in this process.
        batch_size: Captions that a process reads at once.
        capacity: Words to keep, see :class:`BoundedCounter`; the most are twice as many.

    Raises:
        InputError: If a number is below 1, or WordNet's files are not there.
        DependencyError: If the model is not installed.
        WorkerError: If a worker process dies.
    """
    counts = CaptionCounts(words=BoundedCounter(capacity), pairs=BoundedCounter(capacity))
    build = _Build(model, None if wordnet is None else str(wordnet))
    for part in BatchPool(build, processes=processes, batch_size=batch_size).run(captions):
        counts.captions += part["captions"]
        counts.problems.update(part["problems"])
        counts.words.update(part["words"])
        counts.pairs.update(part["pairs"])
    return counts


def write_counts(counts: CaptionCounts, path: str | os.PathLike[str]) -> None:
    """Write counts as gzipped JSON, such as ``part-07.counts.gz``; equal counts make equal files.

    Raises:
        OutputError: If the file cannot be written.
    """
    data: dict[str, Any] = {"schema": SCHEMA, "captions": counts.captions, "problems": dict(counts.problems)}
    for name, counter in (("words", counts.words), ("pairs", counts.pairs)):
        data[name] = {"capacity": counter.capacity, "error": counter.error, "counts": dict(counter.counts)}
    text = json.dumps(data, ensure_ascii=False, sort_keys=True)
    with write_atomically(path) as file:
        file.write(gzip.compress(text.encode("utf-8", "surrogatepass"), compresslevel=6, mtime=0))


def read_counts(path: str | os.PathLike[str]) -> CaptionCounts:
    """Read what :func:`write_counts` wrote.

    Raises:
        InputError: If the file cannot be read.
        FormatError: If it holds no counts.
    """
    try:
        data = json.loads(gzip.decompress(Path(path).read_bytes()))
        return _counts_of(data)
    except FileNotFoundError as error:
        raise InputError(f"there is no file {path}") from error
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FormatError(f'{path} holds no counts ("{SCHEMA}"): {error}; count its captions again') from error


def _counts_of(data: dict[str, Any]) -> CaptionCounts:
    if data["schema"] != SCHEMA:
        raise ValueError(f"its schema is {data['schema']!r}")
    words, pairs = (_read_counter(data[name]) for name in ("words", "pairs"))
    return CaptionCounts(int(data["captions"]), Counter(data["problems"]), words, pairs)


def _read_counter(data: dict[str, Any]) -> BoundedCounter:
    counter = BoundedCounter(int(data["capacity"]))
    counter.update({str(key): int(count) for key, count in data["counts"].items()}, error=int(data["error"]))
    return counter


@dataclass(frozen=True)
class _Build:
    model: str
    wordnet: str | None

    def __call__(self) -> Callable[[list[str]], dict[str, Any]]:
        reader = SentenceReader(self.model)
        known = _nothing_known if self.wordnet is None else lru_cache(maxsize=1 << 16)(_Phrases(WordNet(self.wordnet)))

        def count_batch(captions: list[str]) -> dict[str, Any]:
            words: Counter[str] = Counter()
            pairs: Counter[str] = Counter()
            problems: Counter[str] = Counter()
            for sentence in reader.read(captions):
                if sentence.problem is not None:
                    problems[sentence.problem] += 1
                words.update(mentioned_words(sentence.words, known))
                pairs.update(joined_words(sentence.words))
            return {"captions": len(captions), "problems": problems, "words": words, "pairs": pairs}

        return count_batch


def _nothing_known(_: str) -> PhraseMeaning:
    return "unknown"


@dataclass(frozen=True)
class _Phrases:
    """What WordNet says of a phrase: a young woman is a woman, a hot dog is no dog."""

    wordnet: WordNet

    def __call__(self, phrase: str) -> PhraseMeaning:
        senses = self.wordnet.senses(phrase)
        if not senses:
            return "unknown"
        head = phrase.replace("-", " ").rpartition(" ")[2]
        literal = any(head in general.words for sense in senses for general in self.wordnet.above(sense))
        return "literal" if literal else "own"


def mentioned_words(words: Sequence[Word], known: Callable[[str], PhraseMeaning]) -> set[str]:
    """The keys of a sentence, such as ``"n:dogs"``; ``known`` says which phrases have a meaning of their own."""
    found: set[str] = set()
    inside: set[int] = set()  # words that count only within their phrase
    for position, word in enumerate(words):
        if word.role != "noun" or word.denied:
            continue
        for start in range(max(0, position - 2 * (_MAX_PHRASE - 1)), position):
            phrase = _phrase(words, start, position)
            if phrase is None:
                continue
            meaning = known(phrase_lemma(phrase))
            if meaning != "unknown":
                inside.update(range(start, position + (meaning == "own")))
            if meaning != "unknown" or all(one.nominal or one.surface == "-" for one in words[start:position]):
                found.add(f"n:{phrase}")
            if meaning == "own":
                break
    for position, word in enumerate(words):
        if word.role is not None and not word.denied and position not in inside and _is_word(word.surface):
            found.add(f"{'n' if word.nominal else ROLES[word.role]}:{word.surface}")
    return found


def joined_words(words: Sequence[Word]) -> set[str]:
    """Lemmas of what an "and" or "or" joins, such as ``"cat|dog"``."""
    found = set()
    for word in words:
        if word.joined >= 0 and word.role == words[word.joined].role in {"noun", "modifier"}:
            one, other = sorted((word.lemma, words[word.joined].lemma))
            if one != other and _is_word(one) and _is_word(other):
                found.add(f"{one}|{other}")
    return found


def _phrase(words: Sequence[Word], start: int, end: int) -> str | None:
    """The words from ``start`` to the noun at ``end``, if all of them belong to it and are no more than three."""
    span = words[start:end]
    pieces = [word for word in span if word.surface != "-"]
    if not pieces or len(pieces) >= _MAX_PHRASE or span[0].surface == "-":
        return None
    belongs = (word.role == "modifier" and start <= word.head <= end for word in pieces)
    if not all(belongs):
        return None
    text = " ".join(word.surface for word in words[start : end + 1]).replace(" - ", "-")
    return text if _is_word(text) else None


def _is_word(text: str) -> bool:
    return len(text) <= _MAX_LETTERS and _WORD.fullmatch(text) is not None
