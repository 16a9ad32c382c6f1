"""The harness: the original's figures through it, ties, classes without positives, broken images, kill and resume."""

import json
import signal
import subprocess
import sys

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, precision_recall_fscore_support

from rasa.errors import ContractError, FormatError, ImageError, InputError
from rasa.types import Image
from rasa_ram.evaluation.benchmarks.benchmark import Benchmark
from rasa_ram.evaluation.evaluation import read_evaluation
from rasa_ram.evaluation.harness import Measure, Predictor, Run, evaluate, evaluate_scores, score_images
from rasa_ram.evaluation.metrics import tag_matrix
from rasa_ram.evaluation.score_store import ScoreStore
from tests.ram import reference

TOLD = {"model": "made"}
QUICK = Measure(resamples=0)


def made(images=50, classes=4, seed=0):
    random = np.random.default_rng(seed)
    truth = random.random((images, classes)) < 0.3
    benchmark = Benchmark("made", tuple(f"{i}.jpg" for i in range(images)), tuple("abcdefgh"[:classes]), truth)
    return benchmark, (random.random(truth.shape) + truth).astype(np.float32) / 2


class Looked:
    """Scores by the number that the image's first pixel holds; counts its batches."""

    def __init__(self, table, thresholds=None):
        self.table, self.thresholds, self.batches = table, thresholds, []

    def scores(self, images):
        rows = [int.from_bytes(image.pixels[0, 0, :2].tobytes(), "little") for image in images]
        self.batches.append(rows)
        return self.table[rows]

    def describe(self):
        return {"model": "looked", "seed": 3}


def numbered(name):
    number = int(name.removesuffix(".jpg"))
    return Image(np.array([[[number % 256, number // 256, 0]]], np.uint8), name)


# The original's figures


@pytest.fixture(scope="module")
def cases():
    path = reference.reference_folder() / "golden_metrics.json"
    return json.loads(path.read_text(encoding="utf-8"))


def test_the_originals_map_comes_out(cases):
    scored = [case for case in cases if "mAP" in case and not any(case["AP_depends_on_tie_order"])]
    assert scored
    for case in scored:
        truth = tag_matrix([line.split(",")[1:] for line in case["annotation_lines"]], case["taglist"])
        names = tuple(f"{i}" for i in range(len(truth)))
        scores = np.array(case["scores"])
        if len(np.unique(scores.astype(np.float32))) < len(np.unique(scores)):
            continue  # float32 would make ties
        result = evaluate_scores(scores, Benchmark("golden", names, tuple(case["taglist"]), truth), described=TOLD,
                                 measure=QUICK)  # fmt: skip
        assert result.published["map"] == pytest.approx(case["mAP"], rel=1e-12), case["name"]


def test_the_originals_precision_and_recall_come_out(cases):
    predicted = [case for case in cases if "mean_precision" in case]
    assert predicted
    for case in predicted:
        truth, given = (
            tag_matrix([line.split(",")[1:] for line in case[key]], case["taglist"])
            for key in ("annotation_lines", "prediction_lines")
        )
        names = tuple(f"{i}" for i in range(len(truth)))
        result = evaluate_scores(given.astype(np.float32), Benchmark("golden", names, tuple(case["taglist"]), truth),
                                 described=TOLD, measure=Measure(0.5, resamples=0))  # fmt: skip
        assert result.published["precision"] == pytest.approx(case["mean_precision"], rel=1e-12), case["name"]
        assert result.published["recall"] == pytest.approx(case["mean_recall"], rel=1e-12), case["name"]


# Ours, against scikit-learn


def test_figures_are_scikit_learns_with_ties_and_all():
    benchmark, scores = made(200, 6)
    scores = np.round(scores, 1)
    result = evaluate_scores(scores, benchmark, described=TOLD, measure=Measure(0.5, resamples=0))
    expected = [average_precision_score(benchmark.truth[:, i], scores[:, i]) for i in range(6)]
    np.testing.assert_allclose([tag.average_precision for tag in result.tags], expected, rtol=1e-6)
    assert result.figures["map"] == pytest.approx(np.mean(expected))
    assert result.figures["micro_ap"] == pytest.approx(
        average_precision_score(benchmark.truth, scores, average="micro")
    )
    for average, kind in (("macro", "class"), ("micro", "overall")):
        p, r, _, _ = precision_recall_fscore_support(benchmark.truth, scores >= 0.5, average=average)
        assert result.figures[f"{kind}_precision"] == pytest.approx(p)
        assert result.figures[f"{kind}_recall"] == pytest.approx(r)
    assert result.with_ties == 6
    assert result.figures["map_lowest"] < result.published["map"] < result.figures["map_highest"]


def test_without_ties_all_orders_agree():
    benchmark, scores = made()
    result = evaluate_scores(scores, benchmark, described=TOLD, measure=QUICK)
    assert result.with_ties == 0
    assert result.figures["map"] == result.figures["map_lowest"] == result.figures["map_highest"]
    assert result.published["map"] == pytest.approx(result.figures["map"], rel=1e-12)


def test_a_constant_predictor_cannot_gain_by_the_order_of_the_images():
    truth = np.zeros((10, 1), bool)
    truth[-1] = True  # the published order puts the last image first
    benchmark = Benchmark("b", tuple(map(str, range(10))), ("x",), truth)
    result = evaluate_scores(np.zeros((10, 1)), benchmark, described=TOLD, measure=QUICK)
    assert result.published["map"] == pytest.approx(1)
    assert result.figures["map"] == pytest.approx(0.1)


def test_classes_without_positives_count_0_only_in_the_originals_means():
    benchmark, scores = made()
    truth = benchmark.truth.copy()
    truth[:, 1] = False
    poor = Benchmark("poor", benchmark.images, benchmark.classes, truth)
    result = evaluate_scores(scores, poor, described=TOLD, measure=Measure(0.5, resamples=20))
    rest = evaluate_scores(np.delete(scores, 1, 1), poor.take_classes([0, 2, 3], name="rest", note=""), described=TOLD,
                           measure=Measure(0.5, resamples=20))  # fmt: skip
    assert result.without_positives == 1
    assert np.isnan(result.tags[1].average_precision)
    for name in ("map", "class_precision", "class_recall"):
        assert result.figures[name] == pytest.approx(rest.figures[name])
    assert result.published["map"] == pytest.approx(rest.published["map"] * 3 / 4)
    assert result.published["precision"] == pytest.approx(rest.published["precision"] * 3 / 4)
    assert result.intervals["map"] == rest.intervals["map"]


def test_thresholds_by_class_and_what_goes_first():
    benchmark, scores = made()
    limits = [0.2, 0.4, 0.6, 0.8]
    by_class = evaluate_scores(scores, benchmark, described=TOLD, measure=Measure(limits, resamples=0), thresholds=0.1)
    assert [tag.threshold for tag in by_class.tags] == limits
    assert by_class.tags[3].recall == pytest.approx((scores[benchmark.truth[:, 3], 3] >= np.float32(0.8)).mean())
    own = evaluate(Looked(scores, np.full(4, 0.5, np.float32)), benchmark, images=numbered, measure=QUICK)
    assert [tag.threshold for tag in own.tags] == [0.5] * 4
    assert "class_precision" not in evaluate_scores(scores, benchmark, described=TOLD, measure=QUICK).figures


# Running


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_batches_and_chunks_change_nothing(batch_size):
    benchmark, scores = made()
    done = []
    predictor = Looked(scores)
    assert isinstance(predictor, Predictor)
    found = score_images(predictor, benchmark, images=numbered, run=Run(batch_size, chunk=20, progress=done.append))
    np.testing.assert_array_equal(found, scores)
    assert sum(done) == 50
    assert max(map(len, predictor.batches)) <= min(batch_size, 20)


def broken(name):
    if name in {"3.jpg", "40.jpg"}:
        raise ImageError(f"{name} is broken")
    return numbered(name)


def test_broken_images_stop_the_run_or_are_left_out_and_counted(tmp_path):
    benchmark, scores = made()
    with pytest.raises(ImageError, match="is broken"):
        evaluate(Looked(scores), benchmark, images=broken, run=Run(8))
    run = Run(8, skip_broken=True, chunk=16)
    result = evaluate(Looked(scores), benchmark, images=broken, run=run, measure=QUICK, cache=tmp_path)
    kept = [i for i in range(50) if i not in {3, 40}]
    expected = evaluate_scores(scores[kept], benchmark.take_images(kept, note=""), described=TOLD, measure=QUICK)
    assert (result.skipped, result.images) == (2, 48)
    assert result.figures == expected.figures
    # Images that are there later are scored then.
    again = Looked(scores)
    whole = evaluate(again, benchmark, images=numbered, run=run, measure=QUICK, cache=tmp_path)
    assert whole.skipped == 0
    assert sorted(row for batch in again.batches for row in batch) == [*range(16), *range(32, 48)]


def test_no_images_at_all():
    benchmark, scores = made()

    def missing(name):
        raise ImageError(name)

    with pytest.raises(InputError, match="no image of made has scores"):
        evaluate(Looked(scores), benchmark, images=missing, run=Run(skip_broken=True))


def test_predictors_that_break_their_promise():
    benchmark, scores = made()
    with pytest.raises(ContractError, match=r"one row per image and one column per class, \(16, 4\), got \(16, 3\)"):
        evaluate(Looked(scores[:, :3]), benchmark, images=numbered)
    scores[17, 2] = np.nan
    with pytest.raises(ContractError, match=r"no number on '17\.jpg'"):
        evaluate(Looked(scores), benchmark, images=numbered)


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from rasa.types import Image
from rasa_ram.evaluation.benchmarks.benchmark import Benchmark
from rasa_ram.evaluation.harness import Run, score_images
scores = np.load(sys.argv[1])
class Dies:
    thresholds = None
    def scores(self, images):
        if any(image.name == "33.jpg" for image in images):
            os.kill(os.getpid(), signal.SIGKILL)
        return scores[[int(image.name[:-4]) for image in images]]
    def describe(self):
        return {"model": "looked", "seed": 3}
names = tuple(f"{i}.jpg" for i in range(50))
benchmark = Benchmark("made", names, tuple("abcd"), np.zeros((50, 4), bool))
load = lambda name: Image(np.zeros((1, 1, 3), np.uint8), name)
score_images(Dies(), benchmark, images=load, cache=Path(sys.argv[2]), run=Run(4, chunk=8))
"""


def test_a_killed_run_goes_on_where_it_stopped(tmp_path):
    benchmark, scores = made()
    np.save(tmp_path / "scores.npy", scores)
    command = [sys.executable, "-c", KILLED, str(tmp_path / "scores.npy"), str(tmp_path / "cache")]
    assert subprocess.run(command, check=False, timeout=120).returncode == -signal.SIGKILL
    [folder] = (tmp_path / "cache").iterdir()
    with (folder / "done.txt").open("a") as file:
        file.write("5 12")  # as if the kill had torn the journal too
    predictor, done = Looked(scores), []
    run = Run(4, chunk=8, progress=done.append)
    found = score_images(predictor, benchmark, images=numbered, cache=tmp_path / "cache", run=run)
    np.testing.assert_array_equal(found, scores)
    assert [row for batch in predictor.batches for row in batch] == list(range(32, 50))
    assert done[0] == 32
    again = Looked(scores)
    score_images(again, benchmark, images=numbered, cache=tmp_path / "cache", run=run)
    assert again.batches == []


def test_damage_on_the_disk_is_noticed_and_computed_again(tmp_path):
    benchmark, scores = made()
    score_images(Looked(scores), benchmark, images=numbered, cache=tmp_path, run=Run(chunk=8))
    [folder] = tmp_path.iterdir()
    data = bytearray((folder / "scores.f32").read_bytes())
    data[9 * 16] ^= 1  # image 9
    (folder / "scores.f32").write_bytes(data)
    predictor = Looked(scores)
    found = score_images(predictor, benchmark, images=numbered, cache=tmp_path, run=Run(chunk=8))
    np.testing.assert_array_equal(found, scores)
    assert predictor.batches == [list(range(8, 16))]
    (folder / "scores.f32").write_bytes(data[:-1])
    with pytest.raises(FormatError, match="must have 800 bytes"):
        score_images(predictor, benchmark, images=numbered, cache=tmp_path, run=Run(chunk=8))


def test_another_predictor_has_a_folder_of_its_own(tmp_path):
    benchmark, _ = made()
    one, other = (ScoreStore(tmp_path, benchmark, description={"seed": seed}) for seed in (1, 2))
    assert one.folder != other.folder
    assert ScoreStore(tmp_path, benchmark.take_images(range(9), note=""), description={"seed": 1}).folder != one.folder


def test_a_result_survives_its_file(tmp_path):
    benchmark, scores = made()
    truth = benchmark.truth.copy()
    truth[:, 0] = False
    result = evaluate_scores(scores, Benchmark("poor", benchmark.images, benchmark.classes, truth, notes=("a note",)),
                             described=TOLD, measure=Measure(0.5, resamples=10))  # fmt: skip
    result.write(tmp_path / "new" / "result.json")
    again = read_evaluation(tmp_path / "new" / "result.json")
    assert repr(again) == repr(result)
    assert "NaN" not in (tmp_path / "new" / "result.json").read_text()


@pytest.mark.parametrize(("change", "message"), [
    (lambda c: c.pop("schema"), "the schema is not"),
    (lambda c: c.pop("figures"), "fields figures are missing or unknown"),
    (lambda c: c.update(tags=[{"name": "x"}]), "is no result"),
    (lambda c: c.update(figures=[1]), "is no result"),
])  # fmt: skip
def test_broken_results(tmp_path, change, message):
    benchmark, scores = made()
    path = tmp_path / "result.json"
    evaluate_scores(scores, benchmark, described=TOLD, measure=QUICK).write(path)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(FormatError, match=message):
        read_evaluation(path)
    path.write_text("[")
    with pytest.raises(FormatError, match="is no result"):
        read_evaluation(path)
