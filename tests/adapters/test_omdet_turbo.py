"""OmDet-Turbo: its role, transformers' own answers, and many tags in several task sentences."""

import json
import shutil

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from rasa._torch.squash import Squash
from rasa.adapters.omdet_turbo import BOX_THRESHOLD, load_omdet_turbo
from rasa.errors import CheckpointError, ContractError, InputError
from rasa.testing import check_detector, sample_image, sample_images
from tests.adapters.tiny import save_tiny_omdet_turbo, save_tiny_owlv2, tiny_omdet_turbo

IMAGE = sample_image()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_omdet_turbo(tmp_path_factory.mktemp("omdet"))


@pytest.fixture(scope="module")
def detector(folder):
    return load_omdet_turbo(folder, box_threshold=0.0)


def theirs(folder, tags):
    """Scores ``(Q, T)`` and boxes ``(Q, 4)`` of transformers' whole model, with the processor's texts."""
    tokens = AutoTokenizer.from_pretrained(folder)
    asked, task = (
        tokens(texts, padding="max_length", max_length=77, return_tensors="pt")
        for texts in (list(tags), [f"Detect {', '.join(tags)}."])
    )
    mean, std = (123.675 / 255, 116.28 / 255, 103.53 / 255), (58.395 / 255, 57.12 / 255, 57.375 / 255)
    with torch.inference_mode():
        out = tiny_omdet_turbo()(
            pixel_values=Squash(64, mean, std, whole_levels=True)([IMAGE]),
            classes_input_ids=asked["input_ids"],
            classes_attention_mask=asked["attention_mask"],
            tasks_input_ids=task["input_ids"],
            tasks_attention_mask=task["attention_mask"],
            classes_structure=torch.tensor([len(tags)]),
        )
    return out.decoder_class_logits[0].sigmoid().numpy(), out.decoder_coord_logits[0].numpy()


def test_it_keeps_the_promises_of_a_detector(detector):
    check_detector(detector, tags=("cat", "dog", "red bus"))
    found = detector.detect(sample_images(), [["cat", "dog", "red bus"]] * 7)
    assert len({label for instances in found for label in instances.labels}) > 1
    assert all(np.ptp(instances.scores) > 1e-4 for instances in found)


def test_it_answers_as_transformers_does(folder, detector):
    tags = ["cat", "dog", "red bus"]
    scores, boxes = theirs(folder, tags)
    order = np.argsort(-scores.max(axis=1), kind="stable")
    ours = detector.detect([IMAGE], [tags])[0]
    np.testing.assert_allclose(ours.scores, scores.max(axis=1)[order], atol=1e-5)
    assert ours.labels == tuple(tags[i] for i in scores.argmax(axis=1)[order])
    height, width = IMAGE.size
    corners = np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], axis=1)
    corners = np.clip(corners * [width, height, width, height], 0, [width, height, width, height])
    np.testing.assert_allclose(ours.boxes, corners[order], atol=1e-3)


def test_many_tags_are_shared_out_to_task_sentences_that_fit(folder, detector):
    tags = [f"thing number {i}" for i in range(20)]
    parts = detector._parts(detector._options.texts_of(tags))
    # A letter is a token here: 13 or 14 for a tag and its comma, 70 for all tags of a sentence.
    assert len(parts) == 4
    assert sorted(text for part in parts for text in part.texts) == sorted(tags)
    assert all(len(detector._task(part)) <= 77 for part in parts)
    found = detector.detect([IMAGE], [tags])[0]
    alone = [detector.detect([IMAGE], [list(part.texts)])[0] for part in parts]
    assert len(found) == sum(map(len, alone)) == 40
    np.testing.assert_allclose(found.scores, np.sort(np.concatenate([each.scores for each in alone]))[::-1], atol=1e-6)


def test_the_task_sentence_is_transformers(folder, detector):
    asked = detector._options.texts_of(["cat", "red bus", "t-shirt"])
    assert detector._task(asked) == AutoTokenizer.from_pretrained(folder)("Detect cat, red bus, t-shirt.")["input_ids"]


def test_prompts_stand_in_for_tags(folder, detector):
    prompts = {"hydrant": ["cat", "dog"]}
    found = load_omdet_turbo(folder, box_threshold=0.0, prompts=prompts).detect([IMAGE], [["hydrant"]])[0]
    plain = detector.detect([IMAGE], [["cat", "dog"]])[0]
    np.testing.assert_array_equal(found.scores, plain.scores)
    assert set(found.labels) == {"hydrant"}


def test_the_threshold_is_obeyed(folder, detector):
    everything = detector.detect([IMAGE], [["cat"]])[0]
    middle = float(np.median(everything.scores))
    found = load_omdet_turbo(folder, box_threshold=middle).detect([IMAGE], [["cat"]])[0]
    assert 0 < len(found) == (everything.scores > np.float32(middle)).sum() < len(everything)
    assert load_omdet_turbo(folder).describe()["box_threshold"] == BOX_THRESHOLD == 0.3


def test_no_tags_do_not_run_the_model(folder, monkeypatch):
    detector = load_omdet_turbo(folder)
    monkeypatch.setattr(detector, "_model", None)
    assert [len(found) for found in detector.detect([IMAGE, IMAGE], [[], []])] == [0, 0]


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        (["x" * 76], r"tag 'x+' has 7\d tokens.*the model reads 77|tag 'x+' has 76 tokens in .* has room for"),
        (["y" * 72], r"tag 'y+' has 72 tokens in 'y+', the task sentence has room for 68; give it a shorter prompt"),
        (["<|endoftext|>"], "no words, or a mark that ends a text"),
        ("cat", "must be a list, got the single string 'cat'"),
    ],
)
def test_bad_tags(detector, tags, message):
    with pytest.raises(InputError, match=message):
        detector.detect([IMAGE], [tags])


def test_bfloat16_is_near_float32(folder, detector):
    rough = load_omdet_turbo(folder, dtype="bfloat16", box_threshold=0.0).to("cpu")
    assert rough.describe()["dtype"] == "bfloat16"
    pair = [np.sort(each.detect([IMAGE], [["cat"]])[0].scores) for each in (rough, detector)]
    np.testing.assert_allclose(*pair, atol=0.05)


def test_numbers_that_are_not_finite_are_an_error(folder):
    detector = load_omdet_turbo(folder)
    detector._model.decoder.decoder_class_head[-1].bias.data[0] = float("nan")
    with pytest.raises(ContractError, match="a number that is not finite on 'sample"):
        detector.detect([IMAGE], [["cat"]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": {"height": 64, "width": 32}}, "makes images of 64 x 32, expected a square"),
        ({"image_mean": None}, "preprocessor_config.json lacks a setting"),
    ],
)
def test_settings_that_do_not_fit(folder, tmp_path, change, message):
    path = shutil.copytree(folder, tmp_path / "copy") / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CheckpointError, match=message):
        load_omdet_turbo(path.parent)


def test_another_family_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match='of the type "owlv2", not "omdet-turbo"'):
        load_omdet_turbo(save_tiny_owlv2(tmp_path))
