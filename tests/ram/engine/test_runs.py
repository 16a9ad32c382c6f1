import json
import multiprocessing
import os
import signal
import time
from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from rasa.errors import FormatError, ImageError, InputError
from rasa.testing import FakeDetector
from rasa_ram.data.manifest import read_records
from rasa_ram.engine.clean_regions import RegionFinder
from rasa_ram.engine.clean_settings import CleanSettings
from rasa_ram.engine.generate import GenerateSettings, Generation
from rasa_ram.engine.runs import RunOptions, clean_into, generate_into
from tests.ram.engine.scenes import NAMES, ColourTagger, MeanColour, PlantedScenes

SCENES = PlantedScenes(60, share=0.15)
OPTIONS = RunOptions(shard_size=7)


class Fragile:
    """Counts calls of a model, and does something at one of them."""

    def __init__(self, model, method, *, at=None, act=None):
        self.calls, self._model, self._at, self._act = 0, model, at, act
        setattr(self, method, self._call(getattr(model, method)))

    def _call(self, method):
        def call(*arguments):
            self.calls += 1
            if self.calls == self._at:
                self._act()
            return method(*arguments)

        return call

    def describe(self):
        return self._model.describe()


def generation(**fragile):
    tagger = Fragile(ColourTagger(), "tag", **fragile)
    return Generation(SCENES.image, tagger, GenerateSettings(names=NAMES, min_score=0.2, batch_size=3))


def cleaning(**fragile):
    detector = Fragile(FakeDetector(), "detect", **fragile)
    settings = CleanSettings(names=NAMES, min_pairs=10, batch_size=3, missing="drop")
    return RegionFinder(SCENES.image, detector, ColourTagger(), MeanColour(), settings)


STEPS = {"generate": (generate_into, generation), "clean": (clean_into, cleaning)}


def contents(folder):
    """All that is there but locks and what a killed process began."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix not in {".lock", ".part"}
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    for step, (run, work) in STEPS.items():
        run(SCENES.records, folder / step, work(), OPTIONS)
    return folder


def interrupt():
    raise KeyboardInterrupt


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("at", [1, 4, 11, 20])
def test_an_interrupted_run_goes_on(undisturbed, tmp_path, step, at):
    run, work = STEPS[step]
    with pytest.raises(KeyboardInterrupt):
        run(SCENES.records, tmp_path, work(at=at, act=interrupt), OPTIONS)
    again = work()
    run(SCENES.records, tmp_path, again, OPTIONS)
    assert contents(tmp_path) == contents(undisturbed / step)
    model = again.detector if step == "clean" else again.tagger
    assert model.calls == 26 - 3 * ((at - 1) // 3)  # nine shards of three calls, the last one of two


def work_until_killed(step, folder):
    """Die in the first shard, with a claim on it, once another process has done the sixth."""

    def act():
        (folder.parent / "held").touch()
        while not [*folder.rglob("shard-000005*")]:
            time.sleep(0.005)
        os.kill(os.getpid(), signal.SIGKILL)

    run, work = STEPS[step]
    run(SCENES.records, folder, work(at=2, act=act), OPTIONS)


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("step", STEPS)
def test_a_killed_process_beside_another_changes_nothing(undisturbed, tmp_path, step):
    # A fork has torch already; what it calls before it dies uses no thread of its parent.
    folder = tmp_path / step
    other = multiprocessing.get_context("fork").Process(target=work_until_killed, args=(step, folder))
    other.start()
    while not (tmp_path / "held").exists():
        time.sleep(0.005)
    run, work = STEPS[step]
    mine = work()
    run(SCENES.records, folder, mine, OPTIONS)
    other.join()
    assert other.exitcode == -signal.SIGKILL
    assert (mine.detector if step == "clean" else mine.tagger).calls == 26  # the claimed shard too
    assert contents(folder) == contents(undisturbed / step)


def test_generated_tags_have_their_origin(undisturbed):
    folder = undisturbed / "generate"
    after = [*read_records(folder / "records.jsonl")]
    assert [record.image_path for record in after] == [record.image_path for record in SCENES.records]
    for record, old in zip(after, SCENES.records, strict=True):
        assert record.tag_ids[:2] == old.tag_ids
        assert SCENES.truth[record.image_path] <= {*record.tag_ids}
    rows = pq.read_table(folder / "provenance.parquet").to_pylist()
    assert [(row["image_path"], row["tag"]) for row in rows] == [
        (record.image_path, tag) for record in after for tag in record.tag_ids
    ]
    added = sum(row["what"] == "generated" for row in rows)
    assert added == len(rows) - 120 > 10
    assert all(row["name"] == NAMES[row["tag"]] for row in rows)
    figures = json.loads((folder / "report.json").read_text())
    assert (figures["overall"]["before"], figures["overall"]["generated"]) == (120, added)
    assert figures["settings"]["min_score"] == 0.2
    assert not (folder / "failures.jsonl").exists()


def test_dropped_tags_have_their_reason(undisturbed):
    folder = undisturbed / "clean"
    after = [*read_records(folder / "records.jsonl")]
    rows = pq.read_table(folder / "dropped.parquet").to_pylist()
    dropped = {(row["image_path"], row["tag"]) for row in rows}
    assert dropped == {(old.image_path, tag) for old, new in zip(SCENES.records, after, strict=True)
                       for tag in {*old.tag_ids} - {*new.tag_ids}}  # fmt: skip
    assert {row["what"] for row in rows} <= {"outlier", "unconfirmed", "outlier and unconfirmed"}
    assert len(rows) == len(dropped) > 10
    assert {(row["image_path"], row["tag"]) for row in rows if "unconfirmed" in row["what"]} == SCENES.planted


def test_precision_and_recall_where_truth_is_known(tmp_path):
    tally = clean_into(SCENES.records, tmp_path, cleaning(), replace(OPTIONS, truth=SCENES.truth))
    overall = tally.report()["overall"]
    planted = len(SCENES.planted)
    assert overall["precision_before"] == pytest.approx((120 - planted) / 120)
    assert (overall["recall_before"], overall["precision_after"]) == (1.0, 1.0)
    assert overall["recall_after"] == pytest.approx(overall["after"] / (120 - planted))


def test_other_decisions_need_no_detector(undisturbed, tmp_path):
    work = cleaning()
    clean_into(SCENES.records, tmp_path, work, OPTIONS)
    looser = replace(cleaning(), settings=replace(work.settings, outlier_share=0.0, confirm_threshold=0.0))
    before = replace(looser, detector=cleaning(at=1, act=interrupt).detector)
    clean_into(SCENES.records, tmp_path, before, OPTIONS)
    overall = json.loads((tmp_path / "report.json").read_text())["overall"]
    assert overall["outlier"] == overall["outlier and unconfirmed"] == 0
    assert overall["unconfirmed"] == len(SCENES.planted)
    clean_into(SCENES.records, tmp_path, work, OPTIONS)
    assert (tmp_path / "records.jsonl").read_bytes() == (undisturbed / "clean" / "records.jsonl").read_bytes()


@pytest.mark.parametrize("step", STEPS)
def test_other_records_are_refused(tmp_path, step):
    run, work = STEPS[step]
    run(SCENES.records[:8], tmp_path, work(), OPTIONS)
    with pytest.raises(InputError, match=r"shard-000001\.\w+ was made of other records than those given now"):
        run(SCENES.records[:9], tmp_path, work(), OPTIONS)


def test_other_settings_are_refused(tmp_path):
    generate_into(SCENES.records[:3], tmp_path, generation(), OPTIONS)
    other = generation()
    with pytest.raises(InputError, match=r"holds work with other settings: min_score was 0\.2 and is 0\.5"):
        generate_into(
            SCENES.records[:3], tmp_path, replace(other, settings=replace(other.settings, min_score=0.5)), OPTIONS
        )


@pytest.mark.parametrize("step", STEPS)
def test_a_damaged_shard_is_named(tmp_path, step):
    run, work = STEPS[step]
    run(SCENES.records[:3], tmp_path, work(), OPTIONS)
    (shard,) = {*tmp_path.rglob("shard-*.safetensors"), *tmp_path.rglob("shards/shard-*")}
    shard.write_bytes(shard.read_bytes()[:5])
    with pytest.raises(FormatError, match=r"shard-000000\.\w+: no readable (regions|shard).*; delete it and"):
        run(SCENES.records[:3], tmp_path, work(), OPTIONS)


@pytest.mark.parametrize("step", STEPS)
def test_unreadable_images_are_named_and_may_be_tried_again(undisturbed, tmp_path, step):
    def flaky(path):
        if path in {"00003.png", "00059.png"}:
            raise ImageError(f"image {path!r} is broken")
        return SCENES.image(path)

    run, work = STEPS[step]
    tally = run(SCENES.records, tmp_path, replace(work(), images=flaky), OPTIONS)
    assert (tally.images, tally.failed) == (60, 2)
    after = {record.image_path: record for record in read_records(tmp_path / "records.jsonl")}
    assert after["00003.png"] == SCENES.records[3]
    failures = [json.loads(line) for line in (tmp_path / "failures.jsonl").read_text().splitlines()]
    assert [failure["image_path"] for failure in failures] == ["00003.png", "00059.png"]
    assert failures[0] == {"image_path": "00003.png", "kind": "ImageError", "message": "image '00003.png' is broken"}
    again = work()
    run(SCENES.records, tmp_path, again, OPTIONS)
    assert (again.detector if step == "clean" else again.tagger).calls == 0
    run(SCENES.records, tmp_path, again, replace(OPTIONS, retry_failed=True))
    assert (again.detector if step == "clean" else again.tagger).calls == 5  # the first shard and the last
    for name in ("records.jsonl", "report.json"):
        assert (tmp_path / name).read_bytes() == (undisturbed / step / name).read_bytes()
    assert not (tmp_path / "failures.jsonl").exists()


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("suffix", ["json", "jsonl", "parquet"])
def test_no_records_are_a_manifest_too(tmp_path, step, suffix):
    run, work = STEPS[step]
    done = []
    run([], tmp_path, work(), RunOptions(manifest=f"records.{suffix}", progress=done.append))
    assert [*read_records(tmp_path / f"records.{suffix}")] == []
    assert done == []


@pytest.mark.parametrize("step", STEPS)
def test_records_are_streamed(tmp_path, step):
    read, seen = [], set()

    def records():
        for record in SCENES.records:
            read.append(record.image_path)
            yield record

    def images(path):
        seen.add(path)
        assert len(read) - len(seen) < 7, "more than a shard was read ahead"
        return SCENES.image(path)

    run, work = STEPS[step]
    run(records(), tmp_path, replace(work(), images=images), OPTIONS)
    assert read == [record.image_path for record in SCENES.records]
    assert len(seen) == 60
