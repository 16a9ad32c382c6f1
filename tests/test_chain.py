"""The whole chain RAM -> Grounding DINO -> SAM, with tiny random models of the true architectures."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from rasa import Pipeline
from rasa.errors import CheckpointError, InputError, StageError
from rasa.loading import load, load_config, stages_of
from rasa.protocols import Movable
from rasa.registry import Model, register, unregister
from rasa.testing import check_detector, check_segmenter, sample_image, sample_images
from rasa.types import Image, Result

pytest.importorskip("transformers", reason='the extra "dino" is not installed')

from rasa.adapters.grounding_dino.loading import load_grounding_dino
from rasa.adapters.sam.loading import load_sam
from rasa.adapters.sam2.loading import load_sam2
from rasa_ram.tagger import RamTagger
from tests.adapters import tiny, tiny_sam
from tests.ram.tiny import VOCABULARY, tiny_model
from tests.tiny_published import publish

ROOT = Path(__file__).resolve().parent.parent
PRESETS = ("ram-light", "ram", "ram-best", "ram-sam3")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    saved = {"dino": tiny.save_tiny_grounding_dino, "sam": tiny_sam.save_tiny_sam, "sam2": tiny_sam.save_tiny_sam2}
    return {name: save(tmp_path_factory.mktemp(name)) for name, save in saved.items()}


@pytest.fixture(scope="module")
def ram():
    return RamTagger(tiny_model(), VOCABULARY)


@pytest.fixture(scope="module")
def dino(folders):
    return load_grounding_dino(folders["dino"])


@pytest.fixture(scope="module")
def sam(folders):
    return load_sam(folders["sam"])


@pytest.fixture(scope="module")
def chain(ram, dino, sam):
    return Pipeline(ram, dino, sam)


@pytest.fixture
def published(tmp_path, monkeypatch):
    return publish(tmp_path, monkeypatch)


def assert_same(found, expected):
    """Equal to 1e-4 of a score and of the image's side; masks but for pixels on their border."""
    assert found.tags.names == expected.tags.names
    assert found.instances.labels == expected.instances.labels
    np.testing.assert_allclose(found.tags.scores, expected.tags.scores, atol=1e-4)
    np.testing.assert_allclose(found.instances.scores, expected.instances.scores, atol=1e-4)
    np.testing.assert_allclose(found.instances.boxes, expected.instances.boxes, atol=1e-4 * max(expected.size))
    assert found.instances.masks.shape == expected.instances.masks.shape
    assert (found.instances.masks != expected.instances.masks).mean() < 1e-3 if len(expected.instances) else True


def test_tags_boxes_and_masks_in_one_call(chain):
    image = sample_image()
    result = chain(image)
    assert len(result.tags) > 3
    assert len(result.instances) > 3
    assert set(result.instances.labels) <= set(result.tags.names)
    assert result.instances.masks.shape == (len(result.instances), *image.size)
    assert 0 < result.instances.masks.mean() < 1
    assert {"tag", "detect", "suppress", "segment"} <= set(result.timings)
    models = [stage["model"] for stage in result.provenance["stages"] if "model" in stage]
    assert models[:2] == ["ram", "grounding-dino"]


def test_a_batch_answers_as_its_images_one_by_one(chain):
    images = sample_images()
    together = chain(images, batch_size=len(images))
    assert sum(len(result.instances) for result in together) > 10
    for image, result in zip(images, together, strict=True):
        assert_same(result, chain(image))


def test_a_stream_answers_as_a_list(chain):
    images = sample_images()[:4]
    for found, expected in zip(chain.stream(images, batch_size=3), chain(images), strict=True):
        assert_same(found, expected)


def test_results_survive_json(chain):
    result = chain(sample_image())
    again = Result.from_json(result.to_json())
    assert again.to_json() == result.to_json()
    np.testing.assert_array_equal(again.instances.masks, result.instances.masks)
    assert json.loads(result.to_json())["provenance"]["stages"]


def test_a_preset_file_of_own_models_is_the_same_pipeline(tmp_path, folders, ram, dino, sam):
    def build_dino(*, device, dtype, box_threshold):
        return load_grounding_dino(folders["dino"], device=device, dtype=dtype, box_threshold=box_threshold)

    register(Model("tiny-ram", "tagger", lambda **_: ram))
    register(Model("tiny-dino", "detector", build_dino))
    register(Model("tiny-sam", "segmenter", lambda **_: sam))
    path = tmp_path / "mine.toml"
    path.write_text(
        'tagger = "tiny-ram"\ndetector = "tiny-dino"\nsegmenter = "tiny-sam"\nbox_threshold = 0.25\n', encoding="utf-8"
    )
    try:
        found = load(path)(sample_image())
    finally:
        for name in ("tiny-ram", "tiny-dino", "tiny-sam"):
            unregister(name)
    assert_same(found, Pipeline(ram, dino, sam)(sample_image()))


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_runs(name, published):
    image = sample_image()
    result = load(name)(image)
    assert result.tags.names
    assert result.instances.masks.shape == (len(result.instances), *image.size)
    assert set(result.instances.labels) <= set(result.tags.names)
    assert result.provenance["preset"] == name


@pytest.mark.parametrize("name", PRESETS)
def test_every_model_of_a_preset_can_be_moved_for_low_memory(name, published):
    config = load_config(name, device="cuda", low_memory=True)
    stages = stages_of(config)
    moving = [stage for stage in stages if hasattr(stage, "model") and isinstance(stage.model, Movable)]
    assert len(moving) >= len(config.models)
    for stage in moving:
        stage.model.to("cpu")
        with pytest.raises(InputError, match='unknown device "gpu"'):
            stage.model.to("gpu")
    images = sample_images()[:2]
    before = load(name)(images)
    after = Pipeline(*(getattr(stage, "stage", stage) for stage in stages))(images)
    for found, expected in zip(after, before, strict=True):
        assert_same(found, expected)


@pytest.mark.gpu
@pytest.mark.parametrize("name", PRESETS)
def test_low_memory_gives_the_same_on_a_gpu(name, published):
    images = sample_images()
    there, moved = load(name, device="cuda"), load(name, device="cuda", low_memory=True)
    for found, expected in zip(moved(images), there(images), strict=True):
        assert_same(found, expected)


def test_compile_is_taken_by_ram_alone(published):
    stages = load("ram", compile=True).stages
    assert stages[0].tagger._model.visual_encoder._compiled_call_impl is not None
    assert load("ram").stages[0].tagger._model.visual_encoder._compiled_call_impl is None


def test_own_boxes_and_own_tags(chain):
    image = sample_image(height=90, width=120)
    boxed = chain(image, boxes=[[10, 10, 60, 50], [100, 80, 200, 200]], labels=["cup", "bus"])
    assert boxed.instances.masks.shape == (2, 90, 120)
    tagged = chain(image, tags=["red fire hydrant", "Cup"])
    assert set(tagged.instances.labels) <= {"red fire hydrant", "Cup"}
    assert len(tagged.instances)
    none = chain(image, tags=[])
    assert none.instances.masks.shape == (0, 90, 120)


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([[np.nan, 0, 10, 10]], "boxes must be finite"),
        ([[50, 50, 10, 10]], "boxes must be xyxy with x1 <= x2 and y1 <= y2, got a reversed one"),
        ([[1, 2, 3]], r"boxes must have shape \(1, 4\), got \(1, 3\)"),
    ],
)
def test_boxes_that_are_none_are_refused(chain, boxes, message):
    with pytest.raises(InputError, match=message):
        chain(sample_image(), boxes=boxes)


def test_a_photo_of_one_pixel(chain):
    result = chain(Image(np.full((1, 1, 3), 200, np.uint8)))
    assert result.instances.masks.shape == (len(result.instances), 1, 1)


def test_fifty_thousand_boxes_are_refused_before_anything_is_computed(chain):
    image = sample_image(height=480, width=640)
    corners = np.random.default_rng(0).uniform(0, 400, (50_000, 2))
    boxes = np.concatenate([corners, corners + 40], axis=1)
    with pytest.raises(StageError, match=r"50,?000 (boxes|masks)|masks of"):
        chain(image, boxes=boxes)


@pytest.mark.parametrize("tag", ["...", ". ?", " ."])
def test_a_tag_of_stop_characters_alone_is_refused(chain, tag):
    with pytest.raises(StageError, match=r"stage 'detect' failed .*InputError"):
        chain(sample_image(), tags=["cup", tag])


@pytest.mark.parametrize(
    ("loader", "wrong"), [(load_grounding_dino, "sam"), (load_sam, "dino"), (load_sam, "sam2"), (load_sam2, "dino")]
)
@pytest.mark.parametrize("part", ["", "model.safetensors"])
def test_a_checkpoint_of_the_wrong_family_is_refused(folders, loader, wrong, part):
    with pytest.raises(CheckpointError):
        loader(folders[wrong] / part)


def test_models_keep_the_promises_of_their_roles(dino, sam):
    check_detector(dino)
    check_segmenter(sam)


@pytest.fixture
def workshop(published, tmp_path, monkeypatch):
    """A folder with the photos and the files of their own that the page speaks of."""
    work = tmp_path / "work"
    shutil.copytree(ROOT / "examples" / "photos", work / "photos")
    shutil.copy(work / "photos" / "coffee.jpg", work / "photo.jpg")
    for name, save in {"grounding-dino": tiny.save_tiny_grounding_dino, "owlv2": tiny.save_tiny_owlv2}.items():
        (work / "my-models" / name).mkdir(parents=True)
        save(work / "my-models" / name)
    shutil.copy(tiny_sam.save_tiny_sam(tmp_path / "sam") / "model.safetensors", work / "my-models" / "sam.safetensors")
    monkeypatch.chdir(work)
    yield work
    unregister("my-owlv2")


def test_the_code_of_grounded_masks_runs(workshop, capsys):
    page = (ROOT / "docs" / "how-to" / "grounded-masks.md").read_text(encoding="utf-8")
    names = {"__name__": "__document__"}
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 7
    for block in blocks:
        exec(compile(block, f"grounded-masks.md: {block.splitlines()[0]}", "exec"), names)
    assert "\nTrue\n" in capsys.readouterr().out
