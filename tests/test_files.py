"""Files that are whole or not there."""

import re
import stat
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import pytest

from rasa._files import write_atomically
from rasa.errors import CheckpointError, OutputError


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_file_takes_its_name_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "file.bin"
    with write_atomically(path, make_folder=True, sync=True) as file:
        file.write(b"first")
        assert not path.exists()
    with write_atomically(path) as file:
        file.write(b"second")
        file.flush()
        assert path.read_bytes() == b"first"
    assert path.read_bytes() == b"second"
    assert names(path.parent) == ["file.bin"]


def test_text_is_written_as_it_is(tmp_path):
    with write_atomically(tmp_path / "a.txt", text=True) as file:
        file.write("naïve\nquoted\r\n")
    assert (tmp_path / "a.txt").read_bytes() == "naïve\nquoted\r\n".encode()


def write(path, data, **options):
    with write_atomically(path, **options) as file:
        file.write(data)


@pytest.mark.parametrize("error", [RuntimeError("no"), CheckpointError("broken"), KeyboardInterrupt()])
def test_an_error_in_the_block_goes_on_and_leaves_the_old_file(tmp_path, error):
    def broken(path):
        with write_atomically(path) as file:
            file.write(b"half of the n")
            raise error

    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(type(error)) as caught:
        broken(tmp_path / "file")
    assert caught.value is error
    assert (tmp_path / "file").read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_a_file_that_cannot_be_written_is_named_with_the_remedy(tmp_path):
    with pytest.raises(OutputError, match=r"cannot write .*none.file: No such file or directory; choose a writable"):
        write(tmp_path / "none" / "file", b"")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match=r"cannot write .*folder: .*; buy a disk"):
        write(tmp_path / "folder", b"data", remedy="buy a disk")
    assert names(tmp_path) == ["folder"]
    assert names(tmp_path / "folder") == []


def test_a_full_disk_leaves_the_old_file(tmp_path):
    pytest.importorskip("resource", reason="only POSIX limits the size of a file")
    code = """
        import resource, signal, sys
        from rasa._files import write_atomically
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        with write_atomically(sys.argv[1]) as file:
            file.write(bytes(2000))
    """
    (tmp_path / "file").write_bytes(b"old")
    command = [sys.executable, "-c", textwrap.dedent(code), tmp_path / "file"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert re.search(r"OutputError: cannot write .*file: File too large; choose a writable folder", done.stderr)
    assert (tmp_path / "file").read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_writers_at_once_cannot_disturb_each_other(tmp_path):
    path = tmp_path / "file"

    def write_slowly(number):
        with write_atomically(path) as file:
            for _ in range(100):
                file.write(b"%d" % number * 1000)
                file.flush()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write_slowly, range(8)))
    content = path.read_bytes()
    assert len(content) == 100_000
    assert len(set(content)) == 1
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("name", ["a" * 255, "é" * 127])
def test_the_longest_name_that_a_folder_holds(tmp_path, name):
    write(tmp_path / name, b"data")
    assert (tmp_path / name).read_bytes() == b"data"


def test_others_may_read_it_as_far_as_the_umask_says(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    write(tmp_path / "file", b"data")
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "file")}
    assert len(modes) == 1
