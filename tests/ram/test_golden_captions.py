"""Captions against the published code's, in every run of the golden files, by the rule of transformers since 4.36."""

import json

import numpy as np
import pytest

from rasa.types import Image
from rasa_ram.captioner import RamCaptioner
from rasa_ram.tokenizer import CaptionTokenizer
from rasa_ram.vocabulary import Vocabulary
from tests.ram import reference

RULE = "rule_new"
SCORE_ATOL = 1e-4
# Published names of the search options, and ours.
OPTIONS = {"num_beams": "beams"}


class StoredPixels:
    """Images whose normalised pixels are stored: the golden files hold those, not the photos."""

    def __init__(self, pixels):
        self.pixels = pixels
        self.images = [Image(np.full((1, 1, 3), i, np.uint8), name=str(i)) for i in range(len(pixels))]

    def preprocess(self, images, size):
        assert size == self.pixels.shape[-1]
        return np.stack([self.pixels[int(image.name)] for image in images])


@pytest.fixture
def golden():
    return reference.load_npz(reference.reference_folder() / "golden_tag2text_tiny.npz")


@pytest.fixture
def stored(golden, monkeypatch):
    stored = StoredPixels(golden["image"])
    monkeypatch.setattr("rasa_ram.captioner.preprocess", stored.preprocess)
    return stored


@pytest.fixture
def runs():
    path = reference.reference_folder() / "golden_tag2text_tiny_captions.json"
    runs = json.loads(path.read_text(encoding="utf-8"))[RULE]["runs"]
    assert runs
    return runs


@pytest.fixture
def captioner(golden):
    folder = reference.reference_folder()
    names = (folder / "tiny_tag_list.txt").read_text(encoding="utf-8").splitlines()
    vocabulary = Vocabulary(tuple(names), thresholds=golden["class_threshold"], allow_repeats=True)
    return RamCaptioner(
        reference.tiny_model(folder, "tag2text", text=True),
        vocabulary,
        tokenizer=CaptionTokenizer.read(folder / "tiny_vocab.txt"),
        deny=[names[i] for i in golden["delete_tag_index"]],
    )


def options_of(run):
    return {OPTIONS.get(name, name): value for name, value in run["settings"].items()}


def tags_of(run):
    return None if run["tag_input"] is None else [name for name in run["tag_input"].split(" | ") if name]


def caption_run(captioner, stored, run):
    tags = tags_of(run)
    return captioner.caption([stored.images[run["image"]]], None if tags is None else [tags], **options_of(run))[0]


def assert_is_the_golden(caption, run):
    assert caption.text == run["caption"], run
    assert " | ".join(caption.tags) == run["tags_used"], run
    if run["score"] is not None:
        np.testing.assert_allclose(caption.score, run["score"], rtol=0, atol=SCORE_ATOL)


@pytest.mark.filterwarnings("ignore:the tag encoder reads 40 tokens:rasa.errors.RasaWarning")
def test_golden_captions_of_single_images(captioner, stored, runs):
    for run in runs:
        assert_is_the_golden(caption_run(captioner, stored, run), run)


@pytest.mark.filterwarnings("ignore:the tag encoder reads 40 tokens:rasa.errors.RasaWarning")
def test_golden_captions_of_batches_are_those_of_single_images(captioner, stored, runs):
    groups = {}
    for run in runs:
        groups.setdefault((json.dumps(options_of(run)), run["tag_input"] is None), []).append(run)
    assert any(len(group) > 1 for group in groups.values())
    for group in groups.values():
        tags = None if group[0]["tag_input"] is None else [tags_of(run) for run in group]
        captions = captioner.caption([stored.images[run["image"]] for run in group], tags, **options_of(group[0]))
        for caption, run in zip(captions, group, strict=True):
            assert_is_the_golden(caption, run)


@pytest.mark.parametrize(("ids", "beams"), [(f"caption_ids_{RULE}", 3), ("greedy_ids", 1)])
def test_golden_token_ids(golden, captioner, stored, runs, ids, beams):
    """Ids of the npz, padded; the texts alone would not show a wrong end token."""
    tokenizer = CaptionTokenizer.read(reference.reference_folder() / "tiny_vocab.txt")
    seen = []
    decode = tokenizer.decode
    captioner._tokenizer.decode = lambda found: (seen.append(list(found)), decode(found))[1]
    captions = captioner.caption(stored.images, beams=beams, max_length=golden[ids].shape[1], min_length=5)
    padded = [row + [tokenizer.pad_id] * (golden[ids].shape[1] - len(row)) for row in seen]
    np.testing.assert_array_equal(padded, golden[ids])
    if beams > 1:
        assert [caption.text for caption in captions] == golden[f"captions_{RULE}"].tolist()
        scores = [caption.score for caption in captions]
        np.testing.assert_allclose(scores, golden[f"caption_scores_{RULE}"], rtol=0, atol=SCORE_ATOL)
