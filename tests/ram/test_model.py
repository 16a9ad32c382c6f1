"""The model by its properties: batches, chunks, subsets, sizes, dtypes, and what it refuses."""

import math
from dataclasses import replace

import pytest
import torch
from timm.models.swin_transformer import WindowAttention
from torch.utils._python_dispatch import TorchDispatchMode

from rasa._torch.dense import Dense, use_dense
from rasa.errors import ConfigError, InputError
from rasa_ram import builders
from rasa_ram.config import RamConfig, SwinConfig, TextConfig
from rasa_ram.modeling.swin import SwinEncoder
from tests.ram import reference

MODELS = sorted(reference.FAMILIES)
# Two ways to add the same float64 numbers; logits are of order 1.
CLOSE = {"rtol": 0, "atol": 1e-12}


@pytest.fixture(params=MODELS)
def name(request):
    return request.param


@pytest.fixture
def model(name):
    return reference.tiny_model(reference.OWN, name, dtype=torch.float64)


@pytest.fixture
def pixels(name):
    return torch.from_numpy(reference.load_npz(reference.OWN / f"golden_{name}_tiny.npz")["image"]).double()


@torch.inference_mode()
def test_a_batch_equals_its_images_one_by_one(model, pixels):
    batch = torch.cat([pixels, pixels.flip(0) * 0.5])
    one_by_one = torch.cat([model(image[None]) for image in batch])
    torch.testing.assert_close(model(batch), one_by_one, **CLOSE)


@pytest.mark.parametrize("chunk", [1, 2, 7, 100])
@torch.inference_mode()
def test_chunks_of_tags_change_nothing(model, pixels, chunk):
    memory, queries = model.encode_image(pixels), model.queries()
    torch.testing.assert_close(model.decode(memory, queries, chunk=chunk), model(pixels), **CLOSE)


@torch.inference_mode()
def test_a_subset_scores_as_in_the_whole_vocabulary(model, pixels):
    rows = torch.tensor([6, 0, 3])
    queries = model.queries(rows=rows)
    assert len(queries) == 3
    logits = model.decode(model.encode_image(pixels), queries, chunk=2)
    torch.testing.assert_close(logits, model(pixels)[:, rows], **CLOSE)


@torch.inference_mode()
def test_a_subset_is_cut_out_before_the_decoder(model, pixels):
    widths = []
    model.tag_decoder.layers[0].register_forward_hook(lambda _module, _args, output: widths.append(output.shape[1]))
    model.decode(model.encode_image(pixels), model.queries(rows=torch.tensor([4, 1])))
    assert widths == [2]


@torch.inference_mode()
def test_no_tags_and_no_images_give_empty_scores(model, pixels):
    none = model.queries(rows=torch.tensor([], dtype=torch.int64))
    assert model.decode(model.encode_image(pixels), none).shape == (2, 0)
    assert model(pixels[:0]).shape == (0, model.config.num_tags)


@torch.inference_mode()
def test_logits_come_in_the_dtype_of_the_weights(model, pixels):
    logits = model(pixels)
    assert model.bfloat16()(pixels.bfloat16()).dtype == torch.bfloat16
    # bfloat16 keeps 8 bits: 0.12 at most on logits of order 6 (section 5 of the reference README).
    torch.testing.assert_close(model(pixels.bfloat16()).double(), logits, rtol=0, atol=0.3)


@torch.inference_mode()
def test_training_mode_drops_and_evaluation_does_not(model, pixels):
    torch.testing.assert_close(model(pixels), model(pixels), rtol=0, atol=0)
    model.train()
    assert (model(pixels) != model(pixels)).any()


def test_frozen_label_vectors_get_no_gradient(name, model, pixels):
    model(pixels).sum().backward()
    without = [key for key, value in model.named_parameters() if value.grad is None]
    assert without == ([] if name == "tag2text" else ["label_embedding.vectors"])


def ram_plus(**overrides):
    config = reference.tiny_config(reference.OWN, "ram_plus", **overrides)
    torch.manual_seed(3)
    return builders.build(config).double()


def unit_rows(*shape):
    return torch.nn.functional.normalize(torch.randn(*shape, dtype=torch.float64), dim=-1)


@torch.inference_mode()
def test_reweighting_equals_a_loop_over_images_and_tags():
    embedding = ram_plus().label_embedding
    descriptions, image = unit_rows(7, 3, 12), torch.randn(4, 12, dtype=torch.float64)
    mixed = embedding.reweight(descriptions, image)
    for b, t in ((0, 0), (1, 5), (3, 6)):
        fit = descriptions[t] @ (image[b] / image[b].norm()) * embedding.reweight_scale.exp()
        expected = (fit.softmax(0)[:, None] * descriptions[t]).sum(0)
        torch.testing.assert_close(mixed[b, t], expected, **CLOSE)


@torch.inference_mode()
def test_tags_may_have_different_numbers_of_descriptions():
    model = ram_plus()
    memory = model.encode_image(torch.randn(2, 3, 32, 32, dtype=torch.float64))
    descriptions, present = unit_rows(3, 4, 12), torch.ones(3, 4, dtype=torch.bool)
    present[0, 2:] = present[1, 1:] = False
    together = model.decode(memory, model.queries(descriptions, present=present), chunk=2)
    alone = [model.decode(memory, model.queries(descriptions[t : t + 1, :n])) for t, n in enumerate((2, 1, 4))]
    torch.testing.assert_close(together, torch.cat(alone, dim=1), **CLOSE)


@torch.inference_mode()
def test_one_description_needs_no_image():
    assert ram_plus().queries(unit_rows(5, 12)).hidden.shape == (5, 16)


def test_fused_attention_equals_timm_s_own():
    config = reference.tiny_config(reference.OWN, "ram").vision
    encoder = SwinEncoder(config).double().eval()
    pixels = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    fused = encoder(pixels)
    for module in encoder.modules():
        if isinstance(module, WindowAttention):
            assert module.fused_attn
            module.fused_attn = False
    torch.testing.assert_close(fused, encoder(pixels), **CLOSE)


@pytest.mark.parametrize("shape", [(5, 24), (3, 7, 24), (0, 24), (24,)])
@torch.inference_mode()
def test_dense_layers_equal_pytorch_s(shape):
    torch.manual_seed(4)
    plain, x = torch.nn.Linear(24, 10), torch.randn(shape)
    dense = Dense(24, 10)
    dense.load_state_dict(plain.state_dict())
    torch.testing.assert_close(dense(x), plain(x), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(dense.gelu(x), torch.nn.functional.gelu(plain(x)), rtol=1e-6, atol=1e-6)


@torch.inference_mode()
def test_dense_layers_without_bias_and_with_strided_input():
    torch.manual_seed(4)
    layer, x = torch.nn.Linear(24, 10, bias=False), torch.randn(24, 6)
    expected = layer(x.T)
    use_dense(torch.nn.Sequential(layer))
    torch.testing.assert_close(layer(x.T), expected, rtol=1e-6, atol=1e-6)


class CalledOperators(TorchDispatchMode):
    """The names of the operators that run inside."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.add(str(function))
        return function(*args, **(kwargs or {}))


def takes_onednn(layer, x):
    with CalledOperators() as called:
        layer(x)
    return any("mkldnn._linear_pointwise" in name for name in called.names)


def test_dense_layers_take_the_fast_path_in_float32_alone(monkeypatch):
    assert torch.backends.mkldnn.is_available()
    layer, x = Dense(24, 10), torch.randn(3, 24)
    assert takes_onednn(layer, x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not takes_onednn(layer, x)
    with torch.no_grad():
        assert takes_onednn(layer, x)
        assert not takes_onednn(Dense(24, 10).double(), x.double())
        monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
        assert not takes_onednn(layer, x)


@pytest.mark.parametrize("image_size", [16, 24, 40, 64])
@torch.inference_mode()
def test_any_image_size_of_whole_patches_runs(image_size):
    own = reference.tiny_config(reference.OWN, "ram")
    model = builders.build(replace(own, vision=replace(own.vision, image_size=image_size)))
    tokens = model.encode_image(torch.randn(1, 3, image_size, image_size))
    side = math.ceil(math.ceil(image_size / 2 / 2) / 2)
    assert tokens.shape == (1, 1 + side * side, own.label_width)


# Section 3 of the reference README: whole models less their tag encoder and text decoder, plus the tagging head.
PUBLISHED_SIZES = {
    "ram_swin_l_384": {
        "visual_encoder": 195_198_516,
        "tag_decoder": 13_389_312,
        "label_embedding": 393_984 + 4585 * 512,
        "image_proj": 786_944,
        "fc": 769,
    },
    "ram_plus_swin_l_384": {"visual_encoder": 195_198_516, "label_embedding": 1 + 393_984 + 233_835 * 512},
    "tag2text_swin_b_384": {
        "visual_encoder": 86_878_584,
        "tag_decoder": 14_962_176,
        "label_embedding": 2_633_472,
        "fc": 2_636_901,
    },
}


@pytest.mark.parametrize("builder", sorted(PUBLISHED_SIZES))
def test_published_models_have_the_published_number_of_parameters(builder):
    with torch.device("meta"):
        model = builders.build(getattr(builders, builder)())
    counts = {key: sum(p.numel() for p in child.parameters()) for key, child in model.named_children()}
    assert {key: counts[key] for key in PUBLISHED_SIZES[builder]} == PUBLISHED_SIZES[builder]
    if builder == "ram_plus_swin_l_384":
        assert sum(counts.values()) == 329_493_046


# Without and with the text part: 132,539,904 less the shared head, and 137,881,148.
@pytest.mark.parametrize(
    ("builder", "total"),
    [
        ("ram_swin_l_384", 469_148_785),
        ("ram_swin_b_384", 360_566_709),
        ("ram_swin_l_224", 468_945_745),
        ("tag2text_swin_b_384", 372_007_193),
    ],
)
def test_whole_models_have_the_published_number_of_parameters(builder, total):
    pytest.importorskip("transformers")
    with torch.device("meta"):
        model = builders.build(getattr(builders, builder)(text=TextConfig()))
    assert sum(parameter.numel() for parameter in model.parameters()) == total


def test_a_model_without_captioner_loads_no_transformers():
    model = builders.build(reference.tiny_config(reference.OWN, "ram"))
    assert not hasattr(model, "captioner")


def test_pixels_of_another_shape_are_refused(model, pixels):
    with pytest.raises(InputError, match=r"pixels must have shape \(B, 3, 32, 32\), got \(2, 3, 32, 31\)"):
        model(pixels[..., 1:])


def test_label_vectors_that_do_not_fit_are_refused(name, model):
    if name == "tag2text":
        with pytest.raises(InputError, match="tag2text learned its tags as a table"):
            model.queries(torch.zeros(3, 12))
        return
    with pytest.raises(InputError, match=r"vectors must have shape \(T, 12\) or \(T, K, 12\), got \(3, 11\)"):
        model.queries(torch.zeros(3, 11))
    with pytest.raises(InputError, match="rows picks the model's own tags"):
        model.queries(torch.zeros(3, 12), rows=torch.tensor([0]))


def test_only_ram_plus_takes_descriptions():
    model = reference.tiny_model(reference.OWN, "ram")
    with pytest.raises(InputError, match="only ram-plus weighs several descriptions per tag, got 4"):
        model.queries(torch.zeros(3, 4, 12))


def test_a_chunk_below_one_is_refused(model, pixels):
    memory = model.encode_image(pixels)
    with pytest.raises(InputError, match="chunk must be at least 1 tag, got 0"):
        model.decode(memory, model.queries(), chunk=0)


VISION = SwinConfig(image_size=32, embed_dim=8, depths=(1, 1), heads=(2, 4), window=4)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"image_size": 30}, "image_size must be a multiple of patch_size 4, got 30"),
        ({"heads": (2,)}, "depths and heads must name the same stages"),
        ({"heads": (2, 3)}, "channels of stage 1 must be a multiple of its 3 heads, got 16"),
        ({"depths": (1, 0)}, r"depths must be positive, got \(1, 0\)"),
        ({"window": 0}, "window must be positive, got 0"),
        ({"drop_path": 1.0}, r"drop_path must be in \[0, 1\), got 1.0"),
    ],
)
def test_bad_vision_sizes_are_refused(overrides, message):
    with pytest.raises(ConfigError, match=message):
        replace(VISION, **overrides)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"family": "ram++"}, "family must be one of ram, ram-plus, tag2text, got 'ram\\+\\+'"),
        ({"descriptions": 51}, "only ram-plus has several descriptions per tag, got 51"),
        ({"width": 770}, "width must be a multiple of its 4 heads, got 770"),
        ({"num_tags": 0}, "num_tags must be positive, got 0"),
        ({"dropout": -0.1}, r"dropout must be in \[0, 1\), got -0.1"),
        ({"family": "ram-plus", "text": TextConfig()}, "ram-plus has no captioner"),
    ],
)
def test_bad_sizes_are_refused(overrides, message):
    with pytest.raises(ConfigError, match=message):
        RamConfig(**({"family": "ram", "vision": VISION} | overrides))
