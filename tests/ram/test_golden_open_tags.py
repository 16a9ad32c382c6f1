"""Tag texts of the published code: thresholds, deleted tags, translations and open sets, through RamTagger."""

import numpy as np
import pytest

from rasa.types import Image
from rasa_ram.tagger import RamTagger
from rasa_ram.vocabulary_files import read_vocabulary
from tests.ram import reference

MODELS = ("ram", "ram_plus", "tag2text")


class MatrixEncoder:
    """Answers with the rows of the reference's label matrix; a text ends in the number of its row."""

    def __init__(self, matrix):
        self.matrix = matrix
        self.identity = f"matrix-{matrix.sum()!r}"
        self.tags = {}

    def prompts(self, tag):
        return [f"{tag} {self.tags[tag]}"]

    def encode(self, texts):
        return self.matrix[[int(text.rpartition(" ")[2]) for text in texts]]


@pytest.fixture(params=MODELS)
def case(request, monkeypatch, tmp_path):
    monkeypatch.setenv("RASA_CACHE", str(tmp_path))
    return load_case(request.param, monkeypatch)


def load_case(name, monkeypatch):
    folder = reference.reference_folder()
    golden = reference.load_npz(folder / f"golden_{name}_tiny.npz")
    # The stored images are normalised already and no photos; image i is the one called "i".
    monkeypatch.setattr(
        "rasa_ram.tagger.preprocess", lambda images, size: golden["image"][[int(image.name) for image in images]]
    )
    return name, folder, golden, reference.tiny_model(folder, name)


def vocabulary_of(folder, golden):
    zh = folder / "tiny_tag_list_chinese.txt"
    table = read_vocabulary(folder / "tiny_tag_list.txt", translations={"zh": zh})
    return table.with_thresholds(golden["class_threshold"])


def texts(tagger, golden, names=None):
    """As the published code joins the tags: in the order of the vocabulary."""
    images = [Image(np.zeros((1, 1, 3), np.uint8), name=str(i)) for i in range(len(golden["image"]))]
    names = tagger.vocabulary.names if names is None else names
    ids = tagger.vocabulary.ids.tolist()
    return [" | ".join(names[ids.index(i)] for i in sorted(tags.ids)) for tags in tagger.tag(images)]


def test_tags_of_the_own_vocabulary(case):
    name, folder, golden, model = case
    table = vocabulary_of(folder, golden)
    deleted = [table.names[i] for i in golden["delete_tag_index"]] if name == "tag2text" else []
    tagger = RamTagger(model, table, deny=deleted, batch_size=2)
    assert texts(tagger, golden) == golden["tags"].tolist()
    if "tags_chinese" in golden:
        chinese = texts(tagger, golden, tagger.vocabulary.translations["zh"])
        # The published code joins the lines of the file as they are, trailing spaces included.
        assert [text.split() for text in chinese] == [text.split() for text in golden["tags_chinese"].tolist()]


def test_scores_of_the_own_vocabulary(case):
    _, folder, golden, model = case
    images = [Image(np.zeros((1, 1, 3), np.uint8), name=str(i)) for i in range(len(golden["image"]))]
    scores = RamTagger(model, vocabulary_of(folder, golden)).scores(images)
    np.testing.assert_allclose(scores, golden["sigmoid"], atol=1e-5)


def test_one_threshold_and_deleted_tags(monkeypatch):
    _, folder, golden, model = load_case("ram", monkeypatch)
    table = vocabulary_of(folder, golden)
    keys = [key for key in golden if key.startswith("tags_threshold_")]
    assert keys
    for key in keys:
        tagger = RamTagger(model, table, threshold=float(key.removeprefix("tags_threshold_")))
        assert texts(tagger, golden) == golden[key].tolist()
    deleted = [table.names[i] for i in golden["tags_delete_index"]]
    assert texts(RamTagger(model, table, deny=deleted), golden) == golden["tags_deleted"].tolist()


def test_an_open_set_by_name(monkeypatch, tmp_path):
    monkeypatch.setenv("RASA_CACHE", str(tmp_path))
    _, folder, golden, model = load_case("ram", monkeypatch)
    names = golden["openset_names"].tolist()
    rule = reference.constants(golden["meta"])
    encoder = MatrixEncoder(reference.rule_weight("openset_label_embed", (len(names), 512), rule))
    encoder.tags = {name: row for row, name in enumerate(names)}
    # A name of the open set may be one of the model's own, which would keep its vector.
    own = vocabulary_of(folder, golden)
    own = own.rename({name: f"own {name}" for name in own.names})
    tagger = RamTagger(model, own).with_tags(names, text_encoder=encoder)
    assert texts(tagger, golden) == golden["openset_tags"].tolist()


def test_an_open_set_by_descriptions(monkeypatch, tmp_path):
    monkeypatch.setenv("RASA_CACHE", str(tmp_path))
    _, folder, golden, model = load_case("ram_plus", monkeypatch)
    names = golden["openset_names"].tolist()
    count = int(golden["openset_des_per_class"])
    rule = reference.constants(golden["meta"])
    encoder = MatrixEncoder(reference.rule_weight("openset_label_embed_plus", (len(names) * count, 512), rule))
    described = {name: [f"row {row * count + i}" for i in range(count)] for row, name in enumerate(names)}
    tagger = RamTagger(model, vocabulary_of(folder, golden))
    tagger = tagger.with_tags(names, descriptions=described, thresholds=0.5, text_encoder=encoder)
    images = [Image(np.zeros((1, 1, 3), np.uint8), name=str(i)) for i in range(len(golden["image"]))]
    expected = 1 / (1 + np.exp(-golden["openset_logits"].astype(np.float64)))
    np.testing.assert_allclose(tagger.scores(images), expected, atol=1e-5)
    assert texts(tagger, golden) == golden["openset_tags"].tolist()
