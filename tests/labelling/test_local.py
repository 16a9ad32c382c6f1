"""Worker processes: they die, they are replaced, and what they print does not get in between."""

import os
import signal
import time
from pathlib import Path

import PIL.Image
import pytest

import rasa
from rasa.errors import WorkerError
from rasa.labelling.board import Board, Outcome
from rasa.labelling.local import LocalEngine
from rasa.labelling.plan import plan_images
from rasa.labelling.recipe import Recipe
from rasa.testing import sample_image


def add_poison(folder, *names):
    for number, name in enumerate(names):
        PIL.Image.fromarray(sample_image(height=8 + number, width=13).pixels).save(folder / f"{name}.png")


def test_an_image_that_kills_its_worker_costs_one_row(photos, tmp_path, logged):
    folder = photos(12)
    add_poison(folder, "0002a", "0003a")
    dataset = rasa.label(folder, tmp_path / "out", pipeline="fakes:poison", shard_size=7, workers=2)
    rows = {image.path.rpartition("/")[2]: image.row for image in dataset.rows()}
    assert len(rows) == 14
    bad = {name: row for name, row in rows.items() if row.status != "ok"}
    assert set(bad) == {"0002a.png", "0003a.png"}
    for row in bad.values():
        assert (row.error_stage, row.error_kind) == ("worker", "WorkerDied")
        assert row.error_message == "the worker process died on this image (signal 9, SIGKILL)"
    assert [line["shard"] for line in logged(tmp_path / "out", "image by image")] == [0]
    died = [(line["shard"], line["row"]) for line in logged(tmp_path / "out", "worker died")]
    # 0000, 0001, 0002, 0002a, 0003, 0003a: twice as a whole, and twice each of the two.
    assert sorted(died, key=str) == [(0, 3), (0, 3), (0, 5), (0, 5), (0, None), (0, None)]


def test_a_killed_worker_is_replaced_and_its_shard_done_again(photos, tmp_path, content, logged):
    folder, killed = photos(30), []
    rasa.label(folder, tmp_path / "calm", pipeline="fakes:slow", shard_size=10)

    def kill_once(progress):
        if progress.done > 4 and not killed:
            killed.extend(children())
            os.kill(killed[0], signal.SIGKILL)

    options = {"pipeline": "fakes:slow", "shard_size": 10, "batch_size": 2}
    dataset = rasa.label(folder, tmp_path / "out", watch=kill_once, **options)
    assert (dataset.counts.ok, dataset.counts.failed) == (30, 0)
    assert [line["how"] for line in logged(tmp_path / "out", "worker died")] == ["signal 9, SIGKILL"]
    assert content(tmp_path / "out") == content(tmp_path / "calm")


def test_no_process_is_left_behind(photos, tmp_path):
    rasa.label(photos(4), tmp_path / "out", pipeline="fakes:fast", workers=3, shard_size=1)
    assert children() == []

    def stop(progress):
        if progress.done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rasa.label(photos(9), tmp_path / "out", pipeline="fakes:slow", workers=2, shard_size=4, watch=stop)
    assert children() == []


def test_workers_without_a_driver_end_by_themselves(photos, tmp_path, start_label):
    arguments = [photos(40), "--out", tmp_path / "out", "--pipeline", "fakes:slow", "--workers", "2"]
    process = start_label(*arguments, "--shard-size", "2")
    end = time.monotonic() + 30
    while not list((tmp_path / "out").rglob("labels/*/shard-*.parquet")):
        assert time.monotonic() < end
        time.sleep(0.05)
    workers = children(process.pid)
    assert len(workers) >= 1
    process.kill()
    process.wait()
    while any(map(is_running, workers)):
        assert time.monotonic() < end, "a worker outlived its run"
        time.sleep(0.05)


def test_what_a_model_prints_is_not_taken_for_a_message(photos, tmp_path, capfd):
    dataset = rasa.label(photos(3), tmp_path / "out", pipeline="chatty:build")
    assert dataset.counts.ok == 3
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "a model talks" in captured.err


@pytest.fixture(autouse=True)
def _chatty(tmp_path, monkeypatch):
    home = tmp_path / "site"
    home.mkdir()
    (home / "chatty.py").write_text(
        "import os, warnings, fakes\n"
        "from rasa.errors import RasaWarning\n"
        "def build():\n"
        "    print('a model talks')\n"
        "    os.system('echo and so does a program that it starts')\n"
        "    return fakes.fast()\n"
        "def warn():\n"
        "    warnings.warn('a fallback is used', RasaWarning)\n"
        "    return fakes.slow()\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(str(home))


def test_a_warning_of_all_workers_is_given_once(photos, tmp_path):
    with pytest.warns(rasa.errors.RasaWarning, match="a fallback is used") as caught:
        rasa.label(photos(30), tmp_path / "out", pipeline="chatty:warn", workers=2, shard_size=2)
    assert len(caught) == 1


def test_workers_have_the_threads_and_the_gpu_that_are_meant_for_them(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    engine = LocalEngine(Recipe(config={"device": "cuda"}), workers=3, threads=2)
    environments = [engine._environment(number) for number in range(3)]
    assert [values["CUDA_VISIBLE_DEVICES"] for values in environments] == ["3", "5", "3"]
    assert {values["OMP_NUM_THREADS"] for values in environments} == {"2"}
    assert {values["OPENCV_FOR_THREADS_NUM"] for values in environments} == {"2"}
    chosen = LocalEngine(Recipe(config={"device": "cuda:1"}), workers=3)
    assert chosen._environment(2)["CUDA_VISIBLE_DEVICES"] == "3,5"


def test_workers_that_die_whatever_they_do_end_the_run(photos, tmp_path):
    plan = plan_images(tmp_path / "out", photos(20))
    board = Board(plan.shards, lambda *_, **__: None)
    for _ in range(24):
        board.died(board.next(), "signal 9, SIGKILL")
    with pytest.raises(
        WorkerError, match=r"25 workers in a row died \(signal 9, SIGKILL\) with nothing done in between"
    ):
        board.died(board.next(), "signal 9, SIGKILL")


def test_a_shard_of_another_run_is_asked_for_again_later(photos, tmp_path):
    plan = plan_images(tmp_path / "out", photos(4), shard_size=2)
    board = Board(plan.shards, lambda *_, **__: None)
    first = board.next()
    board.settle(first, Outcome("taken"))
    second = board.next()
    assert (first.shard.index, second.shard.index) == (0, 1)
    assert board.next() is None
    assert 0 < board.delay_s <= 0.5
    board.settle(second, Outcome("labelled", 2))
    time.sleep(board.delay_s)
    assert board.next() == first
    board.settle(first, Outcome("there", 2))
    assert not board.is_open


def children(parent=None):
    """Processes that ``parent``, this one unless given, has started and that run rasa's worker."""
    parent = parent or os.getpid()
    return [process for process in processes() if is_running(process) and is_worker_of(process, parent)]


def processes():
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def is_worker_of(process, parent):
    try:
        command = (Path("/proc") / str(process) / "cmdline").read_bytes()
    except OSError:
        return False
    return b"rasa.labelling.worker_process" in command and stat_of(process)[1] == str(parent)


def is_running(process):
    return stat_of(process)[0] != "Z"


def stat_of(process):
    """State and parent; a process that is gone counts as a zombie."""
    try:
        text = (Path("/proc") / str(process) / "stat").read_text(encoding="utf-8")
    except OSError:
        return ["Z", "0"]
    return text.rpartition(")")[2].split()[:2]
