"""``rasa-ram parse`` and ``rasa-ram labels``."""

import csv
import json
from pathlib import Path

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


def table_rows(name):
    with Path(name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


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
    assert "1 x no-image, such as captions.jsonl: record 6: has no image_path" in run(parse, *arguments).stderr
    assert len(list(read_records("parsed.jsonl"))) == 6
    assert "captions.jsonl" in str(run(parse, *arguments, "--on-bad", "stop", code=1).exception)


def broken_manifest(name):
    """A manifest of which nothing can be read: cut off, another format, or rows of another format."""
    path = Path(name)
    if path.suffix == ".parquet":
        write_records(read_records("captions.jsonl"), path)
        path.write_bytes(path.read_bytes()[:-20])
    elif path.suffix == ".json":
        rows = [{"image_id": i, "id": i, "caption": text} for i, text in enumerate(CAPTIONS)]
        path.write_text(json.dumps({"images": [{"id": 0, "file_name": "0.jpg"}], "annotations": rows}))
    else:
        path.write_text('{"file": "0.jpg", "text": "a dog"}\n')
    return name


BROKEN = [
    ("cut.parquet", "is no whole Parquet file"),
    ("coco.json", "COCO's files have a reader of their own"),
    ("other.jsonl", "has no image_path"),
]


@pytest.mark.parametrize(("name", "why"), BROKEN)
def test_parse_leaves_a_good_output_alone_if_its_input_is_broken(work, name, why):
    arguments = ("--vocabulary", "vocabulary.json", "--out", "parsed.jsonl", "--report", "report.json")
    run(parse, "captions.jsonl", *arguments)
    before = [(work / file).read_bytes() for file in ("parsed.jsonl", "report.json")]
    error = str(run(parse, broken_manifest(name), *arguments, code=1).exception)
    assert f"no record of {name} could be read: {name}: record 0: " in error
    assert why in error
    assert [(work / file).read_bytes() for file in ("parsed.jsonl", "report.json")] == before


@pytest.mark.parametrize(("name", "why"), BROKEN)
def test_labels_leave_a_good_output_alone_if_a_file_is_broken(work, name, why):
    arguments = ("--out", "labels.json", "--table", "merges.csv")
    run(labels, "build", "captions.jsonl", *arguments)
    before = [(work / file).read_bytes() for file in ("labels.json", "merges.csv")]
    error = str(run(labels, "build", "captions.jsonl", broken_manifest(name), *arguments, code=1).exception)
    assert f"no record of {name} could be read: {name}: record 0: " in error
    assert why in error
    assert [(work / file).read_bytes() for file in ("labels.json", "merges.csv")] == before


def test_labels_tell_the_first_broken_record_of_each_kind(work):
    with (work / "captions.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"caption": ["a dog"]}\n{"image_path":')
    told = run(labels, "build", "captions.jsonl", "--out", "labels.json").stderr
    assert "1 x no-image, such as captions.jsonl: record 6: has no image_path" in told
    assert "1 x broken-file, such as captions.jsonl: record 7: broken JSON at byte" in told


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
    found = {(row["canonical"], row["other"], row["source"], row["decision"]) for row in table_rows("merges.csv")}
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


def test_the_untouched_table_gives_the_same_file(work):
    captions = [
        "a man leaves a house", "leaves on the ground", "green leaves", "a man grinds coffee", "ground coffee",
        "a saw on the ground", "a man saw a dog", "many colours", "a color", "a t-shirt", "two t-shirts",
    ]  # fmt: skip
    (work / "words.txt").write_text("\n".join(captions), encoding="utf-8")
    run(labels, "build", "words.txt", "--out", "first.json", "--table", "merges.csv")
    run(labels, "build", "words.txt", "--out", "again.json", "--table", "again.csv", "--review", "merges.csv")
    assert {("leaf", "leaves"), ("leave", "leaves"), ("colour", "colours"), ("t-shirt", "t-shirts")} <= {
        (row["canonical"], row["other"]) for row in table_rows("merges.csv")
    }
    assert (work / "again.json").read_bytes() == (work / "first.json").read_bytes()
    assert (work / "again.csv").read_bytes() == (work / "merges.csv").read_bytes()


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
