"""The reader of WordNet's files, on a folder made here and on the real one."""

import shutil

import pytest

from rasa.errors import FormatError, InputError
from rasa_ram.engine.wordnet import FOLDER, WordNet


@pytest.fixture(scope="module")
def tiny(wordnet_folder):
    return WordNet(wordnet_folder)


@pytest.fixture(scope="module")
def real():
    if not (FOLDER / "data.noun").is_file():
        pytest.skip(f"no WordNet in {FOLDER}; Debian's wordnet-base brings it")
    return WordNet()


def test_a_synset_has_its_words_without_markers(tiny):
    (left,) = tiny.senses("left", "adj")
    assert left.words == ("left",)
    assert tiny.senses("dog")[0].words == ("dog", "domestic dog", "canis familiaris")
    assert tiny.senses("Domestic dog") == tiny.senses("dog")[:1]


def test_glosses_may_hold_the_sign_that_begins_them(tiny):
    assert tiny.senses("dog")[0].gloss == "a gloss | with a bar"


def test_senses_come_by_frequency(tiny):
    assert [sense.words[-1] for sense in tiny.senses("car")] == ["automobile", "carriage"]


def test_unknown_words_have_no_sense(tiny):
    assert tiny.senses("axolotl") == ()
    assert tiny.kind("axolotl") is None
    assert "axolotl" not in tiny
    assert "hot dog" in tiny


def test_hypernyms_go_to_the_top(tiny):
    (puppy,) = tiny.senses("puppy")
    assert [one.words[0] for one in tiny.above(puppy)] == ["dog", "canine", "carnivore", "thing"]


def test_opposites(tiny):
    (left,), (right,) = tiny.senses("left", "adj"), tiny.senses("right", "adj")
    assert left.antonyms == (right.offset,)


@pytest.mark.parametrize(
    ("word", "kind"),
    [("dog", "object"), ("kitchen", "scene"), ("night", "scene"), ("tennis", "action"), ("living room", "scene")],
)
def test_kinds_of_nouns(tiny, word, kind):
    assert tiny.kind(word) == kind


def test_verbs_are_actions_and_adjectives_attributes(tiny):
    assert (tiny.kind("ride", "verb"), tiny.kind("left", "adj")) == ("action", "attribute")


def test_shares_come_from_the_counts(tiny):
    first, second = tiny.senses("car")
    assert tiny.share("car", first) == pytest.approx(72 / 75)
    assert tiny.share("car", second) == pytest.approx(3 / 75)
    assert tiny.share("dog", first) == 0.0


def test_words_without_counts_go_by_rank(tiny):
    first, second = tiny.senses("dog")
    assert (tiny.share("dog", first), tiny.share("dog", second)) == (pytest.approx(2 / 3), pytest.approx(1 / 3))


def test_the_variable_names_the_folder(wordnet_folder, monkeypatch):
    monkeypatch.setenv("WNSEARCHDIR", str(wordnet_folder))
    assert WordNet().folder == wordnet_folder


def test_a_missing_folder_is_named_with_the_cure(tmp_path):
    with pytest.raises(InputError, match=r"data\.noun cannot be read .*install Debian's \"wordnet-base\""):
        WordNet(tmp_path)


def copy_of(folder, tmp_path, name, text):
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / name).write_text(text, encoding="utf-8")
    return copy


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("index.noun", "dog n one 0\n", r"index\.noun:1: expected a word"),
        ("index.noun", "dog\n", r"index\.noun:1: expected a word"),
        ("cntlist.rev", "dog%1:05:00::\n", r"cntlist\.rev:1: expected a sense key"),
    ],
)
def test_broken_indexes(wordnet_folder, tmp_path, name, text, message):
    with pytest.raises(FormatError, match=message):
        WordNet(copy_of(wordnet_folder, tmp_path, name, text))


@pytest.mark.parametrize("offset", ["00000007", "99999999"])
def test_an_index_of_another_version(wordnet_folder, tmp_path, offset):
    folder = copy_of(wordnet_folder, tmp_path, "index.noun", f"dog n 1 0 1 0 {offset}\n")
    with pytest.raises(FormatError, match=rf"no synset at byte {int(offset)}; index and data are of two versions"):
        WordNet(folder).senses("dog")


def test_the_real_files(real):
    assert real.senses("couch")[0].words == ("sofa", "couch", "lounge")
    assert {word: real.kind(word) for word in ("kitchen", "dog", "running", "night")} == {
        "kitchen": "scene", "dog": "object", "running": "action", "night": "scene",
    }  # fmt: skip
    left = next(sense for sense in real.senses("left", "adj") if sense.antonyms)
    right = [sense.offset for sense in real.senses("right", "adj")]
    assert set(left.antonyms) & set(right)


@pytest.mark.slow
def test_all_of_the_real_files_can_be_read(real):
    counts = dict.fromkeys(("noun", "verb", "adj"), 0)
    for part in counts:
        lines = (FOLDER / f"index.{part}").read_text(encoding="utf-8").splitlines()
        for line in lines:
            if not line.startswith(" "):
                word = line.split()[0]
                assert any(word.replace("_", " ") in sense.words for sense in real.senses(word, part)), word
                counts[part] += 1
    assert counts == {"noun": 117798, "verb": 11529, "adj": 21479}
