from types import SimpleNamespace

import numpy as np
import pytest

from rasa.errors import ContractError, ImageError, InputError
from rasa.testing import FakeTagger, sample_image
from rasa.types import Tags
from rasa_ram.data.records import Record
from rasa_ram.engine.generate import GenerateSettings, Generation, generate
from rasa_ram.engine.provenance import TagNote
from rasa_ram.tagger import RamTagger
from tests.ram.tiny import NAMES, VOCABULARY, tiny_model

SETTINGS = GenerateSettings(names=("cat", "dog", "sofa", "tree"))
RECORD = Record(image_path="a.jpg", captions=("a sofa",), parsed_ids=((2,),), tag_ids=(3, 2))


class FixedTagger:
    """Gives all images the same tags."""

    def __init__(self, **scores):
        self.scores = scores

    def tag(self, images):
        return [Tags(tuple(self.scores), np.array([*self.scores.values()], np.float32)) for _ in images]


class FixedCaptioner:
    def __init__(self, text):
        self.text = text

    def caption(self, images):
        return [SimpleNamespace(text=self.text) for _ in images]


class WordParser:
    """Gives the words of a caption that are names."""

    def parse(self, captions):
        names = SETTINGS.names
        return (SimpleNamespace(ids=[names.index(word) for word in text.split() if word in names]) for text in captions)


def image(path):
    return sample_image(seed=len(path))


def broken(path):
    raise ImageError(f"image {path!r} is broken")


def test_tags_of_the_tagger_stand_behind_what_was_there():
    tagger = FixedTagger(dog=0.9, sofa=0.5, unicorn=0.75, cat=0.25)
    (done,) = Generation(image, tagger, SETTINGS)([RECORD])
    assert done.record == Record(image_path="a.jpg", captions=("a sofa",), parsed_ids=((2,),), tag_ids=(3, 2, 1, 0))
    assert done.known_before == (3, 2)
    assert done.notes == (
        TagNote(3, "given"), TagNote(2, "parsed", 0.5), TagNote(1, "generated", pytest.approx(0.9)),
        TagNote(0, "generated", 0.25),
    )  # fmt: skip


def test_min_score_must_be_exceeded():
    tagger = FixedTagger(dog=0.75, cat=0.5)
    settings = GenerateSettings(names=SETTINGS.names, min_score=0.5)
    assert next(generate([RECORD], images=image, tagger=tagger, settings=settings)).tag_ids == (3, 2, 1)


def test_captions_are_cleaned_and_parsed():
    work = Generation(image, FixedTagger(cat=0.5), SETTINGS, FixedCaptioner("A dog, on a TREE!"), WordParser())
    (done,) = work([RECORD])
    assert done.record.captions == ("a sofa", "a dog, on a tree")
    assert done.record.parsed_ids == ((2,), (3,))  # "dog," is no name to this parser
    assert done.record.tag_ids == (3, 2, 0)
    work = Generation(image, FixedTagger(cat=0.5), SETTINGS, FixedCaptioner("a dog near a dog"), WordParser())
    (done,) = work([RECORD])
    assert done.record.parsed_ids == ((2,), (1,))
    assert [note.what for note in done.notes] == ["given", "parsed", "captioned", "generated"]


@pytest.mark.parametrize("text", ["", " !", "A sofa."])
def test_an_empty_or_known_caption_is_not_added(text):
    work = Generation(image, FixedTagger(cat=0.5), SETTINGS, FixedCaptioner(text), WordParser())
    (done,) = work([RECORD])
    assert (done.record.captions, done.record.tag_ids) == (RECORD.captions, (3, 2, 0))


def test_a_record_of_captions_alone_gets_a_union():
    record = Record(image_path="a", captions=("a cat", "a dog"), parsed_ids=((0,), (1, 0)))
    assert next(generate([record], images=image, tagger=FixedTagger(tree=0.5), settings=SETTINGS)).tag_ids == (0, 1, 3)


def test_an_unreadable_image_leaves_its_record_as_it_was():
    records = [RECORD, Record(image_path="b.jpg"), RECORD]
    reader = lambda path: broken(path) if path == "b.jpg" else image(path)  # noqa: E731
    done = [*Generation(reader, FixedTagger(dog=0.5), SETTINGS)(records)]
    assert [one.record.tag_ids for one in done] == [(3, 2, 1), None, (3, 2, 1)]
    assert done[1].record == records[1]
    assert done[1].failure.message == "image 'b.jpg' is broken"
    assert [one.failure is None for one in done] == [True, False, True]


def test_nothing_gives_nothing():
    assert [*generate([], images=image, tagger=FakeTagger(), settings=SETTINGS)] == []
    empty = Record(image_path="a")
    (done,) = generate([empty], images=image, tagger=FixedTagger(), settings=SETTINGS)
    assert done == Record(image_path="a", tag_ids=())


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_a_real_tagger_gives_what_it_gives_alone(batch_size):
    tagger = RamTagger(tiny_model(), VOCABULARY)
    records = [Record(image_path=str(i), tag_ids=(i,)) for i in range(4)]
    images = {str(i): sample_image(seed=i) for i in range(4)}
    settings = GenerateSettings(names=NAMES, batch_size=batch_size)
    done = [*generate(records, images=images.__getitem__, tagger=tagger, settings=settings)]
    for record, one in zip(records, done, strict=True):
        (tags,) = tagger.tag([images[record.image_path]])
        assert set(one.tag_ids) == {*record.tag_ids, *tags.ids.tolist()}
        assert one.tag_ids[0] == record.tag_ids[0]
        assert len(tags) > 0


def test_wrong_settings_are_refused():
    with pytest.raises(InputError, match="names must be the vocabulary"):
        GenerateSettings(names=())
    with pytest.raises(InputError, match=r"min_score must be in \[0, 1\), got 1"):
        GenerateSettings(names=("a",), min_score=1)
    with pytest.raises(InputError, match="readers must be at least 1, got 0"):
        GenerateSettings(names=("a",), readers=0)
    with pytest.raises(InputError, match="there is no captioner; pass one, or no parser"):
        Generation(image, FakeTagger(), SETTINGS, parser=WordParser())


def test_models_that_answer_too_little_are_named():
    tagger = SimpleNamespace(tag=lambda images: [])
    with pytest.raises(ContractError, match="the tagger must give one answer for each of 1, got 0"):
        [*Generation(image, tagger, SETTINGS)([RECORD])]
    with pytest.raises(ContractError, match=r"must give a rasa\.types\.Image, got str"):
        [*Generation(str, FakeTagger(), SETTINGS)([RECORD])]


def test_the_parser_of_captions_fits():
    pytest.importorskip("spacy", reason="captions are parsed by spaCy")
    from rasa_ram.engine.parse import CaptionParser
    from rasa_ram.vocabulary import Vocabulary

    parser = CaptionParser(Vocabulary(SETTINGS.names))
    work = Generation(image, FixedTagger(), SETTINGS, FixedCaptioner("two dogs under a tree"), parser)
    (done,) = work([Record(image_path="a.jpg")])
    assert done.record == Record(
        image_path="a.jpg", captions=("two dogs under a tree",), parsed_ids=((1, 3),), tag_ids=(1, 3)
    )
