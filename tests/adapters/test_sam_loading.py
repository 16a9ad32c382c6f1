"""load_sam: its options, names of weights, and the files and folders that it refuses."""

import json
import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from segment_anything import sam_model_registry
from transformers import SamConfig, SamHQConfig, SamHQModel, SamModel

from rasa.adapters.sam import load_sam
from rasa.adapters.sam.architecture import architecture_of, transformers_config
from rasa.adapters.sam.keys import TIED, to_published, to_transformers
from rasa.errors import CheckpointError, ContractError, InputError, UnknownModelError
from tests.adapters.sam_peer import BACKENDS, BOXES, original_sam, picture, save_high_quality_sam
from tests.adapters.tiny_sam import save_tiny_sam


@pytest.fixture(scope="module")
def weights():
    return dict(original_sam().state_dict())


@pytest.fixture(scope="module")
def file(weights, tmp_path_factory):
    path = tmp_path_factory.mktemp("sam") / "sam_tiny.pth"
    torch.save(weights, path)
    return path


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"multimask": "all"}, 'multimask must be "single" or "best"'),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"min_region": -1}, "min_region must be an area in pixels, at least 0, got -1"),
        ({"max_mask_bytes": -1}, "max_mask_bytes must be at least 0"),
        ({"backend": "onnx"}, "backend must be one of segment-anything, transformers, got 'onnx'"),
        ({"decoder_heads": 5}, "5 heads"),
        ({"device": "abacus"}, 'unknown device "abacus"'),
        ({"dtype": "int8"}, 'unknown dtype "int8"'),
    ],
)
def test_wrong_options(file, options, message):
    with pytest.raises(InputError, match=message):
        load_sam(file, **options)


def test_unknown_sources(tmp_path):
    with pytest.raises(UnknownModelError, match=r'neither a file.*did you mean "sam-vit-b.sa1b"'):
        load_sam("sam-vit-b.sa1")
    with pytest.raises(CheckpointError, match=r"lacks config.json"):
        load_sam(tmp_path)


def _damaged(weights, change):
    changed = dict(weights)
    change(changed)
    return changed


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("mask_decoder.iou_token.weight"), 'lacks key "mask_decoder.iou_token.weight"'),
        (lambda w: w.update(surprise=torch.zeros(1)), '"surprise"'),
        (
            lambda w: w.update({"image_encoder.neck.1.bias": torch.zeros(31)}),
            r"must have shape \(32,\), got \(31,\)",
        ),
        (lambda w: w["image_encoder.neck.1.bias"].fill_(torch.nan), "must hold finite floating-point numbers"),
        (lambda w: w.pop("image_encoder.pos_embed"), "is no checkpoint of Segment Anything 1 or SAM-HQ"),
        (lambda w: w.update({"image_encoder.pos_embed": torch.zeros(4)}), r"has shape \(4,\) there"),
        (
            lambda w: w.update({"image_encoder.blocks.0.attn.rel_pos_h": torch.zeros(5, 17)}),
            "48 channels are no multiple of 17",
        ),
    ],
)
def test_damaged_weights(weights, tmp_path, backend, change, message):
    path = tmp_path / "damaged.pth"
    torch.save(_damaged({name: tensor.clone() for name, tensor in weights.items()}, change), path)
    with pytest.raises(CheckpointError, match=re.escape("damaged.pth") + r"(?s:.*)" + message):
        load_sam(path, backend=backend)


def test_files_that_are_no_weights_of_sam(file, tmp_path):
    truncated = tmp_path / "truncated.pth"
    truncated.write_bytes(file.read_bytes()[:10_000])
    with pytest.raises(CheckpointError, match="truncated"):
        load_sam(truncated)
    other = tmp_path / "groundingdino.pth"
    torch.save({"model": {"transformer.level_embed": torch.zeros(4, 256)}}, other)
    with pytest.raises(CheckpointError, match="is no checkpoint of Segment Anything"):
        load_sam(other)


def test_folders_that_are_no_sam(tmp_path):
    save_tiny_sam(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(config | {"model_type": "sam2"}), encoding="utf-8")
    with pytest.raises(CheckpointError, match="of type 'sam2'"):
        load_sam(tmp_path)
    vision = config["vision_config"] | {"window_size": 7}
    path.write_text(json.dumps(config | {"vision_config": vision}), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"vision_config\.window_size = 7, and its weights need 4"):
        load_sam(tmp_path)
    path.write_text("{", encoding="utf-8")
    with pytest.raises(CheckpointError, match="cannot read"):
        load_sam(tmp_path)


def test_scores_that_are_no_number_are_reported(weights, tmp_path):
    broken = weights | {"mask_decoder.iou_prediction_head.layers.2.bias": torch.full((4,), 3e38)}
    broken["mask_decoder.iou_prediction_head.layers.2.weight"] = torch.full((4, 32), 3e38)
    broken["mask_decoder.iou_prediction_head.layers.1.bias"] = torch.full((32,), 3e38)
    path = tmp_path / "overflow.pth"
    torch.save(broken, path)
    with pytest.raises(ContractError, match=r"no number on 'sample-.*'; use bfloat16 or float32"):
        load_sam(path).segment([picture()], [BOXES])


# Names


def test_names_convert_both_ways(weights, tmp_path):
    high_quality_file = save_high_quality_sam(tmp_path)
    for tensors in (weights, torch.load(high_quality_file, weights_only=True)):
        theirs = to_transformers(tensors, file="x")
        assert len(theirs) == len(tensors)
        back = to_published(theirs, file="x")
        assert back.keys() == tensors.keys()
        assert all(back[name] is tensor for name, tensor in tensors.items())


def test_tied_positions_must_agree(tmp_path):
    save_tiny_sam(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    tied = "prompt_encoder.shared_embedding.positional_embedding"
    shared = "shared_image_embedding.positional_embedding"
    table = tensors.pop(tied, tensors.get(shared))
    tensors[shared] = table
    for given in ({shared: table}, {tied: table}, {shared: table, tied: table.clone()}):
        rest = {name: tensor for name, tensor in tensors.items() if name not in (shared, tied)}
        save_file(rest | given, path)
        assert load_sam(tmp_path).describe()["backend"] == "transformers"
    save_file(tensors | {tied: table + 1}, path)
    with pytest.raises(CheckpointError, match="must be equal"):
        load_sam(tmp_path)


@pytest.mark.parametrize(("name", "layers"), [("b", (2, 5, 8, 11)), ("l", (5, 11, 17, 23)), ("h", (7, 15, 23, 31))])
def test_published_sizes_are_told_apart_by_shapes(name, layers):
    with torch.device("meta"):
        tensors = sam_model_registry[f"vit_{name}"]().state_dict()
    sizes = architecture_of({key: tuple(tensor.shape) for key, tensor in tensors.items()}, file="x")
    assert sizes.name == f"sam-vit-{name}"
    assert sizes.global_layers == layers
    assert (sizes.side, sizes.window, sizes.channels, sizes.decoder_heads) == (1024, 14, 256, 8)
    with torch.device("meta"):
        theirs = SamModel(SamConfig(**transformers_config(sizes))).state_dict()
    renamed = to_transformers(tensors, file="x")
    assert {key: tensor.shape for key, tensor in renamed.items()} == {
        key: tensor.shape for key, tensor in theirs.items() if key != TIED
    }


@pytest.mark.parametrize("backend", BACKENDS)
def test_double_precision(file, backend):
    single, double = (load_sam(file, backend=backend, dtype=dtype) for dtype in ("float32", "float64"))
    found, exact = (segmenter.segment([picture()], [BOXES])[0] for segmenter in (single, double))
    assert (found.masks != exact.masks).mean() <= 1e-4
    assert abs(found.scores - exact.scores).max() <= 1e-5


def test_a_hub_folder_of_sam_hq(tmp_path):
    file = save_high_quality_sam(tmp_path)
    tensors = torch.load(file, weights_only=True)
    sizes = architecture_of({key: tuple(tensor.shape) for key, tensor in tensors.items()}, file="x")
    parts = transformers_config(sizes)
    theirs = SamHQModel(SamHQConfig(**parts))
    theirs.load_state_dict(to_transformers(tensors, file="x"), strict=False)
    theirs.save_pretrained(tmp_path / "folder")
    found, expected = (load_sam(source).segment([picture()], [BOXES])[0] for source in (tmp_path / "folder", file))
    assert np.array_equal(found.masks, expected.masks)
    assert np.array_equal(found.scores, expected.scores)
