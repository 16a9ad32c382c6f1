import math
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from rasa.adapters.lite import detector as detector_module
from rasa.adapters.lite import sight, ssd
from rasa.adapters.lite._protobuf import fields, text
from rasa.adapters.lite.detector import LiteDetector, build_detector
from rasa.adapters.lite.efficientnet import EfficientNetLite, load_efficientnet
from rasa.adapters.lite.evidence import Sighting, best_label, sightings
from rasa.adapters.lite.frozen_graph import read_constants
from rasa.adapters.lite.localise import places_from_maps
from rasa.adapters.lite.sight import Looker, Proposals
from rasa.adapters.lite.ssd import SSDMobileNetV2, load_ssd
from rasa.adapters.lite.vocabulary import load_vocabulary
from rasa.errors import FormatError, InputError, RasaWarning, WeightsError
from rasa.testing import check_detector
from rasa.types import Image
from rasa.weights import checkpoints

VOCABULARY = load_vocabulary()
COCO = {coco.name: number for number, coco in VOCABULARY.coco.items()}


@pytest.fixture(scope="module")
def random_looker():
    torch.manual_seed(0)
    classifier = EfficientNetLite("lite0").eval().requires_grad_(False)
    classifier.fold()
    return Looker([classifier], SSDMobileNetV2().eval().requires_grad_(False))


@pytest.fixture(scope="module")
def detector(checkpoint_file):
    for name in [*sight.CLASSIFIERS, sight.DETECTOR, "dinov2-vits14.focus"]:
        checkpoint_file(name)
    return build_detector()


@pytest.fixture(scope="module")
def photo():
    data = pytest.importorskip("skimage.data")
    return lambda name: Image(getattr(data, name)(), name)


def opinion(**scores):
    """What the classifiers think of a crop; underscores are spaces."""
    values = np.zeros(len(VOCABULARY.names), np.float32)
    for key, score in scores.items():
        name = key.replace("_", " ")
        for word in (name, *VOCABULARY.words[name].ancestors):
            values[VOCABULARY.positions[word]] = max(values[VOCABULARY.positions[word]], score)
    return values


class Scene(Looker):
    """A photo whose proposals are known: boxes, scores, COCO names and opinions."""

    def __init__(self, looker, *rows):
        self.__dict__ |= looker.__dict__
        boxes, scores, names, opinions = zip(*rows, strict=True)
        numbers = np.array([COCO[name] for name in names])
        self.scene = Proposals(np.array(boxes, np.float32), np.array(scores, np.float32), numbers, opinions)

    def propose(self, image, *, floor):
        return self.scene


def image_of(height=100, width=100):
    return Image(np.zeros((height, width, 3), np.uint8))


class TestNetwork:
    def test_equals_the_frozen_graph_run_node_by_node(self, checkpoint_file):
        path = checkpoint_file(sight.DETECTOR)
        torch.manual_seed(0)
        x = torch.rand(1, 3, 300, 300) * 2 - 1
        graph = Graph(path, {"Preprocessor/sub": x})
        network = load_ssd(path)
        with torch.inference_mode():
            maps = network.maps(x)
            for i, feature_map in enumerate(maps):
                for head, name in ((network.class_heads, "Class"), (network.box_heads, "BoxEncoding")):
                    expected = graph.run(f"BoxPredictor_{i}/{name}Predictor/BiasAdd")
                    torch.testing.assert_close(head[i](feature_map), expected, rtol=1e-3, atol=1e-3)

    def test_every_weight_of_the_graph_is_used(self, checkpoint_file):
        constants = read_constants(checkpoint_file(sight.DETECTOR))
        weights = {name.rpartition("/")[0] for name in constants if name.endswith(("weights", "biases"))}
        assert weights == set(ssd.conversion_table().values())

    def test_gives_1917_anchors_whose_boxes_lie_in_the_photo(self):
        torch.manual_seed(0)
        with torch.inference_mode():
            boxes, scores = SSDMobileNetV2().eval()(torch.zeros(2, 3, 300, 300))
        assert boxes.shape == (2, 1917, 4)
        assert scores.shape == (2, 1917, 91)
        assert ((boxes >= 0) & (boxes <= 1)).all()

    def test_anchors_by_hand(self):
        anchors = ssd._build_anchors([(19, 19), (10, 10), (5, 5), (3, 3), (2, 2), (1, 1)])
        # Centre y, centre x, height, width. Finest map, second cell of the first row, ratio 2: side 0.2.
        expected = [0.5 / 19, 1.5 / 19, 0.2 / math.sqrt(2), 0.2 * math.sqrt(2)]
        assert anchors[3 + 1].tolist() == pytest.approx(expected)
        # Coarsest map, last anchor: square, between the scales 0.95 and 1.
        assert anchors[-1].tolist() == pytest.approx([0.5, 0.5, math.sqrt(0.95), math.sqrt(0.95)])

    def test_box_codes_by_hand(self):
        anchors = torch.tensor([[0.5, 0.4, 0.2, 0.1]])
        assert ssd._decode(torch.zeros(1, 4), anchors)[0].tolist() == pytest.approx([0.35, 0.4, 0.45, 0.6])
        # One anchor height down, and twice as wide.
        codes = torch.tensor([[10.0, 0.0, 0.0, 5 * math.log(2)]])
        assert ssd._decode(codes, anchors)[0].tolist() == pytest.approx([0.3, 0.6, 0.5, 0.8])

    def test_a_graph_of_something_else_is_refused(self, tmp_path):
        (tmp_path / "graph.pb").write_bytes(b"")
        with pytest.raises(FormatError, match=r"graph\.pb is no SSD-MobileNetV2: the graph has no constant"):
            load_ssd(tmp_path / "graph.pb")


class Graph:
    """Runs the nodes of a frozen graph as its file states them: a reference that shares no architecture code."""

    def __init__(self, path, feeds):
        self.constants, self.nodes, self.values = read_constants(path), {}, dict(feeds)
        for _, _, node in fields(memoryview(path.read_bytes())):
            parts = [(number, value) for number, wire, value in fields(node) if wire == 2]
            found = {number: text(value) for number, value in parts if number in (1, 2)}
            if len(found) == 2:
                inputs = [text(value) for number, value in parts if number == 3]
                self.nodes[found[1]] = (found[2], inputs, dict(map(entry, (v for n, v in parts if n == 5))))

    def run(self, name):
        if name not in self.values:
            operation, inputs, attributes = self.nodes[name]
            if operation == "Const":
                self.values[name] = torch.from_numpy(np.array(self.constants[name]))
            else:
                self.values[name] = self.compute(operation, [self.run(i) for i in inputs], attributes)
        return self.values[name]

    def compute(self, operation, inputs, attributes):
        if operation in ("Conv2D", "DepthwiseConv2dNative"):
            return convolve(*inputs, attributes, operation != "Conv2D")
        if operation == "BiasAdd":
            return inputs[0] + inputs[1][:, None, None]
        if operation in ("Add", "Sub", "Mul"):
            # Photos have their channels before rows and columns here, after them in the graph.
            if inputs[0].ndim == 4 and inputs[1].ndim == 1:
                inputs[1] = inputs[1][:, None, None]
            return {"Add": torch.add, "Sub": torch.sub, "Mul": torch.mul}[operation](*inputs)
        return {"Identity": lambda x: x, "Relu6": F.relu6, "Rsqrt": torch.rsqrt}[operation](*inputs)


def entry(attribute):
    parts = {number: value for number, _, value in fields(attribute)}
    return text(parts[1]), parts[2]


def convolve(x, weight, attributes, depthwise):
    lists = {number: value for number, _, value in fields(attributes["strides"])}
    stride = next(list(bytes(value)) for number, _, value in fields(lists[1]) if number == 3)[1]
    assert bytes(attributes["padding"]) == b"\x12\x04SAME"
    kernel = weight.shape[0]
    total = [max((math.ceil(side / stride) - 1) * stride + kernel - side, 0) for side in x.shape[2:]]
    x = F.pad(x, (total[1] // 2, total[1] - total[1] // 2, total[0] // 2, total[0] - total[0] // 2))
    if depthwise:
        return F.conv2d(x, weight.permute(2, 3, 0, 1), stride=stride, groups=weight.shape[2])
    return F.conv2d(x, weight.permute(3, 2, 0, 1), stride=stride)


class TestSecondOpinion:
    def see(self, looker, *rows, threshold=0.5):
        found = sightings(Scene(looker, *rows), image_of(), threshold=threshold)
        return [(s.word, s.box.tolist()) for s in found]

    def test_a_box_without_opinion_is_taken_as_it_is(self, random_looker):
        assert self.see(random_looker, ([0, 0, 9, 9], 0.9, "cat", None)) == [("cat", [0, 0, 9, 9])]

    def test_a_weak_box_that_the_classifiers_know_nothing_of_is_dropped(self, random_looker):
        assert self.see(random_looker, ([0, 0, 90, 90], 0.7, "train", opinion())) == []
        assert len(self.see(random_looker, ([0, 0, 90, 90], 0.9, "train", opinion()))) == 1

    def test_the_threshold_is_a_floor(self, random_looker):
        rows = [([0, 0, 9, 9], 0.6, "cat", None), ([50, 50, 59, 59], 0.4, "cat", None)]
        assert len(self.see(random_looker, *rows, threshold=0.5)) == 1
        assert len(self.see(random_looker, *rows, threshold=0.4)) == 2
        assert len(self.see(random_looker, *rows, threshold=0)) == 2

    def test_a_box_around_a_group_gives_way_to_its_members(self, random_looker):
        members = [([0, 0, 45, 90], 0.9, "cow", None), ([50, 0, 95, 90], 0.8, "cow", None)]
        found = self.see(random_looker, ([0, 0, 96, 92], 0.95, "cow", None), *members)
        assert found == [("cow", [0, 0, 45, 90]), ("cow", [50, 0, 95, 90])]

    def test_of_a_head_and_its_body_the_body_stays(self, random_looker):
        found = self.see(random_looker, ([60, 0, 90, 30], 0.9, "dog", None), ([0, 0, 92, 90], 0.8, "dog", None))
        assert found == [("dog", [0, 0, 92, 90])]

    def test_a_rider_in_the_box_of_a_horse_stays(self, random_looker):
        found = self.see(random_looker, ([0, 0, 90, 90], 0.9, "horse", None), ([30, 0, 60, 50], 0.6, "person", None))
        assert len(found) == 2


class TestLabels:
    dog = Sighting(np.array([0, 0, 9, 9], np.float32), 0.9, "dog", opinion(golden_retriever=0.9))
    small_dog = Sighting(np.array([0, 0, 9, 9], np.float32), 0.9, "dog")

    @pytest.mark.parametrize(
        ("asked", "label"),
        [
            (["animal"], "animal"),
            (["animal", "dog"], "dog"),
            (["golden retriever", "animal", "dog"], "golden retriever"),
            (["retriever", "animal"], "retriever"),
            (["poodle", "dog"], "dog"),
            (["poodle"], None),
            (["cat", "vehicle"], None),
            ([], None),
        ],
    )
    def test_the_most_special_word_with_evidence(self, asked, label):
        assert best_label(self.dog, asked, VOCABULARY) == label

    def test_without_an_opinion_only_general_words_fit(self):
        assert best_label(self.small_dog, ["golden retriever", "animal"], VOCABULARY) == "animal"

    def test_a_clearly_better_word_of_the_same_kind_goes_first(self):
        box = np.array([0, 0, 9, 9], np.float32)
        kin = VOCABULARY.coco[COCO["truck"]].lookalikes
        wagon = Sighting(box, 0.8, "truck", opinion(freight_car=0.9), kin)
        assert best_label(wagon, ["truck", "freight car"], VOCABULARY) == "freight car"
        assert best_label(wagon, ["truck"], VOCABULARY) == "truck"


class TestDetect:
    def detect(self, looker, tags, *rows, **options):
        return LiteDetector(Scene(looker, *rows), **options).detect([image_of()], [tags])[0]

    def test_labels_are_the_words_of_the_asker(self, random_looker):
        rows = [([0, 0, 9, 9], 0.9, "dog", None), ([50, 50, 60, 60], 0.8, "person", None)]
        found = self.detect(random_looker, ["Puppies", "people", "automobile"], *rows)
        assert found.labels == ("Puppies", "people")
        assert found.boxes.tolist() == [[0, 0, 9, 9], [50, 50, 60, 60]]

    def test_one_object_has_one_box_whatever_is_asked(self, random_looker):
        row = ([0, 0, 90, 90], 0.9, "dog", opinion(golden_retriever=0.9))
        for asked in (["dog", "animal", "golden retriever"], ["golden retriever", "retriever", "dog", "animal"]):
            assert self.detect(random_looker, asked, row).labels == ("golden retriever",)

    def test_two_tags_for_one_word_give_one_box_with_the_first(self, random_looker):
        assert self.detect(random_looker, ["auto", "car"], ([0, 0, 9, 9], 0.9, "car", None)).labels == ("auto",)

    def test_a_parent_alone_gets_all_its_kinds(self, random_looker):
        rows = [
            ([0, 0, 9, 9], 0.9, "dog", None),
            ([50, 50, 60, 60], 0.8, "cat", None),
            ([5, 60, 9, 70], 0.9, "car", None),
        ]
        assert self.detect(random_looker, ["animal"], *rows).labels == ("animal", "animal")

    def test_an_unknown_word_is_named_in_a_warning(self, random_looker):
        with pytest.warns(RasaWarning, match="does not know 'unicorn', 'flux capacitor'"):
            found = self.detect(random_looker, ["unicorn", "flux capacitor", "cat"], ([0, 0, 9, 9], 0.9, "cat", None))
        assert found.labels == ("cat",)

    def test_no_tags_and_no_images(self, random_looker):
        detector = LiteDetector(random_looker)
        assert detector.detect([], []) == []
        nothing = detector.detect([image_of()], [[]])[0]
        assert nothing.boxes.shape == (0, 4)
        assert nothing.labels == ()

    def test_as_many_lists_of_tags_as_images(self, random_looker):
        with pytest.raises(InputError, match="2 images need as many lists of tags, got 1"):
            LiteDetector(random_looker).detect([image_of()] * 2, [[]])

    @pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
    def test_a_threshold_outside_of_0_to_1_is_refused(self, random_looker, threshold):
        with pytest.raises(InputError, match=r"box_threshold must be in \[0, 1\], got"):
            LiteDetector(random_looker, box_threshold=threshold)


class TestWithRandomWeights:
    def test_keeps_the_promises_of_a_detector(self, random_looker):
        # Random weights say 0.5 of everything, so this threshold lets a hundred boxes through.
        check_detector(LiteDetector(random_looker, box_threshold=0.3), tags=("person", "animal", "toaster"))

    @pytest.mark.parametrize("size", [(1, 1), (1, 20_000), (5_000, 2)])
    def test_extreme_shapes(self, random_looker, size):
        image = image_of(*size)
        found = LiteDetector(random_looker, box_threshold=0).detect([image], [["person", "scorpion"]])[0]
        assert (found.boxes >= 0).all()
        assert (found.boxes <= np.tile(size[::-1], 2)).all()


class TestFallbacks:
    @pytest.fixture(autouse=True)
    def fresh_networks(self):
        sight.load_looker.cache_clear()
        yield
        sight.load_looker.cache_clear()

    def test_without_ssd_and_dinov2_boxes_come_from_class_maps(self, monkeypatch, tmp_path):
        network = EfficientNetLite("lite0")
        torch.nn.init.zeros_(network._fc.weight)
        with torch.no_grad():
            network._fc.bias[71] = 20  # sees a scorpion wherever it looks
        torch.save(network.state_dict(), tmp_path / "lite0.pth")

        def fetch(name):
            if name == "efficientnet-lite0.in1k":
                return tmp_path / "lite0.pth"
            raise WeightsError(f"no {name} here")

        monkeypatch.setattr(sight, "fetch", fetch)
        monkeypatch.setattr(detector_module, "fetch", fetch)
        with pytest.warns(RasaWarning) as warned:
            detector = build_detector(box_threshold=0)
        texts = [str(warning.message) for warning in warned]
        assert any("without ssd-mobilenet-v2.coco, boxes come from class maps alone" in text for text in texts)
        assert any(
            "without dinov2-vits14.focus, boxes of what the detector does not know are rough" in t for t in texts
        )
        (found,) = detector.detect([image_of()], [["scorpion", "animal", "person"]])
        assert set(found.labels) <= {"scorpion"}
        assert detector.describe() == {
            "model": "lite-detector",
            "checkpoints": {"efficientnet-lite0.in1k": checkpoints()["efficientnet-lite0.in1k"].sha256},
            "box_threshold": 0,
        }

    def test_with_real_weights_a_cat_is_found_without_the_detector(self, checkpoint_file, photo):
        path = checkpoint_file("efficientnet-lite0.in1k")
        detector = LiteDetector(Looker([load_efficientnet(path, "lite0")], None))
        (found,) = detector.detect([photo("chelsea")], [["cat"]])
        assert found.labels == ("cat",)
        assert iou(found.boxes[0], [7, 0, 403, 298]) > 0.5


class TestPlaces:
    def test_a_box_around_the_peak_of_the_maps(self):
        maps = np.zeros((1000, 10, 20), np.float32)
        maps[71, 2:5, 12:16] = 9
        (place,) = places_from_maps([maps], [71], (100, 200))
        assert place.peak == 1
        assert np.abs(place.box - [120, 20, 160, 50]).max() <= 15

    def test_maps_without_any_evidence_have_no_place(self):
        assert places_from_maps([np.zeros((1000, 4, 4), np.float32)], [71], (100, 100)) == []


class TestWithRealWeights:
    def test_keeps_the_promises_of_a_detector(self, detector):
        check_detector(detector, tags=("cat", "person"))

    def test_finds_a_cat(self, detector, photo):
        (found,) = detector.detect([photo("chelsea")], [["kitten", "dog"]])
        assert found.labels == ("kitten",)
        assert iou(found.boxes[0], [7, 0, 403, 298]) > 0.8

    def test_finds_what_the_detector_does_not_know(self, detector, photo):
        (found,) = detector.detect([photo("astronaut")], [["helmet", "person", "cat"]])
        assert sorted(found.labels) == ["helmet", "person"]
        helmet = found.boxes[found.labels.index("helmet")]
        assert iou(helmet, [280, 325, 512, 512]) > 0.5

    def test_scenes_have_no_box(self, detector, photo):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            (found,) = detector.detect([photo("chelsea")], [["beach", "lake", "street"]])
        assert len(found) == 0

    def test_says_what_it_is(self, detector):
        description = detector.describe()
        assert description["model"] == "lite-detector"
        assert description["box_threshold"] == 0.5
        assert set(description["checkpoints"]) == {*sight.CLASSIFIERS, sight.DETECTOR, "dinov2-vits14.focus"}

    def test_tagger_and_detector_share_their_networks(self, detector):
        from rasa.adapters.lite.tagger import build_tagger

        assert build_tagger()._looker is detector._looker


def iou(a, b):
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    shared = np.prod(np.clip(high - low, 0, None))
    return shared / (np.prod(np.subtract(a[2:], a[:2])) + np.prod(np.subtract(b[2:], b[:2])) - shared)
