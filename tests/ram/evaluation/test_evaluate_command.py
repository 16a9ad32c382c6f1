"""`rasa-ram evaluate` from end to end, and the papers' tables."""

import json
import os
import re
import warnings
from dataclasses import replace

import numpy as np
import PIL.Image
import pytest
from typer.testing import CliRunner

from rasa.errors import FormatError, ImageError, InputError, RasaWarning
from rasa.io.images import to_image
from rasa_ram.checkpoint import save
from rasa_ram.cli import app
from rasa_ram.evaluation.benchmark_images import BenchmarkImages
from rasa_ram.evaluation.benchmarks.benchmark import Benchmark
from rasa_ram.evaluation.benchmarks.known import BENCHMARKS
from rasa_ram.evaluation.bootstrap import Interval
from rasa_ram.evaluation.evaluation import Evaluation, read_evaluation
from rasa_ram.evaluation.harness import Measure, evaluate_scores
from rasa_ram.evaluation.metrics import mean_average_precision
from rasa_ram.evaluation.tables import _tables, compare, to_markdown
from rasa_ram.tagger import RamTagger
from tests.ram import reference
from tests.ram.evaluation.made_files import write_lines
from tests.ram.tiny import NAMES, VOCABULARY, tiny_model


def run(*arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("default", RasaWarning)  # the command shows them
        return CliRunner().invoke(app, ["evaluate", *map(str, arguments)], prog_name="rasa-ram")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """The 100 shared photos, or as many made ones where there are none."""
    shared = reference.ROOT.parent / "shared" / "photos"
    if shared.is_dir() and len(list(shared.glob("*.jpg"))) >= 100:
        return shared
    folder, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for i in range(100):
        pixels = np.kron(random.integers(0, 256, (3, 4, 3)), np.ones((20, 20, 1))).astype(np.uint8)
        PIL.Image.fromarray(pixels).save(folder / f"{i:04}.jpg")
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny-ram")
    save(tiny_model("ram"), folder, VOCABULARY)
    return folder


@pytest.fixture(scope="module")
def truth(tmp_path_factory, photos):
    """Made tags for the photos, in the format of the published text files; names without endings."""
    folder, random = tmp_path_factory.mktemp("truth"), np.random.default_rng(5)
    names = sorted(path.stem for path in photos.glob("*.jpg"))[:100]
    table = random.random((100, 4)) < 0.4
    lines = [",".join([f"test/{name}", *np.array(NAMES[:4])[row]]) for name, row in zip(names, table, strict=True)]
    return write_lines(folder / "annots.txt", *lines), write_lines(folder / "tags.txt", *NAMES[:4]), table


def test_a_tagger_on_a_hundred_photos_from_end_to_end(tmp_path, photos, model, truth):
    annotations, tags, table = truth
    out, cache = tmp_path / "result.json", tmp_path / "cache"
    arguments = ("openimages-common-214", "--annotations", annotations, "--taglist", tags, "--images", photos)
    arguments += ("--model", model, "--out", out, "--cache", cache, "--resamples", 50, "--threshold", "by-tag")
    done = run(*arguments)
    assert done.exit_code == 0, done.output
    assert "openimages-common-214 has 57224 images as published" in done.stderr
    result = read_evaluation(out)
    paths = sorted(photos.glob("*.jpg"))[:100]
    scores = RamTagger(tiny_model("ram"), VOCABULARY, batch_size=16).scores([to_image(path) for path in paths])[:, :4]
    expected = mean_average_precision(scores, table, no_positives="zero")
    assert result.published["map"] == pytest.approx(expected, rel=1e-6)
    assert (result.images, result.classes, result.skipped) == (100, 4, 0)
    assert result.intervals["map"].low < result.figures["map"] < result.intervals["map"].high
    assert f"{100 * expected:.2f}" in done.stdout
    assert done.stdout.splitlines()[-1] == str(out)
    kept = out.read_bytes()
    again = run(*arguments)  # from the cache
    assert again.exit_code == 0
    assert out.read_bytes() == kept


def test_predictions_of_something_else_give_the_same(tmp_path, photos, model, truth):
    annotations, tags, _ = truth
    images = BenchmarkImages(photos)
    names = [line.partition(",")[0] for line in annotations.read_text().splitlines()[:20]]
    found = RamTagger(tiny_model("ram"), VOCABULARY).scores([images(name) for name in names])[:, :4]
    rows = [f"{name},{tag},{score!r}" for name, row in zip(names, found.tolist(), strict=True)
            for tag, score in zip(NAMES, row, strict=False)]  # fmt: skip
    predictions = write_lines(tmp_path / "mkt.csv", "image,tag,score", *rows)
    common = ("openimages-common-214", "--annotations", annotations, "--taglist", tags, "--limit", 20)
    common = (*common, "--resamples", 0)
    results = []
    for chosen in (("--predictions", predictions), ("--images", photos, "--model", model)):
        done = run(*common, *chosen, "--out", tmp_path / "r.json", "--threshold", 0.5)
        assert done.exit_code == 0, done.output
        results.append(read_evaluation(tmp_path / "r.json"))
    assert results[0].model == "mkt"
    assert results[0].figures == pytest.approx(results[1].figures)
    assert "only the first 20 images" in results[0].notes[-1]


def test_broken_photos(tmp_path, model):
    PIL.Image.new("RGB", (40, 30), "red").save(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").write_bytes(b"no image")
    annotations = write_lines(tmp_path / "t.csv", "path,cat,dog", "a.jpg,1,0", "b.jpg,0,1", "c.jpg,0,1")
    common = ("csv", "--annotations", annotations, "--images", tmp_path, "--model", model, "--resamples", 0)
    stopped = run(*common)
    assert stopped.exit_code == 1
    assert re.search(r"^error: .*b\.jpg", stopped.stderr, re.M)
    done = run(*common, "--skip-broken")
    assert done.exit_code == 0, done.output
    assert "2 images could not be read and are left out" in done.stderr
    assert "1 classes have no positives" in done.stderr


@pytest.mark.parametrize(("arguments", "message"), [
    (("csv",), "give one benchmark, --annotations"),
    (("csv", "--annotations", "x", "--images", "."), "give --model"),
    (("csv", "--annotations", "x", "--model", "clip"), "give --images or --predictions"),
    (("csv", "--annotations", "x", "--predictions", "p", "--threshold", "high"), "a number, published or by-tag"),
])  # fmt: skip
def test_wrong_use(arguments, message, tmp_path):
    (tmp_path / "x").write_text("path,tag\na.jpg,cat\n")
    arguments = [tmp_path / "x" if argument == "x" else argument for argument in arguments]
    done = run(*arguments)
    assert done.exit_code == 2
    assert message in " ".join(done.stderr.replace("│", " ").split())


@pytest.mark.parametrize(("options", "message"), [
    (("--model", "clip", "--open-set"), "--open-set is about RAM and RAM"),
    (("--model", "lite-tagger", "--weights", "w"), "--weights is about the baselines"),
    (("--model", "lite-segmenter"), "is a segmenter; evaluate a tagger or a detector"),
    (("--model", "ram-swin-x"), 'unknown model "ram-swin-x"'),
    (("--model", "ml-decoder"), "ml-decoder has no weights to fetch"),
])  # fmt: skip
def test_models_that_do_not_fit(options, message, tmp_path):
    annotations = write_lines(tmp_path / "t.csv", "path,tag", "a.jpg,cat")
    done = run("csv", "--annotations", annotations, "--images", tmp_path, *options)
    assert done.exit_code == 1
    assert message in done.stderr


def test_without_a_name_the_benchmarks_are_listed():
    done = run()
    assert done.exit_code == 0
    assert "openimages-rare-200" in done.stdout
    assert "21991" in done.stdout


# The papers' tables


def result_of(model, benchmark, value, **settings):
    figures = {"map": value, "precision": 0.8, "recall": 0.7}
    return Evaluation(benchmark=benchmark, model=model, images=9, classes=3, skipped=settings.pop("skipped", 0),
                      published=figures, figures={"map": value}, intervals=settings.pop("intervals", {}),
                      without_positives=0, with_ties=0, notes=("by hand",))  # fmt: skip


def test_published_figures_stand_beside_measured_ones():
    measured = result_of(
        "ram-swin-l.14m", "openimages-common-214", 0.8642, intervals={"published_map": Interval(0.861, 0.868)}
    )
    own = result_of("my-tagger", "coco-80", 0.5, skipped=2)
    second, third, plus = compare([measured, own])
    assert (second.name, third.name, plus.name) == ("ram-2", "ram-3", "ram-plus-2")
    rows = {row[0]: dict(zip(second.columns, row, strict=True)) for row in second.rows}
    assert rows["RAM-14M"]["OpenImages-common"] == "86.5 | 86.4 [86.1, 86.8]"
    assert rows["RAM-14M"]["OpenImages-rare"] == "69.2 | not run"
    assert rows["Tag2Text-14M"]["OpenImages-rare"] == "x | not run"
    assert rows["ML-Decoder"]["ADE20k"] == "- | not run"
    assert rows["my-tagger"]["COCO-80"] == "- | 50.0"
    assert "my-tagger on coco-80: 2 images could not be read" in second.notes
    assert "openimages-common-214: by hand" in second.notes
    assert dict(zip(third.columns, third.rows[1], strict=True))["OpenImages-common"] == "80.3/75.7 | 80.0/70.0"
    assert "my-tagger" not in [row[0] for row in plus.rows]
    text = to_markdown(second)
    assert r"| RAM-14M | 86.9 \| not run | 86.5 \| 86.4 [86.1, 86.8] |" in text


def test_the_interval_of_a_table_is_that_of_the_figure_it_prints():
    random = np.random.default_rng(0)
    truth = random.random((400, 5)) < 0.3
    truth[:, 3:] = False  # the original counts these as 0: its figure is 3/5 of ours
    scores = np.round(random.random(truth.shape) + truth, 1)  # with many equal scores
    benchmark = Benchmark("coco-80", tuple(map(str, range(400))), tuple("abcde"), truth)
    result = evaluate_scores(scores, benchmark, described={"model": "mine"}, measure=Measure(resamples=200))
    own = dict(zip(compare([result])[0].columns, compare([result])[0].rows[-1], strict=True))["COCO-80"]
    found = re.fullmatch(r"- \| (\d+\.\d) \[(\d+\.\d), (\d+\.\d)\]", own)
    assert found, own
    figure, low, high = map(float, found.groups())
    assert low < figure < high
    assert figure == pytest.approx(100 * result.published["map"], abs=0.06)
    assert high < 100 * result.intervals["map"].low
    done = replace(result, intervals={"map": result.intervals["map"]})  # a result of before
    assert f"- | {figure}" in compare([done])[0].rows[-1]


def test_tag2texts_result_by_ids_fills_its_cell():
    measured = result_of("tag2text-swin-b.14m", "openimages-common-214-ids", 0.83)
    for table in compare([measured])[:1]:
        cells = {row[0]: dict(zip(table.columns, row, strict=True)) for row in table.rows}
        assert cells["Tag2Text-14M"]["OpenImages-common"] == "83.4 | 83.0"
    assert {known.same_as for known in BENCHMARKS.values()} <= {None, *BENCHMARKS}


def test_the_transcribed_tables_are_whole():
    for table in _tables():
        assert len(table["benchmarks"]) == len(table["columns"])
        for row in table["rows"]:
            assert len(row["cells"]) == len(table["benchmarks"])
            assert all(re.fullmatch(r"(\d\d\.\d(/\d\d\.\d)?|x|)", cell) for cell in row["cells"]), row


def test_tables_from_the_command(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")  # xdist's workers have 80, which fold a table of eight columns
    result_of("ram-plus-swin-l.14m", "hico-600", 0.3712).write(tmp_path / "a.json")
    result_of("clip-vit-b-16", "hico-600", 0.2).write(tmp_path / "b.json")
    done = run("--tables", tmp_path / "a.json", tmp_path / "b.json", "--markdown", tmp_path / "tables.md")
    assert done.exit_code == 0, done.output
    assert "37.7 | 37.1" in done.stdout
    assert "26.8 | 20.0" in done.stdout
    text = (tmp_path / "tables.md").read_text()
    assert text.count("## RAM") == 3
    assert r"37.7 \| 37.1" in text
    (tmp_path / "a.json").write_text(json.dumps([1]))
    broken = run("--tables", tmp_path / "a.json")
    assert broken.exit_code == 1
    assert "is no result of `rasa-ram evaluate`" in broken.stderr


# The folder of images


def test_images_are_found_with_or_without_ending_and_folder(tmp_path):
    (tmp_path / "test").mkdir()
    for name in ("test/a.jpg", "b.png", "c.JPEG"):
        (tmp_path / name).write_bytes(b"")
    folder = BenchmarkImages(tmp_path)
    assert [folder.path(name).name for name in ("test/a", "test/b", "c.JPEG")] == ["a.jpg", "b.png", "c.JPEG"]
    with pytest.raises(ImageError, match="has no image 'test/z'"):
        folder.path("test/z")
    with pytest.raises(FormatError, match="must be a path inside its folder"):
        folder.path(f"..{os.sep}x")
    with pytest.raises(InputError, match="is no folder of images"):
        BenchmarkImages(tmp_path / "b.png")
