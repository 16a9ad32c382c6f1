"""`rasa weights`, started as users start it, on the cache folder of the test."""

import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rasa.cli.weights import convert
from rasa.errors import DependencyError
from rasa.weights import checkpoints


@pytest.fixture
def rasa(tmp_path, root):
    """Run the command line in a new process, offline, with an empty cache."""

    def run(*arguments, **variables):
        environment = {**os.environ, "PYTHONPATH": str(root), "RASA_CACHE": str(tmp_path), "RASA_OFFLINE": "1"}
        environment = {**environment, "COLUMNS": "200", "NO_COLOR": "1", **variables}
        command = [sys.executable, "-m", "rasa.cli", "weights", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=180)

    return run


def test_list_shows_licences_and_what_is_cached(rasa, tmp_path):
    done = rasa("list")
    assert done.returncode == 0, done.stderr
    assert str(tmp_path) in done.stderr
    for name, checkpoint in checkpoints().items():
        rows = [re.split(r"\s{2,}", line.strip()) for line in done.stdout.splitlines()]
        (columns,) = [row for row in rows if row[0] == name and len(row) > 1]  # a model of that name may stand alone
        assert columns[1:3] == [checkpoint.source.kind, checkpoint.license]
        assert columns[4:6] == ["yes" if checkpoint.checked else "no", "no"]


def test_list_groups_by_kind_and_fits_a_terminal(rasa):
    lines = rasa("list", COLUMNS="120").stdout.splitlines()
    assert max(map(len, lines)) <= 120
    kinds = [row[1] for line in lines if len(row := line.split()) > 1 and row[0] in checkpoints()]
    assert len(kinds) == len(checkpoints())
    assert [kind for kind, before in zip(kinds, ["", *kinds], strict=False) if kind != before] == [
        "wheel",
        "hub",
        "url",
    ]


def test_list_as_json_is_json_and_nothing_else(rasa):
    rows = json.loads(rasa("list", "--json").stdout)
    assert {row["name"] for row in rows} == set(checkpoints())
    by_name = {row["name"]: row for row in rows}
    assert by_name["ssd-mobilenet-v2.coco"]["used_by"] == ["lite-tagger", "lite-detector"]
    assert by_name["ssd-mobilenet-v2.coco"]["path"] is None
    assert by_name["ssd-mobilenet-v2.coco"]["size"] == 69_688_296
    assert by_name["ssd-mobilenet-v2.coco"]["checked"] is True
    hub = by_name["sam3-full.sa-co"]
    assert (hub["kind"], hub["source"], hub["checked"]) == ("hub", "facebook/sam3@main: sam3.pt", False)


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
        (
            ["fetch", "ram-tags"],
            1,
            "RASA_OFFLINE=1 forbids the network; download https://raw.githubusercontent.com/xinyu",
        ),
        (
            ["fetch", "sam3-full.sa-co"],
            1,
            "download sam3.pt from https://huggingface.co/facebook/sam3 where there is a",
        ),
        (["fetch"], 2, "Missing argument"),
        (["convert", "a.pth"], 2, "Missing argument 'dest'"),
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


def test_a_folder_of_ones_own_is_used(rasa, tmp_path, root):
    reference = Path(os.environ.get("RASA_REFERENCE", root.parent / "shared" / "reference")) / "labels"
    if not (reference / "ram_tag_list.txt").is_file():
        pytest.skip(f"no reference labels in {reference}; set RASA_REFERENCE")
    variables = {"RASA_WEIGHTS": str(reference), "RASA_CACHE": str(tmp_path / "cache")}
    expected = str(reference.absolute() / "ram_tag_list.txt")
    assert rasa("fetch", "ram-tags", **variables).stdout == f"ram-tags\t{expected}\n"
    assert rasa("path", "ram-tags", **variables).stdout == f"{expected}\n"
    assert "4 right" in rasa("verify", **variables).stderr


def test_convert_hands_over_to_its_package(rasa, tmp_path):
    done = rasa(
        "convert", str(tmp_path / "missing.pth"), str(tmp_path / "slim.safetensors"), "--model", "ram-swin-l.14m"
    )
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert "missing.pth" in line


def test_convert_takes_what_its_package_takes():
    from rasa_ram.cli import convert as package

    ours, theirs = (inspect.signature(function).parameters for function in (convert, package.convert))
    assert {name: p.default for name, p in ours.items()} == {name: p.default for name, p in theirs.items()}


def test_convert_without_its_package_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "rasa_ram.cli.convert", None)
    with pytest.raises(DependencyError, match=r'needs the package "rasa_ram"; install the extra "ram"'):
        convert(tmp_path / "a.pth", tmp_path / "b.safetensors")


def test_verify_finds_a_damaged_file(rasa, tmp_path):
    assert rasa("verify").stderr.strip() == "0 right"
    damaged = tmp_path / "weights" / "efficientnet-lite0.in1k" / "efficientnet-lite0-57934424.pth"
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"damaged")
    done = rasa("verify")
    assert done.returncode == 1
    assert f"error: checkpoint {damaged} has sha256" in done.stderr
    assert "`rasa weights fetch efficientnet-lite0.in1k`" in done.stderr
