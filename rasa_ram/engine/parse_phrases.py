"""From a parsed sentence to its mentions: nouns, modifiers and verbs, and which of them it denies.

The roles are those of SceneGraphParser: heads of noun phrases are objects or scenes, modifiers are attributes, what
relates them is an action (Wu et al. 2019, github.com/vacancy/SceneGraphParser). Written anew for spaCy's trees.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rasa_ram.engine.lemmas import lemma

if TYPE_CHECKING:
    from spacy.tokens import Doc, Token

Role = Literal["noun", "modifier", "verb"]

_NOUN_TAGS = frozenset({"NN", "NNS", "NNP", "NNPS"})
_ADJECTIVE_TAGS = frozenset({"JJ", "JJR", "JJS"})
_BREAKS = frozenset({"IN", "DT", "VBZ", "VBP", "VBD", "TO"})
_VERB_TAGS = frozenset({"VB", "VBD", "VBG", "VBN", "VBP", "VBZ"})
_MODIFIER_DEPS = frozenset({"amod", "compound", "nmod", "acomp", "advmod"})
_DENYING = frozenset({"no", "neither", "nor", "zero"})
_WITHOUT = frozenset({"without", "minus", "lacking", "sans"})
_ABSENCES = frozenset({"absence", "lack", "none"})
_SIGNS = frozenset({"sign", "signs", "area", "areas", "zone", "zones"})
# Verbs that say nothing of the picture, and those that only link or hold.
_EMPTY_VERBS = frozenset(
    {"be", "do", "have", "can", "could", "will", "would", "may", "might", "must", "shall", "should"}
)
# Of "on top of" and "in front of" none is a thing.
_RELATIVE_PLACES = frozenset({"back", "bottom", "center", "edge", "front", "middle", "side", "top"})
# "pizza slices" shows pizza as "slices of pizza" does: the first noun is the thing.
_MEASURES = frozenset({"bit", "bunch", "chunk", "piece", "pile", "portion", "slice", "stack"})


@dataclass(frozen=True, slots=True)
class Word:
    """One word of a sentence with its part in it.

    Attributes:
        surface: The word, lower case.
        lemma: Its dictionary form for the role.
        role: ``"noun"``, ``"modifier"``, ``"verb"``, or None where it is none of them.
        denied: Whether the sentence says that it is not there.
        object: Position of the noun that a verb is done to; -1 where there is none.
        head: Position of the word that this one belongs to.
        joined: Position of the word that an "and" or "or" puts this one beside; -1 where there is none.
        nominal: Whether it is a noun, also where it only modifies another.
    """

    surface: str
    lemma: str
    role: Role | None
    denied: bool = False
    object: int = -1
    head: int = -1
    joined: int = -1
    nominal: bool = False


def read_words(doc: Doc) -> tuple[Word, ...]:
    """The words of a sentence that spaCy tagged and parsed; one per token."""
    denied = _denied_tokens(doc)
    return tuple(_word(token, denied=token.i in denied) for token in doc)


def _word(token: Token, *, denied: bool) -> Word:
    surface = token.lower_
    role = _role(token)
    verbal = token.tag_ in _VERB_TAGS
    form = {"noun": "noun", "verb": "verb", "modifier": "verb" if verbal else "adjective", None: "noun"}[role]
    if role == "modifier" and token.tag_ in _NOUN_TAGS:
        form = "noun"
    return Word(
        surface, lemma(surface, form), role, denied, _object_of(token) if verbal else -1, token.head.i,
        token.head.i if token.dep_ == "conj" else -1, token.tag_ in _NOUN_TAGS,
    )  # fmt: skip


def _role(token: Token) -> Role | None:
    tag, dep = token.tag_, token.dep_
    if tag in _NOUN_TAGS:
        if token.lower_ in _RELATIVE_PLACES and dep == "pobj" and any(child.lower_ == "of" for child in token.rights):
            return None
        return "modifier" if dep in _MODIFIER_DEPS and _leans_on_head(token) else "noun"
    if tag in _ADJECTIVE_TAGS:
        return "modifier"
    if tag not in _VERB_TAGS or dep in {"aux", "auxpass"} or lemma(token.lower_, "verb") in _EMPTY_VERBS:
        return None
    return "modifier" if dep == "amod" else "verb"


def _leans_on_head(noun: Token) -> bool:
    """Whether a noun modifies the next: not in "pizza slices", nor where the parser jumps over a "with" or "the"."""
    between = noun.doc[noun.i + 1 : noun.head.i]
    return lemma(noun.head.lower_) not in _MEASURES and not any(token.tag_ in _BREAKS for token in between)


def _object_of(token: Token) -> int:
    return next((child.i for child in token.rights if child.dep_ == "dobj"), -1)


def _denied_tokens(doc: Doc) -> frozenset[int]:
    """Positions of what the sentence says is not there; a walk down from each word that denies."""
    denied: set[int] = set()
    for token in doc:
        word = token.lower_
        if word in _DENYING and token.dep_ in {"det", "preconj", "cc"}:
            _deny_noun(token.head, denied, and_articles=word != "no")
        elif token.dep_ == "neg" and not _is_not_only(token):
            _deny_what_is_not(token, denied)
        elif word in _WITHOUT:
            _deny_below(token, denied)
        elif word in _ABSENCES:
            denied.add(token.i)
            _deny_below(token, denied)
    return frozenset(denied)


def _is_not_only(token: Token) -> bool:
    return token.i + 1 < len(token.doc) and token.nbor(1).lower_ in {"only", "just"}


def _deny_what_is_not(word: Token, denied: set[int]) -> None:
    """The head of a "not"; in "a beach, not a street", where that is the noun before it, what follows instead."""
    head: Token | None = word.head
    if word.head.i < word.i and word.head.tag_ not in _VERB_TAGS:
        after = word.doc[word.i + 1 :]
        head = next((token for token in after if token.head.i < word.i and token.dep_ not in {"punct", "cc"}), None)
    if head is None:
        return
    if head.tag_ in _NOUN_TAGS or head.tag_ == "CD":
        _deny_noun(head, denied, and_articles=False)
    else:
        _deny_verb(head, denied)


def _deny_noun(noun: Token, denied: set[int], *, and_articles: bool = True) -> None:
    """A noun with its compounds and what is joined to it, but in "no dog and a cat" for the cat."""
    # A "no smoking sign" is there.
    is_sign = noun.lower_ in _SIGNS and any(child.lower_ == "no" for child in noun.lefts)
    stack = [child for child in noun.lefts if child.dep_ in _MODIFIER_DEPS] if is_sign else [noun]
    while stack:
        token = stack.pop()
        if token.i in denied:
            continue
        denied.add(token.i)
        stack.extend(child for child in token.children if child.dep_ in {"compound", "amod", "nmod"})
        links = {child.lower_ for child in token.children}
        if "but" not in links:
            with_articles = and_articles or bool(links & {"or", "nor"})
            stack.extend(
                child for child in token.children if child.dep_ == "conj" and (with_articles or _is_bare(child))
            )


def _is_bare(noun: Token) -> bool:
    return not any(child.dep_ in {"det", "nummod", "poss"} and child.lower_ != "no" for child in noun.children)


def _deny_verb(verb: Token, denied: set[int]) -> None:
    """What a negated verb does and to what, or what a negated "is" says; who does it is there."""
    denied.add(verb.i)
    for child in verb.children:
        if child.dep_ in {"dobj", "acomp", "attr", "xcomp"}:
            _deny_noun(child, denied)


def _deny_below(token: Token, denied: set[int]) -> None:
    """The nouns that a preposition or "lack" governs, at once or by an "of"."""
    for child in token.rights:
        if child.dep_ in {"pobj", "dobj", "pcomp"}:
            _deny_noun(child, denied)
            if child.dep_ == "pcomp":
                _deny_verb(child, denied)
        elif child.dep_ == "prep" and child.lower_ == "of":
            _deny_below(child, denied)
