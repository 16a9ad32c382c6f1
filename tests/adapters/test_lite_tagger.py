import gc
import struct
import weakref

import numpy as np
import pytest
import torch

from rasa.adapters.lite import efficientnet, sight
from rasa.adapters.lite._protobuf import fields, varints
from rasa.adapters.lite.efficientnet import VARIANTS, EfficientNetLite, load_efficientnet, to_input
from rasa.adapters.lite.frozen_graph import read_constants
from rasa.adapters.lite.sight import Looker
from rasa.adapters.lite.tagger import LiteTagger, build_tagger
from rasa.adapters.lite.vocabulary import imagenet_index, load_vocabulary
from rasa.errors import FormatError, InputError, RasaWarning, WeightsError
from rasa.testing import check_tagger
from rasa.types import Image


@pytest.fixture(scope="module")
def random_looker():
    torch.manual_seed(0)
    network = EfficientNetLite("lite0").eval()
    network.fold()
    return Looker([network.requires_grad_(False)], None)


@pytest.fixture(scope="module")
def tagger(checkpoint_file):
    for name in [*sight.CLASSIFIERS, sight.DETECTOR]:
        checkpoint_file(name)
    return build_tagger()


@pytest.fixture(scope="module")
def photo():
    data = pytest.importorskip("skimage.data")
    return lambda name: Image(getattr(data, name)(), name)


class TestVocabulary:
    vocabulary = load_vocabulary()

    def test_every_imagenet_class_has_its_own_name_and_a_parent(self):
        names = self.vocabulary.own_names
        assert len(names) == len(set(names)) == 1000
        orphans = [name for i, name in enumerate(names) if not self.vocabulary.words[name].ancestors]
        assert not orphans
        assert all(i in self.vocabulary.words[name].classes for i, name in enumerate(names))

    def test_words_are_distinct_whatever_their_case(self):
        assert len({name.lower() for name in self.vocabulary.names}) == len(self.vocabulary.names)
        assert all(name == " ".join(name.split()) for name in self.vocabulary.names)

    def test_no_word_covers_itself_or_is_covered_in_a_circle(self):
        words = self.vocabulary.words
        for word in words.values():
            assert word.name not in word.ancestors
            assert all(word.name not in words[parent].ancestors for parent in word.ancestors)
            assert all(words[parent].ancestors <= word.ancestors for parent in word.ancestors)

    def test_coco_has_80_classes_whose_lookalikes_are_words(self):
        assert len(self.vocabulary.coco) == 80
        for coco in self.vocabulary.coco.values():
            assert coco.name in self.vocabulary.words
            assert coco.lookalikes <= set(self.vocabulary.words)

    def test_synonyms_lead_to_words_and_are_no_words_themselves(self):
        for synonym, name in self.vocabulary.synonyms.items():
            assert name in self.vocabulary.words
            assert synonym == name.lower() or synonym not in {word.lower() for word in self.vocabulary.names}

    @pytest.mark.parametrize(
        ("text", "name"),
        [
            ("dog", "dog"),
            ("Puppies", "dog"),
            ("automobile", "car"),
            ("people", "person"),
            ("women", "person"),
            ("wolves", "wolf"),
            ("knives", "knife"),
            ("buses", "bus"),
            ("computer mice", "computer mouse"),
            ("TV", "television"),
            ("golden_retriever", "golden retriever"),
            ("  sports   car ", "sports car"),
            ("unicorn", None),
            ("", None),
        ],
    )
    def test_finds_a_word_by_name_synonym_and_plural(self, text, name):
        assert self.vocabulary.find(text) == name

    def test_homonyms_are_different_words(self):
        words = self.vocabulary.words
        assert words["crane bird"].classes == {134}
        assert words["construction crane"].classes == {517}
        assert "animal" not in words["computer mouse"].ancestors
        assert {"dog", "animal"} <= words["Cardigan Welsh corgi"].ancestors
        assert "clothing" in words["cardigan"].ancestors

    def test_an_id_that_imagenet_lacks_is_refused(self):
        with pytest.raises(InputError, match="no ImageNet class has the WordNet id 'n0'"):
            imagenet_index("n0")

    def test_roll_up_takes_off_the_floor_of_smoothed_labels(self):
        uniform = np.full((1000, 1), 1e-3, np.float32)
        assert np.allclose(self.vocabulary.rolled_up(uniform), 0, atol=1e-6)
        sure = np.zeros((1000, 1), np.float32)
        sure[207] = 1
        scores = dict(zip(self.vocabulary.names, self.vocabulary.rolled_up(sure)[:, 0], strict=True))
        assert scores["golden retriever"] == scores["dog"] == scores["animal"] == 1
        assert scores["cat"] == scores["person"] == 0


class TestEfficientNet:
    @pytest.mark.parametrize("variant", VARIANTS)
    def test_equals_timm_with_the_same_weights(self, variant, checkpoint_file):
        timm = pytest.importorskip("timm")
        path = checkpoint_file(f"efficientnet-{variant}.in1k")
        reference = timm.create_model(f"tf_efficientnet_{variant}", pretrained=False).eval()
        state = torch.load(path, weights_only=True)
        reference.load_state_dict(dict(zip(reference.state_dict(), state.values(), strict=True)))
        torch.manual_seed(0)
        # An even and an odd side: TensorFlow pads them differently.
        x = torch.randn(2, 3, 160, 203)
        with torch.inference_mode():
            ours, expected = load_efficientnet(path, variant)(x), reference(x)
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("variant", VARIANTS)
    def test_folding_the_batch_norms_changes_no_answer(self, variant):
        torch.manual_seed(0)
        network = EfficientNetLite(variant)
        network(torch.randn(2, 3, 64, 64))  # in training mode: moves the running statistics off their start
        network.eval()
        x = torch.randn(1, 3, 64, 96)
        with torch.inference_mode():
            expected = network(x)
            network.fold()
            torch.testing.assert_close(network(x), expected, rtol=1e-3, atol=1e-5)
        assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules())

    def test_the_mean_of_the_class_map_is_the_answer(self):
        torch.manual_seed(0)
        network, x = EfficientNetLite("lite0").eval(), torch.randn(1, 3, 96, 128)
        with torch.inference_mode():
            maps = network.class_map(x)
            assert maps.shape == (1, 1000, 3, 4)
            torch.testing.assert_close(maps.mean((2, 3)), network(x), rtol=1e-4, atol=1e-5)

    def test_input_is_centred_on_127(self):
        pixels = np.array([[[127, 255, 0]]], np.uint8)
        assert to_input(pixels).flatten().tolist() == [0, 1, -127 / 128]

    def test_an_unknown_variant_names_the_known_ones(self):
        with pytest.raises(InputError, match="unknown EfficientNet variant 'lite9'; there are lite0, lite2"):
            EfficientNetLite("lite9")

    @pytest.mark.parametrize("content", [b"", b"not a checkpoint"])
    def test_a_file_that_is_no_checkpoint_is_refused(self, tmp_path, content):
        (tmp_path / "weights.pth").write_bytes(content)
        with pytest.raises(FormatError, match=r"weights\.pth is no checkpoint of efficientnet-lite0"):
            load_efficientnet(tmp_path / "weights.pth", "lite0")

    def test_weights_of_another_variant_are_refused(self, tmp_path):
        torch.save(EfficientNetLite("lite0").state_dict(), tmp_path / "lite0.pth")
        with pytest.raises(FormatError, match="no checkpoint of efficientnet-lite2"):
            load_efficientnet(tmp_path / "lite0.pth", "lite2")


def message(*parts):
    """Protobuf bytes of (field number, value): int as varint, bytes with their length."""
    out = b""
    for number, value in parts:
        if isinstance(value, int):
            out += varint(number << 3) + varint(value)
        else:
            out += varint(number << 3 | 2) + varint(len(value)) + value
    return out


def varint(value):
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def constant(name, tensor, operation=b"Const"):
    attribute = message((1, b"value"), (2, message((8, tensor))))
    return (1, message((1, name), (2, operation), (5, attribute)))


def shape(*sizes):
    return (2, message(*((2, message((1, size))) for size in sizes)))


class TestFrozenGraph:
    def test_reads_the_constants_of_a_graph(self, tmp_path):
        graph = message(
            constant(b"weights", message((1, 1), shape(2, 3), (4, struct.pack("<6f", *range(6))))),
            constant(b"scalar", message((1, 3), (7, varint(7)))),
            constant(b"spread", message((1, 1), shape(4), (5, struct.pack("<f", 2.5)))),
            constant(b"text", message((1, 7), (8, b"words"))),
            constant(b"no constant", message((1, 1), (5, struct.pack("<f", 1))), operation=b"Add"),
        )
        (tmp_path / "graph.pb").write_bytes(graph)
        constants = read_constants(tmp_path / "graph.pb")
        assert set(constants) == {"weights", "scalar", "spread"}
        assert constants["weights"].tolist() == [[0, 1, 2], [3, 4, 5]]
        assert constants["weights"].dtype == np.float32
        assert constants["scalar"] == 7
        assert constants["spread"].tolist() == [2.5] * 4

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"\x0a\xff\xff\xff\xff\x0f", "needs 4294967295 bytes"),
            (b"\x0f\x01", "wire type 7"),
            (b"\x0a", "malformed protobuf varint"),
            (b"\x80" * 20, "malformed protobuf varint"),
            (message(constant(b"\xff", b"")), "not UTF-8"),
            (
                message(constant(b"a", message((1, 1), shape(3), (4, bytes(8))))),
                r"2 values do not fill the shape \(3,\)",
            ),
            (message(constant(b"a", message((1, 1), (4, bytes(7))))), "7 bytes are no whole number"),
            (message(constant(b"a", message((1, 1), shape(1 << 40), (4, bytes(4))))), "too large"),
        ],
    )
    def test_malformed_bytes_are_refused(self, tmp_path, content, reason):
        (tmp_path / "graph.pb").write_bytes(content)
        with pytest.raises(FormatError, match=rf"graph\.pb is no frozen graph: .*{reason}"):
            read_constants(tmp_path / "graph.pb")

    def test_fields_of_all_wire_types(self):
        content = memoryview(message((1, 300), (2, b"ab")) + b"\x19" + bytes(8) + b"\x25" + bytes(4))
        assert [(n, w, v if isinstance(v, int) else bytes(v)) for n, w, v in fields(content)] == [
            (1, 0, 300),
            (2, 2, b"ab"),
            (3, 1, bytes(8)),
            (4, 5, bytes(4)),
        ]
        assert varints(memoryview(varint(1) + varint(300) + varint(2**40))) == [1, 300, 2**40]


class TestWithRandomWeights:
    def test_keeps_the_promises_of_a_tagger(self, random_looker):
        check_tagger(LiteTagger(random_looker, tag_threshold=0.001))

    def test_a_threshold_of_zero_gives_every_word_and_one_of_one_gives_none(self, random_looker):
        image = Image(np.zeros((30, 40, 3), np.uint8))
        tags = LiteTagger(random_looker, tag_threshold=0).tag([image])[0]
        assert set(tags.names) == set(random_looker.vocabulary.names)
        assert (np.diff(tags.scores) <= 0).all()
        assert [random_looker.vocabulary.names[i] for i in tags.ids] == list(tags.names)
        assert len(LiteTagger(random_looker, tag_threshold=1).tag([image])[0]) == 0

    @pytest.mark.parametrize("size", [(1, 1), (1, 20_000), (5_000, 2)])
    def test_extreme_shapes_give_tags(self, random_looker, size):
        tags = LiteTagger(random_looker).tag([Image(np.zeros((*size, 3), np.uint8))])
        assert len(tags) == 1

    def test_a_higher_threshold_only_leaves_tags_out(self, random_looker):
        image = Image(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
        many, few = (LiteTagger(random_looker, tag_threshold=t).tag([image])[0].names for t in (0.0001, 0.001))
        assert many[: len(few)] == few

    @pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
    def test_a_threshold_outside_of_0_to_1_is_refused(self, random_looker, threshold):
        with pytest.raises(InputError, match=r"tag_threshold must be in \[0, 1\], got"):
            LiteTagger(random_looker, tag_threshold=threshold)

    def test_an_image_is_looked_at_once_and_forgotten_with_it(self, random_looker):
        image = Image(np.zeros((32, 32, 3), np.uint8))
        view = random_looker.classify(image)
        assert random_looker.classify(image) is view
        gone = weakref.ref(view.maps[0])
        del view, image
        gc.collect()
        assert gone() is None

    def test_a_looker_needs_a_classifier(self):
        with pytest.raises(InputError, match="at least one classifier"):
            Looker([], None)


class TestBuild:
    @pytest.fixture(autouse=True)
    def fresh_networks(self):
        sight.load_looker.cache_clear()
        yield
        sight.load_looker.cache_clear()

    def test_an_unknown_dtype_is_refused(self):
        with pytest.raises(InputError, match=r"dtype must name a floating-point type of torch.*got 'int8'"):
            build_tagger(dtype="int8")

    def test_without_the_classifier_it_fails(self, monkeypatch):
        monkeypatch.setattr(sight, "fetch", fetch_nothing)
        with pytest.raises(WeightsError, match=r"no efficientnet-lite0\.in1k"):
            build_tagger()

    def test_without_the_others_it_warns_and_works(self, monkeypatch, tmp_path):
        torch.save(EfficientNetLite("lite0").state_dict(), tmp_path / "lite0.pth")
        first = "efficientnet-lite0.in1k"
        monkeypatch.setattr(
            sight, "fetch", lambda name: tmp_path / "lite0.pth" if name == first else fetch_nothing(name)
        )
        with pytest.warns(RasaWarning) as warned:
            tagger = build_tagger(tag_threshold=0)
        texts = [str(warning.message) for warning in warned]
        assert "without efficientnet-lite2.in1k, tags come from efficientnet-lite0.in1k alone" in texts[0]
        assert "without ssd-mobilenet-v2.coco, boxes come from class maps alone" in texts[1]
        assert list(tagger.describe()["checkpoints"]) == [first]
        assert tagger.describe()["tag_threshold"] == 0
        assert len(tagger.tag([Image(np.zeros((8, 8, 3), np.uint8))])[0]) > 1000


def fetch_nothing(name):
    raise WeightsError(f"no {name} here")


class TestWithRealWeights:
    def test_keeps_the_promises_of_a_tagger(self, tagger):
        check_tagger(tagger)

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("chelsea", {"cat", "animal"}),
            ("coffee", {"cup", "espresso", "coffee"}),
            ("astronaut", {"person", "helmet"}),
        ],
    )
    def test_names_what_a_photo_shows(self, tagger, photo, name, expected):
        tags = tagger.tag([photo(name)])[0]
        assert expected <= set(tags.names)
        assert len(tags) <= 10

    def test_says_what_it_is(self, tagger):
        description = tagger.describe()
        assert description["model"] == "lite-tagger"
        assert description["checkpoints"][sight.DETECTOR].startswith("2a8d8a89d695842e")
        assert len(description["checkpoints"]) == 3

    def test_half_precision_says_nearly_the_same(self, tagger, photo):
        image = photo("chelsea")
        half = build_tagger(dtype="bfloat16").tag([image])[0]
        assert half.names[0] in tagger.tag([image])[0].names[:3]


def test_the_window_is_the_side_the_first_classifier_was_trained_on():
    assert VARIANTS["lite0"].size == sight._WINDOW
    assert sight._WINDOW % efficientnet.STRIDE == 0
