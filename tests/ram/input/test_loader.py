"""TrainingLoader: the same batches for any workers, interruption and share; bad samples; captions; memory."""

import gc
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch

from rasa.errors import FormatError, ImageError, InputError, RasaWarning, WorkerError
from rasa.types import Image
from rasa_ram.data.captions import clean_caption
from rasa_ram.data.loader import CaptionTexts, LoaderSettings, TrainingLoader, Views
from rasa_ram.data.loader_report import MAX_NAMED, BadSample, BadSamples
from rasa_ram.data.records import Record
from rasa_ram.data.samples import BatchSource
from rasa_ram.tokenizer import CaptionTokenizer
from tests.ram.input.pictures import TAGS, Deadly, jpeg, picture, record, same, write_pictures

SETTINGS = LoaderSettings(batch_size=4, num_tags=TAGS, seed=3, views=Views(size=24, teacher_size=16))
COUNT = 22
SPECIAL = "[PAD] [UNK] [CLS] [SEP] [MASK]"
PIECES = (*f"{SPECIAL} a picture of dog cats two number | ,".split(" "), *(f"t{i}" for i in range(TAGS)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("images")
    write_pictures(path, COUNT)
    return path


@pytest.fixture(scope="module")
def records():
    return [record(i) for i in range(COUNT)]


@pytest.fixture(scope="module")
def captions():
    return CaptionTexts(tokenizer=CaptionTokenizer(PIECES), tag_names=tuple(f"t{i}" for i in range(TAGS)))


def loader(records, folder, *, captions=None, rank=0, ranks=1, **changes):
    return TrainingLoader(
        records, folder, settings=replace(SETTINGS, **changes), captions=captions, rank=rank, ranks=ranks
    )


def all_same(first, second):
    first, second = list(first), list(second)
    return len(first) == len(second) and all(map(same, first, second))


def test_a_batch_holds_what_it_promises(records, folder, captions):
    source = loader(records, folder, captions=captions, texts=True)
    assert isinstance(source, BatchSource)
    batches = list(source.batches(0))
    assert len(source) == len(batches) == COUNT // 4
    paths = [path for batch in batches for path in batch.image_paths]
    assert len(set(paths)) == 20
    assert paths != sorted(paths)
    for batch in batches:
        assert batch.pixels.shape == (4, 3, 24, 24)
        assert batch.teacher_pixels.shape == (4, 3, 16, 16)
        assert batch.pixels.dtype == batch.teacher_pixels.dtype == batch.targets.dtype == torch.float32
        for path, row in zip(batch.image_paths, batch.targets, strict=True):
            assert set(row.nonzero().flatten().tolist()) == set(records[int(path[:-4])].tag_ids)
    assert not same(batches[0], next(source.batches(1)))
    assert len(source.bad) == 0


def test_captions_bring_their_own_tags(records, folder, captions):
    seen = set()
    for epoch in range(4):
        for batch in loader(records, folder, captions=captions, texts=True).batches(epoch):
            tokens, tags = batch.captions, []
            for path, text in zip(batch.image_paths, batch.texts, strict=True):
                known = records[int(path[:-4])]
                which = [clean_caption(caption) for caption in known.captions].index(text)
                seen.add((path, which))
                tags.append([f"t{i}" for i in sorted(known.parsed_ids[which])])
            expected = captions.tokenizer.encode_tags(tags)
            np.testing.assert_array_equal(tokens.tag_ids.numpy(), expected.ids)
            expected = captions.tokenizer.encode_captions(["a picture of " + text for text in batch.texts])
            np.testing.assert_array_equal(tokens.caption_ids.numpy(), expected.ids)
            np.testing.assert_array_equal(tokens.caption_mask.numpy(), expected.mask)
    assert len([path for path, which in seen if which == 1]) >= 8, "the second caption is chosen, too"


def test_the_published_captions_have_no_prompt(records, folder, captions):
    bare = loader(records, folder, captions=replace(captions, prompt=False), texts=True)
    batch = next(bare.batches(0))
    np.testing.assert_array_equal(
        batch.captions.caption_ids.numpy(), captions.tokenizer.encode_captions(batch.texts).ids
    )


def test_targets_may_be_those_of_the_caption(records, folder):
    for batch in loader(records, folder, targets="caption", texts=True).batches(0):
        for path, text, row in zip(batch.image_paths, batch.texts, batch.targets, strict=True):
            known = records[int(path[:-4])]
            which = [clean_caption(caption) for caption in known.captions].index(text)
            assert set(row.nonzero().flatten().tolist()) == set(known.parsed_ids[which])


def test_what_is_asked_for_besides_changes_no_pixel(records, folder, captions):
    plain = list(loader(records, folder).batches(0))
    rich = list(loader(records, folder, captions=captions, texts=True).batches(0))
    assert all(torch.equal(a.pixels, b.pixels) for a, b in zip(plain, rich, strict=True))
    assert plain[0].texts is plain[0].captions is None


def test_resumed_is_undisturbed(records, folder):
    whole = list(loader(records, folder).batches(2))
    for first in range(len(whole) + 1):
        assert all_same(whole[first:], loader(records, folder).batches(2, first=first))


@pytest.mark.parametrize("order", ["shuffled", "sequential", "class_balanced"])
def test_processes_see_together_what_one_sees(records, folder, order):
    whole = list(loader(records, folder, batch_size=6, order=order).batches(1))
    parts = [loader(records, folder, batch_size=2, order=order, rank=rank, ranks=3) for rank in range(3)]
    assert {len(part) for part in parts} == {len(whole)} == {3}
    for one, *shares in zip(whole, *(part.batches(1) for part in parts), strict=True):
        assert one.image_paths == tuple(path for share in shares for path in share.image_paths)
        assert torch.equal(one.pixels, torch.cat([share.pixels for share in shares]))
        assert torch.equal(one.targets, torch.cat([share.targets for share in shares]))


def test_nothing_global_is_moved(records, folder):
    before = torch.random.get_rng_state()
    list(loader(records, folder).batches(0))
    assert torch.equal(before, torch.random.get_rng_state())


def test_class_balanced_shows_rare_tags_more_often(folder):
    records = [record(i, tag_ids=(1 if i == 5 else 0,)) for i in range(COUNT)]
    source = loader(records, folder, order="class_balanced", balance_threshold=1.0, balance_power=1.0, batch_size=2)
    paths = [path for batch in source.batches(0) for path in batch.image_paths]
    assert 9 <= paths.count("5.jpg") <= 12


def test_sequential_and_without_augmentation_repeats_itself(records, folder):
    source = loader(records, folder, order="sequential", views=Views(size=24, augment=False))
    assert all_same(list(source.batches(0)), source.batches(1))
    assert next(source.batches(0)).image_paths == ("0.jpg", "1.jpg", "2.jpg", "3.jpg")


class InMemory:
    def __call__(self, image_path):
        return Image(picture(int(image_path[:-4])), image_path)


def test_images_may_come_from_a_reader(records):
    batch = next(loader(records, InMemory()).batches(0))
    assert batch.pixels.shape == (4, 3, 24, 24)


# Bad samples


class BrokenRecords(list):
    """A table in which record 2 cannot be read."""

    def __getitem__(self, index):
        if index == 2:
            raise FormatError("records.jsonl: record 2: its JSON is broken")
        return super().__getitem__(index)


@pytest.fixture
def damaged(tmp_path):
    """A folder and its records: images 0 and 1 and record 2 are broken, 3 has ids out of range, 4 no usable caption."""
    records = BrokenRecords(write_pictures(tmp_path / "images", COUNT))
    (tmp_path / "images" / "0.jpg").unlink()
    (tmp_path / "images" / "1.jpg").write_bytes(jpeg(picture(1))[:700])
    records[3] = record(3, tag_ids=(2, TAGS))
    records[4] = record(4, captions=("...", ""), parsed_ids=((1,), (2,)))
    return tmp_path / "images", records


BAD_NAMES = {"0.jpg", "1.jpg", "record 2", "3.jpg", "4.jpg"}


def test_bad_samples_are_replaced_counted_and_named(damaged):
    folder, records = damaged
    source = loader(records, folder, texts=True, batch_size=2)
    with pytest.warns(RasaWarning, match="left out a sample") as caught:
        batches = [batch for epoch in range(2) for batch in source.batches(epoch)]
    assert len(batches) == 2 * (COUNT // 2)
    assert {path for batch in batches for path in batch.image_paths} & BAD_NAMES == set()
    assert len(caught) == 4, "one warning for each kind"
    assert all(entry.filename == __file__ for entry in caught)
    assert set(source.bad.counts) == {"image", "record", "tags", "caption"}
    assert source.bad.counts["image"] >= 4
    reasons = {sample.name: (sample.kind, sample.reason) for sample in source.bad.examples}
    assert set(reasons) == BAD_NAMES
    assert "0.jpg' does not exist" in reasons["0.jpg"][1]
    assert "broken or cut off" in reasons["1.jpg"][1]
    assert reasons["record 2"] == ("record", "records.jsonl: record 2: its JSON is broken")
    assert "must be in [0, 10), got 10" in reasons["3.jpg"][1]
    assert "has no caption with words" in reasons["4.jpg"][1]


@pytest.mark.filterwarnings("ignore:left out a sample")
def test_what_takes_a_bad_samples_place_depends_on_the_seed_alone(damaged):
    folder, records = damaged
    whole = list(loader(records, folder, texts=True).batches(0))
    assert all_same(whole[2:], loader(records, folder, texts=True).batches(0, first=2))
    parts = [loader(records, folder, texts=True, batch_size=2, rank=rank, ranks=2) for rank in range(2)]
    for one, first, second in zip(whole, *(part.batches(0) for part in parts), strict=True):
        assert one.image_paths == first.image_paths + second.image_paths


@pytest.mark.parametrize(
    ("number", "error", "message"),
    [
        (0, ImageError, "0.jpg' does not exist"),
        (1, ImageError, "1.jpg' is broken or cut off"),
        (2, FormatError, "record 2: its JSON is broken"),
        (3, FormatError, r"tag ids of 3.jpg must be in \[0, 10\), got 10; the record was written for another"),
        (4, FormatError, "4.jpg has no caption with words; leave the record out"),
    ],
)
def test_stop_raises_what_is_wrong(damaged, number, error, message):
    folder, records = damaged
    source = loader(records, folder, texts=True, batch_size=1, order="sequential", on_bad="stop")
    with pytest.raises(error, match=message):
        next(source.batches(0, first=number))


def test_a_set_that_is_all_bad_ends_with_an_error(tmp_path):
    source = loader([record(i) for i in range(8)], tmp_path / "nowhere")
    with (
        pytest.warns(RasaWarning, match="does not exist"),
        pytest.raises(FormatError, match="50 samples drawn one after the other cannot be used, the last because "),
    ):
        next(source.batches(0))
    assert source.bad.counts["image"] == 50


def test_captions_of_any_kind_are_survived(folder, captions):
    texts = ("x" * 100_000, "a dog \x00\x07\x1b", "dog " * 25_000, "\N{DOG FACE} dog", "a\n\n\nb")
    records = [record(i, captions=(text,), parsed_ids=((),)) for i, text in enumerate(texts)]
    batch = next(loader(records, folder, captions=captions, texts=True, batch_size=5).batches(0))
    assert batch.captions.caption_ids.shape[1] <= 40
    assert max(len(text.split()) for text in batch.texts) == 30


def test_an_empty_caption_gives_way_to_another(folder):
    records = [record(i, captions=("!!!", "a dog"), parsed_ids=((1,), (2,))) for i in range(8)]
    for batch in loader(records, folder, texts=True, targets="caption").batches(0):
        assert set(batch.texts) == {"a dog"}
        assert batch.targets[:, 2].eq(1).all()


def test_a_record_without_tags_teaches_nothing_but_one_without_any_is_bad(folder):
    good = [Record(image_path=f"{i}.jpg", tag_ids=()) for i in range(4)]
    assert next(loader(good, folder).batches(0)).targets.sum() == 0
    unknown = [Record(image_path=f"{i}.jpg") for i in range(4)]
    with pytest.raises(FormatError, match="has neither tags nor captions"):
        next(loader(unknown, folder, on_bad="stop").batches(0))


def test_the_report_is_bounded():
    report = BadSamples()
    with pytest.warns(RasaWarning, match=r"left out a sample \(image\): reason 0; further ones are counted"):
        report.add(BadSample("image", f"{i}.jpg", f"reason {i}") for i in range(1000))
    assert report.counts == {"image": 1000}
    assert len(report) == 1000
    assert len(report.examples) == MAX_NAMED


# Workers


@pytest.mark.filterwarnings("ignore:left out a sample")
def test_workers_change_nothing(damaged, captions):
    folder, records = damaged
    alone = loader(records, folder, captions=captions)
    source = loader(records, folder, captions=captions, workers=2)
    before = torch.random.get_rng_state()
    assert all_same(alone.batches(0), source.batches(0))
    assert alone.bad.counts == source.bad.counts
    assert alone.bad.examples == source.bad.examples
    assert torch.equal(before, torch.random.get_rng_state())
    # An epoch that is left early, then another from its middle, by the same processes.
    left = source.batches(1)
    assert same(next(left), next(alone.batches(1)))
    assert all_same(source.batches(2, first=3), alone.batches(2, first=3))
    with pytest.raises(InputError, match="these batches ended when others were asked for"):
        next(left)
    source.close()
    assert all_same(source.batches(0, first=4), alone.batches(0, first=4))
    source.close()


def test_errors_of_workers_are_those_of_one_process(damaged):
    folder, records = damaged
    source = loader(records, folder, on_bad="stop", batch_size=1, order="sequential", workers=1)
    with pytest.raises(ImageError, match=r"^image '.*0.jpg' does not exist"):
        next(source.batches(0))
    source.close()


@pytest.mark.slow  # torch looks for dead workers every five seconds
def test_a_worker_that_dies_is_noticed(records):
    source = loader(records, Deadly(), workers=1)
    with pytest.raises(WorkerError, match=r"a process that reads images died .*use fewer workers"):
        next(source.batches(0))


# Limits


def test_memory_does_not_grow(records, folder):
    source = loader(records, folder)
    for epoch in range(2):
        list(source.batches(epoch))
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for epoch in range(2, 4):
        for _ in source.batches(epoch):
            pass
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 100_000, "bytes after 10 batches of 37 kB"


def test_one_epoch_at_a_time(records, folder):
    source = loader(records, folder)
    first = source.batches(0)
    next(first)
    next(source.batches(1))
    with pytest.raises(InputError, match="read one epoch at a time"):
        next(first)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"num_tags": 0}, "num_tags must be at least 1"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"workers": -1}, "workers must be at least 0"),
        ({"max_words": 0}, "max_words must be at least 1"),
        ({"order": "random"}, "order must be one of shuffled, sequential, class_balanced, got 'random'"),
        ({"targets": "all"}, "targets must be one of known, caption"),
        ({"on_bad": "warn"}, "on_bad must be one of skip, stop"),
    ],
)
def test_wrong_settings_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        replace(SETTINGS, **changes)


def test_what_cannot_work_is_refused_at_once(records, folder, captions):
    with pytest.raises(InputError, match="22 records make no batch of 23 for 1 process"):
        loader(records, folder, batch_size=23)
    with pytest.raises(InputError, match="22 records make no batch of 12 for 2 process"):
        loader(records, folder, batch_size=12, ranks=2)
    with pytest.raises(InputError, match=r"rank must be in \[0, ranks\), got rank 2 of 2"):
        loader(records, folder, rank=2, ranks=2)
    with pytest.raises(InputError, match="tag_names must be num_tags = 9 names, got 10"):
        loader(records, folder, captions=captions, num_tags=9)
    source = loader(records, folder)
    for epoch, first in ((-1, 0), (0, -1), (0, 6)):
        with pytest.raises(InputError, match=r"epoch must be at least 0 and first in \[0, 5\]"):
            source.batches(epoch, first=first)
    assert list(source.batches(0, first=5)) == []
