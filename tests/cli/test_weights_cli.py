"""`rasa weights`, started as users start it, on the cache folder of the test."""

import json
import os
import subprocess
import sys

import pytest

from rasa.weights import checkpoints


@pytest.fixture
def rasa(tmp_path, root):
    """Run the command line in a new process, offline, with an empty cache."""

    def run(*arguments, **variables):
        environment = {**os.environ, "PYTHONPATH": str(root), "RASA_CACHE": str(tmp_path), "RASA_OFFLINE": "1"}
        environment = {**environment, "COLUMNS": "200", "NO_COLOR": "1", **variables}
        command = [sys.executable, "-m", "rasa.cli", "weights", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)

    return run


def test_list_shows_licences_and_what_is_cached(rasa, tmp_path):
    done = rasa("list")
    assert done.returncode == 0, done.stderr
    assert str(tmp_path) in done.stderr
    for name, checkpoint in checkpoints().items():
        (line,) = [line for line in done.stdout.splitlines() if line.split()[:1] == [name]]
        assert checkpoint.license in line
        assert " no " in line


def test_list_as_json_is_json_and_nothing_else(rasa):
    rows = json.loads(rasa("list", "--json").stdout)
    assert [row["name"] for row in rows] == list(checkpoints())
    by_name = {row["name"]: row for row in rows}
    assert by_name["ssd-mobilenet-v2.coco"]["used_by"] == ["lite-tagger", "lite-detector"]
    assert by_name["ssd-mobilenet-v2.coco"]["path"] is None
    assert by_name["ssd-mobilenet-v2.coco"]["size"] == 69_688_296


def test_fetch_of_a_preset_fails_in_one_line_without_a_network(rasa):
    done = rasa("fetch", "lite")
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith('error: could not fetch checkpoint "efficientnet-lite0.in1k": RASA_OFFLINE=1 forbids')


def test_fetch_prints_where_cached_files_lie(rasa, checkpoint_file):
    path = checkpoint_file("efficientnet-lite0.in1k")
    cache = str(path.parents[2])
    done = rasa("fetch", "efficientnet-lite0.in1k", RASA_CACHE=cache)
    assert (done.returncode, done.stdout) == (0, f"efficientnet-lite0.in1k\t{path}\n")
    as_json = rasa("fetch", "efficientnet-lite0.in1k", "--json", RASA_CACHE=cache)
    assert json.loads(as_json.stdout) == {"efficientnet-lite0.in1k": str(path)}
    assert rasa("path", "efficientnet-lite0.in1k", RASA_CACHE=cache).stdout == f"{path}\n"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["fetch", "lit"], 1, 'error: "lit" is neither a weight file nor a preset; did you mean "lite"?'),
        (["verify", "efficientnet-lite0"], 1, 'did you mean "efficientnet-lite0.in1k"?'),
        (["path", "dinov2-vits14.focus"], 1, "is not in the cache, or not intact; fetch it with `rasa weights fetch"),
        (["fetch"], 2, "Missing argument"),
        (["list", "--jsno"], 2, "No such option"),
        (["burn"], 2, "No such command"),
    ],
)
def test_failures(rasa, arguments, code, message):
    done = rasa(*arguments)
    assert done.returncode == code
    assert done.stdout == ""
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_verify_finds_a_damaged_file(rasa, tmp_path):
    assert rasa("verify").stderr.strip() == "0 right"
    damaged = tmp_path / "weights" / "efficientnet-lite0.in1k" / "efficientnet-lite0-57934424.pth"
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"damaged")
    done = rasa("verify")
    assert done.returncode == 1
    assert f"error: checkpoint {damaged} has sha256" in done.stderr
    assert "`rasa weights fetch efficientnet-lite0.in1k`" in done.stderr
