"""A plugin of fake models and a preset of them, so that the commands run without weights."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rasa.cli import app

ROOT = Path(__file__).parents[2]

PLUGIN = '''
    """Fake models as a plugin."""
    import sys
    import time

    import numpy as np

    from rasa.registry import Model
    from rasa.testing import FakeDetector, FakeSegmenter, FakeTagger

    class Tagger(FakeTagger):
        """Fails on a photo 13 px wide, and is slow on one 17 px wide."""

        def tag(self, images):
            for image in images:
                if image.size[1] == 13:
                    raise RuntimeError("unlucky")
                if image.size[1] == 17:
                    print("working", file=sys.stderr, flush=True)
                    time.sleep(30)
            return super().tag(images)

    class Detector(FakeDetector):
        def __init__(self, box_threshold):
            super().__init__()
            self.box_threshold = box_threshold

        def describe(self):
            return {"model": "cli-detector", "box_threshold": self.box_threshold}

    def build_tagger(*, device, dtype, tag_threshold=0.6):
        names = ("cat", "dog", "red car")
        scores = (1.0, 0.75, 0.5)
        return Tagger([name for name, score in zip(names, scores) if score >= tag_threshold])

    def build_detector(*, device, dtype, box_threshold=0.25):
        return Detector(box_threshold)

    def build_segmenter(*, device, dtype):
        return FakeSegmenter()

    tagger = Model("cli-tagger", "tagger", "fake_models_of_cli_tests:build_tagger", summary="for tests")
    detector = Model("cli-detector", "detector", "fake_models_of_cli_tests:build_detector")
    segmenter = Model("cli-segmenter", "segmenter", "fake_models_of_cli_tests:build_segmenter")
    lost = Model(
        "cli-lost", "tagger", "nowhere:build", extra="hats", packages=("no_such_package",),
        checkpoints=("efficientnet-lite0.in1k",), fallbacks={"ssd-mobilenet-v2.coco": "boxes by guess"},
    )
'''
ENTRY_POINTS = "[rasa.models]\n" + "".join(
    f"{name} = fake_models_of_cli_tests:{name}\n" for name in ("tagger", "detector", "segmenter", "lost")
)
PRESET = """
summary = "fakes"
tagger = "cli-tagger"
detector = "cli-detector"
segmenter = "cli-segmenter"
"""


@pytest.fixture(scope="session")
def plugin(tmp_path_factory):
    """Folder of the plugin, laid out as pip would leave it."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "fake_models_of_cli_tests.py").write_text(textwrap.dedent(PLUGIN), encoding="utf-8")
    info = folder / "fake_models-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fake-models\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(ENTRY_POINTS, encoding="utf-8")
    return folder


@pytest.fixture
def preset(tmp_path_factory, plugin, monkeypatch):
    """Path of a preset of the plugin's models; the plugin is installed for this process."""
    monkeypatch.syspath_prepend(str(plugin))
    path = tmp_path_factory.mktemp("preset") / "fake.toml"
    path.write_text(PRESET, encoding="utf-8")
    return path


@pytest.fixture
def rasa(monkeypatch):
    """Run the command line in this process: ``rasa("run", ...)``."""
    monkeypatch.setenv("COLUMNS", "200")
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="rasa")


@pytest.fixture
def environment(plugin):
    """What a process of its own needs to find rasa and the plugin."""
    path = os.pathsep.join([str(plugin), str(ROOT)])
    return {**os.environ, "PYTHONPATH": path, "COLUMNS": "200", "PYTHONWARNINGS": "error::UserWarning:rasa"}


@pytest.fixture
def rasa_process(environment):
    """Run the command line in a process of its own; bytes in and out."""

    def run(*arguments, **options):
        command = [sys.executable, "-m", "rasa", *arguments]
        settings = {"env": environment, "capture_output": True, "timeout": 120}
        return subprocess.run(command, check=False, **settings | options)

    return run


@pytest.fixture
def photo():
    """Write a photo: ``photo(path, width=40)``."""

    def write(path, *, width=40, height=30):
        import PIL.Image

        from rasa.testing import sample_image

        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(sample_image(height=height, width=width).pixels).save(path)
        return path

    return write
