"""Locks between processes: one holder at a time, and none left by the dead."""

import errno
import subprocess
import sys

import pytest

from rasa import _locks as locks_module
from rasa._locks import file_lock
from rasa.errors import OutputError, RasaWarning


def test_a_lock_is_held_by_one(tmp_path):
    with file_lock(tmp_path / "a.lock") as held:
        assert held
        with file_lock(tmp_path / "a.lock", wait=False) as again:
            assert not again
        with file_lock(tmp_path / "b.lock", wait=False) as other:
            assert other
    assert not list(tmp_path.iterdir())


def test_a_lock_goes_with_the_process_that_is_killed(tmp_path):
    code = """if True:
        import pathlib, sys, time
        from rasa._locks import file_lock
        with file_lock(pathlib.Path(sys.argv[1])) as held:
            print(held, flush=True)
            time.sleep(60)
    """
    path = tmp_path / "a.lock"
    process = subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "True\n"
    with file_lock(path, wait=False) as held:
        assert not held
    process.kill()
    process.communicate()
    with file_lock(path, wait=False) as held:
        assert held


def test_many_processes_never_hold_one_lock_together(tmp_path):
    code = """if True:
        import pathlib, sys
        from rasa._locks import file_lock
        folder = pathlib.Path(sys.argv[1])
        for _ in range(200):
            with file_lock(folder / "a.lock") as held:
                assert held
                number = int((folder / "count").read_text())
                (folder / "count").write_text(str(number + 1))
    """
    (tmp_path / "count").write_text("0")
    running = [subprocess.Popen([sys.executable, "-c", code, tmp_path]) for _ in range(4)]
    assert [process.wait(timeout=60) for process in running] == [0] * 4
    assert (tmp_path / "count").read_text() == "800"


def test_a_file_system_without_locks_is_used_with_a_warning(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks_module.fcntl, "flock", refuse)
    with pytest.warns(RasaWarning, match="without locks; let only one process"), file_lock(tmp_path / "a.lock") as held:
        assert held


def test_a_lock_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match=r"cannot lock .*a\.lock: "), file_lock(tmp_path / "file" / "a.lock"):
        pass
