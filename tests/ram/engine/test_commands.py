import json
from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

from rasa import registry
from rasa.testing import FakeDetector
from rasa_ram.builders import build
from rasa_ram.checkpoint import save
from rasa_ram.cli import COMMANDS, app
from rasa_ram.config import TextConfig
from rasa_ram.data.manifest import read_records, write_records
from rasa_ram.data.records import Record
from rasa_ram.tokenizer import CaptionTokenizer
from tests.ram.engine.scenes import PlantedScenes
from tests.ram.tiny import NAMES, VOCABULARY, tiny_model

# The scenes' six colours stand for the first six tags of the tiny model.
SCENES = PlantedScenes(30, share=0.15)


def build_columns(*, device, dtype, box_threshold=0.25):
    return FakeDetector()


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("work")
    SCENES.write(folder / "images")
    save(tiny_model(), folder / "model", VOCABULARY)
    write_records(SCENES.records, folder / "records.json")
    lines = ["image,tag", *(f"{path},{NAMES[tag]}" for path, tags in SCENES.truth.items() for tag in sorted(tags))]
    (folder / "truth.csv").write_text("\n".join(lines) + "\n")
    registry.register(registry.Model("columns", "detector", build_columns))
    yield folder
    registry.unregister("columns")


def call(work, command, *options, out, ok=True):
    paths = [work / "records.json", "--images", work / "images", "--model", work / "model", "--out", out]
    done = CliRunner().invoke(app, [command, *map(str, paths), *map(str, options)], prog_name="rasa-ram")
    assert (done.exit_code == 0) == ok, done.output
    return done


def test_generate(work, tmp_path):
    options = ("--threshold", "0.5", "--truth", work / "truth.csv", "--format", "parquet", "--shard-size", "8")
    done = call(work, "generate", *options, out=tmp_path)
    assert done.stdout.splitlines()[-1] == str(tmp_path / "records.parquet")
    after = [*read_records(tmp_path / "records.parquet")]
    assert all({*old.tag_ids} <= {*new.tag_ids} for old, new in zip(SCENES.records, after, strict=True))
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["settings"]["tagger"]["threshold"] == 0.5
    assert len(report["settings"]["tagger"]["sha256"]) == 64
    assert report["settings"]["thresholds"] == dict.fromkeys(NAMES, 0.5)
    assert report["overall"]["judged_images"] == len([tags for tags in SCENES.truth.values() if tags])
    assert report["overall"]["recall_after"] == 1.0
    assert sum(len(record.tag_ids) for record in after) == report["overall"]["after"] > 60
    assert "30 records" in done.stderr
    refused = call(work, "generate", "--threshold", "0.6", out=tmp_path, ok=False)
    assert "holds work with other settings: shard_size was 8 and is 1024" in refused.stderr


def test_the_thresholds_of_the_tagger_are_kept_where_none_is_given(work, tmp_path):
    call(work, "generate", out=tmp_path)
    settings = json.loads((tmp_path / "report.json").read_text())["settings"]
    assert settings["thresholds"] == pytest.approx(dict(zip(NAMES, VOCABULARY.thresholds.tolist(), strict=True)))


def test_truth_of_other_images_is_told(work, tmp_path):
    (tmp_path / "truth.csv").write_text(f"image,tag\nelsewhere/0.png,{NAMES[0]}\n")
    done = call(work, "generate", "--truth", tmp_path / "truth.csv", out=tmp_path / "out")
    assert "no image of the records is in --truth: they have '00000.png', it has 'elsewhere/0.png'" in done.stderr
    assert "judged_images" in done.stdout + done.stderr


def test_generate_with_captions(work, tmp_path, monkeypatch):
    pytest.importorskip("spacy", reason="captions are parsed by spaCy")
    words = ["a", "cat", "dog", "sofa", "tree", "red", "in", "on", "the", "picture", "of", "|"]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    text = TextConfig(vocab_size=len(pieces) + 2, width=24, layers=3, heads=4, intermediate=48, max_positions=48)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = build(replace(tiny_model("tag2text").config, text=text))
    save(model, tmp_path / "captioner", VOCABULARY)
    monkeypatch.setattr(CaptionTokenizer, "published", lambda: CaptionTokenizer(pieces))
    call(work, "generate", "--captioner", tmp_path / "captioner", out=tmp_path / "out")
    after = [*read_records(tmp_path / "out" / "records.jsonl")]
    assert all(len(record.captions) == len(record.parsed_ids) == 1 for record in after)
    for record in after:
        assert {NAMES[tag] for tag in record.parsed_ids[0]} <= {*record.captions[0].split()}
        assert {*record.parsed_ids[0]} <= {*record.tag_ids}
    settings = json.loads((tmp_path / "out" / "report.json").read_text())["settings"]
    assert len(settings["captioner_weights"]["sha256"]) == 64


def test_clean(work, tmp_path):
    (tmp_path / "categories.txt").write_text("\n".join(NAMES[:2]) + "\n")
    options = ("--detector", "columns", "--categories", tmp_path / "categories.txt", "--confirm-threshold", "0.5")
    done = call(work, "clean", *options, out=tmp_path / "out")
    after = [*read_records(tmp_path / "out" / "records.jsonl")]
    assert done.stdout.splitlines()[-1] == str(tmp_path / "out" / "records.jsonl")
    for old, new in zip(SCENES.records, after, strict=True):
        assert {*old.tag_ids} - {*new.tag_ids} <= {0, 1}
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["settings"]["regions"]["tagger"]["tags"] == 2
    assert report["settings"]["regions"]["detector"] == {"model": "fake-detector"}
    assert report["overall"]["before"] - report["overall"]["after"] == sum(
        report["overall"][what] for what in ("outlier", "unconfirmed", "outlier and unconfirmed")
    )


def test_what_is_wrong_is_said_in_a_line(work, tmp_path):
    done = call(work, "clean", "--detector", "lite-tagger", out=tmp_path, ok=False)
    assert 'error: --detector must name a detector, "lite-tagger" is a tagger' in done.stderr
    done = call(work, "generate", "--images", tmp_path, out=tmp_path / "out", ok=False)
    assert (
        "error: no image could be read; give the folder that the paths begin in as --images, with --retry-failed"
        in done.stderr
    )
    call(work, "generate", "--retry-failed", out=tmp_path / "out")
    done = call(work, "generate", "--model", work / "model" / "model.safetensors", out=tmp_path / "x", ok=False)
    assert "does not tell its tags; pass vocabulary= (--vocabulary)" in done.stderr


def test_bad_records_are_left_out_if_asked(work, tmp_path):
    write_records([Record(image_path="00000.png", tag_ids=(0, 99)), *SCENES.records[:2]], tmp_path / "bad.jsonl")
    paths = [tmp_path / "bad.jsonl", "--images", work / "images", "--model", work / "model", "--out", tmp_path / "out"]
    stopped = CliRunner().invoke(app, ["generate", *map(str, paths)], prog_name="rasa-ram")
    assert stopped.exit_code == 1
    assert "99" in stopped.stderr
    done = CliRunner().invoke(app, ["generate", *map(str, paths), "--skip-bad"], prog_name="rasa-ram")
    assert done.exit_code == 0
    assert "1 records of" in done.stderr
    assert "left out (1 x id-range)" in done.stderr
    assert len([*read_records(tmp_path / "out" / "records.jsonl")]) == 2


@pytest.mark.parametrize("command", ["generate", "clean"])
def test_the_help_of_the_group_is_that_of_the_command(command):
    shown = CliRunner().invoke(app, [command, "--help"], prog_name="rasa-ram").stdout
    assert COMMANDS[command][1] in " ".join(shown.split())
