import pytest
import spacy

from rasa_ram.engine.parse import CaptionParser
from rasa_ram.engine.parse_sentences import SentenceReader
from rasa_ram.vocabulary import Vocabulary
from tests.ram.engine_parse.tiny_wordnet import write_wordnet

TAGS = {
    "object": (
        "dog", "fire hydrant", "hot dog", "table", "guitar", "man", "person", "hat", "glasses", "goggle", "t-shirt",
        "traffic light", "car", "pizza", "slice", "couch", "tennis racket", "horse", "orange", "woman", "helmet",
        "sign", "leaf", "toilet paper", "cat",
    ),
    "scene": ("street", "park", "sky", "beach", "kitchen"),
    "action": ("play", "play guitar", "ride", "wear", "smoke", "tennis", "sit"),
    "attribute": ("red", "blue", "black", "wooden", "leather"),
}  # fmt: skip
SYNONYMS = {"couch": ("sofa",), "person": ("human", "human being")}


def make_vocabulary():
    rows = [(name, kind) for kind, names in TAGS.items() for name in names]
    names, kinds = zip(*rows, strict=True)
    return Vocabulary(names, kinds=kinds, synonyms=tuple(SYNONYMS.get(name, ()) for name in names))


@pytest.fixture(scope="session", autouse=True)
def _one_model():
    """Load spaCy's model once for all tests: it takes a second each time."""
    load, loaded = spacy.load, {}

    def load_once(name, **options):
        if name not in loaded:
            loaded[name] = load(name, **options)
        return loaded[name]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spacy, "load", load_once)
        yield


@pytest.fixture(scope="session")
def vocabulary():
    return make_vocabulary()


@pytest.fixture(scope="session")
def parser(vocabulary):
    """One parser for all tests: loading spaCy's model takes seconds."""
    return CaptionParser(vocabulary)


@pytest.fixture(scope="session")
def reader():
    return SentenceReader()


@pytest.fixture(scope="session")
def wordnet_folder(tmp_path_factory):
    return write_wordnet(tmp_path_factory.mktemp("wordnet"))
