"""Average precision, precision and recall against the published evaluation's, in every case of its golden file."""

import json

import numpy as np
import pytest

from rasa.errors import InputError
from rasa_ram.evaluation.metrics import (
    average_precision,
    mean_average_precision,
    precision_recall,
    tag_matrix,
)
from tests.ram import reference

RTOL = 1e-12


@pytest.fixture(scope="module")
def cases():
    path = reference.reference_folder() / "golden_metrics.json"
    return json.loads(path.read_text(encoding="utf-8"))


def matrix(case, lines):
    """An image's name comes first in its line."""
    return tag_matrix([line.split(",")[1:] for line in case[lines]], case["taglist"])


def test_average_precision_is_the_published_one(cases):
    scored = [case for case in cases if "mAP" in case]
    assert scored
    for case in scored:
        scores, truth = np.array(case["scores"]), matrix(case, "annotation_lines")
        fixed = ~np.array(case["AP_depends_on_tie_order"])
        values = average_precision(scores, truth, no_positives="zero")
        np.testing.assert_allclose(values[fixed], np.array(case["APs"])[fixed], rtol=RTOL, err_msg=case["name"])
        if fixed.all():
            np.testing.assert_allclose(
                mean_average_precision(scores, truth, no_positives="zero"), case["mAP"], rtol=RTOL
            )


def test_tie_orders_reach_exactly_the_published_bounds(cases):
    tied = [case for case in cases if any(case.get("AP_depends_on_tie_order", []))]
    assert tied
    for case in tied:
        scores, truth = np.array(case["scores"]), matrix(case, "annotation_lines")
        for ties in ("lowest", "highest"):
            values = average_precision(scores, truth, no_positives="zero", ties=ties)
            expected = case[f"AP_{ties}_over_tie_orders"]
            np.testing.assert_allclose(values, expected, rtol=RTOL, err_msg=case["name"])


def test_ties_in_few_images_fall_as_they_fell_in_the_original(cases):
    # Up to 16 values its sort was an insertion sort, which is stable.
    tied = [case for case in cases if any(case.get("AP_depends_on_tie_order", [])) and len(case["scores"]) <= 16]
    assert tied
    for case in tied:
        values = average_precision(case["scores"], matrix(case, "annotation_lines"), no_positives="zero")
        np.testing.assert_allclose(values, case["APs"], rtol=RTOL, err_msg=case["name"])


def test_precision_and_recall_are_the_published_ones(cases):
    predicted = [case for case in cases if "mean_precision" in case]
    assert predicted
    for case in predicted:
        figures = precision_recall(
            matrix(case, "prediction_lines"), matrix(case, "annotation_lines"), no_positives="zero"
        )
        np.testing.assert_allclose(figures.precision, case["precisions"], rtol=RTOL, err_msg=case["name"])
        np.testing.assert_allclose(figures.recall, case["recalls"], rtol=RTOL, err_msg=case["name"])
        np.testing.assert_allclose(figures.class_precision, case["mean_precision"], rtol=RTOL)
        np.testing.assert_allclose(figures.class_recall, case["mean_recall"], rtol=RTOL)


def test_where_the_original_fails(cases):
    failing = {case["get_PR_error"]: case for case in cases if "get_PR_error" in case}
    repeated, unknown = failing["IndexError"], failing["KeyError"]
    figures = precision_recall(matrix(repeated, "prediction_lines"), matrix(repeated, "annotation_lines"))
    np.testing.assert_allclose(figures.recall, [1, 0, 1], rtol=1e-8)
    with pytest.raises(InputError, match="tag 'dog' is none of the 1 tags"):
        matrix(unknown, "annotation_lines")
