"""Toy scenes as training data: records, spoilt tags, the detector with faults, and the folder that trains."""

import numpy as np
import pytest

from rasa.errors import InputError
from rasa.protocols import Detector
from rasa.types import Image
from rasa_ram.checkpoint import load
from rasa_ram.data.loader import CaptionTexts, LoaderSettings, TrainingLoader, Views
from rasa_ram.data.manifest import read_records
from rasa_ram.data.samples import BatchSource
from rasa_ram.images import ImageFolder
from rasa_ram.toy.data import DrawnImages, image_path, scene_of, spoil_tags, tag_ids, toy_records, truth_of
from rasa_ram.toy.detector import ToyDetector
from rasa_ram.toy.folder import write_new_photos, write_toy_folder
from rasa_ram.toy.wordpieces import toy_tokenizer, toy_wordpieces
from rasa_ram.toy.words import full_vocabulary, new_tags, toy_vocabulary
from rasa_ram.training.config import load_recipe
from rasa_ram.training.run import prepare
from rasa_ram.vocabulary_files import read_vocabulary
from tests.ram.hash_encoder import HashEncoder


@pytest.fixture(scope="module")
def records():
    return toy_records(toy_vocabulary(), 60, seed=1)


def test_what_captions_say_is_the_truth(records):
    truth = truth_of([record.image_path for record in records], toy_vocabulary().names)
    for record, row in zip(records, truth, strict=True):
        assert set(record.known_ids) == set(np.flatnonzero(row))
        assert len(record.captions) == len(record.parsed_ids) == 3


def test_a_synonym_is_true_where_its_tag_is():
    paths = [image_path(index, seed=1, split="all") for index in range(40)]
    truth = truth_of(paths, ["crimson", "red", "disc", "circle"])
    np.testing.assert_array_equal(truth[:, 0], truth[:, 1])
    np.testing.assert_array_equal(truth[:, 2], truth[:, 3])
    assert truth[:, 1].any()


def test_held_out_pairs_come_with_the_full_vocabulary_alone():
    held_out = set(range(len(toy_vocabulary()), len(full_vocabulary())))
    known = {tag for record in toy_records(full_vocabulary(), 60, seed=2, split="all") for tag in record.known_ids}
    assert known & held_out
    assert tag_ids(full_vocabulary().names[-1:], toy_vocabulary()) == ()


def test_scenes_of_new_tags_take_turns():
    for index in range(30):
        assert new_tags()[index] in scene_of(image_path(index, seed=1, split="new")).tags


def test_spoilt_tags_lose_and_gain_the_shares_asked_for(records):
    many = toy_records(toy_vocabulary(), 120, seed=3)
    spoilt = spoil_tags(many, num_tags=225, deleted=0.35, wrong=0.15)
    true = sum(len(record.known_ids) for record in many)
    pairs = list(zip(many, spoilt, strict=True))
    kept = sum(len(set(one.known_ids) & set(other.known_ids)) for one, other in pairs)
    added = sum(len(set(other.known_ids) - set(one.known_ids)) for one, other in pairs)
    assert kept / true == pytest.approx(0.65, abs=0.05)
    assert added / true == pytest.approx(0.15, abs=0.03)
    assert all(other.captions == one.captions and other.image_path == one.image_path for one, other in pairs)
    assert spoil_tags(many, num_tags=225) == spoilt
    assert spoil_tags(many, num_tags=225, seed=1) != spoilt
    untouched = spoil_tags(records, num_tags=225, deleted=0, wrong=0)
    assert [record.known_ids for record in untouched] == [record.known_ids for record in records]
    with pytest.raises(InputError, match=r"deleted must be in \[0, 1\] and wrong at least 0, got 1.5"):
        spoil_tags(records, num_tags=225, deleted=1.5)


def test_drawn_images_feed_the_training_loader(records):
    settings = LoaderSettings(batch_size=8, num_tags=225, views=Views(size=64, augment=False), order="sequential")
    texts = CaptionTexts(tokenizer=toy_tokenizer(), tag_names=toy_vocabulary().names)
    images = DrawnImages()
    loader = TrainingLoader(records, images, settings=settings, captions=texts)
    assert isinstance(loader, BatchSource)
    samples = next(iter(loader.batches(0)))
    assert samples.pixels.shape == (8, 3, 64, 64)
    truth = truth_of(samples.image_paths, toy_vocabulary().names)
    np.testing.assert_array_equal(samples.targets.numpy() == 1, truth)
    unknown = toy_wordpieces().index("[UNK]")
    assert not (samples.captions.caption_ids == unknown).any()
    assert not (samples.captions.tag_ids == unknown).any()
    assert images.pixels(samples.image_paths[0]) is images.pixels(samples.image_paths[0])


def test_a_name_that_is_none_is_refused():
    for path in ("photo.jpg", "seen-1.png", "seen-x-000001.png", "other-1-000001.png"):
        with pytest.raises(InputError, match="names no toy scene"):
            scene_of(path)


# The detector


def scenes(count):
    paths = [image_path(index, seed=4, split="seen") for index in range(count)]
    return [Image(scene_of(path).pixels, path) for path in paths], [scene_of(path) for path in paths]


def test_a_detector_without_faults_gives_the_true_boxes():
    images, truth = scenes(20)
    detector = ToyDetector(missed=0, invented=0, margin=0, jitter=0)
    assert isinstance(detector, Detector)
    found = detector.detect(images, [["circle", "red", "meadow", *scene.things[0].tags] for scene in truth])
    for instances, scene in zip(found, truth, strict=True):
        wanted = [
            (tag, tuple(box))
            for tag in ("circle", "red", *scene.things[0].tags)
            for thing, box in zip(scene.things, scene.boxes.tolist(), strict=True)
            if tag in thing.tags
        ]
        assert list(zip(instances.labels, map(tuple, instances.boxes.tolist()), strict=True)) == wanted


def test_the_detectors_faults_come_as_often_as_stated():
    images, truth = scenes(120)
    found = ToyDetector(missed=0.2, invented=0.5).detect(images, [["fish", scene.things[0].shape] for scene in truth])
    invented = sum("fish" in instances.labels for instances in found)
    hit = sum(scene.things[0].shape in instances.labels for instances, scene in zip(found, truth, strict=True))
    assert invented / 120 == pytest.approx(0.5, abs=0.13)
    assert 0.7 < hit / 120 < 0.95
    again = ToyDetector(missed=0.2, invented=0.5).detect(images[:5], [["fish"]] * 5)
    assert [one.labels.count("fish") for one in again] == [one.labels.count("fish") for one in found[:5]]


# The folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("toy") / "data"
    with pytest.MonkeyPatch.context() as patch:  # label vectors of no meaning do not belong in the user's cache
        patch.setenv("RASA_CACHE", str(place.parent / "cache"))
        write_toy_folder(place, HashEncoder(384), scenes=48, held_out=20)
    return place


def test_the_folder_holds_the_scenes_that_its_manifests_name(folder):
    images = ImageFolder(folder / "images")
    for name, size in (("train", 48), ("held-out", 20)):
        read = list(read_records(folder / f"{name}.json", vocabulary_size=249))
        assert len(read) == size
        for record in read[:5]:
            np.testing.assert_array_equal(images(record.image_path).pixels, scene_of(record.image_path).pixels)
    assert read_vocabulary(folder / "vocabulary.json").names == toy_vocabulary().names


def test_its_recipe_begins_with_its_weights_and_trains(folder, tmp_path):
    config = load_recipe(folder / "recipe.toml", ["run.epochs=1", "schedule.warmup_steps=2"])
    training = prepare(config, out=tmp_path / "run")
    assert training.start.fresh == ()
    report = training.run()
    assert report.steps == 1
    assert load(tmp_path / "run").config == training.start.model.config


def test_each_new_tag_has_its_photos(tmp_path):
    photos = write_new_photos(tmp_path / "photos", per_tag=2)
    assert len(photos) == 60
    for tag in new_tags():
        assert sum(tag in photo.tags for photo in photos) >= 2
    assert {tag for photo in photos for tag in photo.tags} == set(new_tags())
    read = ImageFolder(tmp_path / "photos")(photos[7].path)
    np.testing.assert_array_equal(read.pixels, scene_of(photos[7].path).pixels)


def test_the_recipe_has_the_sizes_of_the_toy_model():
    from rasa_ram.toy.model import toy_config
    from rasa_ram.toy.runs import ToyRun
    from rasa_ram.training.initialise import model_sizes

    config = load_recipe("toy")
    assert model_sizes(config.model, 225) == toy_config(225)
    assert config.schedule.build(config.run.epochs) == ToyRun().schedule
    assert (config.run.epochs, config.data.batch_size) == (ToyRun().epochs, ToyRun().batch_size)
