"""The region check: what the tagger says about cut-outs, stored and used."""

import numpy as np
import pyarrow.parquet as pq
import pytest

import rasa
from rasa import Image, Instances, Tags, to_image
from rasa.errors import ContractError, InputError
from rasa.labelling.checked import check_dataset
from rasa.labelling.dataset import open_dataset
from rasa.labelling.region_check import RegionCheck, cut_out
from rasa.registry import build


class Brightness:
    """Names the brightest channel of a picture first; a channel below ``least`` is not named."""

    def __init__(self, least=0.0):
        self.least, self.seen = least, []

    def tag(self, images):
        self.seen.append([image.size for image in images])
        return [self._tags(image) for image in images]

    def _tags(self, image):
        scores = (image.pixels.reshape(-1, 3).mean(axis=0) / 255).astype(np.float32)
        order = [i for i in np.argsort(-scores, kind="stable") if scores[i] > self.least]
        return Tags(tuple(("red", "green", "blue")[i] for i in order), scores[order])

    def describe(self):
        return {"model": "brightness", "least": self.least}


@pytest.fixture
def halves():
    """Red on the left, green on the right."""
    pixels = np.zeros((10, 20, 3), np.uint8)
    pixels[:, :10, 0], pixels[:, 10:, 1] = 204, 255
    return Image(pixels, name="halves")


def boxes(labels, rows):
    return Instances(np.array(rows, np.float32), np.ones(len(labels), np.float32), labels)


def test_each_box_is_asked_about(halves):
    found = boxes(("red", "green", "blue"), [[0, 0, 10, 10], [0, 0, 10, 10], [5, 0, 20, 10]])
    agreement = RegionCheck(Brightness(), surroundings=0)(halves, found)
    np.testing.assert_allclose(agreement.scores, [0.8, 0, 0], atol=1e-6)
    assert agreement.ranks.tolist() == [1, 0, 0]
    assert agreement.tops == ("red", "red", "green")


def test_surroundings_are_seen_and_cut_at_the_border(halves):
    agreement = RegionCheck(Brightness(), surroundings=0.5)(halves, boxes(("green",), [[0, 0, 10, 10]]))
    np.testing.assert_allclose(agreement.scores, [5 / 15], atol=1e-6)
    assert agreement.ranks.tolist() == [2]


def test_a_synonym_confirms(halves):
    check = RegionCheck(Brightness(), surroundings=0, classes={"scarlet": "red"})
    assert check(halves, boxes(("scarlet",), [[0, 0, 10, 10]])).ranks.tolist() == [1]


@pytest.mark.parametrize(
    ("box", "surroundings", "size"),
    [
        ([0, 0, 20, 10], 1, (10, 20)),
        ([3.5, 2.5, 5.2, 4], 0, (2, 3)),
        ([7, 7, 7, 7], 0, (1, 1)),
        ([20, 10, 20, 10], 0.5, (1, 1)),
        ([4, 4, 8, 6], 0.5, (4, 8)),
    ],
)
def test_cut_outs_have_at_least_a_pixel(halves, box, surroundings, size):
    assert cut_out(halves, np.array(box, np.float32), surroundings=surroundings).size == size


def test_batches_change_nothing(halves):
    rows = [[i, 0, i + 3, 10] for i in range(7)]
    found = boxes(("red",) * 7, rows)
    together, taggers = RegionCheck(Brightness())(halves, found), Brightness()
    alone = RegionCheck(taggers, batch_size=3)(halves, found)
    np.testing.assert_array_equal(together.scores, alone.scores)
    assert [len(batch) for batch in taggers.seen] == [3, 3, 1]
    assert len(RegionCheck(Brightness())(halves, Instances())) == 0


def test_wrong_numbers_and_taggers_are_refused(halves):
    with pytest.raises(InputError, match=r"surroundings must be in \[0, 10\].*-1"):
        RegionCheck(Brightness(), surroundings=-1)
    with pytest.raises(InputError, match="batch_size must be at least 1"):
        RegionCheck(Brightness(), batch_size=0)

    class Silent:
        def tag(self, images):
            return []

    with pytest.raises(ContractError, match="Silent gave 0 answers for 1 images"):
        RegionCheck(Silent())(halves, boxes(("red",), [[0, 0, 1, 1]]))


@pytest.fixture
def dataset(photos, tmp_path):
    folder = photos(5)
    return rasa.label([folder], tmp_path / "dataset", pipeline="fakes:fast", shard_size=2)


def checks_in(checked):
    return [row for path in sorted(checked.folder.iterdir()) for row in pq.read_table(path).to_pylist()]


def test_a_run_without_what_the_tagger_denies(dataset):
    before = list(dataset.rows())
    checked = check_dataset(dataset, RegionCheck(Brightness()), min_agreement=0.3)
    after = list(checked.dataset.rows())
    assert [image.id for image in after] == [image.id for image in before] == [row["id"] for row in checks_in(checked)]
    for one, other, row in zip(before, after, checks_in(checked), strict=True):
        assert tuple(found["label"] for found in row["objects"]) == one.result.instances.labels
        kept = [found["label"] for found in row["objects"] if found["score"] >= 0.3]
        assert list(other.result.instances.labels) == kept
        assert other.result.tags.names == one.result.tags.names
    assert checked.objects == 15
    assert 0 < checked.dropped < 15
    assert checked.dropped == sum(len(i.result.instances) for i in before) - sum(len(i.result.instances) for i in after)
    run = checked.dataset.run
    assert run.parent == dataset.fingerprint != run.fingerprint
    assert run.extra["derived"]["check"]["tagger"] == {"model": "brightness", "least": 0.0}
    assert open_dataset(dataset.folder).fingerprint == run.fingerprint


def test_what_is_checked_is_not_checked_again(dataset):
    tagger = Brightness()
    first = check_dataset(dataset, RegionCheck(tagger))
    asked = len(tagger.seen)
    again = check_dataset(dataset, RegionCheck(tagger), min_agreement=0.5)
    assert len(tagger.seen) == asked == 5
    assert again.folder == first.folder
    assert again.dataset.fingerprint != first.dataset.fingerprint
    other = check_dataset(dataset, RegionCheck(Brightness(0.5)))
    assert other.folder != first.folder


def test_a_photo_that_is_gone_keeps_its_objects(dataset, tmp_path):
    (tmp_path / "photos" / "0003.png").unlink()
    checked = check_dataset(dataset, RegionCheck(Brightness(1.0)), min_agreement=0.5)
    assert (checked.unread, checked.objects, checked.named, checked.dropped) == (1, 12, 0, 12)
    assert [len(image.result.instances) for image in checked.dataset.rows()] == [0, 0, 0, 3, 0]
    (error,) = [row["error"] for row in checks_in(checked) if row["error"]]
    assert "0003.png" in error


def test_a_limit_out_of_range_is_refused(dataset):
    with pytest.raises(InputError, match="min_agreement must be"):
        check_dataset(dataset, RegionCheck(Brightness()), min_agreement=2)


@pytest.mark.parametrize(("photo", "label", "wrong"), [("chelsea", "cat", "airplane"), ("coffee", "cup", "dog")])
def test_the_lite_tagger_confirms_what_is_there(checkpoint_file, photo, label, wrong):
    for name in ("efficientnet-lite0.in1k", "ssd-mobilenet-v2.coco"):
        checkpoint_file(name)
    data = pytest.importorskip("skimage.data")
    image = to_image(getattr(data, photo)(), name=photo)
    height, width = image.size
    found = boxes((label, wrong), [[width * 0.1, 0, width * 0.9, height]] * 2)
    agreement = RegionCheck(build("lite-tagger", device="cpu", dtype="float32", tag_threshold=0.05))(image, found)
    assert agreement.scores[0] > 0.35
    assert agreement.scores[1] < 0.2
    assert agreement.ranks[0] > 0
