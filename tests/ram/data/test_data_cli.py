"""`rasa-ram data`, as users type it, and the check behind it."""

import json
import re
import struct
import zlib

import pytest
from PIL import Image
from typer.testing import CliRunner

from rasa.errors import InputError
from rasa_ram.cli import COMMANDS, app
from rasa_ram.cli import data as data_cli
from rasa_ram.data.check import check_records
from rasa_ram.data.manifest import read_records, write_records
from rasa_ram.data.records import Record
from rasa_ram.data.shards import read_shard, read_shard_index
from rasa_ram.vocabulary import Vocabulary
from rasa_ram.vocabulary_files import write_vocabulary


@pytest.fixture
def rasa_ram():
    def run(*arguments):
        return CliRunner().invoke(app, ["data", *map(str, arguments)])

    return run


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(4):
        Image.new("RGB", (8, 6)).save(folder / f"{i}.jpg")
    return folder


@pytest.fixture
def vocabulary(tmp_path):
    write_vocabulary(Vocabulary(("dog", "cat", "kite"), synonyms=((), ("kitten",), ())), tmp_path / "tags.json")
    return tmp_path / "tags.json"


def manifest(tmp_path, count=4, **more):
    records = [
        Record(image_path=f"{i}.jpg", captions=("a cat",), parsed_ids=((1,),), tag_ids=(0, 1)) for i in range(count)
    ]
    path = tmp_path / "m.json"
    write_records([*records, *(Record(image_path=name, tag_ids=ids) for name, ids in more.items())], path)
    return path


def huge_png():
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 10**9) + b"IDAT"


def test_the_help_line_is_the_real_one():
    assert COMMANDS["data"] == ("rasa_ram.cli.data", data_cli.app.info.help)


def test_a_good_manifest(rasa_ram, tmp_path, images, vocabulary):
    done = rasa_ram("check", manifest(tmp_path), "--images", images, "--vocabulary", vocabulary)
    assert done.exit_code == 0, done.output
    rows = dict(
        re.split(r"\s{2,}", line.strip(), maxsplit=1) for line in done.stdout.splitlines() if "  " in line.strip()
    )
    assert rows["good records"] == "4"
    assert rows["bad records"] == "0"
    assert rows["tags"] == "8, 2.00 an image, at most 2"


def test_every_broken_record_is_reported(rasa_ram, tmp_path, images, vocabulary):
    (images / "text.jpg").write_text("<html>")
    (images / "cut.jpg").write_bytes((images / "0.jpg").read_bytes()[:10])
    (images / "huge.png").write_bytes(huge_png())
    rows = [
        {"image_path": "0.jpg", "caption": "a cat"}, {"image_path": ""}, {"image_path": "gone.jpg"},
        {"image_path": "text.jpg"}, {"image_path": "cut.jpg"}, {"image_path": "huge.png"},
        {"image_path": "1.jpg", "union_label_id": [3]},
        {"image_path": "1.jpg", "caption": ["x" * 100_000]}, {"image_path": "1.jpg", "caption": [""]},
        {"image_path": "1.jpg", "caption": ["\x07"]}, {"image_path": "2.jpg", "union_label_id": [1, 1]},
        {"image_path": "../images/3.jpg"},
    ]  # fmt: skip
    (tmp_path / "m.json").write_text(json.dumps(rows)[:-1] + ', {"image_path": oops')
    done = rasa_ram(
        "check", tmp_path / "m.json", "--images", images, "--vocabulary", vocabulary, "--report", tmp_path / "r.jsonl"
    )
    assert done.exit_code == 1, done.output
    faults = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert [(fault["number"], fault["kind"], fault["mended"]) for fault in faults] == [
        (1, "no-image", False), (2, "missing-image", False), (3, "broken-image", False), (4, "broken-image", False),
        (5, "broken-image", False), (6, "id-range", False), (7, "long-caption", False), (8, "empty-caption", False),
        (9, "bad-characters", False), (10, "repeated-id", True), (11, "outside-folder", True),
        (12, "broken-file", False),
    ]  # fmt: skip
    assert "huge.png' is 60000 x 60000 = 3600.0 megapixels, more than the limit of 200.0" in faults[4]["why"]
    assert "<html>" not in done.stdout
    found = check_records(tmp_path / "m.json", images=images, vocabulary_size=3)
    assert (found.ok, found.reading.records, found.reading.bad, found.captions, found.tags) == (False, 3, 10, 1, 1)


def test_what_cannot_be_checked_is_one_line(rasa_ram, tmp_path):
    done = rasa_ram("check", tmp_path / "none.json")
    assert (done.exit_code, done.stderr) == (
        1,
        f"error: cannot read {tmp_path / 'none.json'}: No such file or directory\n",
    )
    with pytest.raises(InputError, match=r"there is no folder .*none; give the one that image_path is relative to"):
        check_records(tmp_path / "m.json", images=tmp_path / "none")


def test_convert_there_and_back(rasa_ram, tmp_path):
    path = manifest(tmp_path)
    for source, dest in (("m.json", "m.jsonl"), ("m.jsonl", "m.parquet"), ("m.parquet", "back.json")):
        done = rasa_ram("convert", tmp_path / source, tmp_path / dest)
        assert (done.exit_code, done.stdout) == (0, f"{tmp_path / dest}\n"), done.output
    assert (tmp_path / "back.json").read_bytes() == path.read_bytes()


def test_convert_coco_and_say_what_has_no_tag(rasa_ram, tmp_path, vocabulary):
    images = [{"id": 1, "file_name": "1.jpg"}]
    (tmp_path / "captions.json").write_text(
        json.dumps({"images": images, "annotations": [{"image_id": 1, "caption": "x"}]})
    )
    boxes = [{"image_id": 1, "category_id": c} for c in (1, 2, 2)]
    categories = [{"id": 1, "name": "kitten"}, {"id": 2, "name": "tv"}]
    (tmp_path / "i.json").write_text(json.dumps({"images": images, "annotations": boxes, "categories": categories}))
    done = rasa_ram("convert", tmp_path / "captions.json", tmp_path / "m.parquet", "--instances", tmp_path / "i.json",
                    "--vocabulary", vocabulary, "--folder", "val2017")  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "1 labels have no tag in the vocabulary, 2 times: tv (2)" in done.stderr
    expected = [Record(image_path="val2017/1.jpg", captions=("x",), parsed_ids=((),), tag_ids=(1,))]
    assert list(read_records(tmp_path / "m.parquet")) == expected
    done = rasa_ram(
        "convert", tmp_path / "i.json", tmp_path / "i.jsonl", "--from", "coco-instances", "--vocabulary", vocabulary
    )
    assert [record.tag_ids for record in read_records(tmp_path / "i.jsonl")] == [(1,)]


@pytest.mark.parametrize("last", ["categories", "annotations"])
def test_instances_of_coco_are_told_from_captions_by_their_content(rasa_ram, tmp_path, vocabulary, last):
    lists = {
        "info": {},
        "images": [{"id": 1, "file_name": "1.jpg"}],
        "categories": [{"id": 1, "name": "kitten"}],
        "annotations": [{"id": 7, "image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1]}],
    }
    lists[last] = lists.pop(last)
    path = tmp_path / "instances_val2017.json"
    path.write_text(json.dumps(lists))
    done = rasa_ram("convert", path, tmp_path / "m.json", "--vocabulary", vocabulary)
    assert done.exit_code == 0, done.output
    assert list(read_records(tmp_path / "m.json")) == [Record(image_path="1.jpg", tag_ids=(1,))]
    done = rasa_ram("convert", path, tmp_path / "m.json")
    assert (done.exit_code, "categories of instances become tags of a vocabulary; give it" in done.stderr) == (1, True)


def test_convert_visual_genome(rasa_ram, tmp_path):
    (tmp_path / "vg").mkdir()
    (tmp_path / "vg" / "region_descriptions.json").write_text('[{"id": 1, "regions": [{"phrase": "a kite"}]}]')
    assert rasa_ram("convert", tmp_path / "vg", tmp_path / "m.json").exit_code == 0
    assert [record.captions for record in read_records(tmp_path / "m.json")] == [("a kite",)]
    done = rasa_ram("convert", tmp_path / "vg", tmp_path / "m.json", "--folder", "x")
    assert (done.exit_code, "--folder goes with COCO's files" in done.stderr) == (1, True)
    assert (
        "has neither region_descriptions.json nor .tar files"
        in rasa_ram("convert", tmp_path, tmp_path / "m.json").stderr
    )


def test_shards_and_back(rasa_ram, tmp_path, images):
    path = manifest(tmp_path, gone=(1,))
    done = rasa_ram("shard", path, tmp_path / "out", "--images", images, "--per-shard", 3)
    assert (done.exit_code, "record 4 (image 'gone'): there is no image" in done.stderr) == (1, True)
    done = rasa_ram("shard", path, tmp_path / "out", "--images", images, "--per-shard", 3, "--on-bad", "skip")
    assert (done.exit_code, "1 x missing-image" in done.stderr) == (0, True), done.output
    shards = read_shard_index(tmp_path / "out")
    assert [len(list(read_shard(shard.path))) for shard in shards] == [3, 1]
    assert rasa_ram("convert", tmp_path / "out", tmp_path / "back.json").exit_code == 0
    assert list(read_records(tmp_path / "back.json")) == list(read_records(path))[:4]
    assert rasa_ram("check", shards[0].path).exit_code == 0


def test_a_shard_that_lacks_a_record_is_mended_by_a_run_that_skips_none(rasa_ram, tmp_path, images):
    command = ("shard", manifest(tmp_path), tmp_path / "out", "--images", images)
    photo = (images / "1.jpg").read_bytes()
    (images / "1.jpg").unlink()
    assert rasa_ram(*command, "--on-bad", "skip").exit_code == 0
    done = rasa_ram(*command)
    assert (done.exit_code, "record 1 (image '1.jpg'): there is no image" in done.stderr) == (1, True), done.output
    (images / "1.jpg").write_bytes(photo)
    done = rasa_ram(*command)
    assert (done.exit_code, done.stderr) == (0, "4 records in 1 shards\n")
    [shard] = read_shard_index(tmp_path / "out")
    assert [record.image_path for record, _ in read_shard(shard.path)] == [f"{i}.jpg" for i in range(4)]


def test_check_names_every_bad_caption_of_records_that_are_used_and_fails(rasa_ram, tmp_path):
    row = {"image_path": "a", "caption": ["a dog", "", "two dogs", "x" * 20_000]}
    (tmp_path / "m.json").write_text(json.dumps([row, {"image_path": "b"}]))
    done = rasa_ram("check", tmp_path / "m.json", "--report", tmp_path / "r.jsonl")
    assert (done.exit_code, "bad captions of good records" in done.stdout) == (1, True), done.output
    faults = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert [(fault["number"], fault["kind"], fault["mended"]) for fault in faults] == [
        (0, "empty-caption", True), (0, "long-caption", True),
    ]  # fmt: skip
    done = rasa_ram("convert", tmp_path / "m.json", tmp_path / "out.json", "--on-bad", "skip")
    assert "1 x empty-caption, such as" in done.stderr
    assert rasa_ram("check", tmp_path / "out.json").exit_code == 0


def test_a_bad_record_stops_the_conversion_and_leaves_no_file(rasa_ram, tmp_path):
    (tmp_path / "m.json").write_text('[{"image_path": "a"}, {}]')
    done = rasa_ram("convert", tmp_path / "m.json", tmp_path / "out.parquet")
    assert (done.exit_code, "record 1: has no image_path" in done.stderr) == (1, True)
    assert not (tmp_path / "out.parquet").exists()
    assert rasa_ram("convert", tmp_path / "m.json", tmp_path / "out.parquet", "--on-bad", "skip").exit_code == 0
