"""``rasa label`` on fake models, in this process and as one of its own."""

import json

import pytest

from rasa.labelling.dataset import open_dataset


@pytest.fixture
def folder(tmp_path, photo):
    for number in range(5):
        photo(tmp_path / "photos" / f"{number}.png", width=40 + number)
    return tmp_path / "photos"


def test_a_preset_labels_a_folder(rasa, preset, folder, tmp_path):
    done = rasa("label", folder, "--out", tmp_path / "out", "--preset", preset, "--shard-size", 2)
    assert (done.exit_code, done.stdout) == (0, ""), done.stderr
    dataset = open_dataset(tmp_path / "out")
    assert (dataset.counts.ok, dataset.counts.failed) == (5, 0)
    assert dataset.config["tagger"] == "cli-tagger"
    assert dataset.run.provenance["preset"] == str(preset)
    assert "5 of 5 photos are labelled; " in done.stderr
    assert f"run {dataset.fingerprint} in {tmp_path / 'out'}" in done.stderr


def test_a_second_run_says_that_it_continues_and_another_threshold_that_it_does_not(rasa, preset, folder, tmp_path):
    arguments = ["label", folder, "--out", tmp_path / "out", "--preset", preset]
    rasa(*arguments)
    first = open_dataset(tmp_path / "out").fingerprint
    again = rasa(*arguments)
    assert "continuing: 5 photos are labelled already, 0 are left" in again.stderr
    other = rasa(*arguments, "--tag-threshold", 0.8)
    assert f"labelling 5 photos anew; the labels of earlier runs are kept: {first}" in other.stderr
    dataset = open_dataset(tmp_path / "out")
    assert dataset.fingerprint != first
    assert [image.result.tags.names for image in dataset.rows()] == [("cat",)] * 5
    assert [image.result.tags.names for image in open_dataset(tmp_path / "out", run=first).rows()] == [
        ("cat", "dog")
    ] * 5
    run = json.loads((tmp_path / "out" / "run.json").read_text(encoding="utf-8"))
    assert run["runs"][dataset.fingerprint]["provenance"]["config"]["tag_threshold"] == 0.8


def test_a_failed_photo_is_named_and_only_strict_minds(rasa, preset, folder, tmp_path, photo):
    photo(folder / "unlucky.png", width=13)
    (folder / "page.jpg").write_text("<html></html>", encoding="utf-8")
    arguments = ["label", folder, "--out", tmp_path / "out", "--preset", preset]
    done = rasa(*arguments)
    assert done.exit_code == 0
    assert f"failed: {folder / 'unlucky.png'}: unlucky" in done.stderr
    assert "5 of 7 photos are labelled, 2 failed (1 ImageError, 1 RuntimeError)" in done.stderr
    strict = rasa(*arguments, "--strict")
    assert strict.exit_code == 3
    assert "error: 2 of 7 images have no labels; their rows say why" in strict.stderr
    again = rasa(*arguments, "--retry-failed")
    assert "continuing: 5 photos are labelled already, 2 are left" in again.stderr
    assert "5 of 7 photos are labelled, 2 failed (1 ImageError, 1 RuntimeError)" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--workers", "0"], 2, "--workers"),
        (["--engine", "spark"], 2, "--engine"),
        (["--address", "auto"], 1, "address is that of a Ray cluster"),
        (["--preset", "no-such"], 1, 'unknown preset "no-such"'),
        (["--pipeline", "no_such:thing"], 1, "cannot be found"),
        (["--pipeline", "no_such:thing", "--device", "cpu"], 1, "device would change a preset"),
    ],
)
def test_what_does_not_fit_is_refused(rasa, preset, folder, tmp_path, arguments, code, message):
    given = arguments if {"--preset", "--pipeline"} & set(arguments) else ["--preset", preset, *arguments]
    done = rasa("label", folder, "--out", tmp_path / "out", *given)
    assert done.exit_code == code
    assert message in done.stderr


def test_a_source_and_an_out_are_needed(rasa, folder, tmp_path, preset):
    assert rasa("label", folder).exit_code == 2
    assert rasa("label", "--out", tmp_path / "out").exit_code == 2
    missing = rasa("label", tmp_path / "nowhere", "--out", tmp_path / "out", "--preset", preset)
    assert (missing.exit_code, "does not exist" in missing.stderr) == (1, True)


def test_a_process_of_its_own_writes_nothing_to_stdout(rasa_process, folder, tmp_path, preset):
    done = rasa_process("label", folder, "--out", tmp_path / "out", "--preset", preset, "--workers", "2")
    assert (done.returncode, done.stdout) == (0, b""), done.stderr
    assert b"5 of 5 photos are labelled" in done.stderr
    assert b"Traceback" not in done.stderr
