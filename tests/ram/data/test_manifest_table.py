"""Manifests of all three endings, and records by number out of the cache."""

import json
import multiprocessing
import os
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rasa.errors import FormatError, InputError, OutputError
from rasa_ram.data.manifest import SUFFIXES, ReadReport, open_records, read_records, write_records
from rasa_ram.data.records import Record

IDS = st.lists(st.integers(0, 4584), unique=True, max_size=5).map(tuple)
# Cs: halves of characters. Cc: controls.
TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20).filter(
    lambda text: text.strip()
)


@st.composite
def records(draw):
    captions = tuple(draw(st.lists(TEXT, max_size=3)))
    return Record(
        image_path=draw(TEXT),
        captions=captions,
        parsed_ids=tuple(draw(IDS) for _ in captions),
        tag_ids=draw(st.none() | IDS),
    )


def some(count, start=0):
    return [
        Record(
            image_path=f"{i}.jpg",
            captions=(f"a cat {i}", "ein Kätzchen"),
            parsed_ids=((30, i), ()),
            tag_ids=(i, 30) if i % 2 == 0 else None,
        )
        for i in range(start, start + count)
    ]


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(rows=st.lists(records(), max_size=5))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_every_ending_keeps_every_record(tmp_path, suffix, rows):
    path = tmp_path / f"m{suffix}"
    assert write_records(iter(rows), path) == len(rows)
    assert list(read_records(path, vocabulary_size=4585)) == rows


def test_the_json_has_the_published_keys(tmp_path):
    write_records(some(2), tmp_path / "m.json")
    assert json.loads((tmp_path / "m.json").read_text(encoding="utf-8")) == [
        {
            "image_path": "0.jpg",
            "caption": ["a cat 0", "ein Kätzchen"],
            "union_label_id": [0, 30],
            "parse_label_id": [[30, 0], []],
        },
        {"image_path": "1.jpg", "caption": ["a cat 1", "ein Kätzchen"], "parse_label_id": [[30, 1], []]},
    ]


def test_other_endings_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"must end in one of \.json, \.jsonl, \.parquet"):
        write_records([], tmp_path / "m.csv")


# Parquet


def test_parquet_of_others_with_fewer_columns_and_other_types(tmp_path):
    table = pa.table({"url": ["u", "v"], "image": ["a.jpg", "b.jpg"], "caption": ["a cat", "a dog"]})
    pq.write_table(table, tmp_path / "m.parquet")
    assert [(r.image_path, r.captions, r.tag_ids) for r in read_records(tmp_path / "m.parquet")] == [
        ("a.jpg", ("a cat",), None),
        ("b.jpg", ("a dog",), None),
    ]


def test_bad_rows_and_broken_files_of_parquet(tmp_path):
    path = tmp_path / "m.parquet"
    table = pa.table(
        {"image_path": ["a.jpg", None, "c.jpg"], "caption": [["x"], ["y"], [""]], "union_label_id": [[99], [1], []]}
    )
    pq.write_table(table, path)
    report = ReadReport()
    assert list(read_records(path, on_bad="skip", vocabulary_size=10, report=report)) == []
    assert dict(report.counts) == {"id-range": 1, "no-image": 1, "empty-caption": 1}
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(FormatError, match=r"m\.parquet: record 0: is no whole Parquet file"):
        list(read_records(path))
    with pytest.raises(InputError, match="cannot read"):
        list(read_records(tmp_path / "none.parquet"))


# Records by number


@pytest.fixture
def manifests(tmp_path):
    write_records(some(5), tmp_path / "first.json")
    write_records(some(3, start=5), tmp_path / "second.parquet")
    return tmp_path


def test_a_table_has_the_records_in_order(manifests):
    table = open_records(manifests / "first.json", cache=manifests / "cache")
    assert len(table) == 5
    assert list(table) == some(5)
    assert [table[-1], table[np.int64(2)]] == [some(5)[4], some(5)[2]]
    for wrong in (5, -6):
        with pytest.raises(IndexError, match=rf"record {wrong} of a table of 5"):
            table[wrong]


def test_several_manifests_follow_each_other_and_repeat(manifests):
    paths = [manifests / "first.json", manifests / "second.parquet"]
    table = open_records(paths, repeats=[1, 2], cache=manifests / "cache")
    assert list(table) == some(5) + some(3, start=5) * 2
    lists = table.tags()
    assert [lists.ids[a:b].tolist() for a, b in zip([0, *lists.ends[:-1]], lists.ends, strict=True)] == [
        list(record.known_ids) for record in table
    ]
    expected = np.bincount([tag for record in table for tag in record.known_ids], minlength=40)
    assert lists.counts(40).tolist() == expected.tolist()
    with pytest.raises(InputError, match="the records have tag id 30, and the vocabulary 7 tags"):
        lists.counts(7)


@pytest.mark.parametrize("repeats", [[1], [1, 0], [1, 1, 1]])
def test_repeats_must_match(manifests, repeats):
    with pytest.raises(InputError, match="a number of at least 1 for each of 2 manifests"):
        open_records(
            [manifests / "first.json", manifests / "second.parquet"], repeats=repeats, cache=manifests / "cache"
        )


def test_no_manifest_and_an_empty_one(tmp_path):
    with pytest.raises(InputError, match="for each of 0 manifests"):
        open_records([], cache=tmp_path / "cache")
    write_records([], tmp_path / "m.json")
    table = open_records(tmp_path / "m.json", cache=tmp_path / "cache")
    assert (len(table), list(table), table.tags().counts(3).tolist()) == (0, [], [0, 0, 0])


def test_a_table_is_cheap_to_send_and_reads_elsewhere(manifests):
    table = open_records(manifests / "first.json", cache=manifests / "cache")
    assert table[3] == some(5)[3]  # its files are mapped now, and must not travel
    sent = pickle.dumps(table)
    assert len(sent) < 1000
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.map(table.__getitem__, [4, 0]) == [some(5)[4], some(5)[0]]
    assert list(pickle.loads(sent)) == some(5)


def test_the_cache_is_used_until_the_manifest_changes(manifests):
    path, cache = manifests / "first.json", manifests / "cache"
    open_records(path, cache=cache)
    (folder,) = cache.iterdir()
    stamp = (folder / "rows.bin").stat().st_mtime_ns
    open_records(path, cache=cache)
    assert (folder / "rows.bin").stat().st_mtime_ns == stamp
    write_records(some(2), path)
    assert len(open_records(path, cache=cache)) == 2
    assert len(list(cache.iterdir())) == 2


def open_there(path):
    return list(open_records(path, cache=path.parent / "cache"))


def test_processes_that_open_at_the_same_time_do_not_disturb_each_other(manifests):
    with multiprocessing.get_context("fork").Pool(4) as pool:
        assert pool.map(open_there, [manifests / "first.json"] * 8, chunksize=1) == [some(5)] * 8
    assert len(list((manifests / "cache").iterdir())) == 1


def test_a_damaged_cache_is_made_again(manifests):
    path, cache = manifests / "first.json", manifests / "cache"
    open_records(path, cache=cache)
    (folder,) = cache.iterdir()
    os.truncate(folder / "rows.bin", 10)
    assert list(open_records(path, cache=cache)) == some(5)


def test_bad_records_stop_or_are_counted(manifests):
    path, cache = manifests / "bad.json", manifests / "cache"
    path.write_text('[{"image_path": "a.jpg", "union_label_id": [3]}, {"image_path": ""}, {"image_path": "c.jpg"}]')
    with pytest.raises(FormatError, match=r"bad\.json: record 1: has no image_path"):
        open_records(path, cache=cache)
    assert list(cache.iterdir()) == []
    for _ in range(2):  # the second time from the cache
        table = open_records(path, on_bad="skip", cache=cache)
        assert [record.image_path for record in table] == ["a.jpg", "c.jpg"]
        assert table.skipped == {"no-image": 1}
    with pytest.raises(FormatError, match="id 3; the vocabulary has ids from 0 to 2"):
        open_records(path, vocabulary_size=3, cache=cache)


def test_a_cache_that_cannot_be_written(manifests):
    (manifests / "file").write_text("in the way")
    with pytest.raises(OutputError, match=r"cannot write .*choose a cache with room"):
        open_records(manifests / "first.json", cache=manifests / "file")
    with pytest.raises(InputError, match=r"cannot read .*none\.json"):
        open_records(manifests / "none.json", cache=manifests / "cache")
