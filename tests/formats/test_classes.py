"""Ontologies: labels become classes, merge, or go."""

import json

import numpy as np
import pytest

from rasa import Instances, Result, Tags
from rasa.errors import ConfigError
from rasa.formats.classes import Ontology, read_ontology
from tests.formats.samples import UNICODE_LABELS

DOGS = Ontology({"puppy": "dog", "hound": "dog", "a photo of a cat": "cat", "dog": "animal"}, drop=["shadow"])


def test_a_label_becomes_its_class_once():
    assert [DOGS.class_of(label) for label in ("puppy", "dog", "a photo of a cat", "cat", "shadow", "tree")] == [
        "dog", "animal", "cat", "cat", None, "tree"]  # fmt: skip


def test_labels_are_compared_whole():
    assert DOGS.class_of("Puppy") == "Puppy"
    assert DOGS.class_of("puppy dog") == "puppy dog"


def test_unknown_labels_can_go():
    strict = Ontology({"puppy": "dog"}, unknown="drop")
    assert [strict.class_of(label) for label in ("puppy", "dog", "tree")] == ["dog", "dog", None]
    assert strict.names(["puppy", "tree"]) == ("dog",)


def test_the_classes_of_data():
    assert DOGS.names(["tree", "puppy", "shadow", "bush", "tree"]) == ("dog", "cat", "animal", "bush", "tree")
    assert Ontology().names(["b", "a"]) == ("a", "b")


def result():
    labels = ("puppy", "shadow", "hound", "tree")
    masks = np.arange(4)[:, None, None] == np.arange(4).reshape(1, 2, 2)
    boxes = np.arange(16, dtype=np.float32).reshape(4, 4)
    found = Instances(boxes, np.array([0.4, 0.3, 0.2, 0.1], np.float32), labels, masks, np.full(4, 0.5, np.float32))
    scores = np.array([0.9, 0.8, 0.7, 0.6], np.float32)
    tags = Tags(("tree", "hound", "shadow", "puppy"), scores, [3, 1, 4, 2], ("object", "object", "", "action"))
    return Result("x", (2, 2), tags, found)


def test_apply_renames_drops_and_keeps_the_rest():
    given = result()
    applied = DOGS.apply(given)
    found = applied.instances
    assert found.labels == ("dog", "dog", "tree")
    np.testing.assert_array_equal(found.boxes, given.instances.boxes[[0, 2, 3]])
    np.testing.assert_array_equal(found.masks, given.instances.masks[[0, 2, 3]])
    np.testing.assert_array_equal(found.scores, given.instances.scores[[0, 2, 3]])
    assert (applied.name, applied.size) == (given.name, given.size)
    assert given.instances.labels == ("puppy", "shadow", "hound", "tree")


def test_tags_merge_to_the_best_of_them():
    tags = DOGS.apply(result()).tags
    assert tags.names == ("tree", "dog")
    np.testing.assert_array_equal(tags.scores, np.array([0.9, 0.8], np.float32))
    assert tags.kinds == ("object", "object")
    assert tags.ids is None


def test_what_does_not_change_keeps_its_ids():
    same = Ontology({"x": "y"}).apply(result())
    assert same.tags.ids.tolist() == [3, 1, 4, 2]
    assert Ontology(drop=["shadow"]).apply(result()).tags.ids.tolist() == [3, 1, 2]
    assert same.to_dict() == result().to_dict()


def test_nothing_stays_nothing():
    empty = Ontology(unknown="drop").apply(result())
    assert len(empty.instances) == len(empty.tags) == 0
    assert empty.instances.masks.shape == (0, 2, 2)


def quoted(text):
    return json.dumps(text, ensure_ascii=False)


def test_toml(tmp_path):
    path = tmp_path / "ontology.toml"
    # A string of JSON is a string of TOML.
    lines = [f"{quoted(label)} = {quoted(label + '!')}" for label in UNICODE_LABELS]
    text = 'unknown = "drop"\ndrop = ["shadow", "犬小屋"]\n[classes]\npuppy = "dog"\n' + "\n".join(lines)
    path.write_text(text, encoding="utf-8")
    ontology = read_ontology(path)
    assert ontology == Ontology({"puppy": "dog"} | {label: f"{label}!" for label in UNICODE_LABELS},
                                drop={"shadow", "犬小屋"}, unknown="drop")  # fmt: skip
    assert Ontology.from_mapping(ontology.to_mapping()) == ontology


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("class = {}", 'ontology.toml: unknown key "class"; did you mean "classes"'),
        ("drop = 'shadow'", "drop must be a list of labels, got 'shadow'"),
        ("drop = [1]", "must be non-empty strings, got 1"),
        ("classes = ['a']", "classes must map labels to classes"),
        ("[classes]\na = ['b']", r"must be non-empty strings, got \['b'\]"),
        ("[classes]\na = ''", "must be non-empty strings, got ''"),
        ("drop = ['a']\n[classes]\na = 'b'", "label 'a' is mapped and dropped"),
        ("unknown = 'ignore'", 'unknown must be "keep" or "drop", got \'ignore\''),
        ("unknown = ", "ontology.toml: no valid TOML"),
        ("\udcff", "ontology.toml: not a readable UTF-8"),
    ],
)
def test_a_wrong_file_is_named(tmp_path, text, message):
    path = tmp_path / "ontology.toml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError, match=message):
        read_ontology(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.toml: not a readable"):
        read_ontology(tmp_path / "none.toml")
