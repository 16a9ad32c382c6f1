"""Tagging against stored numbers: the published code's, and the project's own (golden/README.md)."""

import json

import numpy as np
import pytest
import torch

from tests.ram import reference

# Section 5 of the reference README, in float32.
FEATURES_ATOL = 2e-5
LOGITS_ATOL = 5e-5
SIGMOID_ATOL = 1e-5
FLOAT64_ATOL = 1e-9

MODELS = sorted(reference.FAMILIES)


@pytest.fixture(params=["own", "reference"])
def folder(request):
    return reference.OWN if request.param == "own" else reference.reference_folder()


def load_tiny(folder, name):
    return reference.load_npz(folder / f"golden_{name}_tiny.npz")


class Recorder:
    """What modules return while a model runs, by the names of the golden files."""

    def __init__(self, model):
        self.seen = {}
        self.watch(model.visual_encoder, "visual_features")
        self.watch(model.visual_encoder.patch_embed, "swin_patch_embed")
        stages = model.visual_encoder.layers
        for index in range(len(stages) - 1):
            # Upstream counts the merging layer to the stage before it, timm to the stage behind.
            self.watch(stages[index + 1].downsample, f"swin_stage{index}")
        self.watch(stages[-1], f"swin_stage{len(stages) - 1}")
        for index, layer in enumerate(model.tag_decoder.layers):
            self.watch(layer, f"tagging_layer{index}")
        if hasattr(model, "image_proj"):
            self.watch(model.image_proj, "image_embeds")

    def watch(self, module, name):
        module.register_forward_hook(lambda _module, _args, output: self.seen.setdefault(name, []).append(output))

    def __getitem__(self, name):
        value = torch.cat(self.seen[name], dim=1)  # the tag decoder may have run in chunks of tags
        return (value.flatten(1, 2) if name.startswith("swin_") and value.ndim == 4 else value).numpy()

    def check(self, golden):
        names = [name for name in self.seen if name in golden]
        assert {"visual_features", "tagging_layer0", "swin_stage0"} <= set(names)
        for name in names:
            stored = golden[name]
            got = self[name][tuple(slice(0, length) for length in stored.shape)]
            np.testing.assert_allclose(got, stored, rtol=0, atol=FEATURES_ATOL, err_msg=name)


@pytest.mark.parametrize("name", MODELS)
def test_golden_weights_follow_the_rule(folder, name):
    meta = load_tiny(folder, name)["meta"]
    weights, aliases = reference.tiny_weights(folder, name, reference.constants(meta))
    assert reference.weights_sha256(weights, aliases) == meta["weights_sha256"]


@pytest.mark.parametrize("name", MODELS)
@torch.inference_mode()
def test_golden_features_and_logits(folder, name):
    golden = load_tiny(folder, name)
    model = reference.tiny_model(folder, name)
    recorder = Recorder(model)
    logits = model(torch.from_numpy(golden["image"]))
    recorder.check(golden)
    np.testing.assert_allclose(logits.numpy(), golden["logits"], rtol=0, atol=LOGITS_ATOL)
    np.testing.assert_allclose(logits.sigmoid().numpy(), golden["sigmoid"], rtol=0, atol=SIGMOID_ATOL)


@pytest.mark.parametrize("name", MODELS)
@torch.inference_mode()
def test_golden_logits_in_float64(folder, name):
    golden = load_tiny(folder, name)
    logits = reference.tiny_model(folder, name, dtype=torch.float64)(torch.from_numpy(golden["image"]).double())
    assert logits.dtype == torch.float64
    np.testing.assert_allclose(logits.numpy(), golden["logits_float64"], rtol=0, atol=FLOAT64_ATOL)


@torch.inference_mode()
def test_golden_label_queries(folder):
    hidden = reference.tiny_model(folder, "ram").queries().hidden
    np.testing.assert_allclose(hidden.numpy(), load_tiny(folder, "ram")["label_hidden"], rtol=0, atol=FEATURES_ATOL)


@torch.inference_mode()
def test_golden_reweighted_descriptions(folder):
    golden = load_tiny(folder, "ram_plus")
    model = reference.tiny_model(folder, "ram_plus")
    pooled = model.encode_image(torch.from_numpy(golden["image"]))[:, 0]
    stored = golden["label_embed_reweight"]
    mixed = model.label_embedding.reweight(model.queries().descriptions, pooled)[..., : stored.shape[-1]]
    np.testing.assert_allclose(mixed.numpy(), stored, rtol=0, atol=FEATURES_ATOL)


def join_tags(logits, names, thresholds, *, without=()):
    """Tags strictly above their thresholds, written as the published code writes them."""
    above = logits.sigmoid().numpy() > thresholds
    above[:, list(without)] = False
    return [" | ".join(name for name, is_above in zip(names, row, strict=True) if is_above) for row in above]


def tag_lists(folder):
    """The tiny tags, and their Chinese names."""
    names = ("tiny_tag_list.txt", "tiny_tag_list_chinese.txt")
    return [(folder / name).read_text(encoding="utf-8").splitlines() for name in names]


@pytest.mark.parametrize("name", MODELS)
@torch.inference_mode()
def test_golden_tags(name):
    folder = reference.reference_folder()
    golden = load_tiny(folder, name)
    logits = reference.tiny_model(folder, name)(torch.from_numpy(golden["image"]))
    names, chinese = tag_lists(folder)
    thresholds = golden["class_threshold"]
    without = golden.get("delete_tag_index", ())
    assert join_tags(logits, names, thresholds, without=without) == golden["tags"].tolist()
    if "tags_chinese" in golden:
        assert join_tags(logits, chinese, thresholds) == golden["tags_chinese"].tolist()
    if "tags_deleted" in golden:
        tags = join_tags(logits, names, thresholds, without=golden["tags_delete_index"])
        assert tags == golden["tags_deleted"].tolist()
    for key in (key for key in golden if key.startswith("tags_threshold_")):
        threshold = float(key.removeprefix("tags_threshold_"))
        assert join_tags(logits, names, threshold) == golden[key].tolist()


@pytest.mark.parametrize(("name", "key"), [("ram", "openset_label_embed"), ("ram_plus", "openset_label_embed_plus")])
@torch.inference_mode()
def test_golden_open_set(folder, name, key):
    golden = load_tiny(folder, name)
    names = golden["openset_names"].tolist()
    count = int(golden.get("openset_des_per_class", 1))
    model = reference.tiny_model(folder, name)
    shape = (len(names) * count, model.config.label_width)
    vectors = reference.rule_weight(key, shape, reference.constants(golden["meta"]))
    queries = model.queries(torch.from_numpy(vectors).unflatten(0, (len(names), count)))
    logits = model.decode(model.encode_image(torch.from_numpy(golden["image"])), queries)
    np.testing.assert_allclose(logits.numpy(), golden["openset_logits"], rtol=0, atol=LOGITS_ATOL)
    # Open-set thresholds are 0.5 for all (section 7 of the reference README).
    assert join_tags(logits, names, 0.5) == golden["openset_tags"].tolist()


@torch.inference_mode()
def test_golden_alignment_logits():
    """RAM++'s alignment between images and captions is the tagging of one caption vector each."""
    golden = load_tiny(reference.reference_folder(), "ram_plus")
    model = reference.tiny_model(reference.reference_folder(), "ram_plus")
    memory = model.encode_image(torch.from_numpy(golden["image"]))
    logits = model.decode(memory, model.queries(torch.from_numpy(golden["batch_text_embed"])))
    np.testing.assert_allclose(logits.numpy(), golden["alignment_logits"], rtol=0, atol=LOGITS_ATOL)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@torch.inference_mode()
def test_golden_full_size():
    folder = reference.reference_folder()
    for name, golden in reference.full_size(folder):
        model = reference.full_size_model(folder, name, reference.constants(golden["meta"]))
        check_weights(folder, name, model)
        recorder = Recorder(model)
        logits = model(pixels_of(golden["image_u8"]))
        recorder.check(golden)
        for key in ("image_embeds", "visual_features"):
            means = np.abs(recorder[key].astype(np.float64)).mean(axis=(1, 2))
            np.testing.assert_allclose(means, golden[f"{key}_mean_abs"], rtol=1e-5)
        np.testing.assert_allclose(logits.numpy(), golden["logits"], rtol=0, atol=LOGITS_ATOL)
        np.testing.assert_allclose(logits.numpy(), golden["logits_float64_rounded"], rtol=0, atol=LOGITS_ATOL)
        check_full_tags(golden, logits)


def pixels_of(images):
    from rasa.types import Image
    from rasa_ram.preprocess import preprocess

    return torch.from_numpy(preprocess([Image(pixels) for pixels in images], images.shape[1]))


def check_weights(folder, name, model):
    """The filled weights of the vision part sum up as stored: the rule, in full size."""
    sums = json.loads((folder / f"golden_{name}_weights_check.json").read_text(encoding="utf-8"))["sums"]
    own = {key: float(value.double().sum()) for key, value in model.state_dict().items()}
    shared = [key for key in own if key in sums and ".downsample." not in key]
    assert len(shared) > 100
    np.testing.assert_allclose([own[key] for key in shared], [sums[key] for key in shared], rtol=1e-9, atol=1e-6)


def check_full_tags(golden, logits):
    """How many and which tags are above the published class thresholds."""
    path = reference.reference_folder().parent / "labels" / "ram_tag_list_threshold.txt"
    if not path.is_file():
        pytest.skip(f"all numbers agree, but without the published thresholds in {path} the tags cannot be compared")
    thresholds = np.array(path.read_text(encoding="utf-8").split(), dtype=np.float32)
    above = logits.sigmoid().numpy() > thresholds
    np.testing.assert_array_equal(above.sum(axis=1), golden["n_tags"])
    np.testing.assert_array_equal(np.packbits(above, axis=1), golden["tags_above_class_threshold"])
