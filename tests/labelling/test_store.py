"""The labels on disk: exact, the same bytes for the same labels, whole or not there, readable by others."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rasa.errors import FormatError, InputError, OutputError
from rasa.labelling._files import remove_stale_parts
from rasa.labelling.locks import shard_lock  # noqa: F401  (for the code that other processes run)
from rasa.labelling.plan import plan_images
from rasa.labelling.store import LabelledRow, is_done, labels_file, read_shard, read_timings, write_shard
from rasa.types import Failure, Instances, Result, Tags

RUN = "0123456789abcdef"


@pytest.fixture
def planned(tmp_path):
    """A dataset with one shard of three images."""
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(b"image %d" % i)
    return plan_images(tmp_path / "out", [tmp_path / f"{i}.png" for i in range(3)])


def result(size=(4, 5), count=2, **options):
    masks = np.zeros((count, *size), np.bool_)
    masks[:, 1:3, 2:4] = True
    boxes = np.tile(np.array([2, 1, 4, 3], np.float32), (count, 1))
    found = Instances(
        boxes, np.full(count, 0.1, np.float32), ("a cat",) * count, masks, np.full(count, 1 / 3, np.float32)
    )
    tags = Tags(("a cat", "mat"), np.array([0.9, 0.7], np.float32), np.array([7, 0]), ("object", ""))
    return Result("x", size, tags, found, timings={"decode": 0.5, "tag": 0.25}, **options)


def python(code, *arguments, **options):
    """Start an interpreter that can import this file."""
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path, **options.pop("env", {})}
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )


def rows_for(shard, results=None):
    results = results or [result() for _ in shard.images]
    return [LabelledRow.of(image, labels) for image, labels in zip(shard.images, results, strict=True)]


def assert_same(one, two):
    tags, found = one.tags, one.instances
    assert (one.size, one.failure) == (two.size, two.failure)
    assert (tags.names, found.labels) == (two.tags.names, two.instances.labels)
    assert two.tags.kinds == (tags.kinds or None)  # of no tag, nothing is known
    assert_same_array(tags.scores, two.tags.scores)
    assert_same_array(tags.ids if len(tags) else None, two.tags.ids)
    assert_same_array(found.boxes, two.instances.boxes)
    assert_same_array(found.scores, two.instances.scores)
    assert_same_array(found.masks, two.instances.masks)
    assert_same_array(found.mask_scores if len(found) else None, two.instances.mask_scores)


def assert_same_array(one, two):
    assert (one is None) == (two is None)
    if one is not None:
        assert one.dtype == two.dtype
        np.testing.assert_array_equal(one, two)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)
UNIT = st.floats(0, 1, width=32)


@st.composite
def results(draw):
    size = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    names = draw(st.lists(TEXT, max_size=4, unique=True))
    count = draw(st.integers(0, 4))
    tags = Tags(
        tuple(names),
        np.array([draw(UNIT) for _ in names], np.float32),
        np.array([draw(st.integers(0, 2**62)) for _ in names], np.int64) if draw(st.booleans()) else None,
        tuple(draw(st.sampled_from(["object", "scene", ""])) for _ in names) if draw(st.booleans()) else None,
    )
    corner = st.floats(-1e6, 1e6, width=32)
    boxes = [sorted((draw(corner), draw(corner))) + sorted((draw(corner), draw(corner))) for _ in range(count)]
    masks = None
    if draw(st.booleans()):
        bits = draw(st.binary(min_size=count * size[0] * size[1], max_size=count * size[0] * size[1]))
        masks = (np.frombuffer(bits, np.uint8) & 1).astype(np.bool_).reshape(count, *size)
    found = Instances(
        np.array(boxes, np.float32).reshape(-1, 4)[:, [0, 2, 1, 3]],
        np.array([draw(UNIT) for _ in range(count)], np.float32),
        tuple(draw(TEXT) for _ in range(count)),
        masks,
        np.array([draw(UNIT) for _ in range(count)], np.float32) if masks is not None and draw(st.booleans()) else None,
    )
    failure = Failure(draw(st.text(max_size=5)), "ImageError", draw(st.text())) if draw(st.booleans()) else None
    return Result("x", size, tags, found, failure=failure)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(given_results=st.lists(results(), min_size=3, max_size=3))
def test_what_is_written_is_read(planned, given_results):
    shard = planned.shards[0]
    write_shard(planned.folder, RUN, shard, rows_for(shard, given_results))
    read = [row.result() for row in read_shard(planned.folder, RUN, shard)]
    for before, after, image in zip(given_results, read, shard.images, strict=True):
        assert_same(before, after)
        assert after.name == image.path


def test_masks_stay_and_an_empty_image_still_has_masks(planned):
    shard = planned.shards[0]
    failed = Result("x", (0, 0), failure=Failure("decode", "ImageError", "cut\udce9 off"))
    write_shard(planned.folder, RUN, shard, rows_for(shard, [result(), result(count=0), failed]))
    full, empty, broken = (row.result({"made": "by"}) for row in read_shard(planned.folder, RUN, shard))
    assert_same(full, result())
    assert full.provenance == {"made": "by"}
    assert empty.instances.masks.shape == (0, 4, 5)
    assert broken.failure == Failure("decode", "ImageError", "cut\\udce9 off")
    timings = read_timings(planned.folder, RUN, shard)
    assert {(row["stage"], row["seconds"]) for row in timings} == {("decode", 0.5), ("tag", 0.25)}


def test_the_same_labels_are_the_same_bytes_whatever_they_took(planned):
    from dataclasses import replace

    shard = planned.shards[0]
    first = write_shard(planned.folder, RUN, shard, rows_for(shard)).read_bytes()
    slower = [replace(row, timings={"decode": 9.0}) for row in rows_for(shard)]
    assert write_shard(planned.folder, "other", shard, slower).read_bytes() == first
    code = """if True:
        import sys
        from test_store import rows_for, write_shard
        from rasa.labelling.plan import load_plan
        plan = load_plan(sys.argv[1])
        write_shard(plan.folder, "third", plan.shards[0], rows_for(plan.shards[0]))
    """
    process = python(code, planned.folder, env={"PYTHONHASHSEED": "7"})
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert labels_file(planned.folder, "third", shard).read_bytes() == first


def test_rows_of_another_shard_are_refused(planned):
    shard = planned.shards[0]
    with pytest.raises(InputError, match="shard-000000 has 3 images, got 2 rows"):
        write_shard(planned.folder, RUN, shard, rows_for(shard)[:2])
    with pytest.raises(InputError, match="in another order"):
        write_shard(planned.folder, RUN, shard, rows_for(shard)[::-1])
    assert not is_done(planned.folder, RUN, shard)


# Readers of others


def test_pandas_and_pyarrow_read_a_folder_of_labels(planned):
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    shard = planned.shards[0]
    path = write_shard(planned.folder, RUN, shard, rows_for(shard))
    frame = pandas.read_parquet(path.parent)
    assert list(frame["status"]) == ["ok"] * 3
    assert frame["tags"][0][0]["name"] == "a cat"
    assert list(frame["instances"][0][1]["box"]) == [2, 1, 4, 3]
    assert frame["instances"][0][0]["mask"]["size"].tolist() == [4, 5]
    table = pq.read_table(path.parent)
    assert table.column_names[:4] == ["id", "path", "file_name", "bytes"]
    assert not {"timings", "seconds"} & set(table.column_names)


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # of pycocotools with NumPy 2
def test_pycocotools_decodes_the_masks(planned):
    coco = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed")
    shard = planned.shards[0]
    write_shard(planned.folder, RUN, shard, rows_for(shard))
    row = next(read_shard(planned.folder, RUN, shard))
    mask = row.instances[0]["mask"]
    np.testing.assert_array_equal(coco.decode({**mask, "counts": mask["counts"].encode()}), result().instances.masks[0])


def test_duckdb_reads_the_labels(planned):
    duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed")
    shard = planned.shards[0]
    path = write_shard(planned.folder, RUN, shard, rows_for(shard))
    query = f"select t.name, count(*) from (select unnest(tags) t from '{path.parent}/*.parquet') group by 1 order by 1"
    assert duckdb.sql(query).fetchall() == [("a cat", 3), ("mat", 3)]


def test_datasets_reads_the_labels(planned, tmp_path):
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    shard = planned.shards[0]
    path = write_shard(planned.folder, RUN, shard, rows_for(shard))
    loaded = datasets.load_dataset("parquet", data_files=str(path), cache_dir=str(tmp_path / "cache"), split="train")
    assert loaded[0]["instances"][0]["label"] == "a cat"


# Damage


@pytest.mark.parametrize("keep", [0, 4, 300])
def test_a_damaged_file_is_named(planned, keep):
    shard = planned.shards[0]
    path = write_shard(planned.folder, RUN, shard, rows_for(shard))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(FormatError, match=r"shard-000000\.parquet: no readable Parquet file"):
        list(read_shard(planned.folder, RUN, shard))


def test_rows_that_hold_nonsense_are_named(planned):
    from dataclasses import replace

    row = rows_for(planned.shards[0])[0]
    bad_box = [{**row.instances[0], "box": [3.0, 0.0, 1.0, 1.0]}]
    bad_mask = [{**row.instances[0], "mask": {"size": [4, 5], "counts": "zzz"}}]
    bad_size = [{**row.instances[0], "mask": {"size": [400000, 500000], "counts": "1"}}]
    for change in (
        {"instances": bad_box},
        {"instances": bad_mask},
        {"instances": bad_size},
        {"tags": [{"name": "x"}]},
        {"tags": None},
        {"height": 10**6, "width": 10**6},
    ):
        with pytest.raises(FormatError, match=r"labels of .*0\.png"):
            replace(row, **change).result()


def test_a_kill_between_writing_and_renaming_leaves_no_shard(planned):
    code = """if True:
        import os, pathlib, signal, sys
        from test_store import rows_for, write_shard
        from rasa.labelling.plan import load_plan

        def replace(part, path):
            if "labels" in str(path):
                os.kill(os.getpid(), signal.SIGKILL)
            os.replace(part, path)

        pathlib.Path.replace = replace
        plan = load_plan(sys.argv[1])
        write_shard(plan.folder, sys.argv[2], plan.shards[0], rows_for(plan.shards[0]))
    """
    shard = planned.shards[0]
    process = python(code, planned.folder, RUN)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    folder = labels_file(planned.folder, RUN, shard).parent
    (rest,) = folder.iterdir()
    assert rest.name.endswith(".part")
    assert not is_done(planned.folder, RUN, shard)
    assert list(pq.read_table(planned.folder / "timings" / RUN).column_names) == ["id", "stage", "seconds"]
    write_shard(planned.folder, RUN, shard, rows_for(shard))
    assert_same(next(read_shard(planned.folder, RUN, shard)).result(), result())
    remove_stale_parts(folder)
    assert rest.exists()
    os.utime(rest, (1, 1))
    remove_stale_parts(folder)
    assert [entry.suffix for entry in folder.iterdir()] == [".parquet"]


def test_a_full_disk_is_an_error_and_leaves_nothing_half(planned):
    # A limit on the size of files stands for the disk; the signal that comes with it is ignored.
    code = """if True:
        import resource, signal, sys
        from test_store import rows_for, write_shard
        from rasa.errors import OutputError
        from rasa.labelling.plan import load_plan
        plan = load_plan(sys.argv[1])
        rows = rows_for(plan.shards[0])
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
        try:
            write_shard(plan.folder, sys.argv[2], plan.shards[0], rows)
        except OutputError as error:
            print(error)
    """
    shard = planned.shards[0]
    said, _ = python(code, planned.folder, RUN).communicate(timeout=60)
    assert "cannot write" in said
    assert "free some room" in said
    assert not is_done(planned.folder, RUN, shard)
    assert not list(planned.folder.rglob("*.part"))


def test_a_folder_that_cannot_be_written_is_an_error(planned):
    (planned.folder / "labels").write_text("a file in the way")
    with pytest.raises(OutputError, match=r"cannot write .*labels"):
        write_shard(planned.folder, RUN, planned.shards[0], rows_for(planned.shards[0]))


def test_two_processes_share_the_shards(tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    for i in range(40):
        (source / f"{i}.png").write_bytes(b"image %d" % i)
    code = """if True:
        import sys, time
        from test_store import is_done, rows_for, shard_lock, write_shard
        from rasa.labelling.plan import plan_images
        plan, labelled = plan_images(sys.argv[1], sys.argv[2], shard_size=2), 0
        for shard in plan.shards:
            with shard_lock(plan.folder, "run", shard) as held:
                if held and not is_done(plan.folder, "run", shard):
                    time.sleep(0.05)
                    write_shard(plan.folder, "run", shard, rows_for(shard))
                    labelled += 1
        print(labelled)
    """
    both = [python(code, tmp_path / "out", source) for _ in range(2)]
    counts = [int(process.communicate(timeout=120)[0]) for process in both]
    assert sum(counts) == 20
    assert len(list((tmp_path / "out" / "labels" / "run").iterdir())) == 20
