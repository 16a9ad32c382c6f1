import json

import pytest

from rasa.errors import FormatError, RasaWarning
from rasa.types import Failure
from rasa_ram.data.manifest import write_records
from rasa_ram.data.records import Record
from rasa_ram.engine.provenance import TagNote
from rasa_ram.engine.report import Tally, markdown, write_report
from rasa_ram.engine.truth import read_truth
from rasa_ram.vocabulary import Vocabulary

NAMES = ("cat", "dog", "cow")


@pytest.fixture
def tally():
    counted = Tally(NAMES, {"a": frozenset({0, 1}), "b": frozenset({0}), "unseen": frozenset({2})})
    counted.add("a", (0, 2), (0, 1), [TagNote(1, "generated", 0.75), TagNote(2, "outlier", 0.5, 1.25)])
    counted.add("b", (1,), (), [TagNote(1, "unconfirmed", 0.25)])
    counted.add("c", (1, 7), (1, 7), [TagNote(1, "not found, kept"), TagNote(7, "given")])
    counted.fail("c", Failure("decode", "ImageError", "broken | here"))
    return counted


def test_figures_by_hand(tally):
    figures = tally.report()
    assert (figures["images"], figures["failed"]) == (3, 1)
    overall = figures["overall"]
    assert (overall["before"], overall["after"]) == (5, 4)
    assert {key: overall[key] for key in ("generated", "outlier", "unconfirmed", "not found", "not found, kept")} == {
        "generated": 1, "outlier": 1, "unconfirmed": 1, "not found": 0, "not found, kept": 1,
    }  # fmt: skip
    # Of a and b alone: before, one of three tags was right and three were true; after, two of two.
    assert overall["judged_images"] == 2
    assert (overall["precision_before"], overall["recall_before"]) == (pytest.approx(1 / 3), pytest.approx(1 / 3))
    assert (overall["precision_after"], overall["recall_after"]) == (1.0, pytest.approx(2 / 3))


def test_figures_of_a_tag_by_hand(tally):
    cat, dog, cow, unknown = tally.report()["tags"]
    assert (dog["before"], dog["generated"], dog["unconfirmed"], dog["after"]) == (2, 1, 1, 2)
    assert (dog["precision_before"], dog["recall_before"], dog["precision_after"], dog["recall_after"]) == (0, 0, 1, 1)
    assert (cat["recall_before"], cow["recall_before"], cow["precision_after"]) == (0.5, None, None)
    assert cow["examples"] == {"outlier": [{"image_path": "a", "score": 0.5, "distance": 1.25}]}
    assert (unknown["tag"], unknown["before"], unknown["after"]) == ("#7", 1, 1)
    assert "examples" not in cat


def test_few_examples_are_kept():
    tally = Tally(NAMES)
    for number in range(9):
        tally.add(str(number), (0,), (), [TagNote(0, "outlier")])
    (row,) = tally.report()["tags"]
    assert [example["image_path"] for example in row["examples"]["outlier"]] == ["0", "1", "2"]
    assert "precision_before" not in row


def test_the_page_shows_what_changed(tally):
    page = markdown("clean", tally.report()).splitlines()
    assert page[2] == "3 images, 1 of them unreadable and left as they were."
    head = ["tag", "before", "generated", "outlier", "unconfirmed", "not found, kept", "after", "precision before",
            "recall before", "precision after", "recall after"]  # fmt: skip
    assert [cell.strip() for cell in page[5].strip("|").split("|")] == head
    assert page[7] == "| all tags | 5 | 1 | 1 | 1 | 1 | 4 | 0.333 | 0.333 | 1.000 | 0.667 |"
    assert page[8].startswith("| dog | 2 | 1 | 0 | 1 | 1 | 2 |")
    assert page[-1] == "- unreadable: c: broken \\| here"


def test_the_report_of_nothing(tmp_path):
    write_report(tmp_path, "clean", Tally(NAMES, {}).report(), {"seed": 1})
    written = json.loads((tmp_path / "report.json").read_text())
    assert (written["images"], written["tags"], written["settings"]) == (0, [], {"seed": 1})
    assert (written["overall"]["precision_after"], written["overall"]["before"]) == (None, 0)
    assert "| all tags | 0 | 0 | - |" in (tmp_path / "report.md").read_text()


def test_truth_from_a_table_and_from_a_manifest(tmp_path):
    table = Vocabulary(NAMES, synonyms=[("kitten",), (), ()])
    (tmp_path / "truth.csv").write_text("image,tag\na.jpg,kitten\na.jpg,cow\nb.jpg,\n")
    expected = {"a.jpg": frozenset({0, 2}), "b.jpg": frozenset()}
    assert read_truth(tmp_path / "truth.csv", table) == expected
    records = [Record(image_path=path, tag_ids=tuple(sorted(tags))) for path, tags in expected.items()]
    write_records(records, tmp_path / "truth.jsonl")
    assert read_truth(tmp_path / "truth.jsonl", table) == expected
    (tmp_path / "other.csv").write_text("image,tag\na.jpg,emu\na.jpg,cat\n")
    with pytest.warns(RasaWarning, match=r"1 tags of .*other.csv are not in the vocabulary, such as 'emu'"):
        assert read_truth(tmp_path / "other.csv", table) == {"a.jpg": frozenset({0})}
    (tmp_path / "bad.csv").write_text("image\n")
    with pytest.raises(FormatError, match="line 1: expected the columns"):
        read_truth(tmp_path / "bad.csv", table)
