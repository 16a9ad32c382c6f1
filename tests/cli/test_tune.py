"""`rasa tune`, from labels and scores to the vocabulary file."""

import pytest

import rasa as library
from rasa_ram.vocabulary import Vocabulary
from rasa_ram.vocabulary_files import read_vocabulary, write_vocabulary


@pytest.fixture
def files(tmp_path):
    """A vocabulary, labels and scores."""
    table = Vocabulary(("cat", "dog", "sky"), thresholds=[0.5, 0.5, 0.5], synonyms=((), ("puppy",), ()))
    write_vocabulary(table, tmp_path / "words.json")
    truth = ["path,tag", "a.jpg,puppy", "b.jpg,dog", "c.jpg,dog", "d.jpg,cat", "d.jpg,unicorn", "e.jpg,"]
    (tmp_path / "truth.csv").write_text("\n".join(truth) + "\n")
    scores = ["path,tag,score", "a.jpg,dog,0.4", "b.jpg,dog,0.9", "c.jpg,dog,0.3", "d.jpg,dog,0.2", "e.jpg,dog,0.1",
              "d.jpg,cat,0.9", "f.jpg,cat,0.8"]  # fmt: skip
    (tmp_path / "scores.csv").write_text("\n".join(scores) + "\n")
    return tmp_path


def tune(rasa, files, *more):
    return rasa(
        "tune", files / "scores.csv", "--truth", files / "truth.csv", "--vocabulary", files / "words.json", *more
    )


def test_thresholds_go_into_the_vocabulary(rasa, files):
    done = tune(rasa, files)
    assert done.exit_code == 0, done.output
    table = read_vocabulary(files / "words.json")
    assert dict(zip(table.names, table.thresholds.tolist(), strict=True)) == pytest.approx(
        {"cat": 0.5, "dog": 0.25, "sky": 0.5}
    )
    assert table.synonyms == ((), ("puppy",), ())
    assert "0.500 -> 0.250" in done.output
    assert "0.500 -> 1.000" in done.output
    assert "1 of 3 tags have a threshold from 5 photos; 1 with examples have not" in done.output
    assert "1 tags of" in done.output
    assert "'unicorn'" in done.output


def test_another_file_and_fewer_examples(rasa, files):
    before = (files / "words.json").read_bytes()
    done = tune(rasa, files, "--out", files / "new.csv", "--min-examples", 1, "--precision", 1)
    assert done.exit_code == 0, done.output
    assert (files / "words.json").read_bytes() == before
    table = read_vocabulary(files / "new.csv")
    assert [str(value) for value in table.thresholds] == ["0.899", "0.25", "0.5"]


def test_a_vocabulary_without_thresholds_needs_a_default(rasa, files):
    (files / "words.json").write_text('["cat", "dog", "sky"]')
    done = tune(rasa, files)
    assert done.exit_code == 1
    assert "words.json has no thresholds" in done.output
    assert tune(rasa, files, "--default-threshold", 0.68).exit_code == 0
    assert read_vocabulary(files / "words.json").thresholds[2] == pytest.approx(0.68)


def test_a_text_list_cannot_hold_thresholds(rasa, files):
    (files / "words.txt").write_text("cat\ndog\n")
    arguments = ("--truth", files / "truth.csv", "--vocabulary", files / "words.txt")
    done = rasa("tune", files / "scores.csv", *arguments)
    assert done.exit_code == 2
    assert "cannot hold thresholds" in done.output


def test_a_labelled_photo_without_scores_is_named(rasa, files):
    with (files / "truth.csv").open("a") as file:
        file.write("z.jpg,dog\n")
    done = tune(rasa, files)
    assert done.exit_code == 1
    assert "1 of 6 labelled images have no scores, such as 'z.jpg'" in done.output


def test_scores_of_a_dataset(rasa, photo, preset, files):
    for index in range(4):
        photo(files / "photos" / f"{index}.png", width=40 + index)
    library.label([files / "photos"], files / "dataset", preset=preset, tag_threshold=0.1)
    (files / "truth.csv").write_text("file_name,tag\n" + "".join(f"{index}.png,dog\n" for index in range(4)))
    truth = ["path,tag", *(f"{files}/photos/{index}.png,dog" for index in range(4))]
    (files / "truth.csv").write_text("\n".join(truth) + "\n")
    arguments = ("--truth", files / "truth.csv", "--vocabulary", files / "words.json")
    done = rasa("tune", files / "dataset", *arguments)
    assert done.exit_code == 0, done.output
    assert "1 of 3 tags have a threshold from 4 photos" in done.output
    assert read_vocabulary(files / "words.json").thresholds[1] < 0.75
    assert rasa("tune", files / "scores.csv", *arguments, "--run", "abc").exit_code == 1
