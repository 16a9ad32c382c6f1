"""What an interrupted run leaves, and that the same command completes it: kills, a full disk, two runs at once."""

import contextlib
import os
import random
import resource
import shutil
import signal
import subprocess
import time
from collections import Counter

import pytest

from rasa.labelling.dataset import open_dataset


def stamps(dataset):
    """Identity of every finished shard: a file that is written again has another inode or time."""
    return {
        path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in (dataset / "labels").rglob("shard-*.parquet")
    }


def kill_at(process, delay, *, whole_group):
    """SIGKILL after ``delay`` seconds; whether it was still running then."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=delay)
        return False
    if whole_group:
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()  # its workers are orphans, and have to end by themselves
    process.communicate()
    return True


def check_kills(arguments, tmp_path, content, start_label, *, kills, seed):
    """Kill the command at random moments, complete it, and compare with a run that nobody disturbed."""
    begin = time.perf_counter()
    undisturbed = start_label(*arguments, "--out", tmp_path / "calm")
    assert undisturbed.communicate()[0] == ""
    assert undisturbed.returncode == 0
    whole_s = time.perf_counter() - begin
    chance, done, again, number = random.Random(seed), 0, 0, 0
    while done < kills:
        out, number = tmp_path / f"killed-{number}", number + 1
        finished = {}
        for _ in range(8):
            process = start_label(*arguments, "--out", out)
            killed = kill_at(process, chance.uniform(0.2, 1.1) * whole_s, whole_group=chance.random() < 0.5)
            assert killed or process.returncode == 0
            now = stamps(out)
            again += sum(now.get(path) != stamp for path, stamp in finished.items())
            finished = now
            done += killed
            if not killed or done == kills:
                break
        last = start_label(*arguments, "--out", out)
        _, errors = last.communicate()
        assert last.returncode == 0, errors
        now = stamps(out)
        again += sum(now[path] != stamp for path, stamp in finished.items())
        assert content(out) == content(tmp_path / "calm")
        ids = Counter(image.id for image in open_dataset(out).rows())
        assert set(ids.values()) == {1}
        assert len(ids) == open_dataset(out).plan.count
    assert again == 0, "a finished shard was labelled again"


def test_a_run_killed_at_any_moment_ends_with_the_same_bytes(photos, tmp_path, content, start_label):
    arguments = [photos(32), "--pipeline", "fakes:slow", "--workers", "2", "--shard-size", "4", "--batch-size", "2"]
    check_kills(arguments, tmp_path, content, start_label, kills=8, seed=5)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_thirty_kills_over_the_hundred_photos(shared_photos, tmp_path, content, start_label):
    arguments = [shared_photos, "--pipeline", "fakes:slow", "--workers", "2", "--shard-size", "8"]
    check_kills(arguments, tmp_path, content, start_label, kills=30, seed=30)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_interrupted_run_keeps_its_finished_shards(photos, tmp_path, start_label, logged, name):
    out = tmp_path / "out"
    arguments = [photos(60), "--out", out, "--pipeline", "fakes:slow", "--shard-size", "4", "--workers", "2"]
    process = start_label(*arguments)
    wait_for_shards(out, 1)
    # A terminal sends Ctrl-C to the whole group, a scheduler SIGTERM to the one process that it knows.
    (os.killpg if name == "SIGINT" else os.kill)(process.pid, getattr(signal, name))
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "interrupted; finished shards are kept" in errors
    assert "Traceback" not in errors
    finished = stamps(out)
    assert finished
    assert [path for path in out.rglob("*.part") if path.is_file()] == []
    assert logged(out, "stopped")[0]["why"] == "KeyboardInterrupt"
    again = start_label(*arguments)
    _, errors = again.communicate()
    assert (again.returncode, "continuing:" in errors) == (0, True)
    assert finished.items() <= stamps(out).items()


def test_an_interrupt_while_workers_start_is_one_line(photos, tmp_path, start_label):
    for wait in (0.0, 0.1, 0.2, 0.3):
        out = tmp_path / f"out-{wait}"
        process = start_label(photos(8), "--out", out, "--pipeline", "fakes:slow", "--workers", "2")
        while not out.exists() and process.poll() is None:
            time.sleep(0.01)
        time.sleep(wait)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=20)
        assert (process.returncode, "Traceback" in errors) == (130, False), errors


def test_two_runs_at_once_share_the_work(photos, tmp_path, content, start_label, logged):
    folder = photos(40)
    arguments = [folder, "--pipeline", "fakes:slow", "--shard-size", "4"]
    alone = start_label(*arguments, "--out", tmp_path / "alone")
    alone.communicate()
    both = [start_label(*arguments, "--out", tmp_path / "both") for _ in range(2)]
    for process in both:
        _, errors = process.communicate()
        assert process.returncode == 0, errors
    assert content(tmp_path / "alone") == content(tmp_path / "both")
    labelled = [line for line in logged(tmp_path / "both", "shard") if line["state"] == "labelled"]
    assert sorted(line["shard"] for line in labelled) == list(range(10))
    assert len({line["pid"] for line in labelled}) == 2, "one of the two had nothing to do"


def test_a_run_takes_over_what_a_killed_one_was_at(photos, tmp_path, start_label):
    out = tmp_path / "out"
    arguments = [photos(12), "--out", out, "--pipeline", "fakes:slow", "--shard-size", "6"]
    first = start_label(*arguments)
    wait_for_shards(out, 1)
    second = start_label(*arguments)
    time.sleep(0.1)
    os.killpg(first.pid, signal.SIGKILL)
    _, errors = second.communicate(timeout=60)
    assert second.returncode == 0, errors
    assert open_dataset(out).finished


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a file system of its own with 128 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", folder], capture_output=True, check=False
    )
    if not mounted or mounted.returncode:
        pytest.skip("a small disk can be mounted by root only")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_full_disk_is_a_clear_error_and_a_later_run_completes(photos, small_disk, tmp_path, content, start_label):
    arguments = [photos(40), "--pipeline", "fakes:fast", "--shard-size", "8"]
    first = start_label(*arguments, "--out", tmp_path / "calm")
    first.communicate()
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(60_000))
    check_full(start_label, [*arguments, "--out", small_disk / "out"])
    assert list((small_disk / "out").rglob("*.part")) == []
    ballast.unlink()
    again = start_label(*arguments, "--out", small_disk / "out")
    assert (again.communicate()[0], again.returncode) == ("", 0)
    assert content(small_disk / "out") == content(tmp_path / "calm")


def test_a_quota_is_a_clear_error_and_a_later_run_completes(photos, tmp_path, content, start_label):
    """Files may not grow over a limit: what a full disk does to a write, without the rights to mount one."""
    arguments = [photos(40), "--pipeline", "fakes:fast", "--shard-size", "8"]
    first = start_label(*arguments, "--out", tmp_path / "calm")
    first.communicate()
    largest = max(path.stat().st_size for path in (tmp_path / "calm" / "labels").rglob("*.parquet"))

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # write() then fails, as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest - 100, resource.RLIM_INFINITY))

    check_full(start_label, [*arguments, "--out", tmp_path / "full"], preexec_fn=limit)
    assert not open_dataset(tmp_path / "full").finished
    again = start_label(*arguments, "--out", tmp_path / "full")
    assert (again.communicate()[0], again.returncode) == ("", 0)
    assert content(tmp_path / "full") == content(tmp_path / "calm")


def check_full(start_label, arguments, **options):
    process = start_label(*arguments, **options)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1, errors
    assert "error: cannot write" in errors
    assert "Traceback" not in errors


def wait_for_shards(out, count, *, seconds=30):
    end = time.monotonic() + seconds
    while len(list((out / "labels").rglob("shard-*.parquet"))) < count:
        assert time.monotonic() < end, f"no {count} shards after {seconds} s"
        time.sleep(0.02)
