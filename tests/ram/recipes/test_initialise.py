"""What a training begins with: fresh weights as published, and over them what files hold, all accounted for."""

import json
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from transformers import BertConfig, BertForPreTraining, SwinModel
from transformers import SwinConfig as TransformersSwinConfig

from rasa.errors import CheckpointError, ConfigError, FormatError
from rasa_ram.checkpoint import save
from rasa_ram.config import RamConfig, SwinConfig, TextConfig
from rasa_ram.modeling.ram import Ram
from rasa_ram.training.backbones import read_bert, read_swin
from rasa_ram.training.fresh_weights import draw_model
from rasa_ram.training.initialise import count_tags, initialise, model_sizes
from rasa_ram.training.model_settings import ModelSettings
from tests.ram.hash_encoder import LABEL_WIDTH, HashEncoder
from tests.ram.tiny import VISION

TEXT = TextConfig(vocab_size=30, width=24, layers=3, heads=2, intermediate=48, max_positions=20)
SIZES = RamConfig(family="ram", vision=VISION, label_width=LABEL_WIDTH, width=24, heads=2, intermediate=48)
# Wide enough for the deviation of a few thousand draws to be near that of the distribution.
WIDE = replace(SIZES, width=192, heads=2, intermediate=192, text=replace(TEXT, width=192, intermediate=192))
TAGS = ("cat", "dog", "sofa", "tree")


@pytest.fixture
def tags(tmp_path):
    """A file of four tags."""
    path = tmp_path / "tags.txt"
    path.write_text("\n".join(TAGS), encoding="utf-8")
    return str(path)


def settings_of(tags, family="ram", **other):
    sizes = replace(SIZES, family=family, descriptions=5 if family == "ram-plus" else 1)
    return ModelSettings(vocabulary=tags, sizes=sizes, text=TEXT, **other)


def start_of(settings, **options):
    return initialise(settings, load_encoder=HashEncoder, **options)


def save_model(model, path):
    torch.save({"model": model.state_dict()}, path)
    return path


# Fresh weights


def test_seeds_decide_the_weights_and_leave_the_callers_random_numbers_alone():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    one, same, other = (draw_model(SIZES, seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["image_proj.weight"], other["image_proj.weight"])


@pytest.mark.parametrize("family", ["ram", "ram-plus", "tag2text"])
def test_fresh_weights_have_the_published_distributions(family):
    config = replace(WIDE, family=family, text=None if family == "ram-plus" else WIDE.text, num_tags=300)
    model = draw_model(config, seed=0)
    assert model.training
    for name, weight in model.named_parameters():
        bert = name.startswith(("tag_decoder", "captioner"))
        if bert and weight.ndim == 2:
            assert weight.std().item() == pytest.approx(0.02, rel=0.1), name
            assert abs(weight.mean().item()) < 0.002
            assert weight.abs().max() > 0.05 or weight.numel() < 5000  # a normal has tails; torch's own has not
        elif "visual_encoder" in name and weight.ndim == 2 and weight.numel() > 300:
            assert weight.std().item() == pytest.approx(0.02, rel=0.2), name  # truncated far outside, at 2
        elif bert or "norm" in name:
            assert set(weight.unique().tolist()) <= {0.0, 1.0}, name
    if family == "tag2text":
        bound = config.width**-0.5
        for weight in (model.fc.weight, model.fc.bias):
            assert weight.abs().max() <= bound
            assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)
        assert model.label_embedding.vectors.std().item() == pytest.approx(1, rel=0.05)
    else:
        for layer in (model.image_proj, model.label_embedding.proj, model.fc):
            bound = layer.in_features**-0.5
            assert layer.weight.abs().max() <= bound  # torch.nn.Linear's own: even within this
        assert not model.label_embedding.vectors.any()


# Label vectors


def test_label_vectors_are_encoded_and_everything_else_is_fresh(tags):
    start = start_of(settings_of(tags))
    vectors = start.model.label_embedding.vectors
    expected = HashEncoder().encode([f"{tag}" for tag in TAGS])
    assert vectors.shape == (4, LABEL_WIDTH) == expected.shape
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(4))
    assert start.loaded == {"the text encoder": ("label_embedding.vectors",)}
    assert set(start.fresh) == {name for name, _ in start.model.named_parameters()} - {"label_embedding.vectors"}
    assert start.frozen == ("label_embedding.vectors",)
    assert start.vocabulary.names == TAGS
    assert start.summary()[0] == "1 weights from the text encoder"


@pytest.mark.parametrize("kind", ["npy", "safetensors", "pth", "published"])
def test_label_vectors_are_read_from_any_file(tags, tmp_path, kind):
    vectors = torch.randn(4, LABEL_WIDTH)
    path = tmp_path / f"vectors.{'pth' if kind == 'published' else kind}"
    if kind == "npy":
        np.save(path, vectors.numpy())
    elif kind == "safetensors":
        from safetensors.torch import save_file

        save_file({"vectors": vectors, "other": torch.zeros(1)}, path)
    else:
        torch.save(vectors if kind == "pth" else {"model": {"label_embed": vectors, "fc.bias": torch.zeros(1)}}, path)
    start = start_of(settings_of(tags, label_vectors=path))
    assert torch.equal(start.model.label_embedding.vectors, vectors)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (
            np.zeros((3, LABEL_WIDTH), np.float32),
            r"must hold 4 label vectors, one per tag and description, got .*\(3, ",
        ),
        (np.full((4, LABEL_WIDTH), np.nan, np.float32), r"holds NaN or infinity"),
        (np.zeros((4, LABEL_WIDTH), np.int64), r"must hold one array of floating-point numbers"),
        (np.zeros((4, 3), np.float32), r"label vectors have 3 channels, and the model \d+"),
    ],
)
def test_label_vectors_that_do_not_fit_are_refused(tags, tmp_path, array, message):
    np.save(tmp_path / "vectors.npy", array)
    with pytest.raises((CheckpointError, ConfigError), match=message):
        start_of(settings_of(tags, label_vectors=tmp_path / "vectors.npy"))


@pytest.mark.parametrize("published", [False, True])
def test_descriptions_become_vectors_tag_by_tag(tags, tmp_path, published):
    table = {tag: [f"{tag} of kind {i}" for i in range(3)] for tag in reversed(TAGS)}
    path = tmp_path / "tags.json"
    path.write_text(json.dumps([{tag: row} for tag, row in table.items()] if published else table), encoding="utf-8")
    start = start_of(settings_of(tags, "ram-plus", descriptions=path))
    assert start.model.config.descriptions == 3
    texts = [text for tag in TAGS for text in table[tag]]
    expected = torch.nn.functional.normalize(torch.from_numpy(HashEncoder().encode(texts)), dim=-1)
    torch.testing.assert_close(start.model.label_embedding.vectors.data, expected)


@pytest.mark.parametrize(
    ("table", "error", "message"),
    [
        ({"cat": ["a"]}, ConfigError, r'describes not "dog", nor 2 more tags'),
        (
            {tag: ["a"] for tag in (*TAGS, "dogg")},
            ConfigError,
            r'describes "dogg", which is no tag .* did you mean "dog"',
        ),
        ({tag: ["a"] * (1 + (tag == "cat")) for tag in TAGS}, ConfigError, r"the same number of sentences .* 1 to 2"),
        ({tag: [""] for tag in TAGS}, FormatError, r'"cat" must have a list of sentences, none of them empty'),
        (["cat"], FormatError, r"must hold a JSON object of tags"),
    ],
)
def test_descriptions_that_do_not_fit_are_refused(tags, tmp_path, table, error, message):
    (tmp_path / "tags.json").write_text(json.dumps(table), encoding="utf-8")
    with pytest.raises(error, match=message):
        start_of(settings_of(tags, "ram-plus", descriptions=tmp_path / "tags.json"))


def test_ram_plus_needs_descriptions_or_their_vectors(tags):
    with pytest.raises(ConfigError, match=r"ram-plus needs 5 descriptions of each tag: set model\.descriptions"):
        start_of(settings_of(tags, "ram-plus"))


# A whole model


def test_a_run_goes_on_from_a_saved_model_with_nothing_fresh(tags, tmp_path):
    old = start_of(settings_of(tags, captioner=True), seed=3)
    save(old.model, tmp_path / "old", old.vocabulary)
    start = initialise(settings_of(tags, captioner=True, init=str(tmp_path / "old")))  # needs no text encoder
    assert start.fresh == ()
    expected = old.model.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in start.model.state_dict().items())
    assert start.model.training
    without = initialise(settings_of(tags, init=str(tmp_path / "old")))
    assert without.fresh == ()
    assert without.model.config.text is None


def test_a_captioner_that_the_weights_lack_stays_fresh(tags, tmp_path):
    old = start_of(settings_of(tags))
    save(old.model, tmp_path / "old", old.vocabulary)
    start = start_of(settings_of(tags, captioner=True, init=str(tmp_path / "old")))
    assert start.fresh
    assert all(name.startswith("captioner.") for name in start.fresh)


def test_another_vocabulary_keeps_all_but_the_label_vectors(tags, tmp_path):
    old = start_of(settings_of(tags))
    save(old.model, tmp_path / "old", old.vocabulary)
    (tmp_path / "more.txt").write_text("\n".join([*TAGS, "lamp"]), encoding="utf-8")
    start = start_of(settings_of(str(tmp_path / "more.txt"), init=str(tmp_path / "old")), seed=9)
    assert (start.fresh, len(start.model.label_embedding.vectors)) == ((), 5)
    torch.testing.assert_close(start.model.label_embedding.vectors[:4], old.model.label_embedding.vectors)
    assert torch.equal(start.model.fc.weight, old.model.fc.weight)


def test_a_learned_table_of_other_tags_is_refused(tags, tmp_path):
    old = start_of(settings_of(tags, "tag2text"))
    save(old.model, tmp_path / "old", old.vocabulary)
    (tmp_path / "more.txt").write_text("\n".join([*TAGS, "lamp"]), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"knows 4 tags and the vocabulary has 5; a tag2text learns them one by one"):
        start_of(settings_of(str(tmp_path / "more.txt"), "tag2text", init=str(tmp_path / "old")))


def test_position_tables_are_resized_for_a_larger_image(tags, tmp_path):
    small, large = (
        replace(SIZES, vision=replace(VISION, image_size=size, window=window)) for size, window in ((96, 3), (192, 6))
    )
    old = start_of(ModelSettings(vocabulary=tags, sizes=small))
    save(old.model, tmp_path / "old", old.vocabulary)
    start = start_of(ModelSettings(vocabulary=tags, sizes=large, init=str(tmp_path / "old")))
    assert start.fresh == ()
    table = "visual_encoder.layers.0.blocks.0.attn.relative_position_bias_table"
    before, after = old.model.get_parameter(table), start.model.get_parameter(table)
    assert (len(before), len(after)) == (5**2, 11**2)
    torch.testing.assert_close(after[60], before[12])  # no offset stays no offset


# Parts that others trained


def test_swin_is_read_in_the_three_namings(tmp_path):
    """timm's own conversion of Microsoft's names, and transformers' own module, give the same output."""
    config = SwinConfig(image_size=64, embed_dim=8, depths=(2, 2), heads=(1, 2), window=4)
    own = Ram(replace(SIZES, vision=config)).visual_encoder.eval()
    other = timm.models.swin_transformer.SwinTransformer(
        img_size=64, embed_dim=8, depths=(2, 2), num_heads=(1, 2), window_size=4, num_classes=7
    ).eval()
    pixels = torch.rand(2, 3, 64, 64)
    microsoft = {
        key.replace("layers.1.downsample", "layers.0.downsample").replace("head.fc", "head"): value
        for key, value in other.state_dict().items()
    }
    microsoft["layers.0.blocks.1.attn_mask"] = torch.zeros(4, 16, 16)
    theirs = SwinModel(TransformersSwinConfig(
        image_size=64, embed_dim=8, depths=[2, 2], num_heads=[1, 2], window_size=4, drop_path_rate=0.0
    )).eval()  # fmt: skip
    theirs.save_pretrained(tmp_path / "hub")  # writes the names that the files of the hub have
    torch.save(other.state_dict(), tmp_path / "timm.pth")
    torch.save({"model": microsoft}, tmp_path / "microsoft.pth")
    expected = other.forward_features(pixels).flatten(1, 2)
    check_swin(own, read_swin(tmp_path / "timm.pth", config), pixels, expected)
    check_swin(own, read_swin(tmp_path / "microsoft.pth", config), pixels, expected)
    tensors = read_swin(tmp_path / "hub" / "model.safetensors", config)
    check_swin(own, tensors, pixels, theirs(pixels).last_hidden_state)


def check_swin(own, tensors, pixels, expected):
    own.load_state_dict({key.removeprefix("visual_encoder."): value for key, value in tensors.items()}, strict=True)
    torch.testing.assert_close(own(pixels)[:, 1:], expected, rtol=1e-4, atol=1e-5)


def test_a_backbone_fills_the_image_encoder_and_nothing_else(tags, tmp_path):
    other = Ram(SIZES).visual_encoder.state_dict()
    torch.save(other, tmp_path / "swin.pth")
    start = start_of(settings_of(tags, backbone=tmp_path / "swin.pth"))
    assert not any(name.startswith("visual_encoder") for name in start.fresh)
    assert torch.equal(start.model.visual_encoder.norm.weight, other["norm.weight"])
    assert len(start.loaded[f"backbone {tmp_path / 'swin.pth'}"]) == len(list(start.model.visual_encoder.parameters()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("norm.weight"), r'lacks "norm\.weight"; it is no Swin of depths \(1, 2, 1, 1\)'),
        (lambda state: state.update(extra=torch.zeros(1)), r'holds "extra", which a Swin of depths .* does not have'),
        (lambda state: state.update({"norm.weight": torch.zeros(3)}), r'"norm\.weight" must have shape \(64,\), got'),
        (lambda state: state.update({"norm.weight": torch.full((64,), torch.nan)}), r"holds NaN or infinity"),
        (lambda state: state.update({"norm.weight": torch.zeros(64, dtype=torch.int64)}), r"floating-point numbers"),
    ],
)
def test_backbones_that_do_not_fit_are_refused(tmp_path, change, message):
    state = Ram(SIZES).visual_encoder.state_dict()
    change(state)
    torch.save(state, tmp_path / "swin.pth")
    with pytest.raises(CheckpointError, match=message):
        read_swin(tmp_path / "swin.pth", VISION)


def test_bert_fills_both_berts_but_for_what_it_does_not_have(tags, tmp_path):
    size = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 48}
    bert = BertForPreTraining(BertConfig(vocab_size=28, max_position_embeddings=20, **size))
    torch.save(bert.state_dict(), tmp_path / "bert.bin")
    start = start_of(settings_of(tags, captioner=True, text_init=tmp_path / "bert.bin"))
    state, own = bert.state_dict(), dict(start.model.named_parameters())
    words = own["captioner.text_decoder.bert.embeddings.word_embeddings.weight"]
    assert torch.equal(words[:28], state["bert.embeddings.word_embeddings.weight"])
    assert words[28:].std() > 0
    for part in ("tag_encoder", "text_decoder.bert"):
        query = own[f"captioner.{part}.encoder.layer.2.attention.self.query.weight"]
        assert torch.equal(query, state["bert.encoder.layer.2.attention.self.query.weight"])
    left = [name for name in start.fresh if name.startswith("captioner.")]
    assert left
    assert all("crossattention" in name for name in left)
    assert {name for name in start.fresh if name.startswith("tag_decoder")}  # shared with the tag encoder: stays fresh


def test_bert_of_another_size_is_refused(tmp_path):
    size = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    torch.save(
        BertForPreTraining(BertConfig(vocab_size=28, max_position_embeddings=20, **size)).state_dict(), tmp_path / "b"
    )
    with pytest.raises(CheckpointError, match=r'lacks "encoder\.layer\.2\..*it is no BERT of 3 layers'):
        read_bert(tmp_path / "b", replace(SIZES, text=TEXT))
    with pytest.raises(CheckpointError, match=r'holds "encoder\.layer\.1\..*which a BERT of 1 layers has not'):
        read_bert(tmp_path / "b", replace(SIZES, layers=1, text=replace(TEXT, layers=1)))


# Freezing, and settings that contradict each other


def test_frozen_parts_are_not_trained(tags):
    start = start_of(settings_of(tags, freeze=("visual_encoder", "image_proj.bias")))
    trained = {name for name, weight in start.model.named_parameters() if weight.requires_grad}
    assert not any(name.startswith("visual_encoder") for name in trained)
    assert "image_proj.weight" in trained
    assert set(start.frozen) == {name for name, _ in start.model.named_parameters()} - trained


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"freeze": ("visual",)}, r'no weight begins with "visual"; the parts are visual_encoder, tag_decoder'),
        (
            {"freeze": ("visual_encoder", "tag_decoder", "image_proj", "label_embedding", "fc")},
            r"model\.freeze leaves nothing to train",
        ),
        ({"text_init": "x"}, r"model\.text_init is for the captioner"),
        ({"init": "nowhere"}, r'model\.init: "nowhere" is neither a file, a folder nor a model'),
        ({"descriptions": "x.json"}, r"model\.descriptions is for ram-plus"),
    ],
)
def test_settings_that_mean_nothing_are_refused(tags, other, message):
    with pytest.raises(ConfigError, match=message):
        start_of(settings_of(tags, **other))


def test_a_vocabulary_is_a_file_or_a_published_list():
    assert [count_tags(name) for name in ("ram-swin-l.14m", "tag2text-swin-b.14m")] == [4585, 3429]
    with pytest.raises(ConfigError, match=r"model\.vocabulary: there is no file nowhere\.txt"):
        count_tags("nowhere.txt")
    sizes = model_sizes(ModelSettings(vocabulary="ram-swin-l.14m", architecture="tag2text-swin-b-224"), 4585)
    assert (sizes.num_tags, sizes.text) == (4585, None)
