"""Grounding DINO on the original packages: our captions in, their numbers out.

These tests need an environment of their own, see rasa/adapters/groundingdino_py.py, and are skipped elsewhere::

    PYTHONPATH=. python -m pytest tests/adapters/test_groundingdino_py.py
"""

import importlib
from importlib.metadata import version
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from rasa.errors import CheckpointError, DependencyError, InputError
from rasa.ops.phrases import Caption
from rasa.testing import check_detector, sample_image
from tests.adapters.reference import (
    fill,
    grounding_dino_weight,
    load_json,
    load_npz,
    read_shapes,
    reference_folder,
    sine_image,
)

RUNS = find_spec("groundingdino") is not None and int(version("transformers").split(".")[0]) < 5
needs_package = pytest.mark.skipif(
    not RUNS, reason="groundingdino-py or rf-groundingdino with transformers 4 is not installed here"
)
pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # of the package and its old imports
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.mark.skipif(RUNS, reason="the package runs here")
def test_without_the_package_the_error_says_what_it_needs():
    with pytest.raises(DependencyError, match=r"groundingdino .*environment of its own with transformers 4.40 to 4.57"):
        importlib.import_module("rasa.adapters.groundingdino_py")


@pytest.fixture(scope="module")
def golden():
    return reference_folder("grounding_dino")


@pytest.fixture(scope="module")
def bert(golden, tmp_path_factory):
    """A folder with the small text encoder, and a vocabulary of the pieces of the golden captions at their ids."""
    from transformers import BertConfig, BertModel

    sizes = load_json(golden / "golden_small_config.json")["text"]
    sizes.pop("type")
    folder = tmp_path_factory.mktemp("bert")
    BertModel(BertConfig(**sizes)).save_pretrained(folder)
    pieces = [f"[unused{i}]" for i in range(sizes["vocab_size"])]
    pieces[0], pieces[100], pieces[103] = "[PAD]", "[UNK]", "[MASK]"
    for text in load_json(golden / "golden_text.json")["single"]:
        for piece, i in zip(text["tokens"], text["input_ids"], strict=True):
            pieces[i] = piece
    (folder / "vocab.txt").write_text("\n".join(pieces), encoding="utf-8")
    return folder


def small_model(golden, bert):
    """The package's network in the golden size; its own builder knows the published sizes only."""
    from groundingdino import config as configs
    from groundingdino.models import build_model
    from groundingdino.models.GroundingDINO.backbone import backbone, swin_transformer
    from groundingdino.util.slconfig import SLConfig

    sizes = load_json(golden / "golden_small_config.json")
    settings = SLConfig.fromfile(f"{configs.__path__[0]}/GroundingDINO_SwinT_OGC.py")
    for key in ("enc_layers", "dec_layers", "dim_feedforward", "num_queries"):
        setattr(settings, key, sizes[key])
    settings.device, settings.text_encoder_type = "cpu", str(bert)
    settings.use_checkpoint = settings.use_transformer_ckpt = False
    swin = {key: sizes["backbone"][key] for key in ("embed_dim", "depths", "num_heads", "window_size")}
    patched = pytest.MonkeyPatch()
    patched.setattr(
        backbone,
        "build_swin_transformer",
        lambda _, pretrain_img_size, **kw: swin_transformer.SwinTransformer(pretrain_img_size, **(kw | swin)),
    )
    model = build_model(settings).eval()
    patched.undo()
    return model


def golden_tensors(golden, model):
    seed = load_json(golden / "golden_small_config.json")["seed"]
    shapes = {key: shape for key, shape in read_shapes(golden / "keys_small.json").items() if "_index" not in key}
    shapes.pop("bert.embeddings.position_ids", None)
    indices = {key: value for key, value in model.state_dict().items() if "_index" in key}
    return fill(shapes, grounding_dino_weight, seed) | indices


@pytest.fixture(scope="module")
def detector(golden, bert, tmp_path_factory):
    from rasa.adapters.groundingdino_py import GroundingDinoPy, load_weights

    model = small_model(golden, bert)
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    tensors = {f"module.{key}": tensor.clone().contiguous() for key, tensor in golden_tensors(golden, model).items()}
    save_file(tensors, path)
    load_weights(model, path)
    return GroundingDinoPy(model, box_threshold=0.0, limits=(64, 96))


def normalised(recipe):
    pixels = torch.from_numpy(sine_image(recipe)).permute(2, 0, 1)[None].float() / 255
    return (pixels - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor([0.229, 0.224, 0.225])[
        :, None, None
    ]


@needs_package
def test_our_token_ids_give_the_original_numbers(golden, detector):
    arrays = load_npz(golden / "golden_small.npz")
    batch = set(np.ravel(arrays["padded_batch"]).tolist())
    alone = [i for i in range(99) if f"logits{i}" in arrays and i not in batch]
    assert len(alone) >= 2
    for i in alone:
        caption = Caption(tuple(arrays[f"input_ids{i}"].tolist()), (), ())
        scores, boxes = detector.run(normalised(arrays[f"image{i}"]), caption)
        expected = 1 / (1 + np.exp(-arrays[f"logits{i}"].astype(np.float64)))
        np.testing.assert_allclose(scores[0], expected, atol=1e-4)
        np.testing.assert_allclose(boxes[0], arrays[f"boxes{i}"], atol=1e-4)


def known_tags(detector):
    """Words of the golden captions, of which the vocabulary here is made."""
    words = ("cat", "dog", "remote control", "umbrella")
    known = [word for word in words if detector._tokenizer.unk_token_id not in detector._tokenizer(word)["input_ids"]]
    assert len(known) >= 2
    return known


@needs_package
def test_it_keeps_the_promises_of_a_detector(detector):
    tags = known_tags(detector)
    check_detector(detector, tags=tags)
    found = detector.detect([sample_image()], [tags])[0]
    assert len(found) == 30
    assert set(found.labels) <= set(tags)
    assert np.all(np.diff(found.scores) <= 0)
    assert detector.describe()["package"].split()[0] in {"groundingdino-py", "rf-groundingdino"}


@needs_package
def test_bad_tags_are_named(detector):
    with pytest.raises(InputError, match=r"tag '\.' has no words"):
        detector.detect([sample_image()], [["."]])
    with pytest.raises(InputError, match="2 images need as many lists of tags, got 1"):
        detector.detect([sample_image()] * 2, [["cat"]])


@needs_package
def test_weights_of_another_model_are_refused(golden, bert, tmp_path):
    from rasa.adapters.groundingdino_py import load_groundingdino_py, load_weights

    model = small_model(golden, bert)
    tensors = golden_tensors(golden, model)
    tensors.pop("feat_map.bias")
    save_file({key: tensor.clone().contiguous() for key, tensor in tensors.items()}, tmp_path / "less.safetensors")
    with pytest.raises(CheckpointError, match=r'1 keys do not fit, first "feat_map\.bias"'):
        load_weights(model, tmp_path / "less.safetensors")
    with pytest.raises(InputError, match=r"source must be one of grounding-dino-swin-t\.ogc"):
        load_groundingdino_py("dino")
