from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from rasa.errors import ContractError, ImageError, InputError
from rasa.testing import FakeDetector, FakeTagger, sample_image
from rasa.types import Instances
from rasa_ram.data.records import Record
from rasa_ram.engine.clean import clean
from rasa_ram.engine.clean_outliers import TagPiece, decide, read_decision, write_decision
from rasa_ram.engine.clean_regions import RegionFinder, Regions, regions_file, write_regions
from rasa_ram.engine.clean_settings import CleanSettings
from rasa_ram.engine.journal import RecordShard
from rasa_ram.engine.region_models import RamEmbedder, own_thresholds, region_scores, unit_vectors
from rasa_ram.preprocess import preprocess
from rasa_ram.tagger import RamTagger
from tests.ram.engine.scenes import NAMES, ColourTagger, MeanColour, PlantedScenes
from tests.ram.tiny import NAMES as TINY_NAMES
from tests.ram.tiny import VOCABULARY, tiny_model

SETTINGS = CleanSettings(names=NAMES)


def cleaned(scenes, tagger, **changes):
    settings = replace(SETTINGS, **changes)
    models = {"detector": FakeDetector(), "tagger": tagger, "embedder": MeanColour()}
    return [*clean(scenes.records, images=scenes.image, settings=settings, **models)]


def lost(before, after):
    pairs = zip(before, after, strict=True)
    return {(old.image_path, tag) for old, new in pairs for tag in {*old.known_ids} - {*new.known_ids}}


# Planted tags: 15 % of the tags have a region of another tag's colour


@pytest.fixture(scope="module")
def planted():
    return PlantedScenes(900, share=0.15)


def test_outliers_of_ten_percent_are_planted_ones(planted):
    dropped = lost(planted.records, cleaned(planted, FakeTagger(NAMES)))
    right = len(dropped & planted.planted)
    assert right / len(dropped) >= 0.98  # measured: 0.994
    assert right / len(planted.planted) >= 0.62  # measured: 0.658; 0.667 is all that 10 % of 15 % can be


def test_as_many_outliers_as_are_planted(planted):
    dropped = lost(planted.records, cleaned(planted, FakeTagger(NAMES), outlier_share=0.15))
    right = len(dropped & planted.planted)
    assert min(right / len(dropped), right / len(planted.planted)) >= 0.88  # measured: 0.918 both


def test_the_tagger_confirms_or_drops(planted):
    dropped = lost(planted.records, cleaned(planted, ColourTagger(), outlier_share=0.0, confirm_threshold=0.5))
    assert dropped == planted.planted


def test_wrong_regions_that_look_alike_are_no_cluster_of_their_own():
    scenes = PlantedScenes(900, share=0.15, wrong="red")
    right = {}
    for share in (0.8, 1.0):
        dropped = lost(scenes.records, cleaned(scenes, FakeTagger(NAMES), core_share=share))
        right[share] = len(dropped & scenes.planted) / len(dropped)
    # Red itself has no wrong region and loses its 10 % all the same: 0.831 is what can be had.
    assert right[0.8] >= 0.8  # measured: 0.831
    assert right[1.0] <= 0.2  # measured: 0.096, what K-Means++ alone does about them


def test_the_same_seed_gives_the_same(planted):
    first, again = (cleaned(planted, ColourTagger(), clusters=5, fit_regions=100) for _ in range(2))
    assert first == again


def test_the_share_is_exact_for_each_tag(planted):
    before, after = planted.records, cleaned(planted, FakeTagger(NAMES))
    for tag in range(len(NAMES)):
        count = sum(tag in record.tag_ids for record in before)
        assert count - sum(tag in record.tag_ids for record in after) == int(0.1 * count)


# Rules


class NoDetector:
    def detect(self, images, tags):
        return [Instances() for _ in images]


def run(records, *, detector=None, tagger=None, images=None, **changes):
    models = {"detector": detector or FakeDetector(), "tagger": tagger or FakeTagger(NAMES), "embedder": MeanColour()}
    images = images or (lambda path: sample_image(seed=len(path)))
    return [*clean(records, images=images, settings=replace(SETTINGS, **changes), **models)]


RECORD = Record(image_path="a", captions=("red and blue",), parsed_ids=((0, 2),), tag_ids=(2, 0))


def test_tags_without_a_region_stay_unless_they_shall_go():
    assert run([RECORD], detector=NoDetector()) == [RECORD]
    (done,) = run([RECORD], detector=NoDetector(), missing="drop")
    assert done == replace(RECORD, tag_ids=())


def test_tags_that_are_no_category_are_left_alone():
    (done,) = run([RECORD], detector=NoDetector(), missing="drop", categories=("blue", "green"))
    assert done == replace(RECORD, tag_ids=(0,))


def test_ids_beyond_the_vocabulary_are_left_alone():
    record = Record(image_path="a", tag_ids=(2, 99))
    assert run([record], tagger=FakeTagger(["red"]))[0].tag_ids == (99,)


def test_captions_stay_as_they_are():
    (done,) = run([replace(RECORD, tag_ids=None)], tagger=FakeTagger(["red"]))
    assert done == replace(RECORD, tag_ids=(0,))


def test_few_images_of_a_tag_are_not_clustered():
    records = [Record(image_path="x" * i, tag_ids=(0,)) for i in range(19)]
    assert run(records) == records
    records.append(Record(image_path="x" * 19, tag_ids=(0,)))
    assert sum(not record.tag_ids for record in run(records)) == 2


def test_one_good_region_of_several_is_enough():
    class Halves:
        def detect(self, images, tags):
            boxes = np.array([[0, 0, 50, 96], [60, 0, 128, 96]], np.float32)
            return [Instances(boxes, np.array([0.9, 0.8], np.float32), (*names, *names)) for names in tags]

    class SeesTheWider(FakeTagger):
        def tag(self, images):
            return [super(SeesTheWider, self).tag([image])[0] if image.size[1] == 68 else FakeTagger([]).tag([image])[0]
                    for image in images]  # fmt: skip

    record = Record(image_path="a", tag_ids=(0,))
    assert run([record], detector=Halves(), tagger=SeesTheWider(NAMES)) == [record]
    assert run([record], detector=Halves(), tagger=SeesTheWider(NAMES), max_regions=1)[0].tag_ids == ()
    assert run([record], detector=Halves(), tagger=FakeTagger([]), box_threshold=0.95) == [record]  # no region is left
    assert run([record], detector=Halves(), tagger=FakeTagger([]), min_side=69) == [record]


def test_unreadable_images_and_empty_records_stay():
    def images(path):
        if path == "broken":
            raise ImageError("image 'broken' is no image")
        return sample_image()

    records = [Record(image_path="broken", tag_ids=(0, 1)), Record(image_path="b"), Record(image_path="c", tag_ids=())]
    assert run(records, images=images, tagger=FakeTagger([]), missing="drop") == records
    assert run([]) == []


# Hand-checked: the vectors of ten regions on a line


def planted_file(tmp_path, positions, scores=None, records=None):
    count = len(positions)
    regions = Regions(
        np.zeros(count, np.int32), np.array(records or range(count), np.int32), np.zeros((count, 4), np.float32),
        np.ones(count, np.float32), np.array(scores or [1] * count, np.float32),
        np.array(positions, np.float16).reshape(-1, 1), {},
    )  # fmt: skip
    write_regions(tmp_path, RecordShard(0, (RECORD,)), regions)
    return TagPiece(0, ((0, regions_file(tmp_path, 0), slice(0, count)),))


def test_a_decision_by_hand(tmp_path):
    # The mean is 1: distances 1, 1, 1, 1, 1, 1, 1, 1, 1, 9.
    piece = planted_file(tmp_path, [0, 0, 0, 0, 0, 0, 0, 0, 0, 10], scores=[1, 1, 0.5, 1, 1, 1, np.nan, 1, 1, 0.4])
    settings = replace(SETTINGS, clusters=1, min_pairs=10, outlier_share=0.2)
    decision = decide(piece, settings, threshold=0.5)
    assert decision.images.tolist() == [0, 2, 9]
    assert decision.outlier.tolist() == [True, False, True]  # of equally far ones the first
    assert decision.unconfirmed.tolist() == [False, True, True]  # a score must exceed the threshold; NaN denies nothing
    assert decision.distances.tolist() == [1, 1, 9]
    assert (decision.pairs, decision.clusters) == (10, 1)


def test_an_image_counts_by_its_best_region(tmp_path):
    piece = planted_file(tmp_path, [0, 10, 0, 8, 8], scores=[0, 1, 1, 0.25, 0.75], records=[0, 0, 1, 2, 2])
    # Mean 5.2: distances 5.2, 4.8, 5.2, 2.8, 2.8; of the images 4.8, 5.2, 2.8.
    decision = decide(piece, replace(SETTINGS, clusters=1, min_pairs=3, outlier_share=0.34), threshold=0.8)
    assert decision.images.tolist() == [1, 2]
    assert decision.outlier.tolist() == [True, False]
    assert decision.distances.tolist() == pytest.approx([5.2, 2.8], abs=1e-5)
    assert decision.scores.tolist() == [1, 0.75]


def test_decisions_are_kept_without_loss(tmp_path):
    decision = decide(planted_file(tmp_path, [*range(30)]), SETTINGS, threshold=0.5)
    for name in ("one", "two"):
        write_decision(tmp_path / name, decision)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    again = read_decision(tmp_path / "one")
    assert (again.tag, again.pairs, again.clusters) == (0, 30, 1)
    for name in ("images", "outlier", "unconfirmed", "distances", "scores"):
        np.testing.assert_array_equal(getattr(again, name), getattr(decision, name))


def test_equal_regions_are_clustered_without_a_warning(tmp_path):
    decision = decide(planted_file(tmp_path, [1.0] * 40), replace(SETTINGS, clusters=4), threshold=0.5)
    assert decision.images.tolist() == [0, 1, 2, 3]


# Models


@pytest.mark.parametrize("family", ["ram", "tag2text"])
def test_the_vector_of_a_region_is_the_pooled_token(family):
    model = tiny_model(family)
    crops = [sample_image(seed=i, width=40 + i) for i in range(5)]
    expected = model.encode_image(torch.from_numpy(preprocess(crops, 64)))[:, 0].detach().numpy()
    embedder = RamEmbedder(model, batch_size=2)
    np.testing.assert_allclose(embedder.embed(crops), expected, rtol=1e-4, atol=1e-5)
    assert embedder.embed([]).shape == (0, model.config.memory_width)
    np.testing.assert_allclose(np.linalg.norm(unit_vectors(embedder, crops), axis=1), 1, rtol=1e-5)


def test_scores_of_a_ram_are_those_of_the_label():
    tagger = RamTagger(tiny_model(), VOCABULARY, allow=["dog", "bus", "sky"])
    crops = [sample_image(seed=i) for i in range(3)]
    table = tagger.scores(crops)
    found = region_scores(tagger, crops, ["bus", "dog", "cat"])
    assert found.tolist()[:2] == [float(table[0, 2]), float(table[1, 0])]
    assert np.isnan(found[2])
    thresholds = own_thresholds(tagger, ["bus", "cat"])
    assert thresholds == {"bus": pytest.approx(0.8), "cat": 0.68}
    assert own_thresholds(FakeTagger(), ["cat"]) == {"cat": 0.0}
    assert region_scores(FakeTagger(["cat"]), crops[:2], ["cat", "dog"]).tolist() == [1, 0]


def test_a_real_model_cleans():
    model, images = tiny_model(), {str(i): sample_image(seed=i) for i in range(24)}
    records = [Record(image_path=path, tag_ids=(0, 1)) for path in images]
    models = {"detector": FakeDetector(), "tagger": RamTagger(model, VOCABULARY), "embedder": RamEmbedder(model)}
    settings = CleanSettings(names=TINY_NAMES, confirm_threshold=0.0)
    after = [*clean(records, images=images.__getitem__, settings=settings, **models)]
    assert [sum(tag in record.tag_ids for record in after) for tag in (0, 1)] == [22, 22]


def test_models_that_do_not_keep_their_word_are_named():
    crops = [sample_image()]
    short = SimpleNamespace(embed=lambda crops: np.zeros((2, 3)), tag=lambda crops: [])
    with pytest.raises(ContractError, match=r"must give 1 rows, one per crop, got shape \(2, 3\)"):
        unit_vectors(short, crops)
    with pytest.raises(ContractError, match="gave no number for a region"):
        unit_vectors(SimpleNamespace(embed=lambda crops: np.full((1, 3), np.nan)), crops)
    with pytest.raises(ContractError, match="one answer for each of 1 crops, got 0"):
        region_scores(short, crops, ["a"])
    finder = RegionFinder(
        lambda path: crops[0], SimpleNamespace(detect=lambda images, tags: []), short, short, SETTINGS
    )
    with pytest.raises(ContractError, match="the detector must give one answer for each of 1 images, got 0"):
        finder([RECORD])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"names": ()}, "names must be the vocabulary"),
        ({"categories": ("rad",)}, 'category "rad" is no tag of the vocabulary.*did you mean "red"'),
        ({"categories": ()}, "categories must hold at least one tag"),
        ({"outlier_share": 1.0}, r"outlier_share must be in \[0, 1\), got 1.0"),
        ({"core_share": 0.0}, r"core_share must be in \(0, 1\], got 0.0"),
        ({"confirm_threshold": 1.5}, r"confirm_threshold must be in \[0, 1\], got 1.5"),
        ({"clusters": 0}, "clusters must be at least 1, got 0"),
        ({"missing": "burn"}, 'missing must be "keep" or "drop"'),
        ({"seed": -1}, "seed must be at least 0, got -1"),
    ],
)
def test_wrong_settings_are_refused(changes, reason):
    with pytest.raises(InputError, match=reason):
        replace(SETTINGS, **changes)
