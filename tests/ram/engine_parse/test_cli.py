"""``rasa-ram parse`` and ``rasa-ram labels``."""

import csv
import json

import pytest
from typer.testing import CliRunner

from rasa_ram.cli import COMMANDS
from rasa_ram.cli.labels import app as labels
from rasa_ram.cli.parse import app as parse
from rasa_ram.data.manifest import read_records, write_records
from rasa_ram.data.records import Record
from rasa_ram.engine.label_system_count import read_counts
from rasa_ram.vocabulary_files import read_vocabulary, write_vocabulary
from tests.ram.engine_parse.conftest import make_vocabulary

CAPTIONS = [
    "two dogs on a couch",
    "a dog on a grey sofa",
    "a gray couch and a red car",
    "a couch in the kitchen",
    "",
    "a hot dog without onions",
    "一只狗",
]


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A folder with captions as a manifest and as text, and a vocabulary."""
    monkeypatch.chdir(tmp_path)
    records = [
        Record(image_path=f"{i}.jpg", captions=(text,), parsed_ids=((),)) for i, text in enumerate(CAPTIONS) if text
    ]
    write_records(records, "captions.jsonl")
    (tmp_path / "captions.txt").write_text("\n".join(CAPTIONS) + "\n", encoding="utf-8")
    write_vocabulary(make_vocabulary(), "vocabulary.json")
    return tmp_path


def run(app, *arguments, code=0):
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == code, (done.output, done.exception)
    return done


@pytest.mark.parametrize(("name", "app"), [("parse", parse), ("labels", labels)])
def test_commands_are_known_by_their_first_sentence(name, app):
    module, summary = COMMANDS[name]
    assert module == f"rasa_ram.cli.{name}"
    assert summary in " ".join(run(app, "--help").stdout.split())


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".parquet"])
def test_parse_fills_a_manifest(work, suffix):
    out = work / f"parsed{suffix}"
    done = run(parse, "captions.jsonl", "--vocabulary", "vocabulary.json", "--out", out, "--report", "report.json")
    table = read_vocabulary("vocabulary.json")
    tags = [[table.names[tag] for tag in record.tag_ids] for record in read_records(out)]
    assert tags == [["dog", "couch"], ["dog", "couch"], ["couch", "red", "car"], ["couch", "kitchen"], ["hot dog"], []]
    assert done.stdout.splitlines()[-1] == str(out)
    assert "10 tags in 5 of 6 captions" in done.stderr
    assert "1 captions: not English" in done.stderr
    report = json.loads((work / "report.json").read_text(encoding="utf-8"))
    assert report["records"] == 6
    assert report["not_in_vocabulary"] == {"gray": 1, "grey": 1}
    assert report["dropped"]["negated"] == 1


def test_parse_skips_and_counts_broken_records_or_stops(work):
    with (work / "captions.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"caption": ["a dog"]}\n')
    arguments = ("captions.jsonl", "--vocabulary", "vocabulary.json", "--out", "parsed.jsonl")
    assert "1 records of captions.jsonl: no-image" in run(parse, *arguments).stderr
    assert len(list(read_records("parsed.jsonl"))) == 6
    assert "captions.jsonl" in str(run(parse, *arguments, "--on-bad", "stop", code=1).exception)


def test_labels_of_captions(work, wordnet_folder):
    arguments = ("--out", "labels.json", "--table", "merges.csv", "--wordnet", wordnet_folder)
    done = run(labels, "build", "captions.txt", *arguments)
    assert "7 captions" in done.stderr
    table = read_vocabulary("labels.json")
    assert dict(zip(table.names, table.kinds, strict=True)) == {
        "couch": "object", "dog": "object", "gray": "attribute", "car": "object", "hot dog": "object",
        "kitchen": "scene", "red": "attribute", "sofa": "object",
    }  # fmt: skip
    assert table.synonyms[table.names.index("gray")] == ("grey",)
    with (work / "merges.csv").open(encoding="utf-8", newline="") as file:
        found = {(row["canonical"], row["other"], row["source"], row["decision"]) for row in csv.DictReader(file)}
    assert found == {
        ("couch", "sofa", "synset", ""), ("dog", "dogs", "inflection", "accept"),
        ("gray", "grey", "spelling", "accept"),
    }  # fmt: skip


def test_labels_by_review(work, wordnet_folder):
    (work / "reviewed.csv").write_text("canonical,other,decision\ncouch,sofa,accept\n", encoding="utf-8")
    run(labels, "build", "captions.jsonl", "--out", "labels.csv", "--review", "reviewed.csv",
        "--wordnet", wordnet_folder)  # fmt: skip
    table = read_vocabulary("labels.csv")
    assert table.names[0] == "couch"
    assert table.synonyms[0] == ("sofa",)


def test_parts_that_are_counted_apart_give_the_same_labels(work):
    for part, lines in (("a", CAPTIONS[:3]), ("b", CAPTIONS[3:])):
        (work / f"{part}.txt").write_text("\n".join(lines), encoding="utf-8")
        run(labels, "count", f"{part}.txt", "--out", f"{part}.counts.gz")
    assert read_counts("a.counts.gz").captions == 3
    run(labels, "build", "a.counts.gz", "b.counts.gz", "--out", "parts.json")
    run(labels, "build", "captions.txt", "--out", "whole.json")
    assert (work / "parts.json").read_bytes() == (work / "whole.json").read_bytes()


def test_a_small_capacity_is_owned_up_to(work):
    done = run(labels, "build", "captions.txt", "--out", "labels.json", "--capacity", "2")
    assert "a count may be" in done.stderr
    assert "within the error of the counts" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("build", "captions.txt", "--out", "labels.txt"), "cannot hold kinds and synonyms"),
        (("count", "captions.txt", "--out", "counts.json"), "must end in .counts.gz"),
    ],
)
def test_bad_usage(work, arguments, message):
    assert message in " ".join(run(labels, *arguments, code=2).stderr.replace("│", " ").split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("build", "none.txt", "--out", "labels.json"), "cannot read none.txt"),
        (("build", "vocabulary.csv", "--out", "labels.json"), "must end in one of"),
        (("build", "captions.txt", "--out", "labels.json", "--text-encoder", "none.pt"), "none.pt is no file"),
        (("build", "captions.txt", "--out", "labels.json", "--wordnet", "."), "data.noun cannot be read"),
    ],
)
def test_expected_failures(work, arguments, message):
    assert message in str(run(labels, *arguments, code=1).exception)
