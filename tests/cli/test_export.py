"""`rasa export`, `rasa formats` and `rasa check`."""

import json

import pytest

import rasa as library
from rasa.formats import FORMATS
from rasa.labelling.dataset import open_dataset


@pytest.fixture(scope="module")
def shared():
    """What the first test labels, for all tests; a check adds runs and changes none."""
    return {}


@pytest.fixture
def dataset(shared, preset, photo, tmp_path):
    """Six photos with the boxes of cat, dog and red car side by side."""
    if not shared:
        for index in range(6):
            photo(tmp_path / "photos" / f"{index}.png", width=40 + index)
        shared["run"] = library.label([tmp_path / "photos"], tmp_path / "dataset", preset=preset, tag_threshold=0.1)
    return shared["run"]


def labels(folder, name="coco"):
    return {label for sample in FORMATS[name].read(folder / name) for label in sample.result.instances.labels}


def test_formats_are_written_and_what_is_lost_is_printed(rasa, dataset, tmp_path):
    done = rasa(
        "export",
        dataset.folder,
        "--run",
        dataset.fingerprint,
        "--to",
        "coco",
        "--to",
        "yolo",
        "--out",
        tmp_path / "out",
    )
    assert done.exit_code == 0, done.output
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "coco",
        "coco.export.json",
        "yolo-segment",
        "yolo-segment.export.json",
    }
    (row,) = [line for line in done.stdout.splitlines() if line.startswith(" yolo-segment")]
    assert row.split()[:4] == ["yolo-segment", "6", "18", "1.0000"]
    assert "18 scores of objects" in done.stdout
    assert "18 tags of images" in done.stdout
    assert labels(tmp_path / "out") == {"cat", "dog", "red car"}
    assert dataset.fingerprint in done.stderr


def test_options_reach_the_export(rasa, dataset, tmp_path):
    ontology = tmp_path / "classes.toml"
    ontology.write_text('[classes]\ndog = "animal"\n')
    options = ("--split", "0.5,0.25,0.25", "--seed", 1, "--stratify", "--ontology", ontology, "--drop", "red car")
    filters = ("--min-score", 0.1, "--min-area", 2, "--min-tag-score", 0.6, "--min-mask-score", 0.1, "--kind", "object")
    merging = ("--merge-same", 0.5, "--merge-others", 0.9)
    done = rasa(
        "export",
        dataset.folder,
        "--run",
        dataset.fingerprint,
        "--to",
        "coco",
        "--out",
        tmp_path / "out",
        *options,
        *filters,
        *merging,
    )
    assert done.exit_code == 0, done.output
    account = json.loads((tmp_path / "out" / "coco.export.json").read_text())
    assert account["split"] == {"val": 0.25, "test": 0.25, "seed": 1, "stratify": True}
    assert account["changes"] == [
        {"step": "keep", "min_score": 0.1, "min_mask_score": 0.1, "min_area": 2.0, "min_tag_score": 0.6,
         "kinds": ["object"], "drop": ["red car"]},
        {"step": "merge", "same_iou": 0.5, "other_iou": 0.9, "classes": {"dog": "animal"}},
    ]  # fmt: skip
    assert account["classes"] == ["animal", "cat", "red car"]
    assert labels(tmp_path / "out") == {"animal", "cat"}


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--split", "0.8,0.2"), 2, "--split must be three shares"),
        (("--split", "0.8,0.2,0.2"), 2, "1 together"),
        (("--split", "nan,0,0"), 2, "1 together"),
        (("--stratify",), 2, "give it too"),
        (("--to", "cooc"), 1, 'did you mean "coco"'),
        (("--kind", "thing"), 1, "kinds must be of"),
        (("--run", "xyz"), 1, "no run 'xyz'"),
        (("--ontology", "none.toml"), 1, "none.toml"),
    ],
)
def test_wrong_options_are_refused(rasa, dataset, tmp_path, options, code, message):
    done = rasa(
        "export", dataset.folder, "--run", dataset.fingerprint, "--to", "coco", "--out", tmp_path / "out", *options
    )
    assert (done.exit_code, message in done.output) == (code, True), done.output
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_no_dataset_is_refused(rasa, tmp_path):
    done = rasa("export", tmp_path, "--to", "coco", "--out", tmp_path / "out")
    assert done.exit_code == 1
    assert "no labelled dataset" in done.output


def test_formats_are_listed(rasa):
    done = rasa("formats")
    assert done.exit_code == 0
    assert all(name in done.stdout for name in FORMATS)
    entries = json.loads(rasa("formats", "--json").stdout)
    assert [entry["name"] for entry in entries] == list(FORMATS)
    assert entries[0]["masks"] == "exact"


def test_boxes_that_the_tagger_denies_are_dropped(rasa, dataset, preset):
    # The fake tagger naps on pictures 17 px wide; with these surroundings no cut-out is.
    options = ("--preset", preset, "--tag-threshold", 0.6, "--surroundings", 0.5)
    done = rasa("check", dataset.folder, *options, "--run", dataset.fingerprint)
    assert done.exit_code == 0, done.output
    # The fake tagger names cat and dog on every picture, and the red car below the threshold.
    assert "18 objects: the tagger names 12 as labelled, 6 of them first; 0 dropped" in done.stderr
    kept = open_dataset(dataset.folder, run=done.stdout.strip())
    assert kept.run.parent == dataset.fingerprint
    done = rasa("check", dataset.folder, *options, "--run", dataset.fingerprint, "--min-agreement", 0.4)
    assert done.exit_code == 0, done.output
    assert "6 dropped" in done.stderr
    assert {label for image in open_dataset(dataset.folder).rows() for label in image.result.instances.labels} == {
        "cat",
        "dog",
    }


def test_labels_of_one_class_confirm_each_other(rasa, dataset, preset, tmp_path):
    ontology = tmp_path / "classes.toml"
    options = ("--tag-threshold", 0.6, "--surroundings", 0.5, "--run", dataset.fingerprint)
    ontology.write_text('[classes]\n"red car" = "thing"\ndog = "thing"\n')
    done = rasa("check", dataset.folder, "--preset", preset, "--ontology", ontology, *options)
    assert done.exit_code == 0, done.output
    assert "names 18 as labelled, 6 of them first" in done.stderr


def test_a_preset_without_a_tagger_cannot_check(rasa, dataset, tmp_path):
    path = tmp_path / "boxes.toml"
    path.write_text('detector = "cli-detector"\n')
    done = rasa("check", dataset.folder, "--preset", path)
    assert done.exit_code == 1
    assert "has no tagger" in done.output
