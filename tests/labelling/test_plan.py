"""The plan: stable ids, shards that are only appended to, and what becomes of files that change."""

import hashlib
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import pytest

from rasa.errors import FormatError, ImageError, InputError
from rasa.labelling import plan as plan_module
from rasa.labelling.plan import load_plan, plan_images
from rasa.labelling.reading import Digest
from rasa.labelling.sources import Found, Locator


@pytest.fixture
def source(tmp_path):
    """A folder, and a function that writes a file into it."""
    folder = tmp_path / "in"
    folder.mkdir()

    def write(name, text):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return folder / name

    write.folder = folder
    return write


@pytest.fixture
def plan(tmp_path, source):
    """A function: plan the folder into a dataset."""
    return lambda **options: plan_images(tmp_path / "out", source.folder, **options)


def contents(plan):
    return [[image.read().decode() for image in shard.images] for shard in plan.shards]


def files(tmp_path):
    return {path.name: path.read_bytes() for path in (tmp_path / "out" / "plan").iterdir()}


def test_images_are_in_order_in_shards_by_their_content(source, plan):
    for i in range(5):
        source(f"{i}.png", f"image {i}")
    planned = plan(shard_size=2)
    assert contents(planned) == [["image 0", "image 1"], ["image 2", "image 3"], ["image 4"]]
    assert [shard.key for shard in planned.shards] == ["shard-000000", "shard-000001", "shard-000002"]
    assert planned.count == 5
    image = planned.shards[0].images[1]
    assert image.id == hashlib.sha256(b"image 1").hexdigest()
    assert image.file_name == f"{image.id[:32]}.png"
    assert (image.path, image.bytes, image.error) == (str(source.folder / "1.png"), 7, None)


def test_planning_again_changes_nothing_and_reads_nothing(source, plan, tmp_path, monkeypatch):
    for i in range(5):
        source(f"{i}.png", f"image {i % 4}")
    plan(shard_size=2)
    before = files(tmp_path)
    monkeypatch.setattr(plan_module, "digest_of", lambda locator: pytest.fail(f"{locator} was read again"))
    plan(shard_size=3)
    assert files(tmp_path) == before


def test_new_images_come_into_new_shards(source, plan, tmp_path):
    for i in range(3):
        source(f"{i}.png", f"image {i}")
    plan(shard_size=2)
    before = files(tmp_path)
    source("00.png", "first by name")
    assert contents(plan(shard_size=2)) == [["image 0", "image 1"], ["image 2"], ["first by name"]]
    assert before.items() <= files(tmp_path).items()


def test_duplicates_are_one_image_with_all_its_paths(source, plan):
    for name in ("a.png", "b.png", "sub/a.png", "c.jpg"):
        source(name, "same")
    source("d.png", "other")
    planned = plan()
    assert contents(planned) == [["same", "other"]]
    ((identity, paths),) = planned.duplicates().items()
    assert identity == hashlib.sha256(b"same").hexdigest()
    assert [os.path.relpath(path, source.folder) for path in paths] == ["a.png", "b.png", "c.jpg", "sub/a.png"]
    assert plan().duplicates() == planned.duplicates()


def test_a_place_that_is_given_twice_is_no_duplicate(source, tmp_path):
    source("a.png", "one")
    planned = plan_images(tmp_path / "out", [source.folder, source.folder / "a.png", f"{source.folder}/*.png"])
    assert planned.count == 1
    assert planned.duplicates() == {}


def test_what_cannot_be_read_has_a_row_with_the_reason(source, plan):
    source("empty.png", "")
    source("good.png", "good")
    (source.folder / "broken.png").symlink_to("nowhere")
    os.mkfifo(source.folder / "pipe.png")
    reasons = {Path(image.path).name: image.error for image in plan().images()}
    assert reasons.pop("good.png") is None
    assert {name: (error.stage, error.kind) for name, error in reasons.items()} == dict.fromkeys(
        ("broken.png", "empty.png", "pipe.png"), ("read", "ImageError")
    )
    assert "is empty (0 bytes)" in reasons["empty.png"].message
    assert "broken link" in reasons["broken.png"].message
    assert len({image.id for image in plan().images()}) == 4
    with pytest.raises(ImageError, match="is empty"):
        plan().shards[0].images[1].read()


def test_a_file_that_is_deleted_or_changed_later_is_an_error_when_it_is_read(source, plan):
    source("a.png", "a")
    source("b.png", "b")
    first, second = plan().images()
    (source.folder / "a.png").unlink()
    source("b.png", "B")
    with pytest.raises(ImageError, match=r"a\.png' does not exist; it is a broken link, or was deleted"):
        first.read()
    with pytest.raises(ImageError, match=r"b\.png' has changed since it was planned"):
        second.read()


def test_a_changed_file_is_a_new_image_and_the_old_one_is_gone(source, plan):
    source("a.png", "old")
    source("b.png", "stays")
    plan()
    source("a.png", "new, and longer")
    planned = plan()
    assert [image.read() for image in planned.images()] == [b"stays", b"new, and longer"]
    assert planned.count == 2
    assert len(planned.shards) == 2
    source("a.png", "old")
    assert sorted(image.read() for image in plan().images()) == [b"old", b"stays"]
    source("c.png", "new, and longer")
    assert sorted(image.read() for image in plan().images()) == [b"new, and longer", b"old", b"stays"]


def test_an_image_lives_on_in_its_copy(source, plan):
    for name in ("a.png", "b.png"):
        source(name, "same")
    plan()
    source("a.png", "changed")
    assert sorted(image.read() for image in plan().images()) == [b"changed", b"same"]
    assert sorted(image.read() for image in plan().images()) == [b"changed", b"same"]


def test_a_bad_file_that_is_mended_is_no_longer_bad(source, plan):
    source("a.png", "")
    assert [image.error is None for image in plan().images()] == [False]
    source("a.png", "good")
    assert [image.read() for image in plan().images()] == [b"good"]


def test_a_touched_file_is_read_once_more_and_then_not(source, plan, monkeypatch):
    path = source("a.png", "a")
    plan()
    os.utime(path, (1, 1))
    assert contents(plan()) == [["a"]]
    assert plan().duplicates() == {}
    monkeypatch.setattr(plan_module, "digest_of", lambda locator: pytest.fail(f"{locator} was read again"))
    plan()


def test_names_for_exports_are_safe(source, plan):
    hostile = ["CON.png", "a b\n.png", "x" * 200 + ".JPG", "-rf.webp", "a..jpg.gif"]
    for i, name in enumerate(hostile):
        source(name, f"{i}")
    source(os.fsdecode(b"caf\xe9.png"), "bytes")
    names = [image.file_name for image in plan().images()]
    assert len({name.casefold() for name in names}) == 6
    for name in names:
        stem, _, suffix = name.partition(".")
        assert len(stem) == 32
        assert set(stem) <= set("0123456789abcdef")
        assert suffix in {"png", "jpg", "webp", "gif"}
    assert any(image.path.endswith("caf\\udce9.png") for image in plan().images())
    assert sorted(image.read() for image in plan().images())[-1] == b"bytes"


def test_a_suffix_that_says_nothing_is_read_from_the_content(source, tmp_path):
    given = [
        source("a", b"\xff\xd8\xff rest"),
        source("b.dat", b"\x89PNG rest"),
        source("c", b"RIFF1234WEBP"),
        source("d", "?"),
    ]
    names = [image.file_name for image in plan_images(tmp_path / "out", given).images()]
    assert [Path(name).suffix for name in names] == [".jpg", ".png", ".webp", ".bin"]


def test_ids_of_unreadable_images_do_not_depend_on_where_the_dataset_is(source, tmp_path, monkeypatch):
    source("a.png", "")
    monkeypatch.chdir(tmp_path)
    one, two = (next(plan_images(tmp_path / out, "in").images()) for out in ("out", "elsewhere"))
    assert one.id == two.id
    assert one.path == "in/a.png"


def test_a_plan_that_was_stopped_goes_on_to_the_same_files(source, tmp_path, monkeypatch):
    monkeypatch.setattr(plan_module, "_SIGHTINGS", 2)
    for i in range(10):
        source(f"{i}.png", f"image {i % 6}")
    rows = [f"{source.folder}/{i}.png\n" for i in (0, 6, 7, 8, 1, 2, 3, 9, 4, 5)]
    manifest = tmp_path / "list.csv"
    manifest.write_text("path\n" + "".join(rows))
    plan_images(tmp_path / "whole", manifest, shard_size=4)
    expected = {path.name: path.read_bytes() for path in (tmp_path / "whole" / "plan").iterdir()}
    assert len(expected) >= 4
    for stop in range(1, len(rows)):
        out = tmp_path / f"stopped-{stop}"
        broken = tmp_path / "broken.csv"
        broken.write_text("path\n" + "".join(rows[:stop]) + '"' + "x" * 200_000)
        with pytest.raises(FormatError, match="no valid CSV"):
            plan_images(out, broken, shard_size=4)
        plan_images(out, manifest, shard_size=4)
        assert {path.name: path.read_bytes() for path in (out / "plan").iterdir()} == expected


def test_a_kill_while_planning_loses_nothing(source, tmp_path):
    for i in range(400):
        source(f"{i}.png", f"image {i % 390}" * 2000)
    expected = plan_images(tmp_path / "whole", source.folder, shard_size=7)
    code = "import sys; from rasa.labelling.plan import plan_images; plan_images(*sys.argv[1:], shard_size=7)"
    killed = 0
    for number in range(4):
        process = subprocess.Popen([sys.executable, "-c", code, tmp_path / "out", source.folder])
        deadline = time.monotonic() + 30
        wanted = tmp_path / "out" / "plan" / f"shard-{12 * number + 5:06d}.parquet"
        while not wanted.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
    assert killed >= 2
    again = plan_images(tmp_path / "out", source.folder, shard_size=7)
    assert list(again.images()) == list(expected.images())
    assert again.duplicates() == expected.duplicates()


def test_two_processes_plan_the_same_dataset(source, tmp_path):
    for i in range(60):
        source(f"{i}.png", f"image {i}")
    code = (
        "import sys; from rasa.labelling.plan import plan_images; print(plan_images(*sys.argv[1:], shard_size=7).count)"
    )
    command = [sys.executable, "-c", code, tmp_path / "out", source.folder]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate(timeout=60)[0] for process in both] == ["60\n", "60\n"]
    ids = [image.id for image in load_plan(tmp_path / "out").images()]
    assert len(ids) == len(set(ids)) == 60


def test_memory_an_image_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(
        plan_module, "digest_of", lambda locator: Digest(hashlib.sha256(locator.at.encode()).hexdigest(), 9, b"")
    )
    monkeypatch.setattr(
        plan_module,
        "find_sources",
        lambda sources, frames: (Found(f"/p/{i}.jpg", Locator("file", f"/p/{i}.jpg"), 9, i) for i in range(20_000)),
    )
    plan_images(tmp_path / "warm", "p", shard_size=512)
    tracemalloc.start()
    plan_images(tmp_path / "out", "p", shard_size=512)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak / 20_000 < 400  # bytes; measured 329, 90 of them for the rows of one shard


@pytest.mark.parametrize("size", [0, -1, True, 2.5])
def test_a_wrong_shard_size_is_refused(source, plan, size):
    with pytest.raises(InputError, match="shard_size must be a whole number of at least 1"):
        plan(shard_size=size)


def test_a_damaged_plan_is_named(source, plan, tmp_path):
    source("a.png", "a")
    file = plan().shards[0].file
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(FormatError, match=r"shard-000000\.parquet: no readable Parquet file"):
        plan()
