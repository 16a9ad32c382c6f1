"""SAM 2 with tiny random weights: the promises of a segmenter, its options, and what it refuses."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Sam2VideoConfig, Sam2VideoModel

from rasa import Image
from rasa._torch.squash import Squash
from rasa.adapters.sam2 import Sam2Segmenter, load_sam2, sam2_config
from rasa.errors import CheckpointError, InputError, UnknownModelError
from rasa.testing import check_segmenter, sample_image, sample_images
from tests.adapters.tiny_sam import save_tiny_sam, save_tiny_sam2, tiny_sam2

IMAGE = sample_image(height=60, width=80)
BOXES = np.array([[5, 5, 40, 40], [0, 0, 80, 60], [30, 20, 70, 50]], np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_sam2(tmp_path_factory.mktemp("sam2"))


@pytest.fixture(scope="module")
def segmenter(folder):
    return load_sam2(folder)


def assert_same(one, other):
    np.testing.assert_array_equal(one.masks, other.masks)
    np.testing.assert_allclose(one.scores, other.scores, rtol=0, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"multimask": "best", "batch_size": 3, "chunk": 2}, {"min_region": 30}])
def test_it_keeps_the_promises_of_a_segmenter(folder, options):
    check_segmenter(load_sam2(folder, **options), tolerance=1e-5)


def test_images_and_boxes_matter(segmenter):
    other = sample_image(height=60, width=80, seed=5)
    one, two = segmenter.segment([IMAGE, other], [BOXES, BOXES])
    assert 0 < one.masks.mean() < 1
    assert (one.masks != two.masks).mean() > 0.01
    assert (one.masks[0] != one.masks[1]).mean() > 0.01


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_a_batch_is_its_images(folder, batch_size):
    images = sample_images()
    boxes = [BOXES[: i % 4] for i in range(len(images))]
    together = load_sam2(folder, batch_size=batch_size).segment(images, boxes)
    for image, rows, found in zip(images, boxes, together, strict=True):
        assert_same(load_sam2(folder).segment([image], [rows])[0], found)


@pytest.mark.parametrize("chunk", [1, 2, 100])
def test_the_chunk_changes_nothing(folder, segmenter, chunk):
    many = np.repeat(BOXES, 2, axis=0)
    assert_same(load_sam2(folder, chunk=chunk).segment([IMAGE], [many])[0], segmenter.segment([IMAGE], [many])[0])


def test_embeddings_stand_in_for_the_encoder():
    model = tiny_sam2()
    segmenter = Sam2Segmenter(model)
    expected = segmenter.segment([IMAGE, IMAGE], [BOXES, BOXES[:0]])
    embeddings = segmenter.embed([IMAGE, IMAGE])
    model.vision_encoder = None  # it must not be asked again
    found = segmenter.segment([IMAGE, IMAGE], [BOXES, BOXES[:0]], embeddings=embeddings)
    for one, other in zip(expected, found, strict=True):
        assert_same(one, other)


def test_no_boxes_run_nothing():
    model = tiny_sam2()
    segmenter = Sam2Segmenter(model)
    model.vision_encoder = model.mask_decoder = None
    [found] = segmenter.segment([IMAGE], [BOXES[:0]])
    assert found.masks.shape == (0, 60, 80)
    assert found.scores.shape == (0,)


def test_embeddings_of_something_else_are_refused(segmenter, tmp_path):
    [embedding] = segmenter.embed([sample_image(height=50, width=80)])
    with pytest.raises(InputError, match=r"embedding given for 'sample-60x80-0' is of an image of size \(50, 80\)"):
        segmenter.segment([IMAGE], [BOXES], embeddings=[embedding])
    other = load_sam2(save_tiny_sam2(tmp_path / "other", seed=1))
    with pytest.raises(
        InputError, match=r'is by "sam2 .*", and this model is "sam2 other [0-9a-f]{12}"; embed the image again'
    ):
        other.segment([IMAGE], [BOXES], embeddings=segmenter.embed([IMAGE]))
    with pytest.raises(InputError, match="1 images need as many embeddings, got 0"):
        segmenter.segment([IMAGE], [BOXES], embeddings=[])


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([[1, 2, np.nan, 4]], r"'sample-60x80-0': row 0 is .*finite"),
        ([[1, 2, 3, 4], [9, 2, 3, 4]], "row 1 is .*reversed"),
        ([[1, 2, 3]], r"must have shape \(any, 4\)"),
    ],
)
def test_bad_boxes_are_refused(segmenter, boxes, message):
    with pytest.raises(InputError, match=message):
        segmenter.segment([IMAGE], [np.array(boxes, np.float32)])
    with pytest.raises(InputError, match="1 images need as many arrays of boxes, got 0"):
        segmenter.segment([IMAGE], [])


def test_masks_that_would_not_fit_are_refused_before_anything_runs():
    model = tiny_sam2()
    segmenter = Sam2Segmenter(model, max_mask_bytes=3 * 60 * 80 - 1)
    model.vision_encoder = None
    with pytest.raises(InputError, match="3 boxes at 60 x 80 pixels; keep fewer boxes"):
        segmenter.segment([IMAGE], [BOXES])


def test_many_boxes_on_a_small_image(segmenter):
    boxes = np.tile(np.array([[0, 0, 1, 1]], np.float32), (1000, 1))
    [found] = segmenter.segment([Image(np.zeros((1, 1, 3), np.uint8))], [boxes])
    assert found.masks.shape == (1000, 1, 1)


def test_best_of_three_is_the_best_rated(folder):
    found = load_sam2(folder, multimask="best").segment([IMAGE], [BOXES])[0]
    model = tiny_sam2()
    [embedding] = Sam2Segmenter(model).embed([IMAGE])
    boxes = torch.from_numpy(BOXES * np.array([64 / 80, 64 / 60] * 2, np.float32))
    with torch.inference_mode():
        answer = model(image_embeddings=list(embedding.features), input_boxes=boxes[None])
    np.testing.assert_allclose(found.scores, answer.iou_scores[0].max(1).values.clip(0, 1), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"multimask": "three"}, 'multimask must be "single" or "best", got \'three\''),
        ({"chunk": 0}, "chunk must be at least 1"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"min_region": -1}, "min_region must be an area in pixels"),
        ({"max_mask_bytes": -1}, "max_mask_bytes must be at least 0"),
        ({"dtype": "half"}, 'unknown dtype "half"'),
        ({"device": "gpu"}, 'unknown device "gpu"'),
    ],
)
def test_wrong_options_are_refused(folder, options, message):
    with pytest.raises(InputError, match=message):
        load_sam2(folder, **options)


def test_a_model_in_training_mode_is_refused():
    with pytest.raises(InputError, match=r"training mode.*call model\.eval\(\)"):
        Sam2Segmenter(tiny_sam2().train())


def test_half_precision_runs_and_encodes_boxes_in_float32(folder, segmenter):
    [exact], [found] = (each.segment([IMAGE], [BOXES]) for each in (segmenter, load_sam2(folder, dtype="bfloat16")))
    assert (exact.masks != found.masks).mean() < 0.05
    np.testing.assert_allclose(found.scores, exact.scores, rtol=0, atol=0.02)


def test_it_moves_between_devices(segmenter):
    assert segmenter.to("cpu") is segmenter
    with pytest.raises(InputError, match='unknown device "gpu"'):
        segmenter.to("gpu")


def test_it_says_what_it_is(segmenter, folder):
    said = segmenter.describe()
    assert said["model"] == "sam2"
    assert said["weights"] == folder.name
    assert (said["multimask"], said["min_region"], said["dtype"]) == ("single", 0, "float32")
    assert load_sam2(folder, provenance={"weights": "mine"}).describe()["weights"] == "mine"


def rewritten(folder, target, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    target.mkdir()
    (target / "config.json").write_bytes((folder / "config.json").read_bytes())
    save_file(tensors, target / "model.safetensors")
    return target


NORM = "vision_encoder.backbone.blocks.0.layer_norm1.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop(NORM), f'lacks key "{NORM}"'),
        (lambda tensors: tensors.update(extra=torch.zeros(1)), 'has the unknown key "extra"'),
        (lambda tensors: tensors.update({NORM: torch.zeros(3)}), rf'"{NORM}" must have shape \(16,\), got \(3,\)'),
        (lambda tensors: tensors.update({NORM: torch.full((16,), torch.nan)}), "must hold finite"),
    ],
)
def test_every_key_is_needed_and_known(folder, tmp_path, change, message):
    with pytest.raises(CheckpointError, match=message):
        load_sam2(rewritten(folder, tmp_path / "x", change))


WAVES = [f"{part}.positional_embedding" for part in ("shared_image_embedding", "prompt_encoder.shared_embedding")]


@pytest.mark.parametrize("key", WAVES)
def test_a_file_may_hold_the_shared_matrix_once(folder, tmp_path, key):
    twice = rewritten(folder, tmp_path / "2", lambda tensors: tensors.update({WAVES[0]: tensors[WAVES[1]].clone()}))
    once = rewritten(twice, tmp_path / "1", lambda tensors: tensors.pop(key))
    one, two = (load_sam2(each, provenance={}).segment([IMAGE], [BOXES])[0] for each in (once, twice))
    assert_same(one, two)


def test_the_folder_of_a_video_model_gives_its_image_part(segmenter, tmp_path):
    still = tiny_sam2()
    parts = {part: getattr(still.config, part) for part in ("vision_config", "prompt_encoder_config")}
    video = Sam2VideoModel(
        Sam2VideoConfig(
            **parts,
            mask_decoder_config=still.config.mask_decoder_config,
            image_size=64,
            memory_attention_hidden_size=32,
            memory_attention_num_layers=1,
            memory_attention_feed_forward_hidden_size=32,
            memory_attention_rope_feat_sizes=[4, 4],
            memory_encoder_hidden_size=32,
            memory_encoder_output_channels=16,
            mask_downsampler_embed_dim=32,
            memory_fuser_embed_dim=32,
            memory_fuser_intermediate_dim=32,
            memory_fuser_num_layers=1,
        )
    )
    missing, unexpected = video.load_state_dict(still.state_dict(), strict=False)
    assert missing
    assert not unexpected
    video.save_pretrained(tmp_path)
    assert_same(load_sam2(tmp_path).segment([IMAGE], [BOXES])[0], segmenter.segment([IMAGE], [BOXES])[0])


def test_weights_of_another_family_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match='is of the model type "sam", not of SAM 2'):
        load_sam2(save_tiny_sam(tmp_path / "sam"))
    torch.save({"image_encoder.pos_embed": torch.zeros(1), "mask_decoder.x": torch.zeros(1)}, tmp_path / "sam.pth")
    with pytest.raises(CheckpointError, match=r'unknown key "image_encoder.pos_embed"; it is no checkpoint of SAM 2'):
        load_sam2(tmp_path / "sam.pth")
    torch.save({"backbone.0.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"other\.pth is no checkpoint of SAM 2"):
        load_sam2(tmp_path / "other.pth")


def test_broken_folders_and_names_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"cannot read .*config\.json"):
        load_sam2(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "sam2"}', encoding="utf-8")
    with pytest.raises(CheckpointError, match="is no whole configuration of SAM 2: KeyError"):
        load_sam2(tmp_path)
    with pytest.raises(UnknownModelError, match=r'neither a file, a folder nor a model; did you mean "sam2\.1-hiera-t'):
        load_sam2("sam2.1-hiera-t")
    with pytest.raises(UnknownModelError, match='unknown size "xl"'):
        sam2_config("xl")


def test_preprocessing_is_that_of_transformers_to_a_level_of_256():
    pytest.importorskip("torchvision")
    from transformers import Sam2ImageProcessor

    processor = Sam2ImageProcessor(size={"height": 64, "width": 64})
    squash = Squash(64, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    for image in sample_images():
        theirs = processor(image.pixels.copy(), input_data_format="channels_last", return_tensors="pt").pixel_values
        # They round the resized image to bytes, the original package does not.
        torch.testing.assert_close(squash([image]), theirs, rtol=0, atol=1 / 255 / 0.224)
