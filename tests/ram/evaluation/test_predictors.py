"""Predictors: RAM's family, CLIP, BLIP, detectors, ML-Decoder, captioners and files, on tiny random models."""

import copy
import json
from dataclasses import replace

import numpy as np
import open_clip
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import timm
import torch
from transformers import BertTokenizer, BlipConfig, BlipForImageTextRetrieval, BlipImageProcessor

from rasa.adapters.grounding_dino import BertTokenizer as DinoTokenizer
from rasa.adapters.grounding_dino import GroundingDino
from rasa.adapters.grounding_dino.network import GroundingDinoNetwork
from rasa.adapters.grounding_dino.preprocess import Limits
from rasa.errors import CheckpointError, FormatError, InputError, RasaWarning
from rasa.testing import sample_images
from rasa.types import Image, Tags
from rasa_ram.builders import build
from rasa_ram.captioner import load_captioner
from rasa_ram.checkpoint import save
from rasa_ram.config import TextConfig
from rasa_ram.evaluation.benchmarks.benchmark import Benchmark
from rasa_ram.evaluation.harness import Predictor, score_images
from rasa_ram.evaluation.predictors.blip import PROMPT, BlipPredictor, load_blip
from rasa_ram.evaluation.predictors.captions import CaptionPredictor, WordParser
from rasa_ram.evaluation.predictors.clip import ClipPredictor
from rasa_ram.evaluation.predictors.detector import DetectorPredictor
from rasa_ram.evaluation.predictors.ml_decoder import (
    MlDecoder,
    MlDecoderHead,
    MlDecoderPredictor,
    convert_head,
    load_ml_decoder,
)
from rasa_ram.evaluation.predictors.predictions_file import read_predictions
from rasa_ram.evaluation.predictors.taggers import RamPredictor, TaggerPredictor
from rasa_ram.tagger import RamTagger
from rasa_ram.text_encoder import OpenClipTextEncoder
from rasa_ram.tokenizer import CaptionTokenizer
from rasa_ram.vocabulary import Vocabulary
from tests.adapters.tiny import tiny_grounding_dino, tiny_vocabulary
from tests.ram.hash_encoder import HashEncoder
from tests.ram.tiny import NAMES, VOCABULARY, tiny_model

IMAGES = sample_images()


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    """Label vectors of tiny encoders stay out of the user's cache."""
    monkeypatch.setenv("RASA_CACHE", str(tmp_path / "cache"))


def benchmark_of(*classes, words=None, ids=None):
    truth = np.zeros((2, len(classes)), bool)
    return Benchmark("b", ("a.jpg", "sub/b.jpg"), classes, truth, words=words, class_ids=ids)


def check(predictor, classes):
    assert isinstance(predictor, Predictor)
    json.dumps(dict(predictor.describe()))
    found = predictor.scores(IMAGES)
    assert found.dtype == np.float32
    assert found.shape == (len(IMAGES), classes)
    assert np.isfinite(found).all()
    single = np.concatenate([predictor.scores([image]) for image in IMAGES])
    np.testing.assert_allclose(found, single, atol=1e-4)
    assert np.ptp(found, axis=0).max() > 1e-5, "a predictor that answers the same for all pictures tests nothing"
    return found


# RAM's family


@pytest.mark.parametrize("family", ["ram", "ram-plus", "tag2text"])
def test_closed_set_scores_are_the_taggers(family):
    tagger = RamTagger(tiny_model(family), VOCABULARY)
    benchmark = benchmark_of("Car", "kitty", "dog", "car", words=(("Car",), ("kitty", "cat"), ("dog",), ("car",)))
    predictor = RamPredictor(tagger, benchmark, name="tiny")
    columns = [NAMES.index(name) for name in ("car", "cat", "dog", "car")]
    np.testing.assert_allclose(check(predictor, 4), tagger.scores(IMAGES)[:, columns], atol=1e-5)
    assert predictor.thresholds.tolist() == pytest.approx([0.68 if family == "tag2text" else 0.86] * 4)
    by_tag = RamPredictor(tagger, benchmark, name="tiny", threshold="by-tag").thresholds
    np.testing.assert_allclose(by_tag, VOCABULARY.thresholds[columns], atol=1e-6)
    assert RamPredictor(tagger, benchmark, name="tiny", threshold=0.0).thresholds.tolist() == [0] * 4


def test_classes_outside_a_closed_vocabulary_are_named():
    tagger = RamTagger(tiny_model("ram"), VOCABULARY)
    with pytest.raises(InputError, match="1 of 2 classes of b are not in the vocabulary, such as 'zebra'; evaluate as"):
        RamPredictor(tagger, benchmark_of("cat", "zebra"), name="tiny")


def test_open_set_counts_every_class_as_unseen():
    tagger, encoder = RamTagger(tiny_model("ram"), VOCABULARY), HashEncoder()
    predictor = RamPredictor(tagger, benchmark_of("zebra", "Cat", "zebra"), name="tiny", open_set=True,
                             text_encoder=encoder)  # fmt: skip
    found = check(predictor, 3)
    np.testing.assert_allclose(found[:, :2], tagger.with_tags(["zebra", "Cat"], text_encoder=HashEncoder())
                               .scores(IMAGES), atol=1e-5)  # fmt: skip
    np.testing.assert_array_equal(found[:, 0], found[:, 2])
    assert predictor.thresholds.tolist() == [0.5] * 3
    assert predictor.describe()["open_set"]


def test_descriptions_reach_ram_plus():
    tagger, benchmark = RamTagger(tiny_model("ram-plus"), VOCABULARY), benchmark_of("zebra", "owl")
    options = {"name": "tiny", "open_set": True, "text_encoder": HashEncoder()}
    plain = RamPredictor(tagger, benchmark, **options)
    described = RamPredictor(tagger, benchmark, descriptions={"owl": ["a bird at night", "round eyes"]}, **options)
    np.testing.assert_allclose(plain.scores(IMAGES)[:, 0], described.scores(IMAGES)[:, 0], atol=1e-5)
    assert np.abs(plain.scores(IMAGES)[:, 1] - described.scores(IMAGES)[:, 1]).max() > 1e-4


def test_classes_by_row_tell_two_meanings_of_a_word_apart():
    names = ("train", *NAMES[1:-1], "train")
    tagger = RamTagger(tiny_model("tag2text"), Vocabulary(names, allow_repeats=True))
    by_row = RamPredictor(tagger, benchmark_of("train", "train", ids=np.array([11, 0])), name="tiny")
    np.testing.assert_allclose(by_row.scores(IMAGES), tagger.scores(IMAGES)[:, [11, 0]], atol=1e-6)
    by_word = RamPredictor(tagger, benchmark_of("train"), name="tiny")
    np.testing.assert_allclose(by_word.scores(IMAGES)[:, 0], tagger.scores(IMAGES)[:, [0, 11]].max(axis=1), atol=1e-6)
    partly = RamTagger(tiny_model("ram"), VOCABULARY, deny=["cat"])
    with pytest.raises(InputError, match="does not look for row 0"):
        RamPredictor(partly, benchmark_of("cat", ids=np.array([0])), name="tiny")


def test_any_tagger_by_the_tags_that_it_gives():
    class Made:
        def tag(self, images):
            return [Tags(("Sofa", "couch", "owl"), np.array([0.9, 0.5, 0.2], np.float32)), Tags()]

    benchmark = benchmark_of("couch", "cat", words=(("couch", "sofa"), ("cat",)))
    found = TaggerPredictor(Made(), benchmark, name="made").scores(IMAGES[:2])
    np.testing.assert_allclose(found, [[0.9, 0], [0, 0]])
    real = TaggerPredictor(RamTagger(tiny_model("ram"), VOCABULARY, threshold=0), benchmark_of(*NAMES), name="tiny")
    np.testing.assert_allclose(check(real, 12), RamTagger(tiny_model("ram"), VOCABULARY).scores(IMAGES), atol=1e-5)


# CLIP


@pytest.fixture(scope="module")
def clip():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = open_clip.CLIP(
            embed_dim=16,
            vision_cfg={"image_size": 32, "patch_size": 8, "layers": 2, "width": 64},
            text_cfg={"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
        )
    return model, open_clip.image_transform((32, 32), is_train=False), open_clip.get_tokenizer("ViT-B-16")


def test_clip_scores_are_cosines(clip):
    model, transform, tokenizer = clip
    encoder = OpenClipTextEncoder(model, tokenizer)
    predictor = ClipPredictor(model, transform, encoder, benchmark_of("cat", "big dog", "cat"), name="tiny")
    found = check(predictor, 3)
    import PIL.Image

    with torch.inference_mode():
        texts = encoder.prompts("big dog")
        assert len(texts) == 80
        label = torch.nn.functional.normalize(model.encode_text(tokenizer(texts)), dim=-1).mean(0)
        pixels = torch.stack([transform(PIL.Image.fromarray(np.array(image.pixels))) for image in IMAGES])
        expected = torch.cosine_similarity(model.encode_image(pixels), label[None])
    np.testing.assert_allclose(found[:, 1], expected.numpy(), atol=1e-5)
    described = ClipPredictor(model, transform, encoder, benchmark_of("cat", "big dog"), name="tiny",
                              descriptions={"cat": ["soft"]}).scores(IMAGES)  # fmt: skip
    np.testing.assert_allclose(described[:, 1], found[:, 1], atol=1e-6)
    assert np.abs(described[:, 0] - found[:, 0]).max() > 1e-5


# BLIP


def save_tiny_blip(folder):
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = sizes | {
        "encoder_hidden_size": 32,
        "vocab_size": 200,
        "max_position_embeddings": 32,
        "bos_token_id": 2,
        "eos_token_id": 3,
        "sep_token_id": 3,
    }
    vision = sizes | {"image_size": 32, "patch_size": 8}
    with torch.random.fork_rng():
        torch.manual_seed(1)
        config = BlipConfig(text_config=text, vision_config=vision, image_text_hidden_size=16)
        model = BlipForImageTextRetrieval(config)
        for parameter in model.parameters():
            if parameter.ndim > 1:  # transformers draws them with a deviation of 1e-10
                parameter.data = 0.2 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "photo", "of", "cat", "dog", "big", "owl", "sky", "car"]
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    BlipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def blip_folder(tmp_path_factory):
    return save_tiny_blip(tmp_path_factory.mktemp("tiny-blip"))


CLASSES = ("cat", "big dog", "owl", "sky", "car")


def peer_blip(folder, *, itm):
    """transformers' own forward, one image and one text at a time."""
    model = BlipForImageTextRetrieval.from_pretrained(folder).eval()
    tokenizer, processor = BertTokenizer.from_pretrained(folder), BlipImageProcessor.from_pretrained(folder)
    scores = np.zeros((len(IMAGES), len(CLASSES)))
    for row, image in zip(scores, IMAGES, strict=True):
        pixels = processor(images=np.array(image.pixels), input_data_format="channels_last", return_tensors="pt")[
            "pixel_values"
        ]
        for column, word in enumerate(CLASSES):
            tokens = tokenizer(PROMPT.format(word), return_tensors="pt")
            with torch.inference_mode():
                output = model(tokens["input_ids"], pixels, use_itm_head=itm, attention_mask=tokens["attention_mask"])
            row[column] = output.itm_score.softmax(-1)[0, 1] if itm else output.itm_score[0, 0]
    return scores


def test_blip_itc_is_transformers(blip_folder):
    found = check(load_blip(benchmark_of(*CLASSES), blip_folder), 5)
    np.testing.assert_allclose(found, peer_blip(blip_folder, itm=False), atol=1e-4)


def test_blip_itm_is_transformers_for_the_best_by_itc(blip_folder):
    cosines, matched = (peer_blip(blip_folder, itm=itm) for itm in (False, True))
    whole = check(load_blip(benchmark_of(*CLASSES), blip_folder, mode="itm"), 5)
    np.testing.assert_allclose(whole, matched, atol=1e-4)
    found = load_blip(benchmark_of(*CLASSES), blip_folder, mode="itm", top_k=2).scores(IMAGES)
    best = np.argsort(-cosines, axis=1)[:, :2]
    for row in range(len(IMAGES)):
        rest = np.setdiff1d(np.arange(5), best[row])
        np.testing.assert_allclose(found[row, best[row]], matched[row, best[row]], atol=1e-4)
        np.testing.assert_allclose(found[row, rest], cosines[row, rest] - 2, atol=1e-4)
        assert found[row, rest].max() < found[row, best[row]].min()


def test_blip_options(blip_folder):
    with pytest.raises(InputError, match="top_k must be at least 1"):
        load_blip(benchmark_of("cat"), blip_folder, top_k=0)
    with pytest.raises(InputError, match='mode must be "itc" or "itm"'):
        BlipPredictor(None, None, None, benchmark_of("cat"), mode="vqa")


# Grounding DINO


@pytest.mark.parametrize("at_once", [1, 2, 40])
def test_a_detector_gives_the_score_of_the_best_box(at_once):
    network = GroundingDinoNetwork(tiny_grounding_dino())
    detector = GroundingDino(network, DinoTokenizer(tiny_vocabulary()), box_threshold=0.0, limits=Limits(64, 96))
    predictor = DetectorPredictor(detector, benchmark_of("cat", "bus", "cat"), name="tiny", at_once=at_once)
    found = check(predictor, 3)
    parts = [["cat"], ["bus"]] if at_once == 1 else [["cat", "bus"]]
    for row, image in zip(found, IMAGES, strict=True):
        best = dict.fromkeys(("cat", "bus"), 0.0)
        for part in parts:
            [boxes] = detector.detect([image], [part])
            for label, score in zip(boxes.labels, boxes.scores, strict=True):
                best[label] = max(best[label], float(score))
        np.testing.assert_allclose(row, [best["cat"], best["bus"], best["cat"]], atol=1e-4)


# ML-Decoder


def published_head(features=24, classes=23, groups=5, width=16):
    """A random head under the published names."""
    random = np.random.default_rng(0)

    def drawn(*shape):
        return torch.tensor(random.normal(size=shape) / 3, dtype=torch.float32)

    layer = "head.decoder.layers.0"
    state = {
        "head.decoder.embed_standart.weight": drawn(width, features),
        "head.decoder.embed_standart.bias": drawn(width),
        "head.decoder.query_embed.weight": drawn(groups, width),
        "head.decoder.duplicate_pooling": drawn(groups, width, -(-classes // groups)),
        "head.decoder.duplicate_pooling_bias": drawn(classes),
        f"{layer}.multihead_attn.in_proj_weight": drawn(3 * width, width),
        f"{layer}.multihead_attn.in_proj_bias": drawn(3 * width),
        f"{layer}.multihead_attn.out_proj.weight": drawn(width, width),
        f"{layer}.multihead_attn.out_proj.bias": drawn(width),
        f"{layer}.linear1.weight": drawn(2048, width) / 8,
        f"{layer}.linear1.bias": drawn(2048),
        f"{layer}.linear2.weight": drawn(width, 2048) / 8,
        f"{layer}.linear2.bias": drawn(width),
    }
    for number in (1, 2, 3):
        state[f"{layer}.norm{number}.weight"], state[f"{layer}.norm{number}.bias"] = drawn(width) + 1, drawn(width)
    return state


def layer_norm(x, weight, bias):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * weight + bias


def head_by_hand(state, features, heads=8):
    """Logits of one image, ``features`` is (L, C), in float64 NumPy by the paper's figure 2."""
    s = {key.removeprefix("head.decoder.").removeprefix("layers.0."): value.double().numpy()
         for key, value in state.items()}  # fmt: skip
    memory = np.maximum(features @ s["embed_standart.weight"].T + s["embed_standart.bias"], 0)
    query = layer_norm(2 * s["query_embed.weight"], s["norm1.weight"], s["norm1.bias"])
    weights, biases = np.split(s["multihead_attn.in_proj_weight"], 3), np.split(s["multihead_attn.in_proj_bias"], 3)
    q, k, v = (x @ w.T + b for x, w, b in zip((query, memory, memory), weights, biases, strict=True))
    mixed = []
    for i in np.split(np.arange(q.shape[1]), heads):
        logits = q[:, i] @ k[:, i].T / np.sqrt(len(i))
        share = np.exp(logits - logits.max(1, keepdims=True))
        mixed.append(share / share.sum(1, keepdims=True) @ v[:, i])
    attended = np.concatenate(mixed, 1) @ s["multihead_attn.out_proj.weight"].T + s["multihead_attn.out_proj.bias"]
    x = layer_norm(query + attended, s["norm2.weight"], s["norm2.bias"])
    hidden = np.maximum(x @ s["linear1.weight"].T + s["linear1.bias"], 0)
    x = layer_norm(x + hidden @ s["linear2.weight"].T + s["linear2.bias"], s["norm3.weight"], s["norm3.bias"])
    pooled = np.stack([row @ block for row, block in zip(x, s["duplicate_pooling"], strict=True)])
    return pooled.reshape(-1)[: len(s["duplicate_pooling_bias"])] + s["duplicate_pooling_bias"]


def test_the_ml_decoder_head_is_the_papers():
    state = published_head()
    head = MlDecoderHead(24, 23, groups=5, width=16).eval()
    head.load_state_dict(convert_head(state))
    features = torch.randn(2, 24, 3, 4, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found = head(features)
        np.testing.assert_allclose(head(features.flatten(2).transpose(1, 2)), found, atol=1e-6)
    expected = [head_by_hand(state, image.flatten(1).T.double().numpy()) for image in features]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(CheckpointError, match=r"head\.fc\.weight is no tensor of an ML-Decoder head"):
        convert_head(state | {"head.fc.weight": torch.zeros(1)})


def test_a_checkpoint_of_ml_decoder(tmp_path):
    network = timm.create_model("resnet18", num_classes=0).eval()
    names = [f"class {i}" for i in range(22)] + ["Cat"]
    state = {**network.state_dict(), **published_head(features=512)}
    path = tmp_path / "ml_decoder.pth"
    torch.save({"model": state, "idx_to_class": dict(enumerate(names))}, path)
    model, listed = load_ml_decoder(path, backbone="resnet18", groups=5)
    assert listed == tuple(names)
    predictor = MlDecoderPredictor(model, listed, benchmark_of("cat", "class 3", "zebra"), image_size=32)
    found = check(predictor, 3)
    assert (found[:, 2] == 0).all()
    assert predictor.describe()["own_classes"] == 2
    with pytest.raises(InputError, match="the model has 23 classes, the list 1 names"):
        MlDecoderPredictor(model, ["cat"], benchmark_of("cat"))
    with pytest.raises(InputError, match="none of the classes of b is among"):
        MlDecoderPredictor(model, listed, benchmark_of("zebra"))
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError, match="holds no ML-Decoder on resnet18"):
        load_ml_decoder(path, backbone="resnet18", groups=5)


def test_tresnet_takes_the_keys_of_its_conversion():
    """The backbone of the published file: that timm's network fits the head, by shapes alone."""
    network = timm.create_model("tresnet_m", num_classes=0).eval()
    model = MlDecoder(network, MlDecoderHead(network.num_features, 9605)).eval()
    assert model.head.weight.shape == (200, 768, 49)
    with torch.inference_mode():
        assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 9605)


# Captioners


class Captioner:
    def __init__(self, *texts):
        self.texts = texts

    def caption(self, images):
        return self.texts[: len(images)]


def test_captions_are_parsed_into_classes():
    words = (("car",), ("fire truck", "fire engine"), ("bus",), ("dog",))
    benchmark = benchmark_of("car", "fire truck", "bus", "dog", words=words)
    captioner = Captioner("Two cars and a fire engine near buses", "a hotdog cart")
    predictor = CaptionPredictor(captioner, benchmark, name="made")
    np.testing.assert_array_equal(predictor.scores(IMAGES[:2]), [[1, 1, 1, 0], [0, 0, 0, 0]])
    assert predictor.thresholds.tolist() == [0.5] * 4
    own = CaptionPredictor(captioner, benchmark, name="made", parse=lambda text: ["Dog"] if "hotdog" in text else [])
    np.testing.assert_array_equal(own.scores(IMAGES[:2]), [[0, 0, 0, 0], [0, 0, 0, 1]])


def test_the_longest_word_counts():
    parse = WordParser(["tennis", "tennis racket", "table", "table tennis"])
    assert parse("A tennis racket on a table, then table tennis.") == ["tennis racket", "table", "table tennis"]
    assert WordParser([])("anything") == []


# What the cache knows them by


def assert_has_its_own_scores(one, other, benchmark, tmp_path):
    """Scores of ``other`` are its own where those of ``one`` were kept before, and are found again."""
    images = dict(zip(benchmark.images, IMAGES, strict=False))
    first, second = (score_images(p, benchmark, images=images.get, cache=tmp_path / "scores") for p in (one, other))
    expected = score_images(other, benchmark, images=images.get)
    np.testing.assert_allclose(second, expected, atol=1e-5)
    assert np.abs(first - expected).max() > 1e-3
    assert one.describe() == one.describe()
    assert len([*(tmp_path / "scores").iterdir()]) == 2


def test_the_image_tower_and_the_sentences_of_clip_tell_its_scores_apart(clip, tmp_path):
    model, transform, tokenizer = clip
    tuned, benchmark = copy.deepcopy(model), benchmark_of("cat", "dog")
    tuned.visual.proj.data = tuned.visual.proj.data.flip(1)

    def predictor(used, *texts):
        encoder = OpenClipTextEncoder(used, tokenizer)
        return ClipPredictor(used, transform, encoder, benchmark, name="tiny", descriptions={"cat": texts})

    one = predictor(model, "soft", "it purrs")
    assert_has_its_own_scores(one, predictor(tuned, "soft", "it purrs"), benchmark, tmp_path / "a")
    assert_has_its_own_scores(one, predictor(model, "wet", "it barks"), benchmark, tmp_path / "b")
    assert one.describe() == predictor(copy.deepcopy(model), "soft", "it purrs").describe()


def test_the_weights_of_blip_tell_its_scores_apart_in_one_folder(tmp_path):
    benchmark, folder = benchmark_of(*CLASSES), save_tiny_blip(tmp_path / "blip")
    one = load_blip(benchmark, folder)
    assert one.describe() == load_blip(benchmark, folder).describe()
    model = BlipForImageTextRetrieval.from_pretrained(folder)
    model.vision_proj.weight.data = model.vision_proj.weight.data.flip(0)
    model.save_pretrained(folder)
    assert_has_its_own_scores(one, load_blip(benchmark, folder), benchmark, tmp_path)


def test_the_weights_and_the_classes_of_ml_decoder_tell_its_scores_apart(tmp_path):
    benchmark, names = benchmark_of("cat", "dog"), ["cat", "dog", *(f"class {i}" for i in range(21))]
    head, networks = convert_head(published_head()), []
    for sign in (1, 1, -1):
        network = MlDecoder(FirstFeatures(), MlDecoderHead(24, 23, groups=5, width=16))
        network.head.load_state_dict({**head, "weight": sign * head["weight"]})
        networks.append(network)
    one, same, other = (MlDecoderPredictor(network, names, benchmark, image_size=8) for network in networks)
    assert one.describe() == same.describe()
    assert_has_its_own_scores(one, other, benchmark, tmp_path / "a")
    swapped = MlDecoderPredictor(networks[0], ["dog", "cat", *names[2:]], benchmark, image_size=8)
    assert_has_its_own_scores(one, swapped, benchmark, tmp_path / "b")


class FirstFeatures(torch.nn.Module):
    """A backbone whose 24 channels are eight times the colours."""

    def forward_features(self, pixels):
        return pixels.repeat(1, 8, 1, 1)


def test_the_weights_of_the_captioner_and_the_words_of_the_parser_tell_captions_apart(tmp_path):
    words = ["a", "cat", "dog", "picture", "of", "|"]
    tokenizer = CaptionTokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words])
    text = TextConfig(vocab_size=13, width=24, layers=3, heads=4, intermediate=48, max_positions=48)
    benchmark = benchmark_of("cat", "dog")

    def predictor(seed, parse=None):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = build(replace(tiny_model("tag2text").config, text=text))
        folder = tmp_path / str(seed) / "model"
        save(model, folder, VOCABULARY)
        return CaptionPredictor(load_captioner(folder, tokenizer=tokenizer), benchmark, name="made", parse=parse)

    told = [json.dumps(predictor(seed, parse).describe(), sort_keys=True)
            for seed, parse in ((5, None), (5, None), (6, None), (5, WordParser(["cat"])), (5, str.split))]  # fmt: skip
    assert told[0] == told[1]
    assert len(set(told)) == 4


# Files of predictions

ROWS = [("a", "Cat", 0.5), ("b.jpg", "dog", 0.25), ("a.jpg", "kitty", 0.75), ("SUB\\b.jpg", "cat", 1.0)]


def write_predictions(path, rows=ROWS):
    table = [{"image": image, "tag": tag, "score": score} for image, tag, score in rows]
    if path.suffix == ".csv":
        path.write_text("\n".join(["image,tag,score", *(f"{i},{t},{s}" for i, t, s in rows)]), encoding="utf-8")
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, table)), encoding="utf-8")
    else:
        pq.write_table(pa.Table.from_pylist(table), path)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_files_of_predictions(tmp_path, suffix):
    benchmark = benchmark_of("cat", "dog", words=(("cat", "kitty"), ("dog",)))
    found = read_predictions(write_predictions(tmp_path / f"p{suffix}"), benchmark)
    np.testing.assert_array_equal(found, np.float32([[0.75, -np.inf], [1, 0.25]]))


def test_what_a_file_of_predictions_lacks_is_told(tmp_path):
    path = write_predictions(tmp_path / "p.csv", [("a", "cat", 0.5), ("z.jpg", "cat", 1), ("a", "owl", 1)])
    with pytest.warns(RasaWarning) as told:
        found = read_predictions(path, benchmark_of("cat"))
    assert [str(w.message).removeprefix(f"{path}: ") for w in told] == [
        "1 images of the benchmark are not in it and count as without tags",
        "1 of its images are not in the benchmark, such as 'z.jpg'",
        "1 of its tags are no class of it, such as 'owl'",
    ]
    np.testing.assert_array_equal(found, np.float32([[0.5], [-np.inf]]))


def test_a_file_name_that_two_images_have_is_not_guessed(tmp_path):
    benchmark = Benchmark("b", ("x/1.jpg", "y/1.jpg"), ("cat",), np.zeros((2, 1), bool))
    path = write_predictions(tmp_path / "p.csv", [("1.jpg", "cat", 0.5)])
    with pytest.raises(InputError, match=r"has none of the 2 images, such as 'x/1\.jpg'"):
        read_predictions(path, benchmark)


@pytest.mark.parametrize(("name", "text", "message"), [
    ("p.jsonl", '{"image": "a", "tag": "cat", "score": "nan"}', "line 1: a score must be a finite number, got 'nan'"),
    ("p.jsonl", '{"image": 5, "tag": "cat"}', "line 1: expected an image"),
    ("p.jsonl", "[1]", "line 1: expected an object"),
    ("p.jsonl", "{", "line 1: no JSON"),
    ("p.csv", "image,tag\na\n", "line 2: expected an image"),
    ("p.parquet", "PAR1", "is no Parquet file"),
])  # fmt: skip
def test_broken_predictions(tmp_path, name, text, message):
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(FormatError, match=message):
        read_predictions(tmp_path / name, benchmark_of("cat"))
    with pytest.raises(InputError, match=r"must be a \.csv, \.jsonl or \.parquet"):
        read_predictions(tmp_path / "p.txt", benchmark_of("cat"))


def test_one_pixel_is_an_image_for_all(clip):
    model, transform, tokenizer = clip
    dot = [Image(np.zeros((1, 1, 3), np.uint8))]
    predictors = [
        RamPredictor(RamTagger(tiny_model("ram"), VOCABULARY), benchmark_of("cat"), name="tiny"),
        ClipPredictor(model, transform, OpenClipTextEncoder(model, tokenizer), benchmark_of("cat"), name="tiny"),
    ]
    assert [predictor.scores(dot).shape for predictor in predictors] == [(1, 1), (1, 1)]
