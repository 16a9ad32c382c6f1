"""SAM 3 with tiny random weights: boxes and masks from tags, masks from boxes, and how its folder is read."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Sam3ImageProcessor, Sam3Processor

from rasa import DetectAndSegment, Filter, Pipeline, Result, Suppress, Tags
from rasa._torch.files import source_hash
from rasa._torch.squash import Squash
from rasa.adapters.sam3 import Sam3, Sam3Segmenter, load_sam3, load_sam3_segmenter
from rasa.adapters.sam3.loading import build_sam3, build_sam3_segmenter
from rasa.errors import CheckpointError, InputError, WeightsError
from rasa.testing import (
    FakeTagger,
    check_detector_segmenter,
    check_segmenter,
    check_stage,
    sample_image,
    sample_images,
)
from tests.adapters.tiny_sam import save_tiny_sam2, save_tiny_sam3, save_tiny_sam3_video, tiny_sam3

IMAGE = sample_image(height=60, width=80)
BOXES = np.array([[5, 5, 40, 40], [0, 0, 80, 60], [30, 20, 70, 50]], np.float32)
# Scores of the tiny model are all about 0.25.
LOW = 0.2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_sam3(tmp_path_factory.mktemp("sam3"))


@pytest.fixture(scope="module")
def video_folder(tmp_path_factory):
    return save_tiny_sam3_video(tmp_path_factory.mktemp("sam3_video"))


@pytest.fixture(scope="module")
def model(folder):
    return load_sam3(folder, box_threshold=LOW)


@pytest.fixture(scope="module")
def tokenizer(model):
    return model._tokenizer


def ask(model, *tags, image=IMAGE):
    return model.detect_and_segment([image], [tags])[0]


def assert_same(one, other, tolerance=1e-5):
    assert one.labels == other.labels
    np.testing.assert_allclose(one.boxes, other.boxes, rtol=0, atol=100 * tolerance)
    np.testing.assert_allclose(one.scores, other.scores, rtol=0, atol=tolerance)
    assert (one.masks != other.masks).mean() <= 1e-4


@pytest.mark.parametrize("options", [{}, {"chunk": 1}, {"min_region": 20, "prompts": {"cat": ["a cat", "kitten"]}}])
def test_it_keeps_the_promises_of_a_detector_segmenter(folder, options):
    check_detector_segmenter(load_sam3(folder, box_threshold=LOW, **options), tolerance=1e-6)


def test_it_keeps_the_promises_of_a_segmenter(video_folder):
    check_segmenter(load_sam3_segmenter(video_folder, batch_size=2), tolerance=1e-5)


def test_boxes_scores_and_masks_are_those_of_transformers(folder, model):
    processor = Sam3Processor(Sam3ImageProcessor(size={"height": 56, "width": 56}), model._tokenizer)
    theirs = tiny_sam3()
    found = ask(model, "cat", "red bus")
    for tag in ("cat", "red bus"):
        inputs = processor(images=IMAGE.pixels.copy(), text=tag, return_tensors="pt")
        with torch.inference_mode():
            answer = theirs(**{key: inputs[key] for key in ("pixel_values", "input_ids", "attention_mask")})
        [expected] = processor.post_process_instance_segmentation(answer, threshold=LOW, target_sizes=[IMAGE.size])
        ours = found.take([label == tag for label in found.labels])
        assert len(ours) == len(expected["scores"]) > 3
        np.testing.assert_allclose(ours.scores, expected["scores"], rtol=0, atol=1e-6)
        limits = torch.tensor([80.0, 60.0, 80.0, 60.0])
        np.testing.assert_allclose(ours.boxes, expected["boxes"].clamp(min=0).minimum(limits), rtol=0, atol=1e-4)
        # They upscale probabilities and the original package upscales logits, so pixels at the edge may differ.
        assert (ours.masks != expected["masks"].numpy().astype(bool)).mean() < 0.01


def test_the_input_of_the_network_is_that_of_transformers():
    processor = Sam3ImageProcessor(size={"height": 56, "width": 56})
    squash = Squash(56, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), whole_levels=True)
    for image in sample_images():
        theirs = processor(image.pixels.copy(), input_data_format="channels_last", return_tensors="pt").pixel_values
        # On processors without AVX2, torchvision rounds in another place: a level of 256 at most.
        torch.testing.assert_close(squash([image]), theirs, rtol=0, atol=1.01 / 127.5)


def test_tags_matter_and_every_box_has_one(model):
    one, two, both = ask(model, "cat"), ask(model, "zebra crossing"), ask(model, "cat", "zebra crossing")
    assert np.abs(one.scores - two.scores).max() > 1e-4
    assert_same(both.take([label == "cat" for label in both.labels]), one)
    assert set(both.labels) == {"cat", "zebra crossing"}
    assert both.mask_scores is None


@pytest.mark.parametrize("chunk", [1, 2, 3, 50])
def test_the_chunk_changes_nothing(folder, chunk):
    tags = ["cat", "dog", "tree", "bus", "sky"]
    assert_same(
        ask(load_sam3(folder, box_threshold=LOW, chunk=chunk), *tags), ask(load_sam3(folder, box_threshold=LOW), *tags)
    )


def test_the_image_is_seen_once_whatever_the_tags(folder):
    model = load_sam3(folder, box_threshold=LOW, chunk=2)
    calls = []
    model._model.vision_encoder.register_forward_hook(lambda *_: calls.append("image"))
    model._model.text_encoder.register_forward_hook(lambda _, args, kwargs, out: calls.append("text"), with_kwargs=True)
    model.detect_and_segment([IMAGE, IMAGE], [["a", "b", "c"], ["b", "c"]])
    assert sorted(calls) == ["image", "image", "text", "text"]


def test_no_tags_run_nothing(tokenizer):
    broken = tiny_sam3()
    broken.vision_encoder = broken.text_encoder = None
    found = Sam3(broken, tokenizer).detect_and_segment([IMAGE, IMAGE], [[], ()])
    assert [instances.masks.shape for instances in found] == [(0, 60, 80)] * 2
    assert Sam3(broken, tokenizer).detect_and_segment([], []) == []


def test_the_threshold_is_obeyed(folder, model):
    everything = ask(load_sam3(folder, box_threshold=0), "cat", "dog")
    assert len(everything) == 20
    middle = float(np.median(everything.scores))
    found = ask(load_sam3(folder, box_threshold=middle), "cat", "dog")
    assert len(found) == (everything.scores > middle).sum() > 0
    assert ask(load_sam3(folder, box_threshold=1), "cat").masks.shape == (0, 60, 80)


def test_prompts_differ_from_tags(folder, model):
    ontology = {"hydrant": "a red fire hydrant", "pet": ["cat", "dog"]}
    found = ask(load_sam3(folder, box_threshold=LOW, prompts=ontology), "hydrant", "pet")
    asked = ask(model, "a red fire hydrant", "cat", "dog")
    np.testing.assert_array_equal(found.boxes, asked.boxes)
    np.testing.assert_array_equal(found.masks, asked.masks)
    names = {"a red fire hydrant": "hydrant", "cat": "pet", "dog": "pet"}
    assert found.labels == tuple(names[label] for label in asked.labels)


def test_equal_prompts_are_asked_once_and_belong_to_the_first_tag(folder, model):
    found = ask(load_sam3(folder, box_threshold=LOW, prompts={"puppy": "dog"}), "puppy", "dog", "puppy")
    assert set(found.labels) == {"puppy"}
    np.testing.assert_array_equal(found.boxes, ask(model, "dog").boxes)


def test_a_tag_that_is_too_long_is_named(folder, model):
    longest = "a" * 30
    assert len(ask(model, longest))
    with pytest.raises(InputError, match=rf"tag '{longest}a' has a prompt of 33 tokens, and SAM 3 reads at most 32"):
        ask(model, "cat", longest + "a")
    assert len(ask(load_sam3(folder, box_threshold=LOW, prompts={longest + "a": "short"}), longest + "a"))


@pytest.mark.parametrize("tag", ["", "  "])
def test_a_tag_without_text_is_refused(model, tag):
    with pytest.raises(InputError, match="in which there is nothing to read"):
        ask(model, tag)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"box_threshold": 1.5}, r"box_threshold must be in \[0, 1\], got 1.5"),
        ({"chunk": 0}, "chunk must be at least 1"),
        ({"max_mask_bytes": -1}, "max_mask_bytes must be at least 0"),
        ({"min_region": -1}, "min_region must be"),
        ({"prompts": {"cat": []}}, "prompts of tag 'cat' must be one or more texts"),
        ({"prompts": {"cat": ["x", " "]}}, "prompts of tag 'cat' must be one or more texts"),
    ],
)
def test_wrong_options_are_refused(folder, options, message):
    with pytest.raises(InputError, match=message):
        load_sam3(folder, **options)


def test_wrong_calls_are_refused(folder, model, tokenizer):
    with pytest.raises(InputError, match="1 images need as many lists of tags, got 2"):
        model.detect_and_segment([IMAGE], [[], []])
    with pytest.raises(InputError, match="20 boxes at 60 x 80 pixels; keep fewer boxes"):
        ask(load_sam3(folder, box_threshold=0, max_mask_bytes=60 * 80), "cat", "dog")
    with pytest.raises(InputError, match="training mode"):
        Sam3(tiny_sam3().train(), tokenizer)


def test_it_moves_between_devices(model):
    assert model.to("cpu") is model
    with pytest.raises(InputError, match='unknown device "gpu"'):
        model.to("gpu")


def test_it_says_what_it_is(model, folder, video_folder):
    assert model.describe() == {
        "model": "sam3", "weights": folder.name, "sha256": source_hash(folder), "box_threshold": LOW, "prompts": {},
        "min_region": 0, "dtype": "float32",
    }  # fmt: skip
    assert load_sam3_segmenter(video_folder).describe()["model"] == "sam3-tracker"


def test_half_precision_finds_much_the_same(folder, model):
    exact, found = ask(model, "cat"), ask(load_sam3(folder, box_threshold=LOW, dtype="bfloat16"), "cat")
    assert found.labels == exact.labels
    np.testing.assert_allclose(found.scores, exact.scores, rtol=0, atol=0.01)
    assert np.abs(found.boxes - exact.boxes).max() < 4


def test_the_published_folder_gives_both_models(video_folder):
    detector, segmenter = load_sam3(video_folder, box_threshold=0), load_sam3_segmenter(video_folder)
    published = load_file(video_folder / "model.safetensors")
    tracker = segmenter.network.model.state_dict()
    assert isinstance(segmenter, Sam3Segmenter)
    for name, tensor in detector._model.state_dict().items():
        torch.testing.assert_close(tensor, published[f"detector_model.{name}"], rtol=0, atol=0)
    for name in ("prompt_encoder.point_embed.weight", "mask_decoder.iou_token.weight", "no_memory_embedding"):
        torch.testing.assert_close(tracker[name], published[f"tracker_model.{name}"], rtol=0, atol=0)
    neck, backbone = "neck.fpn_layers.0.proj1.weight", "vision_encoder.backbone.layers.0.layer_norm1.weight"
    torch.testing.assert_close(tracker[f"vision_encoder.{neck}"], published[f"tracker_{neck}"], rtol=0, atol=0)
    torch.testing.assert_close(tracker[backbone], published[f"detector_model.{backbone}"], rtol=0, atol=0)


def test_embeddings_stand_in_for_the_encoder(video_folder):
    segmenter = load_sam3_segmenter(video_folder)
    [expected] = segmenter.segment([IMAGE], [BOXES])
    kept = segmenter.embed([IMAGE])
    segmenter.network.model.vision_encoder = None
    [found] = segmenter.segment([IMAGE], [BOXES], embeddings=kept)
    np.testing.assert_array_equal(found.masks, expected.masks)


def test_absent_weights_say_how_to_get_them(tmp_path, monkeypatch):
    monkeypatch.setenv("RASA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RASA_WEIGHTS", str(tmp_path))
    steps = r"(?s)gated, under the SAM License.*accept the licence.*hf auth login.*HF_TOKEN.*hf download facebook/sam3"
    for build in (build_sam3, build_sam3_segmenter):
        with pytest.raises(WeightsError, match=steps):
            build()
    with pytest.raises(WeightsError, match=steps):
        load_sam3(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"(?s)lacks config\.json.*hf download"):
        load_sam3(tmp_path)


def test_the_folder_is_found_by_name(video_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("RASA_CACHE", str(tmp_path))
    monkeypatch.delenv("RASA_WEIGHTS", raising=False)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "sam3.sa-co").symlink_to(video_folder)
    assert build_sam3(box_threshold=0.3).describe()["box_threshold"] == 0.3
    assert build_sam3_segmenter().describe()["weights"] == "sam3.sa-co"


def changed(folder, target, change):
    target.mkdir()
    for file in folder.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, target / "model.safetensors")
    return target


def test_weights_of_something_else_are_refused(folder, video_folder, tmp_path):
    with pytest.raises(CheckpointError, match='is of the model type "sam2", not of SAM 3'):
        load_sam3(save_tiny_sam2(tmp_path / "sam2"))
    with pytest.raises(CheckpointError, match="holds the detector of SAM 3 alone, which takes no boxes"):
        load_sam3_segmenter(folder)
    strange = changed(video_folder, tmp_path / "strange", lambda tensors: tensors.update(x=torch.zeros(1)))
    for load in (load_sam3, load_sam3_segmenter):
        with pytest.raises(CheckpointError, match='unknown key "x"'):
            load(strange)
    lacking = changed(folder, tmp_path / "lacking", lambda tensors: tensors.pop("text_projection.bias"))
    with pytest.raises(CheckpointError, match=r'lacks key "text_projection\.bias"'):
        load_sam3(lacking)
    (lacking / "config.json").write_text('{"model_type": "sam3_video"}', encoding="utf-8")
    with pytest.raises(CheckpointError, match="lacks detector_config"):
        load_sam3(lacking)


def test_a_pipeline_keeps_masks_with_their_boxes(model):
    whole = ask(model, "cat", "dog")
    pipeline = Pipeline(
        FakeTagger(["cat", "dog"]),
        DetectAndSegment(model),
        Filter(max_instances=12),
        Suppress(nms_threshold=0.9, merge_threshold=0.95),
    )
    found = pipeline(IMAGE).instances
    assert 0 < len(found) < 12
    for i in range(len(found)):
        same = [j for j in range(len(whole)) if whole.labels[j] == found.labels[i]
                and np.array_equal(whole.boxes[j], found.boxes[i])]  # fmt: skip
        assert len(same) == 1
        np.testing.assert_array_equal(whole.masks[same[0]], found.masks[i])
        assert whole.scores[same[0]] == found.scores[i]


def test_a_bare_model_is_lifted(model):
    pipeline = Pipeline(FakeTagger(["cat"]), model)
    assert repr(pipeline) == "Pipeline(tag -> detect_and_segment -> filter -> suppress)"
    result = pipeline(IMAGE)
    assert result.instances.masks.shape == (len(result.instances), 60, 80)
    assert Result.from_json(result.to_json()).provenance["stages"][1]["model"] == "sam3"


def test_it_keeps_the_promises_of_a_stage(model):
    images = sample_images()
    results = [Result(each.name, each.size, tags=Tags.of(["cat", "dog"][: i % 3])) for i, each in enumerate(images)]
    check_stage(DetectAndSegment(model), images=images, results=results, tolerance=1e-6)
