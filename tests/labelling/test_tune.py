"""Thresholds per tag, against brute force over all thresholds that can matter."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rasa import Tags
from rasa.errors import FormatError, InputError
from rasa.labelling.tune import read_scores, read_truth, score_table
from rasa.ops.thresholds import threshold_quality, tune_thresholds

VALUES = st.sampled_from([0.0, 0.1, 0.25, 0.3, 0.301, 0.5, 0.9, 1.0])


@st.composite
def tables(draw):
    shape = draw(st.integers(0, 8)), draw(st.integers(0, 3))
    scores = draw(arrays(np.float32, shape, elements=VALUES.map(np.float32).map(float) | st.floats(0, 1, width=32)))
    return scores, draw(arrays(np.bool_, shape))


def quality(scores, truth, threshold):
    given_ = scores > threshold
    right = int((given_ & truth).sum())
    precision = right / given_.sum() if given_.any() else 0.0
    return right, precision, 2 * right / max(1, int(given_.sum() + truth.sum()))


@settings(max_examples=300, deadline=None)
@given(table=tables())
def test_no_threshold_has_a_better_f1(table):
    scores, truth = table
    tuned = tune_thresholds(scores, truth)
    assert tuned.thresholds.shape == tuned.f1.shape == (scores.shape[1],)
    for tag in range(scores.shape[1]):
        column, there, chosen = scores[:, tag], truth[:, tag], tuned.thresholds[tag]
        best = max((quality(column, there, t)[2] for t in [0.0, *column]), default=0.0)
        best = max([best, *(quality(column, there, np.nextafter(t, np.float32(0)))[2] for t in column if t > 0)])
        if np.isnan(chosen):
            assert best == 0
            continue
        assert 0 <= chosen <= 1
        right, precision, f1 = quality(column, there, chosen)
        assert f1 == pytest.approx(best)
        assert tuned.f1[tag] == pytest.approx(f1)
        assert tuned.precision[tag] == precision
        assert tuned.recall[tag] == right / there.sum()
        # Taggers that take a score equal to the threshold decide the same; 0 is no score.
        assert (((column >= chosen) & (column > 0)) == (column > chosen)).all()
        assert threshold_quality(scores, truth, tuned.thresholds)[tag] == pytest.approx(f1)


@settings(max_examples=300, deadline=None)
@given(table=tables(), least=st.sampled_from([0.3, 0.5, 0.8, 1.0]))
def test_no_threshold_of_that_precision_finds_more(table, least):
    scores, truth = table
    tuned = tune_thresholds(scores, truth, objective=least)
    for tag in range(scores.shape[1]):
        column, there, chosen = scores[:, tag], truth[:, tag], tuned.thresholds[tag]
        cuts = [0.0, *column, *(np.nextafter(t, np.float32(0)) for t in column if t > 0)]
        found = [right for right, precision, _ in (quality(column, there, t) for t in cuts) if precision >= least]
        if np.isnan(chosen):
            assert max(found, default=0) == 0
            continue
        right, precision, _ = quality(column, there, chosen)
        assert precision >= least
        assert right == max(found)


def test_a_threshold_lies_between_two_scores_on_few_decimals():
    scores = np.array([[0.9], [0.62], [0.31], [0.2]], np.float32)
    truth = np.array([[True], [True], [False], [False]])
    tuned = tune_thresholds(scores, truth)
    assert str(tuned.thresholds[0]) == "0.465"
    assert (tuned.precision[0], tuned.recall[0], tuned.f1[0], tuned.positives[0]) == (1, 1, 1, 2)


def test_below_the_last_score_nothing_is_guessed():
    tuned = tune_thresholds(np.array([[0.4567], [0.0]], np.float32), np.array([[True], [False]]))
    assert str(tuned.thresholds[0]) == "0.456"


def test_tags_with_too_few_examples_get_none():
    scores, truth = np.full((4, 2), 0.5, np.float32), np.array([[1, 1], [0, 1], [0, 1], [0, 0]], np.bool_)
    tuned = tune_thresholds(scores, truth, min_positives=2)
    assert np.isnan(tuned.thresholds).tolist() == [True, False]
    assert tuned.positives.tolist() == [1, 3]


def test_many_tags_are_as_one_by_one():
    rng = np.random.default_rng(0)
    scores = rng.random((3000, 1500), np.float32)  # more than are sorted at once
    truth = rng.random(scores.shape) < 0.1
    together = tune_thresholds(scores, truth)
    for tag in (0, 1397, 1398, 1499):
        alone = tune_thresholds(scores[:, [tag]], truth[:, [tag]])
        assert together.thresholds[tag] == alone.thresholds[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scores": np.full((2, 1), 1.5)}, "scores must be in"),
        ({"truth": np.zeros((1, 1), np.bool_)}, "one row per image"),
        ({"objective": "recall"}, 'objective must be "f1" or a precision'),
        ({"objective": 0.0}, "objective"),
        ({"min_positives": 0}, "at least 1, got 0"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    given_ = {"scores": np.full((2, 1), 0.5), "truth": np.zeros((2, 1), np.bool_), **arguments}
    with pytest.raises(InputError, match=message):
        tune_thresholds(given_.pop("scores"), given_.pop("truth"), **given_)


def test_labels_and_scores_are_read_and_put_together(tmp_path):
    truth_file, score_file = tmp_path / "truth.csv", tmp_path / "scores.csv"
    truth_file.write_text("path,tag,score\na.jpg,dog,\na.jpg,cat,0\nb.jpg,,\n")
    score_file.write_text("file_name,tag,score,kind\nb.jpg,dog,0.25,object\na.jpg,cat,0.5,\nc.jpg,,,\n")
    truth = read_truth(truth_file)
    assert truth == {"a.jpg": frozenset({"dog"}), "b.jpg": frozenset()}
    scores, there = score_table(read_scores(score_file), truth, ["cat", "dog"])
    assert scores.tolist() == [[0.5, 0.0], [0.0, 0.25]]
    assert there.tolist() == [[False, True], [False, False]]
    with pytest.raises(InputError, match=r"1 of 2 labelled images have no scores, such as 'b\.jpg'"):
        score_table([(("a.jpg", "x"), Tags())], truth, ["dog"])
    with pytest.raises(InputError, match=r"'a\.jpg' is the name of two images"):
        score_table([(("a.jpg", "x"), Tags()), (("a.jpg", "y"), Tags())], truth, ["dog"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: expected the columns .*got none"),
        ("image,tag\n", "got image, tag"),
        ("path,tag\n", "no images"),
        ("path,tag,score\na.jpg,dog,much\n", "line 2: a score must be .*'much'"),
        ("path,tag\na.jpg\n", "line 2: expected a value"),
        ('path,tag\na.jpg,"dog\n', "no CSV"),
        ("path,tag\na.jpg,\xff\n", "no CSV in UTF-8"),
    ],
)
def test_malformed_labels_are_named(tmp_path, text, message):
    path = tmp_path / "truth.csv"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(FormatError, match=message):
        read_truth(path)


def test_a_tag_twice_is_refused(tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text("path,tag,score\na.jpg,dog,0.5\na.jpg,dog,0.6\n")
    with pytest.raises(FormatError, match=r"'a\.jpg' has the tag 'dog' twice"):
        list(read_scores(path))
    with pytest.raises(InputError, match="cannot read"):
        read_truth(tmp_path / "none.csv")
