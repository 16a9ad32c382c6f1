"""The Grounding DINO adapter on tiny models with random weights: batches, captions, tags, files and errors."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import MMGroundingDinoConfig, MMGroundingDinoForObjectDetection
from transformers.models.grounding_dino.modeling_grounding_dino import MultiScaleDeformableAttention

from rasa.adapters.grounding_dino import BertTokenizer, GroundingDino, load_grounding_dino, load_network
from rasa.adapters.grounding_dino.deformable import DeformableSampling, sample_corners, sample_grid
from rasa.adapters.grounding_dino.features import TextFeatures
from rasa.adapters.grounding_dino.keys import Weight, published_name, read_names
from rasa.adapters.grounding_dino.loading import match_weights, network_from
from rasa.adapters.grounding_dino.network import GroundingDinoNetwork
from rasa.adapters.grounding_dino.preprocess import Limits, preprocess, resized_size
from rasa.adapters.grounding_dino.sizes import infer_config
from rasa.errors import CheckpointError, ContractError, InputError, UnknownModelError
from rasa.ops.phrases import positive_map
from rasa.testing import check_detector, sample_image, sample_images
from tests.adapters.tiny import WORDS, save_tiny_grounding_dino, tiny_grounding_dino, tiny_vocabulary

LIMITS = Limits(64, 96)
TOKENIZER = BertTokenizer(tiny_vocabulary())
# Whole words, so that a tag is one or two tokens.
NAMES = [word for word in WORDS if word.isalpha()]


@pytest.fixture(scope="module")
def network():
    return GroundingDinoNetwork(tiny_grounding_dino())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_grounding_dino(tmp_path_factory.mktemp("tiny-grounding-dino"))


def detector_of(network, **options):
    """Boxes of every query, unless a threshold is given."""
    return GroundingDino(network, TOKENIZER, **{"box_threshold": 0.0, "limits": LIMITS, **options})


def assert_same(left, right, *, tolerance=1e-5):
    assert left.labels == right.labels
    np.testing.assert_allclose(left.scores, right.scores, atol=tolerance)
    np.testing.assert_allclose(left.boxes, right.boxes, atol=100 * tolerance)


def as_set(found):
    """Instances whatever their order, rounded."""
    rows = zip(found.labels, found.scores.round(4).tolist(), found.boxes.round(2).tolist(), strict=True)
    return sorted((label, score, tuple(box)) for label, score, box in rows)


class TestDetector:
    @pytest.mark.parametrize("options", [{}, {"batch_size": 4}, {"score": "mean"}, {"score": "caption"}], ids=str)
    def test_it_keeps_the_promises_of_its_role(self, network, options):
        check_detector(detector_of(network, **options), tags=("cat", "fire hydrant", "red umbrella"))

    def test_a_batch_is_its_images_one_by_one(self, network):
        images = [sample_image(height=90, width=120, seed=seed) for seed in range(5)]
        images += [sample_image(height=60, width=100, seed=9)]
        tags = [("cat", "dog"), ("red kite",), ("cat", "dog"), tuple(NAMES[:40]), ("tree",), ("sky", "cat")]
        batch = detector_of(network, batch_size=4).detect(images, tags)
        for image, names, found in zip(images, tags, batch, strict=True):
            assert_same(found, detector_of(network, batch_size=1).detect([image], [names])[0])

    def test_several_captions_of_an_image_are_each_by_itself(self, network):
        image, tags = sample_image(), [f"{a} {b}" for a in NAMES[:20] for b in NAMES[:20] if a != b]
        captions = TOKENIZER.captions(tags)
        assert len(captions) > 3
        whole = detector_of(network).detect([image], [tags])[0]
        parts = [
            detector_of(network).detect([image], [[tags[owner] for owner in caption.owners]])[0] for caption in captions
        ]
        assert as_set(whole) == sorted(row for part in parts for row in as_set(part))

    def test_a_box_needs_more_than_the_threshold(self, network):
        every = detector_of(network).detect([sample_image()], [["cat", "dog"]])[0]
        threshold = float(np.median(every.scores))
        kept = detector_of(network, box_threshold=threshold).detect([sample_image()], [["cat", "dog"]])[0]
        assert len(kept) == np.count_nonzero(every.scores > threshold)
        assert 0 < len(kept) < len(every)

    def test_a_prompt_is_read_in_place_of_its_tag(self, network):
        image, prompts = sample_image(), {"hydrant": "a red fire hydrant", "pet": ["cat", "dog"]}
        found = detector_of(network, prompts=prompts).detect([image], [["hydrant", "pet", "tree"]])[0]
        asked = ["a red fire hydrant", "cat", "dog", "tree"]
        plain = detector_of(network).detect([image], [asked])[0]
        names = {"a red fire hydrant": "hydrant", "cat": "pet", "dog": "pet", "tree": "tree"}
        np.testing.assert_array_equal(found.boxes, plain.boxes)
        assert found.labels == tuple(names[label] for label in plain.labels)

    @pytest.mark.parametrize("size", [(1, 1), (1, 4000), (4000, 1)])
    def test_an_image_of_any_size_is_answered(self, network, size):
        found = detector_of(network).detect([sample_image(height=size[0], width=size[1])], [["cat"]])[0]
        assert found.labels == ("cat",) * len(found)
        assert len(found) > 0

    def test_no_tags_run_nothing(self):
        class Silent:
            max_tokens, device = 256, torch.device("cpu")

        detector = GroundingDino(Silent(), TOKENIZER)
        assert [len(found) for found in detector.detect([sample_image()] * 2, [(), ()])] == [0, 0]
        assert detector.detect([], []) == []

    def test_4585_tags_give_every_box_one_tag_that_was_asked_for(self, network):
        tags = [f"{a} {b}" for a in NAMES for b in NAMES if a != b][:4585]
        captions = TOKENIZER.captions(tags)
        assert len(tags) == 4585
        assert sorted(owner for caption in captions for owner in caption.owners) == list(range(4585))
        assert max(len(caption) for caption in captions) <= 256
        found = detector_of(network).detect([sample_image()], [tags])[0]
        assert len(found) == len(captions) * network.config.num_queries
        assert set(found.labels) <= set(tags)

    def test_captions_are_computed_once_per_call(self, network, monkeypatch):
        calls, whole = [], GroundingDinoNetwork.encode_text

        def count(self, token_ids):
            calls.append(token_ids)
            return whole(self, token_ids)

        monkeypatch.setattr(GroundingDinoNetwork, "encode_text", count)
        images = [sample_image(seed=seed) for seed in range(3)]
        detector_of(network, batch_size=1).detect(images, [("cat", "dog"), ("cat", "dog"), ("tree",)])
        assert len(calls) == len(set(calls)) == 2

    def test_the_backbone_runs_once_per_image_whatever_the_captions(self, network, monkeypatch):
        calls, whole = [], GroundingDinoNetwork.encode_images

        def count(self, pixels, **options):
            calls.append(len(pixels))
            return whole(self, pixels, **options)

        monkeypatch.setattr(GroundingDinoNetwork, "encode_images", count)
        tags = [f"{a} {b}" for a in NAMES[:20] for b in NAMES[:20] if a != b]
        detector_of(network, batch_size=8).detect([sample_image()] * 2, [tags, tags])
        detector_of(network).detect([sample_image()] * 2, [tags, tags])
        assert calls == [2, 1, 1]

    def test_a_model_without_numbers_is_named(self):
        model = tiny_grounding_dino()
        with torch.no_grad():
            model.model.level_embed.fill_(torch.nan)
        with pytest.raises(ContractError, match="no number on 'sample-96x128-0'; use bfloat16 or float32"):
            detector_of(GroundingDinoNetwork(model)).detect([sample_image()], [["cat"]])

    def test_it_says_what_decides_its_answers(self, network):
        detector = detector_of(network, prompts={"pet": "cat"}, provenance={"checkpoint": "tiny"})
        assert detector.describe() == {
            "model": "grounding-dino",
            "checkpoint": "tiny",
            "box_threshold": 0.0,
            "score": "max",
            "prompts": {"pet": ["cat"]},
            "size": [64, 96],
            "dtype": "float32",
        }

    def test_wrong_arguments_are_refused(self, network):
        with pytest.raises(InputError, match=r"box_threshold must be in \[0, 1\], got 1.5"):
            detector_of(network, box_threshold=1.5)
        with pytest.raises(InputError, match="batch_size must be at least 1, got 0"):
            detector_of(network, batch_size=0)
        with pytest.raises(InputError, match='unknown score method "maximum"'):
            detector_of(network, score="maximum")
        with pytest.raises(InputError, match="2 images need as many lists of tags, got 1"):
            detector_of(network).detect([sample_image()] * 2, [["cat"]])
        with pytest.raises(InputError, match="has no tokens besides periods and question marks"):
            detector_of(network).detect([sample_image()], [["?!."[0]]])


class TestTagsOfBoxes:
    """The network's answer depends on all tags of a caption; which tag a box gets must not depend on how we look."""

    @given(tags=st.lists(st.sampled_from([*NAMES[:12], "fire hydrant", "red cat", "dogs", "cat dog"]), min_size=1))
    @settings(max_examples=15, deadline=None)
    def test_the_tag_is_that_of_a_brute_force_over_the_same_logits(self, network, tags):
        image = sample_image(height=60, width=80)
        found = detector_of(network).detect([image], [tags])[0]
        (caption,) = TOKENIZER.captions(tags)
        with torch.inference_mode():
            features = network.encode_images(torch.from_numpy(preprocess(image, LIMITS))[None])
            answer = network(features, network.encode_text(caption.token_ids))
        logits, boxes = answer.logits[0].numpy(), answer.boxes[0].numpy()
        corners = np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], 1)
        corners = np.clip(corners, 0, 1) * [80, 60, 80, 60]
        for box, score, label in zip(found.boxes, found.scores, found.labels, strict=True):
            row = logits[np.abs(corners - box).sum(1).argmin()]
            # One tag after the other, by its own row of the positive map.
            best = {}
            for positions, owner in zip(positive_map(caption, len(row)), caption.owners, strict=True):
                best[tags[owner]] = max(row[at] for at in np.flatnonzero(positions))
            assert label == max(best, key=best.__getitem__)
            assert score == pytest.approx(1 / (1 + np.exp(-best[label])), abs=1e-5)
        assert len(found) == len(logits)

    @given(tags=st.lists(st.sampled_from([*NAMES[:12], "fire hydrant"]), min_size=1, max_size=4, unique=True))
    @settings(max_examples=8, deadline=None)
    def test_captions_of_one_tag_each_are_one_detection_per_tag(self, network, tags):
        image = sample_image(height=60, width=80)
        longest = max(len(TOKENIZER.encode(tag)) for tag in tags)
        # No room for a second tag: the limit is the longest with its delimiters.
        captions = [caption for tag in tags for caption in TOKENIZER.captions([tag], limit=longest + 3)]
        assert len(captions) == len(tags)
        for tag in tags:
            found = detector_of(network).detect([image], [[tag]])[0]
            assert found.labels == (tag,) * network.config.num_queries


class TestNetwork:
    def test_it_is_transformers_but_for_the_clamp(self):
        plain, pixels = tiny_grounding_dino(), torch.randn(2, 3, 64, 96)
        ids = [[101, 1100, 1012, 1101, 1102, 1012, 102], [101, 1103, 1012, 1104, 1012, 102, 0]]
        mask = torch.tensor(ids) != 0
        with torch.inference_mode():
            expected = plain(pixel_values=pixels, input_ids=torch.tensor(ids), attention_mask=mask.long())
            network = GroundingDinoNetwork(tiny_grounding_dino(), clamp=1e-5)
            text = TextFeatures.stack([network.encode_text(ids[0]), network.encode_text(ids[1][:-1])])
            found = network(network.encode_images(pixels), text)
        torch.testing.assert_close(found.logits, expected.logits[:, :, :7], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(found.boxes, expected.pred_boxes, atol=1e-5, rtol=1e-5)

    def test_mm_grounding_dino_too(self, tmp_path):
        settings_of = tiny_grounding_dino().config.to_dict()
        for shared in (True, False):
            settings_of |= {"decoder_bbox_embed_share": shared, "decoder_cls_embed_share": shared}
            torch.manual_seed(0)
            plain = MMGroundingDinoForObjectDetection(MMGroundingDinoConfig.from_dict(settings_of)).eval()
            with torch.no_grad():
                for i, head in enumerate(plain.bbox_embed):
                    head.layers[-1].weight.normal_(std=0.1 if shared else 0.1 * (i + 1))
                if not shared:
                    plain.model.decoder.bbox_embed.load_state_dict(plain.bbox_embed.state_dict())
            plain.save_pretrained(tmp_path)
            pixels, ids = torch.randn(1, 3, 64, 96), [101, 1100, 1012, 1101, 1102, 1012, 102]
            network = load_network(tmp_path)
            network.clamp = 1e-5
            with torch.inference_mode():
                expected = plain(pixel_values=pixels, input_ids=torch.tensor([ids]))
                found = network(network.encode_images(pixels), network.encode_text(ids))
            torch.testing.assert_close(found.logits, expected.logits[:, :, :7], atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(found.boxes, expected.pred_boxes, atol=1e-5, rtol=1e-5)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_types_keep_the_text_side_and_boxes_in_float32(self, dtype):
        exact, half = (GroundingDinoNetwork(tiny_grounding_dino()) for _ in range(2))
        half.to_dtype(dtype)
        generator = torch.Generator().manual_seed(0)
        pixels, ids = torch.randn(1, 3, 64, 96, generator=generator), [101, 1100, 1012, 1101, 1102, 1012, 102]
        with torch.inference_mode():
            text = half.encode_text(ids)
            assert torch.equal(text.tokens, exact.encode_text(ids).tokens)
            image, whole = half.encode_images(pixels.to(dtype)), exact.encode_images(pixels)
            found = half(image, text)
            scores = half.choose(half.fuse(image, text), image, text).scores
            expected = exact.choose(exact.fuse(whole, text), whole, text).scores
        assert found.logits.dtype == found.boxes.dtype == scores.dtype == torch.float32
        # Eight bits of mantissa and two layers; which of two near-equal places comes first may differ.
        assert (scores - expected).abs().mean() < 0.05 * expected.std()

    def test_other_attention_of_the_text_encoder_is_refused(self):
        model = tiny_grounding_dino()
        model.model.text_backbone.set_attn_implementation("eager")
        with pytest.raises(InputError, match='"eager" attention, which takes its mask for numbers; use "sdpa"'):
            GroundingDinoNetwork(model)

    def test_a_caption_that_is_too_long_is_refused(self, network):
        with pytest.raises(InputError, match="a caption has 257 tokens, and at most 256 are read; split it"):
            network.encode_text([101, *[1100] * 255, 102])


class TestSampling:
    SHAPES = ((9, 7), (5, 4), (3, 2), (1, 1))

    def arguments(self, dtype=torch.float64, *, outside=0.6):
        places = sum(height * width for height, width in self.SHAPES)
        value = torch.randn(2, places, 4, 8, dtype=dtype)
        locations = (torch.rand(2, 30, 4, 4, 3, 2, dtype=dtype) - 0.5) * 2 * outside + 0.5
        weights = torch.rand(2, 30, 4, 4, 3, dtype=dtype)
        return value, locations, weights

    @pytest.mark.parametrize("outside", [0.4, 0.6, 1e12])
    @pytest.mark.parametrize("sample", [sample_corners, sample_grid])
    def test_both_ways_are_that_of_transformers(self, sample, outside):
        value, locations, weights = self.arguments(outside=outside)
        expected = MultiScaleDeformableAttention()(value, None, self.SHAPES, None, locations, weights, 64)
        torch.testing.assert_close(sample(value, locations, weights, shapes=self.SHAPES), expected)

    def test_gradients_flow(self):
        arguments = [each.requires_grad_() for each in self.arguments()]
        found = DeformableSampling()(arguments[0], None, self.SHAPES, None, *arguments[1:], 64)
        expected = MultiScaleDeformableAttention()(arguments[0], None, self.SHAPES, None, *arguments[1:], 64)
        for ours, theirs in zip(
            torch.autograd.grad(found.sum(), arguments), torch.autograd.grad(expected.sum(), arguments), strict=True
        ):
            torch.testing.assert_close(ours, theirs)

    def test_half_types_are_sampled_in_float32(self):
        value, locations, weights = self.arguments(torch.float32)
        found = DeformableSampling()(value.half(), None, self.SHAPES, None, locations, weights, 64)
        assert found.dtype == torch.float16
        expected = sample_grid(value.half().float(), locations, weights, shapes=self.SHAPES)
        torch.testing.assert_close(found, expected.half())


class TestFiles:
    def test_a_hub_folder_tells_everything(self, folder, network):
        detector = load_grounding_dino(folder, box_threshold=0.0)
        assert detector.describe()["size"] == [64, 96]
        image, tags = sample_image(), ["cat", "fire hydrant"]
        expected = detector_of(network).detect([image], [tags])[0]
        assert_same(detector.detect([image], [tags])[0], expected)

    def test_in_memory_names_load_as_well(self, folder):
        plain = tiny_grounding_dino()
        network = network_from(plain.state_dict(), plain.config)
        for key, parameter in network.model.named_parameters():
            if ".layernorm." not in key:
                assert torch.equal(parameter, plain.get_parameter(key)), key

    def state(self, folder):
        return load_file(folder / "model.safetensors"), json.loads((folder / "config.json").read_text())

    def refused(self, tmp_path, folder, change, match):
        state, config = self.state(folder)
        change(state)
        save_file(state, tmp_path / "model.safetensors")
        (tmp_path / "config.json").write_text(json.dumps(config))
        with pytest.raises(CheckpointError, match=match):
            load_network(tmp_path)

    def test_a_missing_weight_is_named(self, tmp_path, folder):
        key = "model.decoder.layers.1.encoder_attn.value_proj.weight"
        match = rf'lacks "{key}" \("transformer.decoder.layers.1.cross_attn.value_proj.weight" in an original file\)'
        self.refused(tmp_path, folder, lambda state: state.pop(key), match)

    def test_a_surplus_weight_is_named(self, tmp_path, folder):
        def add(state):
            state["model.encoder.layers.7.fusion_layer.text_param"] = torch.zeros(3)

        self.refused(tmp_path, folder, add, r'holds "model.encoder.layers.7.*no place for')

    def test_a_wrong_shape_is_named(self, tmp_path, folder):
        def cut(state):
            state["model.text_projection.bias"] = torch.zeros(31)

        self.refused(tmp_path, folder, cut, r'"model.text_projection.bias" must have shape \(\d+,\), got \(31,\)')

    def test_a_weight_that_is_no_number_is_named(self, tmp_path, folder):
        def spoil(state):
            state["model.text_projection.bias"][3] = torch.nan

        self.refused(tmp_path, folder, spoil, '"model.text_projection.bias" must hold finite floating-point numbers')

    def test_another_model_is_named(self, tmp_path, folder):
        def replace(state):
            state.clear()
            state["image_encoder.pos_embed"] = torch.zeros(1)

        self.refused(tmp_path, folder, replace, r'is no Grounding DINO: it holds 1 tensors, such as "image_encoder.pos')
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "sam"}))
        with pytest.raises(CheckpointError, match="holds a model of the type 'sam'; expected one of grounding-dino"):
            load_network(tmp_path)

    def test_an_unknown_key_of_an_original_file_is_named(self):
        state = {"module.transformer.level_embed": torch.zeros(4, 8), "module.transformer.fifth.wheel": torch.zeros(1)}
        with pytest.raises(CheckpointError, match=r'holds "module.transformer.fifth.wheel", which'):
            read_names(state, name="x.pth")

    def test_heads_that_should_be_equal_are_checked(self):
        plain = tiny_grounding_dino()
        state = {key: tensor.clone() for key, tensor in plain.state_dict().items()}
        state["bbox_embed.1.layers.0.weight"] += 1
        with pytest.raises(CheckpointError, match=r"must be equal to .*as the layers share it"):
            network_from(state, plain.config)

    def test_an_incomplete_folder_and_an_unknown_name_are_told(self, tmp_path):
        with pytest.raises(CheckpointError, match=r"lacks config.json; a hub folder has config.json and model"):
            load_network(tmp_path)
        with pytest.raises(UnknownModelError, match=r'did you mean "grounding-dino-swin-t.ogc"'):
            load_grounding_dino("grounding-dino-swint.ogc")


def test_the_sizes_of_mm_grounding_dino_are_told_by_its_weights():
    expected = MMGroundingDinoConfig()
    with torch.device("meta"):
        model = MMGroundingDinoForObjectDetection(expected)
    weights = {published_name(key): Weight(key, tensor) for key, tensor in model.state_dict().items()}
    found = infer_config(weights, name="mm.safetensors")
    assert isinstance(found, MMGroundingDinoConfig)
    same = [
        "d_model",
        "num_queries",
        "encoder_layers",
        "encoder_ffn_dim",
        "encoder_n_points",
        "decoder_layers",
        "num_feature_levels",
    ]
    assert [getattr(found, field) for field in same] == [getattr(expected, field) for field in same]
    with torch.device("meta"):
        match_weights(weights, MMGroundingDinoForObjectDetection(found), name="mm.safetensors")


class TestSizes:
    @given(st.integers(1, 20000), st.integers(1, 20000))
    def test_a_size_is_never_empty_and_seldom_over_the_limit(self, height, width):
        short, long = sorted(resized_size((height, width)))
        assert short >= 1
        # The short side was rounded up by half a pixel at most, and the long one follows it.
        assert long <= 1333 * short / (short - 0.5) + 1
        assert resized_size((width, height)) == resized_size((height, width))[::-1]

    def test_limits_are_checked(self):
        with pytest.raises(InputError, match="1 <= short <= long pixels, got 900 and 800"):
            Limits(900, 800)


def test_every_sample_image_keeps_its_boxes_inside(network):
    images = sample_images()
    for image, found in zip(images, detector_of(network).detect(images, [["cat", "dog"]] * len(images)), strict=True):
        height, width = image.size
        assert (found.boxes >= 0).all()
        assert (found.boxes <= np.array([width, height, width, height])).all()
