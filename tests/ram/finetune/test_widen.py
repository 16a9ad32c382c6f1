"""A model for more, fewer or other tags: old scores stay, new ones are those of the text encoder's vectors."""

import numpy as np
import pytest
import torch

from rasa.errors import InputError
from rasa.testing import sample_images
from rasa_ram.tagger import OPEN_THRESHOLD, RamTagger
from rasa_ram.training.widen import widen
from rasa_ram.vocabulary import Vocabulary
from tests.ram.hash_encoder import HashEncoder
from tests.ram.tiny import NAMES, VOCABULARY, tiny_model

IMAGES = sample_images()
FAMILIES = ("ram", "ram-plus", "tag2text")


class NarrowEncoder(HashEncoder):
    """Of another width, and another identity: vectors are cached by it."""

    identity = "narrow-encoder"


def scores(model, vocabulary):
    return RamTagger(model, vocabulary).scores(IMAGES)


@pytest.mark.parametrize("family", FAMILIES)
def test_old_tags_score_as_before(family):
    model = tiny_model(family)
    wide = widen(model, VOCABULARY, ["yak", "dog", "zebra"], encoder=HashEncoder())
    assert wide.vocabulary.names == (*NAMES, "yak", "zebra")
    assert wide.new_rows.tolist() == [12, 13]
    before, after = scores(model, VOCABULARY), scores(wide.model, wide.vocabulary)
    np.testing.assert_allclose(after[:, :12], before, atol=1e-6)
    assert wide.vocabulary.thresholds.tolist() == [*VOCABULARY.thresholds.tolist(), OPEN_THRESHOLD, OPEN_THRESHOLD]


@pytest.mark.parametrize("family", ["ram", "ram-plus"])
def test_new_tags_score_as_in_open_vocabulary(family):
    model, encoder = tiny_model(family), HashEncoder()
    wide = widen(model, VOCABULARY, ["yak", "zebra"], encoder=encoder)
    asked = RamTagger(model, VOCABULARY).with_tags(["yak", "zebra"], text_encoder=encoder)
    np.testing.assert_allclose(scores(wide.model, wide.vocabulary)[:, 12:], asked.scores(IMAGES), atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_other_tags_may_go(family):
    model = tiny_model(family)
    wide = widen(model, VOCABULARY, ["yak", "bus", "cat"], encoder=HashEncoder(), keep_old=False)
    assert wide.vocabulary.names == ("bus", "cat", "yak")
    assert wide.old_rows.tolist() == [11, 0, -1]
    expected = scores(model, VOCABULARY)[:, [11, 0]]
    np.testing.assert_allclose(scores(wide.model, wide.vocabulary)[:, :2], expected, atol=1e-6)


def test_nothing_is_shared_with_the_old_model():
    model = tiny_model("ram")
    wide = widen(model, VOCABULARY, ["yak"], encoder=HashEncoder(), drop_path=0.0)
    with torch.no_grad():
        for parameter in wide.model.parameters():
            parameter.zero_()
    assert scores(model, VOCABULARY).std() > 0.01
    assert (wide.model.config.vision.drop_path, model.config.vision.drop_path) == (0.0, 0.1)


def test_synonyms_and_all_columns_come_along():
    words = Vocabulary(
        NAMES, thresholds=np.full(12, 0.3), synonyms=(("kitty",), *[()] * 11), kinds=("object",) * 12,
        translations={"zh": tuple(f"zh {name}" for name in NAMES)},
    )  # fmt: skip
    wide = widen(tiny_model("ram"), words, ["kitty", "yak"], encoder=HashEncoder())
    assert wide.vocabulary.names == (*NAMES, "yak")
    assert wide.vocabulary.translations["zh"][-1] == "yak"
    assert (wide.vocabulary.kinds[-1], wide.vocabulary.synonyms[-1]) == (None, ())


@pytest.mark.parametrize(
    ("tags", "options", "message"),
    [
        ([], {}, "expected at least one tag, each once, got none"),
        (["yak", "yak"], {}, "each once, got yak, yak"),
        (["yak"], {"encoder": None}, 'tag "yak" is new to the model; pass the text encoder'),
        (["yak"], {"encoder": NarrowEncoder(8)}, "needs label vectors of 32 channels, the text encoder gives 8"),
    ],
)
def test_what_cannot_be_is_refused(tags, options, message):
    with pytest.raises(InputError, match=message):
        widen(tiny_model("ram"), VOCABULARY, tags, **{"encoder": HashEncoder(), **options})
    with pytest.raises(InputError, match="the vocabulary has 1 tags, the model 12"):
        widen(tiny_model("ram"), Vocabulary(("a",)), ["b"], encoder=None)
