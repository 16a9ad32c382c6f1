"""OWLv2: its role, transformers' own answers, tags and prompts, and folders that are not what they should be."""

import json
import shutil
from functools import partial

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer
from transformers.models.owlv2.image_processing_pil_owlv2 import Owlv2ImageProcessorPil

from rasa import registry
from rasa.adapters.owlv2 import BOX_THRESHOLD, load_owlv2
from rasa.errors import CheckpointError, ContractError, InputError
from rasa.testing import check_detector, sample_image, sample_images
from tests.adapters.tiny import save_tiny_owlv2, tiny_owlv2

IMAGE = sample_image()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_owlv2(tmp_path_factory.mktemp("owlv2"))


@pytest.fixture(scope="module")
def detector(folder):
    return load_owlv2(folder, box_threshold=0.0)


def test_it_keeps_the_promises_of_a_detector(detector):
    check_detector(detector, tags=("cat", "dog", "red bus"))
    found = detector.detect(sample_images(), [["cat", "dog", "red bus"]] * 7)
    assert len({label for instances in found for label in instances.labels}) > 1
    assert all(np.ptp(instances.scores) > 1e-4 for instances in found)


def test_it_answers_as_transformers_does(folder, detector):
    tags = ["cat", "dog", "red bus"]
    model, processor = tiny_owlv2(), Owlv2ImageProcessorPil(size={"height": 64, "width": 64})
    tokens = AutoTokenizer.from_pretrained(folder)
    texts = tokens([f"a photo of a {tag}" for tag in tags], padding="max_length", max_length=32, return_tensors="pt")
    pixels = processor(images=IMAGE.pixels, return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        outputs = model(pixel_values=pixels, **texts)
    theirs = processor.post_process_object_detection(outputs, threshold=0.0, target_sizes=[IMAGE.size])[0]
    order = theirs["scores"].argsort(descending=True, stable=True)
    ours = detector.detect([IMAGE], [tags])[0]
    assert len(ours) == len(order) == 64
    np.testing.assert_allclose(ours.scores, theirs["scores"][order], atol=1e-6)
    assert ours.labels == tuple(tags[i] for i in theirs["labels"][order])
    limits = np.array([IMAGE.size[1], IMAGE.size[0]] * 2)
    np.testing.assert_allclose(ours.boxes, np.clip(theirs["boxes"][order].numpy(), 0, limits), atol=1e-3)


def test_a_tag_scores_the_same_whoever_else_is_asked_for(detector):
    alone = detector.detect([IMAGE], [["dog"]])[0]
    among = detector.detect([IMAGE], [["dog", *(f"thing {i}" for i in range(300))]])[0]
    ours = [i for i, label in enumerate(among.labels) if label == "dog"]
    for i in ours:
        j = np.abs(alone.boxes - among.boxes[i]).sum(axis=1).argmin()
        assert among.scores[i] == pytest.approx(alone.scores[j], abs=1e-6)
    assert len(among) == len(alone) == 64


def test_the_threshold_is_obeyed(folder, detector):
    everything = detector.detect([IMAGE], [["cat"]])[0]
    middle = float(np.median(everything.scores))
    found = load_owlv2(folder, box_threshold=middle).detect([IMAGE], [["cat"]])[0]
    assert 0 < len(found) == (everything.scores > np.float32(middle)).sum() < len(everything)
    assert load_owlv2(folder).describe()["box_threshold"] == BOX_THRESHOLD == 0.1


def test_prompts_stand_in_for_tags(folder, detector):
    prompts = {"hydrant": ["a photo of a cat", "a photo of a dog"], "bus": "a photo of a red bus"}
    found = load_owlv2(folder, box_threshold=0.0, prompts=prompts).detect([IMAGE], [["hydrant", "bus"]])[0]
    plain = detector.detect([IMAGE], [["cat", "dog", "red bus"]])[0]
    np.testing.assert_array_equal(found.scores, plain.scores)
    names = {"cat": "hydrant", "dog": "hydrant", "red bus": "bus"}
    assert found.labels == tuple(names[label] for label in plain.labels)


def test_one_text_for_two_tags_is_the_first_ones(folder):
    same = load_owlv2(folder, box_threshold=0.0, prompts={"puppy": "a photo of a dog"})
    assert set(same.detect([IMAGE], [["dog", "puppy"]])[0].labels) == {"dog"}


def test_no_tags_do_not_run_the_model(folder, monkeypatch):
    detector = load_owlv2(folder)
    monkeypatch.setattr(detector, "_model", None)
    assert [len(found) for found in detector.detect([IMAGE, IMAGE], [[], []])] == [0, 0]
    assert detector.detect([], []) == []


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        (["cat", "x" * 40], r"of tag 'x+' has \d+ tokens, the model reads 32; give it a shorter prompt"),
        (["a<|endoftext|>b"], r"of tag 'a<\|endoftext\|>b' has no words, or a mark that ends a text"),
        ("cat", r"tags of 'sample.*' must be a list, got the single string 'cat'; pass \['cat'\]"),
    ],
)
def test_bad_tags(detector, tags, message):
    with pytest.raises(InputError, match=message):
        detector.detect([IMAGE], [tags])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"box_threshold": 1.5}, r"box_threshold must be in \[0, 1\], got 1.5"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"template": "a photo"}, 'template must hold one "{}"'),
        ({"prompts": {"cat": []}}, "tag 'cat' has no prompt"),
        ({"device": "tpu9"}, 'unknown device "tpu9"'),
        ({"dtype": "int8"}, 'unknown dtype "int8"'),
    ],
)
def test_bad_options(folder, options, message):
    with pytest.raises(InputError, match=message):
        load_owlv2(folder, **options)


def test_a_folder_can_be_registered(folder):
    registry.register(registry.Model("owlv2-tiny.test", "detector", partial(load_owlv2, folder)))
    try:
        built = registry.build("owlv2-tiny.test", device="cpu", dtype="float32", box_threshold=0.25)
    finally:
        registry.unregister("owlv2-tiny.test")
    assert built.describe()["box_threshold"] == 0.25


def test_one_list_of_tags_per_image(detector):
    with pytest.raises(InputError, match="got 1 lists of tags for 2 images"):
        detector.detect([IMAGE, IMAGE], [["cat"]])


def test_bfloat16_is_near_float32(folder, detector):
    exact, rough = (
        each.detect([IMAGE], [["cat"]])[0] for each in (detector, load_owlv2(folder, dtype="bfloat16", box_threshold=0))
    )
    np.testing.assert_allclose(np.sort(rough.scores), np.sort(exact.scores), atol=0.03)
    assert load_owlv2(folder, dtype="bfloat16").to("cpu").describe()["dtype"] == "bfloat16"


def test_numbers_that_are_not_finite_are_an_error(folder):
    detector = load_owlv2(folder)
    detector._model.class_head.dense0.bias.data[0] = float("nan")
    with pytest.raises(ContractError, match="a number that is not finite on 'sample"):
        detector.detect([IMAGE], [["cat"]])


def copied(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        ("config.json", {"model_type": "sam"}, 'of the type "sam", not "owlv2"'),
        ("config.json", None, r"config.json.*fetch the whole folder"),
        ("preprocessor_config.json", {"size": {"height": 32, "width": 32}}, r"size \{.*32.*the model reads 64"),
        ("preprocessor_config.json", None, "preprocessor_config.json.*fetch the whole folder"),
        ("model.safetensors", None, "cannot be loaded"),
        ("vocab.json", None, "has no tokenizer: neither tokenizer.json nor vocab.json"),
    ],
)
def test_folders_that_are_not_whole(folder, tmp_path, file, values, message):
    path = copied(folder, tmp_path)
    (path / file).unlink()
    if values is not None:
        (path / file).write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=message):
        load_owlv2(path)


def test_weights_that_do_not_fit(folder, tmp_path, capfd):
    path = copied(folder, tmp_path)
    config = json.loads((path / "config.json").read_text())
    config["vision_config"]["num_hidden_layers"] = 3
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"missing keys, first"):
        load_owlv2(path)
    (path / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load_owlv2(path)
    assert capfd.readouterr() == ("", "")
