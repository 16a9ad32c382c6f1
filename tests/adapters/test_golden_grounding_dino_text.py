"""Captions, masks, positions and labels of boxes, against the numbers of the original code."""

from itertools import count, takewhile

import numpy as np
import pytest

from rasa.adapters.grounding_dino.text import DELIMITERS, FIXED, PAD, BertTokenizer, token_blocks
from rasa.ops.phrases import Caption, assign, span_scores
from rasa.weights import find
from tests.adapters.reference import load_json, load_npz, reference_folder

# Stored numbers have six digits behind the point.
ROUNDING = 1e-6


@pytest.fixture(scope="module")
def folder():
    return reference_folder("grounding_dino")


@pytest.fixture(scope="module")
def texts(folder):
    return load_json(folder / "golden_text.json")


@pytest.fixture(scope="module")
def phrases(folder):
    return load_json(folder / "golden_phrases.json")


@pytest.fixture(scope="module")
def tokenizer(texts):
    """A vocabulary of the pieces of these captions at their ids: the longest match is the same as among all pieces."""
    ids = dict(FIXED)
    for text in texts["single"]:
        ids |= zip(text["tokens"], text["input_ids"], strict=True)
    return BertTokenizer(ids)


def without_delimiters(ids):
    return [i for i in ids if i not in (*DELIMITERS, PAD)]


def as_mask(rows):
    return np.array([[sign == "1" for sign in row] for row in rows], np.bool_)


def npz_cases(folder):
    """(file name, arrays, case) of every golden run of a network."""
    paths = sorted(folder.glob("golden_s*.npz"))
    for path in paths:
        arrays = load_npz(path)
        cases = [*takewhile(lambda case: f"caption{case}" in arrays, count())]  # noqa: B023  (read before the next)
        assert cases, f"no case in {path}"
        yield from ((path.name, arrays, case) for case in cases)


def test_token_ids(texts, tokenizer):
    assert len(texts["single"]) >= 10
    for text in texts["single"]:
        assert tokenizer.encode(text["caption"]) == without_delimiters(text["input_ids"]), text["caption"]
    batch = texts["padded_batch"]
    for caption, ids in zip(batch["captions"], batch["input_ids"], strict=True):
        assert tokenizer.encode(caption) == without_delimiters(ids), caption


def test_captions_made_of_tags_are_those_that_were_read(texts, tokenizer):
    """Where the original's caption is distinct tags, each with a period behind it, ours has the very same ids."""
    seen = 0
    for text in texts["single"]:
        tags = text["caption"].removesuffix(" .").split(" . ")
        if (
            " . ".join([*tags, ""]).rstrip() != text["caption"]
            or {*".?"} & {*"".join(tags)}
            or "[UNK]" in text["tokens"]
        ):
            continue
        seen += 1
        (caption,) = tokenizer.captions(tags)
        assert list(caption.token_ids) == text["input_ids"]
        assert caption.owners == tuple(range(len(tags)))
    assert seen >= 3


def test_text_masks_and_positions(texts):
    for text in texts["single"]:
        sees, positions = token_blocks(np.array([text["input_ids"]]))
        np.testing.assert_array_equal(sees[0], as_mask(text["mask"]), text["caption"])
        np.testing.assert_array_equal(positions[0], text["position_ids"], text["caption"])


def test_text_masks_and_positions_of_a_padded_batch(texts):
    batch = texts["padded_batch"]
    ids = np.array(batch["input_ids"])
    sees, positions = token_blocks(ids)
    np.testing.assert_array_equal(sees, [as_mask(mask) for mask in batch["mask"]])
    np.testing.assert_array_equal(positions, batch["position_ids"])
    np.testing.assert_array_equal(ids != PAD, np.array(batch["attention_mask"], np.bool_))


def test_text_masks_and_positions_that_the_networks_read(folder):
    seen = 0
    for name, arrays, case in npz_cases(folder):
        seen += 1
        sees, positions = token_blocks(arrays[f"input_ids{case}"][None])
        np.testing.assert_array_equal(sees[0], arrays[f"text_mask{case}"], f"{name} {case}")
        np.testing.assert_array_equal(positions[0], arrays[f"position_ids{case}"], f"{name} {case}")
    assert seen >= 4


def test_token_ids_that_the_networks_read(folder):
    """With the real vocabulary, where it is at hand."""
    if (path := find("bert-base-uncased.vocab")) is None:
        pytest.skip("bert-base-uncased.vocab is not cached; run `rasa weights fetch bert-base-uncased.vocab`")
    tokenizer = BertTokenizer.read(path)
    for name, arrays, case in npz_cases(folder):
        expected = without_delimiters(arrays[f"input_ids{case}"].tolist())
        assert tokenizer.encode(str(arrays[f"caption{case}"])) == expected, f"{name} {case}"


def probabilities_of(arrays, case):
    return 1 / (1 + np.exp(-arrays[f"logits{case}"].astype(np.float64)))


def phrase_cases(folder, phrases):
    """(golden case, its caption, token probabilities of all queries)."""
    assert len(phrases) >= 4
    for golden in phrases:
        arrays = load_npz(folder / golden["file"])
        ids = arrays[f"input_ids{golden['case']}"].tolist()
        caption = Caption(tuple(ids), tuple(map(tuple, golden["spans"])), tuple(range(len(golden["spans"]))))
        yield golden, caption, probabilities_of(arrays, golden["case"])


def test_selected_rows_and_their_scores(folder, phrases):
    for golden, caption, probabilities in phrase_cases(folder, phrases):
        scores = assign(probabilities, caption, method="caption").scores
        rows = np.flatnonzero(scores > golden["box_threshold"])
        detections = golden["detections"]
        assert len(rows) == golden["n_selected"]
        assert rows[: len(detections)].tolist() == [found["row"] for found in detections]
        np.testing.assert_allclose(scores[rows[: len(detections)]], [d["score"] for d in detections], atol=ROUNDING)
        assert probabilities[rows].argmax(axis=1)[: len(detections)].tolist() == [d["argmax_token"] for d in detections]


@pytest.mark.parametrize("method", ["max", "mean"])
def test_span_scores_and_labels(folder, phrases, method):
    for golden, caption, probabilities in phrase_cases(folder, phrases):
        rows = [found["row"] for found in golden["detections"]]
        scores = span_scores(probabilities[rows], caption, method=method)
        np.testing.assert_allclose(scores, [d[f"span_{method}"] for d in golden["detections"]], atol=ROUNDING)
        found = assign(probabilities[rows], caption, method=method)
        assert found.owners.tolist() == [d[f"label_by_{method}"] for d in golden["detections"]]
        np.testing.assert_allclose(found.scores, scores.max(axis=1), atol=0)


def test_spans_of_the_labels(phrases, tokenizer, texts):
    """Ours are where the original's script found them, wherever this vocabulary holds all words."""
    known = {piece for text in texts["single"] for piece in text["tokens"]}
    seen = 0
    for golden in phrases:
        if {*" ".join(golden["labels"]).split()} <= known:
            seen += 1
            (caption,) = tokenizer.captions(golden["labels"])
            assert [list(span) for span in caption.spans] == golden["spans"]
    assert seen >= 1


def test_spans_of_all_labels_with_the_real_vocabulary(phrases):
    if (path := find("bert-base-uncased.vocab")) is None:
        pytest.skip("bert-base-uncased.vocab is not cached; run `rasa weights fetch bert-base-uncased.vocab`")
    tokenizer = BertTokenizer.read(path)
    for golden in phrases:
        (caption,) = tokenizer.captions(golden["labels"])
        assert [list(span) for span in caption.spans] == golden["spans"]
