"""Counting words, merging them, and the vocabulary that comes out."""

import gzip

import numpy as np
import pytest

from rasa.errors import FormatError, InputError
from rasa_ram.engine.label_system import build_label_system, spelling_key
from rasa_ram.engine.label_system_count import (
    CaptionCounts,
    joined_words,
    mentioned_words,
    read_counts,
    write_counts,
)
from rasa_ram.engine.label_system_merges import COLUMNS, Merge, read_decisions, write_merges
from rasa_ram.engine.wordnet import WordNet
from rasa_ram.vocabulary import Vocabulary
from rasa_ram.vocabulary_files import read_vocabulary, write_vocabulary


def nothing_known(_):
    return "unknown"


def counted(words, pairs=()):
    counts = CaptionCounts(captions=sum(words.values()))
    counts.words.update(words)
    counts.pairs.update(dict(pairs))
    return counts


def rows(system, source):
    return [(merge.canonical, merge.other, merge.decision) for merge in system.merges if merge.source == source]


def column(system):
    table = system.vocabulary
    return dict(zip(table.names, zip(table.kinds, table.synonyms, system.counts, strict=True), strict=True))


class Letters:
    """A text encoder whose vectors are given."""

    identity = "letters"

    def __init__(self, vectors):
        self.vectors = vectors

    def prompts(self, tag):
        return [tag, f"a photo of a {tag}"]

    def encode(self, texts):
        return np.array([self.vectors.get(text, (0, 0, 0, 1)) for text in texts], np.float32)


@pytest.fixture(scope="module")
def wordnet(wordnet_folder):
    return WordNet(wordnet_folder)


# Words of sentences


@pytest.mark.parametrize(
    ("caption", "keys"),
    [
        ("two hot dogs on a plate", {"n:dogs", "a:hot", "n:plate"}),
        ("a red fire hydrant", {"n:fire hydrant", "n:hydrant", "n:fire", "a:red"}),
        ("a man riding a horse without a saddle", {"n:man", "v:riding", "n:horse"}),
        ("a dog and another dog", {"n:dog"}),
        ("no people", set()),
        ("a dog in front of a car on top of a hill", {"n:dog", "n:car", "n:hill"}),
        ("the front of a car", {"n:front", "n:car"}),
    ],
)
def test_words_of_a_caption(reader, caption, keys):
    (sentence,) = reader.read([caption])
    assert mentioned_words(sentence.words, nothing_known) == keys


def test_a_phrase_with_a_meaning_of_its_own_counts_alone(reader):
    (sentence,) = reader.read(["a hot dog in the living room"])
    meanings = {"hot dog": "own", "living room": "literal"}
    found = mentioned_words(sentence.words, lambda phrase: meanings.get(phrase, "unknown"))
    assert found == {"n:hot dog", "n:living room", "n:room"}


def test_what_stands_side_by_side(reader):
    (sentence,) = reader.read(["a dog and two cats next to a red or blue car"])
    assert joined_words(sentence.words) == {"cat|dog", "blue|red"}


# Counts


def test_counts_survive_their_file(tmp_path):
    counts = counted({"n:dog": 3, "a:café-like": 1}, {"cat|dog": 2})
    counts.problems["empty"] = 4
    for name in ("one", "two"):
        write_counts(counts, tmp_path / f"{name}.counts.gz")
    assert (tmp_path / "one.counts.gz").read_bytes() == (tmp_path / "two.counts.gz").read_bytes()
    back = read_counts(tmp_path / "one.counts.gz")
    assert (back.captions, back.problems, back.words.counts) == (4, {"empty": 4}, {"n:dog": 3, "a:café-like": 1})
    back.merge(counts)
    assert (back.captions, back.words["n:dog"], back.pairs["cat|dog"]) == (8, 6, 4)


@pytest.mark.parametrize(
    "content",
    [b"", b"no gzip", gzip.compress(b"{}"), gzip.compress(b"[]"), gzip.compress(b'{"schema": "other"}'),
     gzip.compress(b"{" * 5000), gzip.compress(b"{}")[:12]],
    ids=["empty", "no gzip", "nothing in it", "a list", "another schema", "broken JSON", "cut off"],
)  # fmt: skip
def test_files_that_hold_no_counts(tmp_path, content):
    path = tmp_path / "bad.counts.gz"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=r"bad\.counts\.gz holds no counts .*count its captions again"):
        read_counts(path)
    with pytest.raises(InputError, match="there is no file"):
        read_counts(tmp_path / "none.counts.gz")


# The system


def test_inflections_are_merged_by_rule():
    system = build_label_system(counted({"n:dog": 2, "n:dogs": 5, "v:riding": 2, "v:rides": 1, "n:hot dogs": 1}))
    assert column(system) == {
        "dog": ("object", (), 7),
        "ride": ("action", (), 3),
        "hot dog": ("object", (), 1),
    }
    assert rows(system, "inflection") == [
        ("dog", "dogs", "accept"), ("hot dog", "hot dogs", "accept"), ("ride", "rides", "accept"),
        ("ride", "riding", "accept"),
    ]  # fmt: skip


def test_spellings_are_merged_into_the_more_frequent():
    words = {"n:t-shirt": 5, "n:t shirts": 2, "n:tshirt": 1, "a:grey": 3, "a:gray": 4}
    system = build_label_system(counted(words))
    assert column(system) == {
        "t-shirt": ("object", ("t shirt", "tshirt"), 8),
        "gray": ("attribute", ("grey",), 7),
    }
    assert rows(system, "spelling") == [
        ("gray", "grey", "accept"), ("t-shirt", "t shirt", "accept"), ("t-shirt", "tshirt", "accept"),
    ]  # fmt: skip


def test_plurals_with_a_hyphen_are_the_same_word():
    system = build_label_system(counted({"n:t-shirt": 3, "n:t-shirts": 2, "n:t shirt": 1}))
    assert column(system) == {"t-shirt": ("object", ("t shirt",), 6)}
    assert rows(system, "inflection") == [("t-shirt", "t-shirts", "accept")]


def test_forms_of_a_spelling_are_in_the_table_too():
    system = build_label_system(counted({"n:colours": 2, "n:color": 3, "n:tyres": 1, "n:dog": 4}), top=2)
    assert column(system) == {"color": ("object", ("colour",), 5), "dog": ("object", (), 4)}
    assert rows(system, "inflection") == [("colour", "colours", "accept")]
    assert rows(system, "spelling") == [("color", "colour", "accept")]


def test_spellings_of_other_words_stay():
    assert spelling_key("ice-cream") == spelling_key("ice cream") != spelling_key("ice")
    assert spelling_key("color") != spelling_key("cooler")


def test_a_word_has_the_kind_of_what_it_mostly_does(wordnet):
    words = {"n:ride": 1, "v:ride": 2, "n:kitchens": 1, "n:big kitchen": 1, "a:left": 3, "n:axolotl": 1}
    system = build_label_system(counted(words), wordnet=wordnet)
    assert {name: kind for name, (kind, _, _) in column(system).items()} == {
        "ride": "action", "left": "attribute", "kitchen": "scene", "big kitchen": "scene", "axolotl": "object",
    }  # fmt: skip


def test_the_most_frequent_words_stay_equal_ones_by_alphabet():
    system = build_label_system(counted({"n:zebra": 2, "n:cat": 2, "n:dog": 2, "n:man": 1, "n:men": 2}), top=3)
    assert system.vocabulary.names == ("man", "cat", "dog")
    assert system.vocabulary.ids.tolist() == [0, 1, 2]


def test_synsets_are_proposed_and_not_merged(wordnet):
    words = {"n:couch": 5, "n:sofa": 3, "n:car": 9, "n:automobile": 1, "n:carriage": 4, "n:hot dog": 2, "n:dog": 8}
    system = build_label_system(counted(words), wordnet=wordnet)
    assert len(system.vocabulary) == 7
    # A carriage is a car in the second sense of "car"; a hot dog is a dog in the second sense of "dog".
    assert rows(system, "synset") == [("car", "automobile", ""), ("couch", "sofa", "")]
    (couch,) = (merge for merge in system.merges if merge.canonical == "couch")
    assert (couch.score, couch.canonical_count, couch.other_count) == (1.0, 5, 3)
    assert couch.comment == "first sense of both: a seat for more than one person"


def test_words_that_stand_side_by_side_are_refused(wordnet):
    words = {"n:couch": 50, "n:sofa": 30}
    system = build_label_system(counted(words, {"couch|sofa": 4}), wordnet=wordnet)
    assert rows(system, "synset") == [("couch", "sofa", "reject")]
    assert 'joined by "and" or "or" in 4 captions' in system.merges[0].comment


VECTORS = {
    "couch": (1, 0, 0, 0), "settee": (0.99, 0.1, 0, 0),
    "dog": (0, 1, 0, 0), "cat": (0, 0.99, 0.1, 0),
    "left": (0, 0, 1, 0), "right": (0, 0, 1, 0.05),
    "pillow": (0.9, 0.43, 0, 0),
}  # fmt: skip


def test_neighbours_are_proposed_if_each_is_the_others_nearest(wordnet):
    words = {"n:couch": 5, "n:settee": 1, "n:pillow": 2, "n:dog": 4, "n:cat": 4, "a:left": 2, "a:right": 2}
    system = build_label_system(counted(words), wordnet=wordnet, encoder=Letters(VECTORS), threshold=0.9)
    assert rows(system, "embedding") == [
        ("couch", "settee", ""), ("cat", "dog", "reject"), ("left", "right", "reject"),
    ]  # fmt: skip
    comments = {merge.canonical: merge.comment for merge in system.merges}
    assert "two kinds of one thing in WordNet" in comments["cat"]
    assert "opposites in WordNet" in comments["left"]


def test_what_is_a_kind_of_the_other_is_refused(wordnet):
    encoder = Letters({"dog": (1, 0, 0, 0), "puppy": (1, 0.1, 0, 0)})
    system = build_label_system(counted({"n:dog": 5, "n:puppy": 1}), wordnet=wordnet, encoder=encoder)
    assert [merge.comment for merge in system.merges] == ["each other's nearest; one is a kind of the other in WordNet"]


def test_encoders_that_break_their_promise(wordnet):
    encoder = Letters({"dog": (np.nan, 0, 0, 0)})
    with pytest.raises(InputError, match="must give 2 finite vectors"):
        build_label_system(counted({"n:dog": 5, "n:cat": 1}), encoder=encoder)


# Review


def review(tmp_path, text):
    path = tmp_path / "reviewed.csv"
    path.write_text(text, encoding="utf-8")
    return read_decisions(path)


def test_decisions_go_before_rules(tmp_path, wordnet):
    words = {"n:couch": 5, "n:sofa": 3, "n:people": 4, "n:person": 1, "n:t-shirt": 2, "n:t shirt": 1, "n:settee": 1}
    decisions = review(
        tmp_path,
        "canonical,other,decision,comment\n"
        "sofa,couch,accept,our shop says so\nperson,people,reject,\nt-shirt,t shirt,reject,\n"
        "sofa,settee,accept,\ncat,dog,accept,\ncar,automobile,,\n",
    )
    system = build_label_system(counted(words), wordnet=wordnet, decisions=decisions)
    assert column(system) == {
        "sofa": ("object", ("couch", "settee"), 9),
        "people": ("object", (), 4),
        "t-shirt": ("object", (), 2),
        "person": ("object", (), 1),
        "t shirt": ("object", (), 1),
    }
    assert rows(system, "synset") == [("sofa", "couch", "accept")]
    assert rows(system, "review") == [("sofa", "settee", "accept")]
    assert rows(system, "inflection") == [("person", "people", "reject")]
    assert rows(system, "spelling") == [("t-shirt", "t shirt", "reject")]
    assert {merge.other: merge.comment for merge in system.merges}["couch"] == "our shop says so"
    assert system.unused == (("cat", "dog"),)


def test_the_table_is_a_review_file_that_changes_nothing(tmp_path, wordnet):
    words = {"n:couch": 5, "n:sofas": 3, "n:dogs": 4, "n:cat": 2, "a:grey": 1, "a:gray": 2}
    arguments = {"wordnet": wordnet, "encoder": Letters(VECTORS), "threshold": 0.9}
    first = build_label_system(counted(words, {"cat|dog": 2}), **arguments)
    write_merges(first.merges, tmp_path / "merges.csv")
    assert (tmp_path / "merges.csv").read_text(encoding="utf-8").splitlines()[0] == ",".join(COLUMNS)
    again = build_label_system(
        counted(words, {"cat|dog": 2}), decisions=read_decisions(tmp_path / "merges.csv"), **arguments
    )
    assert again.vocabulary.to_dict() == first.vocabulary.to_dict()
    assert again.merges == first.merges


COLLIDING = {
    "n:leaves": 4, "v:leaves": 2, "n:ground": 5, "v:ground": 1, "v:grind": 7, "n:saw": 3, "v:saw": 2, "v:see": 6,
    "a:left": 3, "v:left": 2, "n:colours": 2, "n:color": 1, "n:dog": 4, "n:dogs": 1,
}  # fmt: skip


def test_the_table_changes_nothing_also_where_a_form_of_one_word_is_another(tmp_path):
    vectors = {"left": (1, 0, 0, 0), "leave": (1, 0.1, 0, 0), "saw": (0, 1, 0, 0), "see": (0, 1, 0.1, 0)}
    arguments = {"encoder": Letters(vectors), "threshold": 0.9}
    pairs = {"leave|left": 3}
    first = build_label_system(counted(COLLIDING, pairs), **arguments)
    assert {("see", "saw", ""), ("leave", "left", "reject")} <= set(rows(first, "embedding"))
    assert {("see", "saw", "accept"), ("leave", "left", "accept")} <= set(rows(first, "inflection"))
    write_merges(first.merges, tmp_path / "merges.csv")
    again = build_label_system(
        counted(COLLIDING, pairs), decisions=read_decisions(tmp_path / "merges.csv"), **arguments
    )
    assert again.vocabulary.to_dict() == first.vocabulary.to_dict()
    assert again.merges == first.merges


def test_a_rule_is_refused_in_its_own_row(tmp_path):
    decisions = review(
        tmp_path, "canonical,other,source,decision\nsee,saw,inflection,reject\nleaf,leaves,inflection,accept\n"
    )
    system = build_label_system(counted({"v:saw": 2, "v:see": 3, "n:leaves": 1}), decisions=decisions)
    assert system.vocabulary.names == ("see", "saw", "leaf")


def test_chains_of_decisions_end_in_one_tag(tmp_path):
    decisions = review(tmp_path, "canonical,other,decision\nb,a,accept\nc,b,accept\n")
    system = build_label_system(counted({"a:aa": 1, "n:bb": 1}), decisions=decisions)
    assert len(system.vocabulary) == 2
    decisions = review(tmp_path, "canonical,other,decision\nbird,robin,accept\nanimal,bird,accept\n")
    system = build_label_system(counted({"n:robin": 3, "n:bird": 2, "n:animal": 1}), decisions=decisions)
    assert column(system) == {"animal": ("object", ("robin", "bird"), 6)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"reviewed\.csv:1: the header must have each of canonical, other, decision once"),
        ("canonical,other\n", r"reviewed\.csv:1: the header must have each"),
        ("canonical,other,decision,scor\n", r':1: unknown column "scor"; did you mean "score"'),
        ("canonical,other,decision\na,b\n", r":2: expected 3 columns, got 2"),
        ("canonical,other,decision\na,b,yes\n", r":2: a decision must be accept, reject or empty, got 'yes'"),
        ("canonical,other,decision\na,a,accept\n", r":2: canonical and other must be two words"),
        ("canonical,other,decision\na,b,accept\nb,a,reject\n", r":3: reject of \('a', 'b'\) contradicts line 2"),
        ("canonical,other,decision\na,b,accept\nc,b,accept\n", r":3: 'b' is merged into 'a' already"),
        ("canonical,other,decision\na,b,accept\nb,c,accept\nc,a,accept\n", r":4: a -> c -> b -> a goes in a circle"),
        ('canonical,other,decision\n"a,b', r"reviewed\.csv:2: unexpected end of data"),
    ],
)
def test_malformed_reviews(tmp_path, text, message):
    with pytest.raises(FormatError, match=message):
        review(tmp_path, text)


def test_reviews_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match="cannot read"):
        read_decisions(tmp_path / "none.csv")
    (tmp_path / "latin.csv").write_bytes(b"canonical,other,decision\ncaf\xe9,b,accept\n")
    with pytest.raises(FormatError, match="is no UTF-8"):
        read_decisions(tmp_path / "latin.csv")


def test_merges_with_signs_survive_their_file(tmp_path):
    merge = Merge("rock, paper", 'the "other"', "review", 0.5, "accept", "two\nlines", 3, 2)
    write_merges([merge], tmp_path / "merges.csv")
    assert read_decisions(tmp_path / "merges.csv").accepted == {'the "other"': "rock, paper"}


# Settings


def test_settings_out_of_range():
    counts = counted({"n:dog": 1, "n:cat": 1})
    with pytest.raises(InputError, match="top must be at least 1, got 0"):
        build_label_system(counts, top=0)
    with pytest.raises(InputError, match=r"threshold must be in \[-1, 1\], got 2"):
        build_label_system(counts, encoder=Letters({}), threshold=2)
    with pytest.raises(InputError, match="the 0 captions hold no words"):
        build_label_system(CaptionCounts())


@pytest.mark.parametrize("suffix", [".json", ".csv"])
def test_the_vocabulary_survives_its_file(tmp_path, suffix):
    table = build_label_system(counted({"n:t-shirt": 5, "n:tshirt": 1, "v:riding": 2})).vocabulary
    path = tmp_path / f"vocabulary{suffix}"
    write_vocabulary(table, path)
    assert isinstance(table, Vocabulary)
    assert read_vocabulary(path).to_dict() == table.to_dict()
