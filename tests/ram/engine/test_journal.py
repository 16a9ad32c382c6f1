import json
import multiprocessing
import os
import signal
import time
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rasa.errors import FormatError, InputError, OutputError
from rasa_ram.data.records import Record
from rasa_ram.engine.journal import Journal, record_from_plain, record_to_plain, shards_of

ids = st.lists(st.integers(0, 5000), unique=True, max_size=4).map(tuple)
texts = st.text(max_size=20)


@st.composite
def any_record(draw):
    captions = tuple(draw(st.lists(texts, max_size=3)))
    rows = tuple(draw(ids) for _ in captions)
    return Record(image_path=draw(texts), captions=captions, parsed_ids=rows, tag_ids=draw(st.none() | ids))


@given(any_record())
def test_records_survive_their_plain_form(record):
    assert record_from_plain(json.loads(json.dumps(record_to_plain(record)))) == record


@given(st.lists(any_record(), max_size=9), st.integers(1, 4))
def test_shards_hold_all_records_in_order(records, size):
    shards = [*shards_of(iter(records), size)]
    assert [record for shard in shards for record in shard.records] == records
    assert [shard.index for shard in shards] == [*range(len(shards))]
    assert all(len(shard.records) == size for shard in shards[:-1])


def test_a_digest_tells_one_changed_tag():
    first, second = (next(shards_of([Record(image_path="a", tag_ids=tags)])).digest for tags in ((1, 2), (1, 3)))
    assert first != second


def test_a_shard_has_a_record():
    with pytest.raises(InputError, match="at least 1 record, got 0"):
        next(shards_of([], 0))


@dataclass(frozen=True)
class Job:
    key: str


def work(journal, names, calls):
    def do(job):
        calls.append(job.key)
        with journal.path(job.key).open("x") as file:
            file.write(job.key)

    journal.work_off([Job(name) for name in names], is_done=lambda job: journal.path(job.key).exists(), do=do)


def test_every_piece_is_done_once(tmp_path):
    calls = []
    for _ in range(2):
        work(Journal(tmp_path, {"a": 1}), "abc", calls)
    assert calls == ["a", "b", "c"]


def test_a_piece_that_another_holds_is_waited_for_at_the_end(tmp_path):
    journal, calls = Journal(tmp_path, {}), []
    holder = multiprocessing.get_context("spawn").Process(target=hold, args=(tmp_path, "a"))
    holder.start()
    while not (tmp_path / "held").exists():
        time.sleep(0.005)
    work(journal, "abc", calls)  # returns once the holder has died with its claim
    holder.join()
    assert calls == ["b", "c", "a"]
    assert holder.exitcode == -9


def hold(folder, key):
    with Journal(folder, {}).claim(key) as held:
        assert held
        (folder / "held").touch()
        while not (folder / "c").exists():
            time.sleep(0.005)
        os.kill(os.getpid(), signal.SIGKILL)


def test_other_settings_are_refused(tmp_path):
    Journal(tmp_path, {"box_threshold": 0.3, "seed": 0})
    Journal(tmp_path, {"seed": 0, "box_threshold": 0.3})
    with pytest.raises(InputError, match=r"box_threshold was 0\.3 and is 0\.35; take the old ones, or another folder"):
        Journal(tmp_path, {"box_threshold": 0.35, "seed": 0})


@pytest.mark.parametrize(("text", "reason"), [("{", "no journal"), ('{"schema": "x/9"}', "schema 'x/9', expected")])
def test_a_damaged_journal_is_named(tmp_path, text, reason):
    (tmp_path / "journal.json").write_text(text)
    with pytest.raises(FormatError, match=reason):
        Journal(tmp_path, {})


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"cannot lock .*; choose a writable folder with room"):
        Journal(tmp_path / "file", {})
