"""Dictionary forms of English words: lemminflect's, behind a table of the words that it gets wrong for tags."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

from rasa.errors import DependencyError

try:
    from lemminflect import getLemma
except ImportError as error:
    raise DependencyError('lemmas need the package "lemminflect"; install the extra "engine"') from error

Part = Literal["noun", "verb", "adjective"]

# The longest word of the published tag lists has 16 letters; a rule that guesses at more only costs time.
MAX_WORD = 40

# Nouns that have no singular in a caption, or another meaning in it: glasses are no two pieces of glass.
_PLURAL_ONLY = frozenset({
    "barracks", "binoculars", "clothes", "crossroads", "downstairs", "eyeglasses", "fries", "gallows", "glasses",
    "goggles", "graffiti", "headphones", "headquarters", "jeans", "leggings", "outskirts", "overalls", "pajamas",
    "pants", "pliers", "pyjamas", "ruins", "scissors", "shorts", "spectacles", "stairs", "sunglasses", "suspenders",
    "sweatpants", "tights", "tongs", "tropics", "trousers", "tweezers", "underpants", "upstairs",
})  # fmt: skip
_SINGULARS = frozenset({
    "bacteria", "bus", "canvas", "christmas", "data", "dice", "gas", "grass", "iris", "lens", "media", "news", "tennis",
})  # fmt: skip
_EXCEPTIONS = {
    **{word: word for word in (*_PLURAL_ONLY, *_SINGULARS)},
    "people": "person", "leaves": "leaf", "oxen": "ox", "selfies": "selfie", "axes": "axe", "lenses": "lens",
    "gases": "gas", "buses": "bus", "busses": "bus", "taxis": "taxi", "hooves": "hoof", "scarves": "scarf",
}  # fmt: skip
_UNIVERSAL = {"noun": "NOUN", "verb": "VERB", "adjective": "ADJ"}


@lru_cache(maxsize=1 << 16)
def lemma(word: str, part: Part = "noun") -> str:
    """The dictionary form of a lower-case word: the singular of a noun, the infinitive of a verb.

    Adjectives are taken back from the comparative ("bigger" to "big"). A word that nothing is known of, or of more
    than :data:`MAX_WORD` letters, is its own.

    >>> lemma("leaves"), lemma("glasses"), lemma("riding", "verb")
    ('leaf', 'glasses', 'ride')
    """
    if part == "noun" and word in _EXCEPTIONS:
        return _EXCEPTIONS[word]
    return plain_lemma(word, part)


@lru_cache(maxsize=1 << 16)
def plain_lemma(word: str, part: Part = "noun") -> str:
    """As :func:`lemma`, without the table of exceptions: the "goggle" that the published lists have for goggles."""
    if len(word) > MAX_WORD or not word.isalpha():
        return word
    # Rules for words out of its dictionary were learnt from it; they make "tatami" the plural of a "tatamus".
    found = getLemma(word, _UNIVERSAL[part], lemmatize_oov=part != "noun" or word.endswith("s"))
    form = str(found[0]) if found else word
    return word.removesuffix("s") if form == word in _PLURAL_ONLY else form


def phrase_lemma(phrase: str) -> str:
    """The singular of a noun of one or more words, which is that of its last word; hyphens part words as spaces do.

    >>> phrase_lemma("fire hydrants"), phrase_lemma("t-shirts")
    ('fire hydrant', 't-shirt')
    """
    last = phrase[max(phrase.rfind(" "), phrase.rfind("-")) + 1 :]
    return phrase.removesuffix(last) + lemma(last)
