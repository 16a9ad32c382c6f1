"""ShardLoader: what TrainingLoader promises, of samples in tar files; and broken shards."""

import io
import os
import pickle
import tarfile
from dataclasses import replace

import numpy as np
import pytest
import torch

from rasa.errors import FormatError, ImageError, InputError, RasaWarning
from rasa_ram.data.loader import LoaderSettings, TrainingLoader, Views
from rasa_ram.data.samples import BatchSource
from rasa_ram.data.shard_source import ShardLoader
from rasa_ram.data.shard_source_index import ShardItems, index_shards
from rasa_ram.data.shards import read_shard
from rasa_ram.data.shards_tar import read_members
from rasa_ram.data.shards_writer import write_shards
from tests.ram.input.pictures import TAGS, jpeg, picture, record, same, write_pictures

COUNT = 23
SETTINGS = LoaderSettings(batch_size=3, num_tags=TAGS, seed=5, views=Views(size=16, teacher_size=8))


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path_factory):
    path = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("RASA_CACHE", os.fspath(path))
    return path


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Records with their folder, and the shards of five, the last of three, that hold the same."""
    folder = tmp_path_factory.mktemp("set")
    records = write_pictures(folder / "images", COUNT)
    shards = write_shards(
        records, folder / "shards", read_image=lambda r: (folder / "images" / r.image_path).read_bytes(), per_shard=5
    )
    return records, folder / "images", [shard.path for shard in shards]


def loader(shards, *, rank=0, ranks=1, window=8, **changes):
    return ShardLoader(shards, settings=replace(SETTINGS, **changes), window=window, rank=rank, ranks=ranks)


def all_same(first, second):
    first, second = list(first), list(second)
    return len(first) == len(second) and all(map(same, first, second))


def test_the_index_finds_what_reading_finds(source):
    records, _, shards = source
    index = index_shards(shards)
    assert index.counts.tolist() == [5, 5, 5, 5, 3]
    items = ShardItems(index, num_tags=TAGS)
    expected = [pair for path in shards for pair in read_shard(path)]
    for i in np.random.default_rng(0).permutation(COUNT).tolist():
        assert items.record(i) == expected[i][0]
        assert items.image(i, items.record(i)).size == (48, 64)
        assert items._last == (i, expected[i][1])
    assert [items.record(i).captions for i in range(COUNT)] == [known.captions for known in records]


def test_shards_give_the_batches_of_the_folder_they_were_made_of(source):
    records, folder, shards = source
    from_folder = TrainingLoader(records, folder, settings=replace(SETTINGS, order="sequential"))
    from_shards = loader(shards, order="sequential")
    assert isinstance(from_shards, BatchSource)
    assert all_same(from_folder.batches(0), from_shards.batches(0))


def test_epochs_show_everything_in_another_order(source):
    _, _, shards = source
    orders = [
        [path for batch in loader(shards, batch_size=1).batches(epoch) for path in batch.image_paths]
        for epoch in range(3)
    ]
    assert all(sorted(order) == sorted(f"{i}.jpg" for i in range(COUNT)) for order in orders)
    assert len(set(map(tuple, orders))) == 3


def test_resumed_is_undisturbed_and_decodes_nothing_before(source, monkeypatch):
    _, _, shards = source
    whole = list(loader(shards).batches(1))
    read = []
    original = ShardItems._read
    monkeypatch.setattr(ShardItems, "_read", lambda self, path, i: read.append(i) or original(self, path, i))
    resumed = list(loader(shards).batches(1, first=5))
    assert all_same(whole[5:], resumed)
    assert len(read) == sum(len(batch.image_paths) for batch in resumed)


@pytest.mark.parametrize("ranks", [2, 3])
def test_processes_see_together_what_one_sees(source, ranks):
    _, _, shards = source
    whole = list(loader(shards, batch_size=2 * ranks).batches(0))
    parts = [loader(shards, batch_size=2, rank=rank, ranks=ranks) for rank in range(ranks)]
    assert {len(part) for part in parts} == {len(whole)}
    for one, *shares in zip(whole, *(part.batches(0) for part in parts), strict=True):
        assert one.image_paths == tuple(path for share in shares for path in share.image_paths)
        assert torch.equal(one.pixels, torch.cat([share.pixels for share in shares]))


def test_workers_change_nothing(source):
    _, _, shards = source
    source = loader(shards, workers=2)
    assert all_same(loader(shards).batches(0), source.batches(0))
    assert all_same(loader(shards).batches(1, first=4), source.batches(1, first=4))
    source.close()


def test_the_index_is_kept_until_a_shard_changes(source, tmp_path, cache):
    _, _, shards = source
    copies = []
    for path in shards[:2]:
        copies.append(tmp_path / path.name)
        copies[-1].write_bytes(path.read_bytes())
    index = index_shards(copies)
    written = index.places.stat().st_mtime_ns
    assert index.places.is_relative_to(cache)
    assert index_shards(copies).places.stat().st_mtime_ns == written
    copies[1].write_bytes(shards[4].read_bytes())
    assert index_shards(copies).counts.tolist() == [5, 3]
    index.places.write_bytes(b"damaged")
    copies[1].write_bytes(shards[1].read_bytes())
    assert index_shards(copies, cache=tmp_path / "own").counts.tolist() == [5, 5]


def test_pickled_items_are_small(source):
    _, _, shards = source
    items = ShardItems(index_shards(shards), num_tags=TAGS)
    items.record(3)
    data = pickle.dumps(items)
    assert len(data) < 3000
    assert pickle.loads(data).record(3) == items.record(3)


def tar_of(path, members, mode="w"):
    with tarfile.open(path, mode) as tar:
        for name, data in members:
            header = tarfile.TarInfo(name)
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))
    return path


def test_shards_of_others_are_read(tmp_path):
    """As img2dataset writes them: jpg, json with other keys, and txt; long names make extended headers."""
    stem = "a" * 120 + "/" + "0001"
    photo = jpeg(picture(1))
    members = [(f"{stem}.jpg", photo), (f"{stem}.txt", b"a dog"), ("0002.jpg", photo), ("0002.txt", b"two cats")]
    (path,) = [tar_of(tmp_path / "x.tar", members)]
    source = loader([path], batch_size=2, texts=True, targets="caption", order="sequential")
    (batch,) = source.batches(0)
    assert batch.texts == ("a dog", "two cats")


@pytest.mark.filterwarnings("ignore:left out a sample")
def test_bad_samples_are_replaced_and_named(tmp_path):
    photo = jpeg(picture(1))
    good = b'{"caption": ["a dog"], "union_label_id": [1], "parse_label_id": [[1]]}'
    members = [
        ("0.jpg", photo), ("0.json", good), ("1.jpg", photo[:500]), ("1.json", good), ("2.jpg", photo),
        ("2.json", b"{broken"), ("3.json", good), ("4.jpg", photo), ("4.json", good.replace(b"[1],", b"[99],")),
    ]  # fmt: skip
    path = tar_of(tmp_path / "x.tar", members)
    source = loader([path], batch_size=5)
    (batch,) = source.batches(0)
    assert set(batch.image_paths) == {"0.jpg"}
    assert set(source.bad.counts) == {"image", "record"}
    reasons = " ".join(sample.reason for sample in source.bad.examples)
    for part in ("'1.jpg' is broken or cut off", "JSON is broken", "has no image", "99"):
        assert part in reasons
    stopping = loader([path], batch_size=1, order="sequential", on_bad="stop")
    with pytest.raises(ImageError, match=r"'1.jpg' is broken or cut off"):
        next(stopping.batches(0, first=1))
    with pytest.raises(FormatError, match="JSON is broken"):
        next(stopping.batches(0, first=2))


def test_a_shard_that_was_cut_off(source, tmp_path):
    _, _, shards = source
    path = tmp_path / "cut.tar"
    path.write_bytes(shards[0].read_bytes()[:9000])
    with pytest.raises(FormatError, match=r"cut.tar is no whole tar file: .*; \d samples come before; fetch it again"):
        loader([path, shards[1]], on_bad="stop")
    with pytest.warns(RasaWarning, match=r"\d samples come before and are used"):
        source = loader([path, shards[1]])
    assert len(list(source.batches(0))) >= 2
    path.write_bytes(b"<html>not found</html>" * 100)
    with pytest.raises(FormatError, match=r"cut\.tar is no whole tar file"):
        loader([path], on_bad="stop")


@pytest.mark.parametrize("damage", ["a flipped byte", "a cut between two samples"])
def test_a_shard_that_is_damaged_at_a_header_stops_or_is_told_each_time(source, tmp_path, damage):
    data = bytearray(source[2][0].read_bytes())
    with tarfile.open(source[2][0]) as tar:
        place = tar.getmembers()[4].offset  # the header of the third sample
    if damage == "a flipped byte":
        data[place] ^= 1
    else:
        del data[place:]
    path = tmp_path / "x.tar"
    path.write_bytes(data)
    fault = rf"x\.tar is no whole tar file: broken tar at byte {place}: .*; 2 samples come before"
    with pytest.raises(FormatError, match=f"{fault}; fetch it again"):
        loader([path], batch_size=1, on_bad="stop")
    for _ in range(2):  # found, and then from the cache
        with pytest.warns(RasaWarning, match=f"{fault} and are used"):
            assert index_shards([path], on_bad="skip").counts.tolist() == [2]


def test_the_index_reads_headers_only(source):
    whole, read = source[2][0].stat().st_size, []

    class Counted(io.FileIO):
        def read(self, size=-1):
            read.append(size)
            return super().read(size)

    with Counted(source[2][0]) as file:
        found = list(read_members(file, max_bytes=0))
    with tarfile.open(source[2][0]) as tar:
        assert [(member.name, member.start) for member in found] == [(m.name, m.offset) for m in tar]
    assert sum(read) == 512 * (len(found) + 1) < whole


def test_a_bad_caption_costs_no_sample_where_bad_ones_are_skipped(tmp_path):
    row = b'{"caption": ["", "a dog"], "parse_label_id": [[2], [1]]}'
    path = tar_of(tmp_path / "x.tar", [("0.jpg", jpeg(picture(1))), ("0.json", row)])
    reading = loader([path], batch_size=1, texts=True)
    (batch,) = reading.batches(0)
    assert (batch.texts, batch.targets.nonzero()[:, 1].tolist()) == (("a dog",), [1])
    assert not reading.bad.counts
    with pytest.raises(FormatError, match="caption 0 is empty"):
        next(loader([path], batch_size=1, on_bad="stop").batches(0))


def test_a_shard_that_changes_while_it_is_read_is_noticed(source, tmp_path):
    _, _, shards = source
    path = tmp_path / "x.tar"
    path.write_bytes(shards[0].read_bytes())
    reading = loader([path], batch_size=1, on_bad="stop", order="sequential")
    path.write_bytes(shards[0].read_bytes()[:6000])
    with pytest.raises(FormatError, match=r"x.tar became shorter while it was read"):
        list(reading.batches(0))
    path.unlink()
    with pytest.raises(InputError, match=r"cannot read .*x.tar"):
        next(reading.batches(0))


def test_what_cannot_work_is_refused_at_once(source, tmp_path):
    _, _, shards = source
    with pytest.raises(InputError, match="there are no shards"):
        loader([])
    with pytest.raises(InputError, match=r"cannot read .*none.tar: No such file"):
        loader([tmp_path / "none.tar"])
    with pytest.raises(InputError, match="class_balanced needs records by number; use TrainingLoader"):
        loader(shards, order="class_balanced")
    with pytest.raises(InputError, match="window must be at least 1"):
        loader(shards, window=0)
    with pytest.raises(InputError, match="23 records make no batch of 12 for 2 process"):
        loader(shards, batch_size=12, ranks=2)


def test_records_are_those_that_were_written(source):
    assert source[0][1] == record(1)
