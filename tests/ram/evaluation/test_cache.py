"""The cache of scores: never another model's scores, nor those of other images."""

import os
import shutil

import numpy as np
import PIL.Image
import pytest
import torch

from rasa.io.images import to_image
from rasa_ram import load_tagger
from rasa_ram.checkpoint import save
from rasa_ram.evaluation.benchmark_images import BenchmarkImages
from rasa_ram.evaluation.benchmarks.benchmark import Benchmark
from rasa_ram.evaluation.evaluation import read_evaluation
from rasa_ram.evaluation.harness import Run, score_images
from rasa_ram.evaluation.predictors.taggers import RamPredictor
from tests.ram.evaluation.made_files import write_lines
from tests.ram.evaluation.test_evaluate_command import run
from tests.ram.tiny import NAMES, VOCABULARY, tiny_model

COUNT = 12


def other_model():
    model = tiny_model("ram")
    with torch.random.fork_rng():
        torch.manual_seed(9)
        model.fc.weight.data += torch.randn_like(model.fc.weight)
    return model


def write_photos(folder, seed):
    folder.mkdir(exist_ok=True)
    random = np.random.default_rng(seed)
    for i in range(COUNT):
        pixels = np.kron(random.integers(0, 256, (3, 4, 3)), np.ones((20, 20, 1))).astype(np.uint8)
        PIL.Image.fromarray(pixels).save(folder / f"{i}.bmp")  # all of one size
    return folder


@pytest.fixture
def photos(tmp_path):
    return write_photos(tmp_path / "photos", 0)


@pytest.fixture
def evaluated(tmp_path):
    """Average precisions of a model on a folder by the command, with the cache or without."""
    table = np.random.default_rng(5).random((COUNT, 4)) < 0.4
    rows = [f"{i}.bmp,{','.join(map(str, row.astype(int)))}" for i, row in enumerate(table)]
    annotations = write_lines(tmp_path / "truth.csv", ",".join(["path", *NAMES[:4]]), *rows)

    def evaluate(model, images, *, cached=True):
        cache, out = ("--cache", tmp_path / "cache") if cached else (), tmp_path / "result.json"
        done = run("csv", "--annotations", annotations, "--images", images, "--model", model, "--out", out,
                   "--resamples", 0, *cache)  # fmt: skip
        assert done.exit_code == 0, done.output
        return [tag.average_precision for tag in read_evaluation(out).tags]

    return evaluate


# The model


def test_two_folders_of_one_name_with_other_weights_have_their_own_scores(tmp_path, photos, evaluated):
    one, other = tmp_path / "a" / "model", tmp_path / "b" / "model"
    save(tiny_model("ram"), one, VOCABULARY)
    save(other_model(), other, VOCABULARY)
    first = evaluated(one, photos)
    assert evaluated(other, photos) == evaluated(other, photos, cached=False) != first


def test_a_folder_that_was_trained_on_is_scored_anew(tmp_path, photos, evaluated):
    save(tiny_model("ram"), tmp_path / "model", VOCABULARY)
    first = evaluated(tmp_path / "model", photos)
    shutil.rmtree(tmp_path / "model")
    save(other_model(), tmp_path / "model", VOCABULARY)
    assert evaluated(tmp_path / "model", photos) == evaluated(tmp_path / "model", photos, cached=False) != first


def test_a_tagger_tells_the_weights_that_it_has_and_not_those_of_its_file(tmp_path):
    save(tiny_model("ram"), tmp_path / "model", VOCABULARY)
    tagger = load_tagger(tmp_path / "model")
    shutil.rmtree(tmp_path / "model")
    save(other_model(), tmp_path / "model", VOCABULARY)
    kept, anew = tagger.describe(), load_tagger(tmp_path / "model").describe()
    assert kept["weights"] != anew["weights"]
    assert {**kept, "weights": anew["weights"]} == anew
    save(tiny_model("ram"), tmp_path / "again" / "model", VOCABULARY)
    assert load_tagger(tmp_path / "again" / "model").describe() == kept
    assert tagger.with_tags(["cat"]).describe()["weights"] == kept["weights"]


# The images


@pytest.fixture
def model(tmp_path):
    save(tiny_model("ram"), tmp_path / "model", VOCABULARY)
    return tmp_path / "model"


def test_another_folder_of_images_is_scored_anew(tmp_path, photos, model, evaluated):
    first = evaluated(model, photos)
    others = write_photos(tmp_path / "others", 1)
    second = evaluated(model, others)
    assert second == evaluated(model, others, cached=False) != first
    link = tmp_path / "link"
    for folder, figures in ((photos, first), (others, second)):
        link.symlink_to(folder)
        assert evaluated(model, link) == figures
        link.unlink()


def test_images_that_changed_in_their_folder_are_scored_anew(photos, model, evaluated):
    first = evaluated(model, photos)
    write_photos(photos, 1)
    assert evaluated(model, photos) == evaluated(model, photos, cached=False) != first


class Counting:
    """A predictor that notes which images it was asked for."""

    def __init__(self, model):
        names = tuple(f"{i}.bmp" for i in range(COUNT))
        self.benchmark = Benchmark("b", names, NAMES[:4], np.zeros((COUNT, 4), bool))
        self._own, self.asked = RamPredictor(load_tagger(model), self.benchmark, name="tiny"), []
        self.thresholds = self._own.thresholds

    def scores(self, images):
        self.asked += images
        return self._own.scores(images)

    def describe(self):
        return self._own.describe()


def test_only_the_part_with_the_changed_image_is_scored_anew(tmp_path, photos, model):
    predictor, images = Counting(model), BenchmarkImages(photos)
    options = {"images": images, "cache": tmp_path / "cache", "run": Run(2, chunk=4)}
    before = score_images(predictor, predictor.benchmark, **options).copy()
    assert len(predictor.asked) == COUNT
    written = (photos / "5.bmp").stat()
    shutil.copy(photos / "0.bmp", photos / "5.bmp")
    os.utime(photos / "5.bmp", ns=(written.st_atime_ns, written.st_mtime_ns))  # as a copy that keeps the time
    after = score_images(predictor, predictor.benchmark, **options)
    assert len(predictor.asked) == COUNT + 4
    np.testing.assert_allclose(after[5], before[0], atol=1e-5)
    np.testing.assert_array_equal(np.delete(after, range(4, 8), 0), np.delete(before, range(4, 8), 0))
    score_images(predictor, predictor.benchmark, **options)
    assert len(predictor.asked) == COUNT + 4


def test_an_image_that_is_there_later_costs_its_part_alone(tmp_path, photos, model):
    predictor = Counting(model)
    options = {"images": BenchmarkImages(photos), "cache": tmp_path / "cache", "run": Run(2, True, chunk=4)}
    (photos / "9.bmp").rename(tmp_path / "9.bmp")
    assert np.isnan(score_images(predictor, predictor.benchmark, **options)[9]).all()
    (tmp_path / "9.bmp").rename(photos / "9.bmp")
    whole = score_images(predictor, predictor.benchmark, **options)
    assert len(predictor.asked) == COUNT - 1 + 4
    expected = RamPredictor(load_tagger(model), predictor.benchmark, name="tiny").scores([to_image(photos / "9.bmp")])
    np.testing.assert_allclose(whole[[9]], expected, atol=1e-5)
