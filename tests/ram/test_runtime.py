"""The OpenVINO runtime: the same logits, a cache that trusts nothing, and errors that say what to do."""

import copy
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from rasa.errors import DependencyError, InputError, OutputError
from rasa.testing import check_tagger, sample_image, sample_images
from rasa_ram.preprocess import preprocess
from rasa_ram.runtime.openvino import to_openvino
from rasa_ram.tagger import RamTagger
from tests.ram.tiny import VOCABULARY, tiny_model

FAMILIES = ("ram", "ram-plus", "tag2text")
IMAGES = sample_images()
# Rounding alone: the logits of the tiny models spread over several units.
EXACT = 1e-4

needs_openvino = pytest.mark.skipif(
    not any(Path(folder, "openvino").is_dir() for folder in sys.path), reason='the extra "openvino" is not installed'
)
needs_nncf = pytest.mark.skipif(
    not any(Path(folder, "nncf").is_dir() for folder in sys.path), reason='nncf of the extra "openvino" is absent'
)


@pytest.fixture(scope="module", params=FAMILIES)
def model(request):
    return tiny_model(request.param)


@pytest.fixture(scope="module")
def ram():
    return tiny_model("ram")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("runtime")


@pytest.fixture(scope="module")
def exported(ram, tmp_path_factory):
    """A cache with the tiny RAM, which no test changes."""
    folder = tmp_path_factory.mktemp("exported")
    to_openvino(ram, cache=folder)
    return folder


def pixels_of(model, images=IMAGES):
    return torch.from_numpy(preprocess(images, model.config.vision.image_size))


@torch.inference_mode()
def eager_logits(model, pixels):
    return model(pixels).numpy()


def files(folder):
    return {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*")) if path.is_file()}


@needs_openvino
def test_float32_gives_the_logits_of_torch(model, cache):
    pixels = pixels_of(model)
    expected = eager_logits(model, pixels)
    assert expected.std() > 0.5
    fast = to_openvino(model, cache=cache)
    np.testing.assert_allclose(fast(pixels).numpy(), expected, rtol=0, atol=EXACT)
    memory = fast.encode_image(pixels)
    with torch.inference_mode():
        np.testing.assert_allclose(memory, model.encode_image(pixels), rtol=0, atol=EXACT)
    in_parts = fast.decode(memory, fast.queries(), chunk=5)
    np.testing.assert_allclose(in_parts.numpy(), expected, rtol=0, atol=EXACT)
    one = fast.decode(memory, fast.queries(rows=torch.tensor([7])))
    np.testing.assert_allclose(one.numpy(), expected[:, [7]], rtol=0, atol=EXACT)
    assert fast(pixels[:0]).shape == (0, len(VOCABULARY))


@needs_openvino
def test_a_tagger_runs_on_it(model, cache):
    fast = to_openvino(model, cache=cache)
    tagger = RamTagger(fast, VOCABULARY, batch_size=3, provenance=fast.describe())
    check_tagger(tagger)
    exact = RamTagger(model, VOCABULARY)
    np.testing.assert_allclose(tagger.scores(IMAGES), exact.scores(IMAGES), rtol=0, atol=EXACT)
    some = RamTagger(fast, VOCABULARY, allow=["dog", "sky"])
    np.testing.assert_allclose(some.scores(IMAGES), exact.scores(IMAGES)[:, [1, 5]], rtol=0, atol=EXACT)
    assert tagger.describe()["precision"] == "float32"
    assert tagger.describe()["runtime"].startswith("openvino 20")


@needs_openvino
def test_other_tags_with_descriptions_in_any_number(cache):
    model = tiny_model("ram-plus")
    width = model.config.label_width
    vectors = torch.nn.functional.normalize(
        torch.randn(9, 4, width, generator=torch.Generator().manual_seed(0)), dim=-1
    )
    present = torch.arange(4) < torch.tensor([4, 1, 2, 3, 4, 4, 1, 2, 2])[:, None]
    fast, pixels = to_openvino(model, cache=cache), pixels_of(model)
    with torch.inference_mode():
        for asked in ({"vectors": vectors, "present": present}, {"vectors": vectors[:, 0]}):
            expected = model.decode(model.encode_image(pixels), model.queries(**asked))
            got = fast.decode(fast.encode_image(pixels), fast.queries(**asked), chunk=4)
            np.testing.assert_allclose(got, expected, rtol=0, atol=EXACT)


@needs_openvino
@needs_nncf
def test_int8_keeps_most_decisions(ram, cache):
    calibration = [sample_image(seed=seed) for seed in range(20, 26)]
    fast = to_openvino(ram, precision="int8", calibration=calibration, cache=cache)
    images = [sample_image(seed=seed) for seed in range(10)]
    exact, rough = (eager_logits(ram, pixels_of(ram, images)), fast(pixels_of(ram, images)).numpy())
    same = float(np.mean((exact > 0) == (rough > 0)))
    error = np.abs(exact - rough)
    print(f"int8: {same:.4f} of decisions stay; logit error mean {error.mean():.3f}, worst {error.max():.3f}")  # noqa: T201
    assert same >= 0.9
    assert 0 < error.mean() < 0.2 * exact.std()
    assert fast.describe()["precision"] == "int8"
    check_tagger(RamTagger(fast, VOCABULARY, batch_size=3))


@needs_openvino
def test_an_exported_model_is_found_again_and_told_apart(ram, exported, tmp_path):
    tmp_path = Path(shutil.copytree(exported, tmp_path / "cache"))
    first = files(tmp_path)
    assert {path.name for path in first} == {
        "encoder.xml",
        "encoder.bin",
        "decoder.xml",
        "decoder.bin",
        "manifest.json",
    }
    to_openvino(copy.deepcopy(ram), cache=tmp_path)
    assert files(tmp_path) == first
    other = copy.deepcopy(ram)
    with torch.no_grad():
        other.fc.bias += 1
    fast = to_openvino(other, cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    pixels = pixels_of(ram)
    np.testing.assert_allclose(fast(pixels).numpy(), eager_logits(ram, pixels) + 1, rtol=0, atol=EXACT)


@needs_openvino
@pytest.mark.parametrize("damage", ["flipped byte", "cut", "no manifest", "manifest of another"])
def test_a_damaged_model_is_made_again(ram, exported, tmp_path, damage):
    tmp_path = Path(shutil.copytree(exported, tmp_path / "cache"))
    (place,) = tmp_path.iterdir()
    weights, manifest = place / "encoder.bin", place / "manifest.json"
    if damage == "flipped byte":
        data = bytearray(weights.read_bytes())
        data[len(data) // 2] ^= 0xFF
        weights.write_bytes(data)
    elif damage == "cut":
        weights.write_bytes(weights.read_bytes()[:100])
    elif damage == "no manifest":
        manifest.unlink()
    else:
        manifest.write_text('{"sha256": {}}')
    pixels = pixels_of(ram)
    again = to_openvino(ram, cache=tmp_path)
    np.testing.assert_allclose(again(pixels).numpy(), eager_logits(ram, pixels), rtol=0, atol=EXACT)
    assert list(tmp_path.iterdir()) == [place]
    assert {path.name for path in files(tmp_path)} == {path.name for path in files(exported)}


@needs_openvino
def test_the_default_cache_is_that_of_all_weights(ram, tmp_path, monkeypatch):
    monkeypatch.setenv("RASA_CACHE", str(tmp_path))
    to_openvino(ram)
    assert len(list((tmp_path / "runtime").iterdir())) == 1


@needs_openvino
def test_a_cache_that_cannot_be_written(ram, tmp_path):
    file = tmp_path / "file"
    file.write_text("in the way")
    with pytest.raises(OutputError, match=r"cannot keep the exported model in .*file.*RASA_CACHE"):
        to_openvino(ram, cache=file)


@needs_openvino
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "int4"}, "precision must be one of float32, int8, got 'int4'"),
        ({"precision": "int8"}, "int8 needs calibration images"),
        ({"precision": "int8", "calibration": []}, "int8 needs calibration images"),
        ({"calibration": IMAGES}, "float32 needs no calibration images"),
        ({"threads": 0}, "threads must be at least 1, got 0"),
    ],
)
def test_wrong_arguments(ram, cache, options, message):
    with pytest.raises(InputError, match=message):
        to_openvino(ram, cache=cache, **options)


@needs_openvino
def test_models_that_cannot_be_exported(cache):
    with pytest.raises(InputError, match=r"training mode; call model\.eval"):
        to_openvino(tiny_model().train(), cache=cache)
    with pytest.raises(InputError, match=r"float32 on the CPU, got .*bfloat16"):
        to_openvino(tiny_model(dtype=torch.bfloat16), cache=cache)


@needs_openvino
def test_wrong_pixels_and_chunk(ram, cache):
    fast = to_openvino(ram, cache=cache)
    with pytest.raises(InputError, match=r"pixels must have shape \(B, 3, 64, 64\), got \(1, 3, 32, 32\)"):
        fast(torch.zeros(1, 3, 32, 32))
    with pytest.raises(InputError, match="chunk must be at least 1 tag, got 0"):
        fast.decode(fast.encode_image(pixels_of(ram)), fast.queries(), chunk=0)


def test_a_missing_package_names_the_extra(ram, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(DependencyError, match='needs the package "openvino"; install the extra "openvino"'):
        to_openvino(ram, cache=tmp_path)
    assert list(tmp_path.iterdir()) == []


@needs_openvino
def test_int8_without_its_package(ram, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(DependencyError, match='needs the package "nncf"; install the extra "openvino"'):
        to_openvino(ram, precision="int8", calibration=IMAGES, cache=tmp_path)
    assert list(tmp_path.iterdir()) == []


REPORTS = """
import sys
from openvino_telemetry.main import Telemetry
from openvino_telemetry.utils.opt_in_checker import OptInChecker
from openvino_telemetry.utils.sender import TelemetrySender
sent = []
TelemetrySender.send = lambda self, backend, message: sent.append(message)
before = (OptInChecker.check, TelemetrySender.send)
from rasa.testing import sample_images
from rasa_ram.runtime.openvino import to_openvino
from tests.ram.tiny import tiny_model
to_openvino(tiny_model(), precision="int8", calibration=sample_images())
assert (OptInChecker.check, TelemetrySender.send) == before, "the reporter is not as it was"
print("sent", len(sent))
"""


@needs_openvino
@needs_nncf
@pytest.mark.slow
def test_nothing_is_reported(tmp_path):
    # In a process of its own: NNCF switches its reports off when it sees pytest.
    environment = {key: value for key, value in os.environ.items() if key not in {"CI", "TF_BUILD", "JENKINS_URL"}}
    environment |= {"HOME": str(tmp_path), "RASA_CACHE": str(tmp_path / "cache")}
    root = Path(__file__).parents[2]
    code = f"import sys; sys.path.insert(0, {str(root)!r})\n{REPORTS}"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment, cwd=root
    )
    assert done.returncode == 0, done.stderr
    assert "sent 0" in done.stdout
    assert not (tmp_path / "intel").exists(), "an identity was written for the reports"


SIGNALS = """
import gc, signal, sys
from pathlib import Path
from rasa.testing import sample_images
from rasa_ram.runtime.openvino import to_openvino
from tests.ram.tiny import tiny_model
cache = Path(sys.argv[1])
models = [to_openvino(tiny_model(), cache=cache) for _ in range(2)]
if sys.argv[2] == "int8":
    models.append(to_openvino(tiny_model(), precision="int8", calibration=sample_images(), cache=cache))
while models:
    del models[0]
    gc.collect()
signal.signal(signal.SIGINT, lambda *_: print("heard"))
signal.raise_signal(signal.SIGINT)
"""


@needs_openvino
@pytest.mark.parametrize("precision", ["float32", pytest.param("int8", marks=[needs_nncf, pytest.mark.slow])])
def test_a_signal_is_heard_once_the_models_are_gone(tmp_path, precision):
    # Plugins that were unloaded in the order of their loading left the thread a signal stack that was gone.
    command = [sys.executable, "-c", SIGNALS, str(tmp_path), precision]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert (done.returncode, done.stdout.split()[-1:]) == (0, ["heard"]), done.stderr
