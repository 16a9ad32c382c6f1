"""Bad captions of records that have better ones, or tags: left out with their ids, counted and named."""

import io
import json
import tarfile

import pyarrow as pa
import pytest
from pyarrow import parquet

from rasa.errors import FormatError
from rasa_ram.data.manifest import ReadReport, open_records, read_records
from rasa_ram.data.records import Record
from rasa_ram.data.shards import read_shard

CAPTIONS = ["a dog", "", "two dogs", "x" * 20_000, "a\x00dog", "a dog on a beach"]
PARSED = [[1], [2], [1], [3], [4], [1, 5]]


MENDED = Record(image_path="a.jpg", captions=("a dog", "two dogs", "a dog on a beach"), parsed_ids=((1,), (1,), (1, 5)))


def store(path, row):
    if path.suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist([row]), path)
    elif path.suffix == ".tar":
        with tarfile.open(path, "w") as tar:
            for name, data in (("0.jpg", b"photo"), ("0.json", json.dumps(row).encode())):
                header = tarfile.TarInfo(name)
                header.size = len(data)
                tar.addfile(header, io.BytesIO(data))
    else:
        path.write_text(json.dumps(row if path.suffix == ".jsonl" else [row]), encoding="utf-8")
    return path


def read_any(path, **settings):
    if path.suffix == ".tar":
        return [record for record, _ in read_shard(path, **settings)]
    return list(read_records(path, **settings))


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".parquet", ".tar"])
def test_a_bad_caption_is_left_out_alone_with_its_row_of_ids_where_bad_records_are_skipped(tmp_path, suffix):
    path = store(tmp_path / f"m{suffix}", {"image_path": "a.jpg", "caption": CAPTIONS, "parse_label_id": PARSED})
    report = ReadReport()
    assert read_any(path, on_bad="skip", report=report) == [MENDED]
    assert (report.records, report.bad, report.mended, report.captions_left_out) == (1, 0, 3, 3)
    assert dict(report.counts) == {"empty-caption": 1, "long-caption": 1, "bad-characters": 1}
    assert report.examples["empty-caption"][0].why == "caption 1 is empty; it is left out"
    with pytest.raises(FormatError, match=r"record 0 \(image 'a\.jpg'\): caption 1 is empty; mend the file, or skip"):
        read_any(path)


def test_a_table_of_records_has_no_bad_captions_and_no_tags_of_theirs(tmp_path):
    path = store(tmp_path / "m.json", {"image_path": "a.jpg", "caption": CAPTIONS, "parse_label_id": PARSED})
    table = open_records(path, on_bad="skip", cache=tmp_path)
    assert list(table) == [MENDED]
    assert table.tags().ids.tolist() == [1, 5]
    assert table.skipped == {"empty-caption": 1, "long-caption": 1, "bad-characters": 1}


@pytest.mark.parametrize(("tags", "kept"), [([7], True), ([], False), (None, False)])
def test_a_record_without_a_good_caption_is_kept_for_its_tags_alone(tmp_path, tags, kept):
    row = {"image_path": "a.jpg", "caption": ["", " "], "union_label_id": tags, "parse_label_id": [[1], [2]]}
    report = ReadReport()
    records = read_any(store(tmp_path / "m.json", row), on_bad="skip", report=report)
    assert records == ([Record(image_path="a.jpg", tag_ids=(7,))] if kept else [])
    assert (report.records, report.bad, report.mended) == ((1, 0, 2) if kept else (0, 1, 0))
