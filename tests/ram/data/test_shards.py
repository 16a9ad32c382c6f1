"""WebDataset shards: written and read, also by the webdataset package, and what broken ones lead to."""

import gc
import io
import json
import tarfile

import pytest
import webdataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from rasa.errors import FormatError, InputError, RasaWarning
from rasa_ram.data.check import check_header
from rasa_ram.data.manifest import ReadReport
from rasa_ram.data.records import Record
from rasa_ram.data.shards import read_shard, read_shard_index
from rasa_ram.data.shards_images import read_images_from
from rasa_ram.data.shards_writer import write_shards


def jpeg(value):
    file = io.BytesIO()
    Image.new("RGB", (8, 6), (value, 20, 30)).save(file, "JPEG")
    return file.getvalue()


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for i in range(10):
        (folder / f"{i}.jpg").write_bytes(jpeg(i * 20))
    return folder


RECORDS = [
    Record(image_path=f"{i}.jpg", captions=(f"Kätzchen {i}",), parsed_ids=((i,),), tag_ids=(i, 11)) for i in range(10)
]


def write(folder, images, records=RECORDS, **settings):
    return write_shards(records, folder, read_image=read_images_from(images), per_shard=4, **settings)


def members(path):
    with tarfile.open(path) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}


def pack(path, files):
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            header = tarfile.TarInfo(name)
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))
    return path


# Writing


def test_what_is_written_is_read(tmp_path, images):
    shards = write(tmp_path, images)
    assert [shard.records for shard in shards] == [4, 4, 2]
    assert read_shard_index(tmp_path) == shards
    read = [pair for shard in shards for pair in read_shard(shard.path, vocabulary_size=12)]
    assert [record for record, _ in read] == RECORDS
    assert [data for _, data in read] == [(images / record.image_path).read_bytes() for record in RECORDS]


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_reads_ours(tmp_path, images):
    paths = [str(shard.path) for shard in write(tmp_path, images)]
    samples = list(webdataset.WebDataset(paths, shardshuffle=False).decode("pil"))
    assert [sample["json"]["image_path"] for sample in samples] == [record.image_path for record in RECORDS]
    assert [sample["__key__"] for sample in samples[:2]] == ["000000000", "000000001"]
    assert samples[3]["jpg"].size == (8, 6)
    gc.collect()  # the package leaves its files open, which must not be told during another test


def test_we_read_those_of_webdataset(tmp_path):
    path = tmp_path / "theirs.tar"
    with webdataset.TarWriter(str(path)) as writer:
        writer.write(
            {"__key__": "train/0001", "jpg": jpeg(1), "txt": " a cat\n", "json": {"url": "u", "caption": None}}
        )
        writer.write({"__key__": "train/0002", "png": jpeg(2), "json": {"caption": "a dog", "width": 8}})
        writer.write({"__key__": "train/0003", "jpg": jpeg(3), "txt": "a cow", "cls": "7"})
    assert [(record.image_path, record.captions) for record, _ in read_shard(path)] == [
        ("train/0001.jpg", ("a cat",)),
        ("train/0002.png", ("a dog",)),
        ("train/0003.jpg", ("a cow",)),
    ]
    assert [data for _, data in read_shard(path)] == [jpeg(1), jpeg(2), jpeg(3)]


def test_the_same_records_give_the_same_bytes(tmp_path, images):
    first, second = write(tmp_path / "a", images), write(tmp_path / "b", images)
    assert [shard.path.read_bytes() for shard in first] == [shard.path.read_bytes() for shard in second]
    index = json.loads((tmp_path / "a" / "index.json").read_text())
    assert index["shardlist"][2] == {"url": "records-000002.tar", "nsamples": 2, "filesize": first[2].size}


def test_an_interrupted_run_goes_on(tmp_path, images):
    (whole,) = [[shard.path.read_bytes() for shard in write(tmp_path / "whole", images)]]
    asked = []

    def read_image(record, *, until):
        asked.append(record.image_path)
        if len(asked) > until:
            raise KeyboardInterrupt
        return read_images_from(images)(record)

    def run(until):
        asked.clear()
        return write_shards(
            RECORDS, tmp_path / "part", read_image=lambda record: read_image(record, until=until), per_shard=4
        )

    with pytest.raises(KeyboardInterrupt):
        run(until=6)
    assert sorted(path.name for path in (tmp_path / "part").iterdir()) == ["records-000000.json", "records-000000.tar"]
    with pytest.raises(InputError, match=r"index\.json.*is the writing of the shards complete"):
        read_shard_index(tmp_path / "part")
    shards = run(until=10)
    assert asked == [f"{i}.jpg" for i in range(4, 10)]
    assert [shard.path.read_bytes() for shard in shards] == whole


def test_a_shard_of_other_records_or_a_cut_one_is_written_again(tmp_path, images):
    before = write(tmp_path, images)
    changed = [Record(image_path="9.jpg", tag_ids=(5,)), *RECORDS[1:]]
    before[1].path.write_bytes(before[1].path.read_bytes()[:1000])
    after = write(tmp_path, images, changed)
    assert [record for shard in after for record, _ in read_shard(shard.path)] == changed


def test_bad_images_stop_or_are_counted_and_move_nothing(tmp_path, images):
    bad = {2: "gone.jpg", 3: "../secret.jpg", 5: "/etc/passwd", 6: "text.jpg", 8: "empty.jpg"}
    for i in range(10):
        (tmp_path / f"{i}.jpg").write_bytes(jpeg(i))
    (tmp_path / "text.jpg").write_text("<html>")
    (tmp_path / "empty.jpg").write_bytes(b"")
    records = [Record(image_path=bad.get(i, f"{i}.jpg")) for i in range(10)]
    with pytest.raises(FormatError, match=r"record 2 \(image 'gone\.jpg'\): there is no image .*gone\.jpg"):
        write(tmp_path / "stop", tmp_path, records)
    for _ in range(2):  # the second run writes nothing and counts the same
        report = ReadReport()
        shards = write(tmp_path / "skip", tmp_path, records, on_bad="skip", report=report)
        assert [shard.records for shard in shards] == [2, 2, 1]
        assert dict(report.counts) == {"missing-image": 1, "outside-folder": 2, "broken-image": 2}
        assert (report.records, report.bad) == (5, 5)
    assert list(members(shards[1].path)) == ["000000004.jpg", "000000004.json", "000000007.jpg", "000000007.json"]


def test_a_shard_with_holes_is_written_again_once_an_image_is_there_and_no_other_is(tmp_path, images):
    for i in range(10):
        (tmp_path / f"{i}.jpg").write_bytes((images / f"{i}.jpg").read_bytes())
    for i in (1, 2, 5):
        (tmp_path / f"{i}.jpg").unlink()
    write(tmp_path / "out", tmp_path, on_bad="skip")
    (tmp_path / "2.jpg").write_bytes((images / "2.jpg").read_bytes())
    asked = []

    def read_image(record):
        asked.append(record.image_path)
        return read_images_from(tmp_path)(record)

    report = ReadReport()
    shards = write_shards(RECORDS, tmp_path / "out", read_image=read_image, per_shard=4, on_bad="skip", report=report)
    assert [shard.records for shard in shards] == [3, 3, 2]
    assert [record for record, _ in read_shard(shards[0].path)] == [RECORDS[i] for i in (0, 2, 3)]
    assert (report.records, report.bad, dict(report.counts)) == (8, 2, {"missing-image": 2})
    assert asked == ["1.jpg", "2.jpg", "0.jpg", "1.jpg", "2.jpg", "3.jpg", "5.jpg"]
    with pytest.raises(FormatError, match=r"record 1 \(image '1\.jpg'\): there is no image"):
        write(tmp_path / "out", tmp_path)


@pytest.mark.parametrize(
    ("kind", "suffix"), [("AVIF", "avif"), ("BMP", "bmp"), ("GIF", "gif"), ("JPEG", "jpg"), ("TIFF", "tiff")]
)
def test_the_bytes_tell_the_ending(tmp_path, kind, suffix):
    Image.new("RGB", (8, 6), (9, 20, 30)).save(tmp_path / "photo.bin", kind)
    [shard] = write(tmp_path / "out", tmp_path, [Record(image_path="photo.bin")])
    assert list(members(shard.path)) == [f"000000000.{suffix}", "000000000.json"]
    [(record, data)] = read_shard(shard.path)
    assert (record.image_path, data) == ("photo.bin", (tmp_path / "photo.bin").read_bytes())


def test_a_check_can_refuse_an_image(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff and no more")
    read_image = read_images_from(tmp_path, check=check_header)
    with pytest.raises(FormatError, match="is broken or cut off"):
        write_shards([Record(image_path="a.jpg")], tmp_path / "out", read_image=read_image)


def test_shards_of_an_earlier_run_are_told(tmp_path, images):
    write(tmp_path, images)
    with pytest.warns(RasaWarning, match=r"has 2 shards that its index does not list, such as records-000001\.tar"):
        write(tmp_path, images, RECORDS[:4])


def test_an_index_must_match(tmp_path, images):
    shards = write(tmp_path, images)
    shards[0].path.write_bytes(b"")
    with pytest.raises(FormatError, match=r"records-000000\.tar has 0 bytes, its index says"):
        read_shard_index(tmp_path)
    (tmp_path / "index.json").write_text("{}")
    with pytest.raises(FormatError, match="is no index of shards"):
        read_shard_index(tmp_path)


# Reading what cannot be trusted


def read_bad(path, **settings):
    report = ReadReport()
    return [record.image_path for record, _ in read_shard(path, on_bad="skip", report=report, **settings)], dict(
        report.counts
    )


def good(name):
    return json.dumps({"image_path": name, "caption": ["a cat"]}).encode()


def test_bad_samples_are_counted(tmp_path):
    path = pack(tmp_path / "s.tar", {
        "README": b"no sample", ".hidden.json": b"{}",
        "0.json": good("0"), "1.jpg": b"", "1.json": good("1"), "2.jpg": jpeg(2), "2.json": b"{oops",
        "3.jpg": jpeg(3), "3.json": b"[]", "4.jpg": jpeg(4) + bytes(5000), "4.json": good("4"),
        "5.jpg": jpeg(5), "5.json": json.dumps({"image_path": "5", "union_label_id": [12]}).encode(), "6.jpg": jpeg(6),
    })  # fmt: skip
    names, counts = read_bad(path, vocabulary_size=12, max_image_bytes=5000)
    assert names == ["6.jpg"]
    assert counts == {"missing-image": 1, "broken-image": 2, "broken-file": 1, "wrong-type": 1, "id-range": 1}
    with pytest.raises(FormatError, match=r"s\.tar: record 0: sample '0\.json' has no image"):
        list(read_shard(path))


def test_names_are_not_trusted_and_links_are_passed_over(tmp_path):
    path = tmp_path / "s.tar"
    with tarfile.open(path, "w") as tar:
        link = tarfile.TarInfo("0.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
        for name, data in (("../../0.png", jpeg(0)), ("../../0.json", good("../x.jpg"))):
            header = tarfile.TarInfo(name)
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))
    assert read_bad(path) == (["../x.jpg"], {})
    assert list(tmp_path.iterdir()) == [path]


def test_long_names_of_both_formats(tmp_path):
    name = "f" * 150 + "/" + "n" * 150
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        with tarfile.open(tmp_path / "s.tar", "w", format=form) as tar:
            header = tarfile.TarInfo(f"{name}.jpg")
            header.size = len(jpeg(1))
            tar.addfile(header, io.BytesIO(jpeg(1)))
        assert read_bad(tmp_path / "s.tar") == ([f"{name}.jpg"], {})


@pytest.fixture(scope="module")
def shard(tmp_path_factory, images):
    return write(tmp_path_factory.mktemp("shard"), images)[0].path.read_bytes()


@pytest.mark.parametrize(("end", "left"), [(0, 0), (100, 0), (512, 0), (2000, 0), (2560, 1), (10_000, 3), (10_240, 4)])
def test_a_shard_that_was_cut_off_is_named(tmp_path, shard, end, left):
    path = tmp_path / "s.tar"
    path.write_bytes(shard[:end])
    names, counts = read_bad(path)
    assert (len(names), counts) == (left, {"broken-file": 1})
    with pytest.raises(
        FormatError, match=rf"s\.tar: record {left}: broken tar at byte .*; {left} samples were read before"
    ):
        list(read_shard(path))


def test_what_is_no_tar_is_named(tmp_path):
    path = tmp_path / "s.tar"
    path.write_bytes(b"\x1f\x8b" + b"gzip" * 1000)
    with pytest.raises(FormatError, match=r"broken tar at byte 0: .*; is it compressed, or no tar"):
        list(read_shard(path))
    with pytest.raises(InputError, match=r"cannot read .*none\.tar"):
        list(read_shard(tmp_path / "none.tar"))


def test_a_header_that_promises_terabytes_reads_none(tmp_path):
    for kind in (tarfile.REGTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME):
        header = tarfile.TarInfo("0.jpg")
        header.size, header.type = 2**42, kind
        path = tmp_path / "s.tar"
        path.write_bytes(header.tobuf(tarfile.GNU_FORMAT) + bytes(10_000))
        names, counts = read_bad(path)
        assert (names, counts) == ([], {"broken-file": 1})


def test_sizes_that_lie_are_refused(tmp_path):
    header = tarfile.TarInfo("0.jpg")
    block = bytearray(header.tobuf(tarfile.GNU_FORMAT))
    block[124:136] = b"\xff" * 12  # -1 as GNU's binary number
    block[148:156] = b" " * 8
    block[148:155] = b"%06o\0" % sum(block)
    (tmp_path / "s.tar").write_bytes(bytes(block) + bytes(10_000))
    with pytest.raises(FormatError, match=r"broken tar at byte 0: a header says -1 bytes"):
        list(read_shard(tmp_path / "s.tar"))
    with tarfile.open(tmp_path / "s.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        header.pax_headers = {"size": "9" * 5000}
        header.size = len(jpeg(1))
        tar.addfile(header, io.BytesIO(jpeg(1)))
    assert read_bad(tmp_path / "s.tar") == (["0.jpg"], {})


@given(place=st.integers(0, 10_500), value=st.integers(0, 255))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_changed_byte_gives_records_or_a_named_fault(tmp_path, shard, place, value):
    path = tmp_path / "s.tar"
    changed = bytearray(shard)
    changed[place] = value
    path.write_bytes(changed)
    names, counts = read_bad(path)
    assert len(names) <= 5
    assert sum(counts.values()) <= 5
