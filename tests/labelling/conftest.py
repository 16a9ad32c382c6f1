"""Puts the fake pipelines of ``fakes.py`` on the path, makes small photos, and runs the command in a process."""

import hashlib
import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


@pytest.fixture(autouse=True)
def _fakes_on_path(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))


@pytest.fixture
def fakes(_fakes_on_path):
    """The module of fake pipelines."""
    return import_module("fakes")


@pytest.fixture
def photos(tmp_path):
    """A function: make ``count`` small photos, each of its own, in ``tmp_path / folder``; gives the folder."""

    def make(count, *, folder="photos", size=(48, 32)):
        home = tmp_path / folder
        home.mkdir(exist_ok=True)
        for i in range(count):
            pixels = np.random.default_rng(i).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
            pixels[:, :, i % 3] //= 1 + i % 7
            PIL.Image.fromarray(pixels).save(home / f"{i:04d}.png")
        return home

    return make


@pytest.fixture
def content():
    """A function: dataset to the sha256 of every file of its plan and labels, what a killed process left not."""

    def read(dataset):
        files = [path for part in ("plan", "labels") for path in (Path(dataset) / part).rglob("*.parquet")]
        assert files, f"{dataset} holds no labels"
        return {path.relative_to(dataset).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    return read


@pytest.fixture
def logged():
    """A function: dataset to the lines of its log, those of one event only if it is named."""

    def read(dataset, event=None):
        lines = [json.loads(line) for line in (Path(dataset) / "log.jsonl").read_text(encoding="utf-8").splitlines()]
        return [line for line in lines if event in (None, line["event"])]

    return read


@pytest.fixture
def start_label():
    """A function: start ``rasa label ARGUMENTS`` in a session of its own; what is left is killed at the end."""
    started = []

    def start(*arguments, **options):
        path = os.pathsep.join([str(HERE), str(ROOT)])
        process = subprocess.Popen(
            [sys.executable, "-m", "rasa", "label", *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": path, "COLUMNS": "200", **options.pop("env", {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            text=True,
            **options,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture(scope="session")
def shared_photos():
    """Folder of the 100 photos."""
    folder = Path(os.environ.get("RASA_SHARED", ROOT.parent / "shared")) / "photos"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there; set RASA_SHARED to the folder that holds photos/")
    return folder
