"""The published annotation JSON: what is read, what is refused and by which name, and where a file is broken."""

import collections
import io
import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rasa.errors import FormatError, InputError
from rasa_ram.data import published_json_stream
from rasa_ram.data.manifest import ReadReport, read_records, write_records
from rasa_ram.data.published_json_stream import BrokenJsonError, JsonStream
from rasa_ram.data.records import Record

GOOD = {"image_path": "a.jpg", "caption": ["a cat"], "union_label_id": [1, 2], "parse_label_id": [[1]]}
UNTAGGED = {**GOOD, "union_label_id": None}


def write(path, rows):
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def test_the_published_keys(tmp_path):
    rows = [
        GOOD,
        {"image_path": "b.jpg", "caption": ["one", "two"], "parse_label_id": [[3], []]},
        {"image": "val2014/c.jpg", "caption": "a string, as in the karpathy files", "image_id": "coco_3"},
        {"image_path": "d.jpg", "caption": "flat", "parse_label_id": [4, 5]},
        {"image_path": "e.jpg", "caption": [], "union_label_id": [], "parse_label_id": []},
    ]
    assert list(read_records(write(tmp_path / "m.json", rows))) == [
        Record(image_path="a.jpg", captions=("a cat",), parsed_ids=((1,),), tag_ids=(1, 2)),
        Record(image_path="b.jpg", captions=("one", "two"), parsed_ids=((3,), ())),
        Record(image_path="val2014/c.jpg", captions=(rows[2]["caption"],), parsed_ids=((),)),
        Record(image_path="d.jpg", captions=("flat",), parsed_ids=((4, 5),)),
        Record(image_path="e.jpg", tag_ids=()),
    ]


BAD = {
    "an empty caption": ({"caption": [""]}, "empty-caption", "caption 0 is empty"),
    "a blank caption": ({"caption": [" \n\t"]}, "empty-caption", "caption 0 is empty"),
    "a caption of 100 kB": ({"caption": ["cat " * 25_000]}, "long-caption", "has 100000 bytes, at most 10000"),
    "a long caption of wide letters": ({"caption": ["猫" * 3334]}, "long-caption", "has 10002 bytes"),
    "a control character": ({"caption": ["a\x00cat"]}, "bad-characters", r"U\+0000 at position 1"),
    "an escape sequence": ({"caption": ["\x1b[31mcat"]}, "bad-characters", r"U\+001B at position 0"),
    "half a character": ({"caption": ["cat \ud83d"]}, "bad-characters", r"U\+D83D at position 4"),
    "a caption that is a number": ({"caption": [3]}, "wrong-type", "caption 0 must be a string, got 3"),
    "captions that are a number": ({"caption": 3}, "wrong-type", "caption must be a list of strings, got 3"),
    "no image": ({"image_path": None}, "no-image", "has no image_path"),
    "an empty path": ({"image_path": ""}, "no-image", "has no image_path"),
    "a blank path": ({"image_path": "  "}, "no-image", "is blank"),
    "a path that is a number": ({"image_path": 7}, "wrong-type", "image_path must be a string, got 7"),
    "a path with a line feed": ({"image_path": "a\nb.jpg"}, "bad-characters", "image_path holds a control character"),
    "a path of 5000 letters": ({"image_path": "a" * 5000}, "wrong-type", "has over 4096 bytes"),
    "an id too high": (
        {"union_label_id": [10]},
        "id-range",
        "union_label_id has id 10; the vocabulary has ids from 0 to 9",
    ),
    "an id below 0": ({"parse_label_id": [[-1]]}, "id-range", "parse_label_id has id -1"),
    "a huge id": ({"union_label_id": [10**400]}, "id-range", "a number of over 19 digits"),
    "an id that is true": ({"union_label_id": [True]}, "wrong-type", "whole numbers, got True"),
    "an id that is a fraction": ({"union_label_id": [1.0]}, "wrong-type", "whole numbers, got 1.0"),
    "ids that are no list": ({"union_label_id": 3}, "wrong-type", "must hold lists of ids, got 3"),
    "more rows than captions": ({"parse_label_id": [[1], [2]]}, "row-count", "has 2 rows for 1 captions"),
    "rows that are no lists": ({"parse_label_id": [1]}, "wrong-type", "must hold lists of ids, got 1"),
    "an object for rows": ({"parse_label_id": {"0": 1}}, "wrong-type", "must be a list of lists"),
}


@pytest.mark.parametrize(("change", "kind", "why"), BAD.values(), ids=BAD)
def test_a_bad_record_is_named_and_stops(tmp_path, change, kind, why):
    path = write(tmp_path / "m.json", [GOOD, {**GOOD, **change}, GOOD])
    with pytest.raises(FormatError, match=rf"m\.json: record 1.*: .*{why}.*; mend the file, or skip"):
        list(read_records(path, vocabulary_size=10))


@pytest.mark.parametrize(("change", "kind", "why"), BAD.values(), ids=BAD)
@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_a_bad_record_is_counted_and_skipped(tmp_path, change, kind, why, suffix):
    rows = [GOOD, {**UNTAGGED, **change}, GOOD]
    path = tmp_path / f"m{suffix}"
    path.write_text(json.dumps(rows) if suffix == ".json" else "\n".join(map(json.dumps, rows)), encoding="utf-8")
    report = ReadReport()
    assert len(list(read_records(path, on_bad="skip", vocabulary_size=10, report=report))) == 2
    assert (report.records, report.bad, dict(report.counts)) == (2, 1, {kind: 1})
    (fault,) = report.examples[kind]
    assert fault.number == 1
    assert fault.image == (None if kind == "no-image" or "image_path" in change else "a.jpg")


def test_rows_that_are_no_objects(tmp_path):
    report = ReadReport()
    path = write(tmp_path / "m.json", [GOOD, 5, "x", None, [GOOD], GOOD])
    assert len(list(read_records(path, on_bad="skip", report=report))) == 2
    assert dict(report.counts) == {"wrong-type": 4}


def test_repeated_ids_are_read_once_and_counted(tmp_path):
    path = write(tmp_path / "m.json", [{**GOOD, "union_label_id": [2, 1, 2], "parse_label_id": [[1, 1]]}])
    report = ReadReport()
    (record,) = read_records(path, report=report)
    assert (record.tag_ids, record.parsed_ids) == ((2, 1), ((1,),))
    assert (report.records, report.bad, report.mended, dict(report.counts)) == (1, 0, 1, {"repeated-id": 1})


def test_a_report_keeps_few_examples_and_tells_all(tmp_path):
    told = []
    report = ReadReport(on_fault=told.append)
    path = write(tmp_path / "m.json", [{**UNTAGGED, "caption": [""]}] * 20)
    assert list(read_records(path, on_bad="skip", report=report)) == []
    assert (len(report.examples["empty-caption"]), len(told), report.bad) == (5, 20, 20)


@pytest.mark.parametrize(
    ("text", "offset", "before"),
    [
        (b'[{"image_path": "a.jpg"}, {"image_path": "b.jpg" "caption": []}, {"image_path": "c.jpg"}]', 49, 1),
        (b'[{"image_path": "a.jpg"} {"image_path": "c.jpg"}]', 25, 1),
        (b'[{"image_path": "a.jpg"}, {"image_path": NaN}, {"image_path": "c.jpg"}]', 26, 1),
        ('[{"image_path": "ü.jpg"}, nope, {"image_path": "c.jpg"}]'.encode(), 27, 1),
        (b'[{"image_path": "a.jpg"}, {"image_path": "c', 41, 1),
        (b'[{"image_path": "a.jpg"}', 24, 1),
        (b"", 0, 0),
        (b"nope", 0, 0),
        (b'[{"image_path": "a.jpg"}] x', 26, 1),
        (b'{"images": [{"image_path": "a.jpg"}]}', 0, 0),
    ],
)
def test_broken_json_is_named_with_its_byte(tmp_path, text, offset, before):
    path = tmp_path / "m.json"
    path.write_bytes(text)
    with pytest.raises(FormatError, match=rf"broken JSON at byte {offset}: .*; {before} records were read before"):
        list(read_records(path))


def test_reading_goes_on_behind_broken_json(tmp_path):
    path = tmp_path / "m.json"
    path.write_bytes(
        b'[{"image_path": "a"}, {"image_path": oops}, {"image_path": "c"}, nope, {"image_path": "e"}, {"im'
    )
    report = ReadReport()
    records = read_records(path, on_bad="skip", report=report)
    assert [record.image_path for record in records] == ["a", "c", "e"]
    assert dict(report.counts) == {"broken-file": 3}
    assert [fault.number for fault in report.examples["broken-file"]] == [1, 3, 5]


def test_a_byte_that_is_no_utf8_costs_one_record(tmp_path):
    path = tmp_path / "m.json"
    path.write_bytes(b'[{"image_path": "a", "caption": "caf\xe9"}, {"image_path": "b", "caption": "caf\xc3\xa9"}]')
    report = ReadReport()
    assert [record.captions for record in read_records(path, on_bad="skip", report=report)] == [("café",)]
    assert dict(report.counts) == {"bad-characters": 1}


def test_a_byte_order_mark_is_passed_over(tmp_path):
    path = tmp_path / "m.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps([GOOD]).encode())
    assert len(list(read_records(path))) == 1


class Endless(io.RawIOBase):
    """A file of many megabytes that is made while it is read: `count` records, then `end`."""

    def __init__(self, count, end):
        self.record = json.dumps(GOOD).encode()
        self.parts = self._parts(count, end)
        self.largest = 0

    def _parts(self, count, end):
        block = b",\n".join([self.record] * 1000)
        yield b"[" + block
        for _ in range(count // 1000 - 1):
            yield b",\n" + block
        yield end

    def read(self, size=-1):
        self.largest = max(self.largest, size)
        return next(self.parts, b"")


def test_broken_json_after_20_megabytes_is_named_and_little_is_read_at_a_time():
    file = Endless(200_000, b', {"image_path": oops}]')
    counter = itertools.count()
    with pytest.raises(BrokenJsonError) as raised:
        collections.deque(zip(JsonStream(file).items(), counter, strict=False), maxlen=0)
    assert next(counter) == 200_000
    assert raised.value.offset == 1 + 200_000 * len(file.record) + 199_999 * 2 + len(', {"image_path": ')
    assert file.largest <= 2 * published_json_stream.CHUNK_BYTES


def test_an_item_without_end_is_given_up(monkeypatch):
    monkeypatch.setattr(published_json_stream, "CHUNK_BYTES", 1000)
    monkeypatch.setattr(published_json_stream, "MAX_ITEM_CHARACTERS", 100_000)
    given_out = 0

    class Zeros(io.RawIOBase):
        def read(self, size=-1):
            nonlocal given_out
            given_out += size
            return b'["' + b"x" * (size - 2) if given_out == size else b"x" * size

    with pytest.raises(BrokenJsonError, match="Unterminated string"):
        list(JsonStream(Zeros()).items())
    assert given_out < 300_000


def test_a_thousand_brackets_are_broken_json(tmp_path):
    path = tmp_path / "m.json"
    path.write_bytes(b"[" * 100_000)
    with pytest.raises(FormatError, match="broken JSON at byte 1: maximum recursion"):
        list(read_records(path))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(
    rows=st.lists(JSON, max_size=8), chunk=st.integers(1, 40), indent=st.sampled_from([None, 2]), ascii_=st.booleans()
)
def test_any_list_is_read_as_json_reads_it_whatever_the_chunks(rows, chunk, indent, ascii_):
    data = json.dumps(rows, indent=indent, ensure_ascii=ascii_).encode("utf-8", "surrogatepass")
    if b"\xed" in data and not ascii_:
        return  # lone surrogates are no UTF-8
    file = io.BytesIO(data)
    stream = JsonStream(Slowly(file, chunk))
    assert [item for _, item in stream.items()] == rows
    assert stream.offset == len(data)


class Slowly:
    def __init__(self, file, chunk):
        self.file, self.chunk = file, chunk

    def read(self, size):
        return self.file.read(self.chunk)


@given(st.binary(max_size=200))
def test_any_bytes_end_in_items_or_in_a_named_place(data):
    offset = 0
    try:
        list(JsonStream(io.BytesIO(b"[" + data)).items())
    except BrokenJsonError as error:
        offset = error.offset
    assert 0 <= offset <= len(data) + 1


def test_a_broken_line_costs_one_record(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text('{"image_path": "a"}\n\n{"image_path": oops}\n{"image_path": "c"}\n', encoding="utf-8")
    report = ReadReport()
    assert [record.image_path for record in read_records(path, on_bad="skip", report=report)] == ["a", "c"]
    with pytest.raises(FormatError, match="record 1: broken JSON at byte 36"):
        list(read_records(path))


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_a_byte_order_mark_costs_no_record_and_bytes_are_counted_with_it(tmp_path, suffix):
    path = tmp_path / f"m{suffix}"
    first, broken = '{"image_path": "ä"}', '{"image_path": "日本", "caption": oops}'
    text = f"[{first},{broken}]" if suffix == ".json" else f"{first}\n{broken}\n"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    report = ReadReport()
    assert [record.image_path for record in read_records(path, on_bad="skip", report=report)] == ["ä"]
    (fault,) = report.examples["broken-file"]
    assert f"broken JSON at byte {path.read_bytes().index(b'oops')}: Expecting value" in fault.why


def test_the_byte_of_a_broken_line_is_told_behind_what_is_no_utf8(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_bytes(b'\n{"image_path": "caf\xe9 \xc3\xa9", oops}\n')
    with pytest.raises(FormatError, match=rf"broken JSON at byte {path.read_bytes().index(b'oops')}: "):
        list(read_records(path))


def test_what_cannot_be_read_is_named(tmp_path):
    with pytest.raises(InputError, match=r"cannot read .*none\.json: No such file"):
        list(read_records(tmp_path / "none.json"))
    with pytest.raises(InputError, match=r"must end in one of \.json, \.jsonl, \.parquet"):
        read_records(tmp_path / "m.yaml")
    with pytest.raises(InputError, match='on_bad must be "skip" or "stop"'):
        read_records(tmp_path / "m.json", on_bad="ignore")
    with pytest.raises(InputError, match="vocabulary_size must be at least 1"):
        read_records(tmp_path / "m.json", vocabulary_size=0)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "m.json"
    write_records([Record(image_path="old.jpg")], path)

    def broken():
        yield Record(image_path="new.jpg")
        raise RuntimeError("the source failed")

    with pytest.raises(RuntimeError, match="the source failed"):
        write_records(broken(), path)
    assert [record.image_path for record in read_records(path)] == ["old.jpg"]
    assert [file.name for file in tmp_path.iterdir()] == ["m.json"]
