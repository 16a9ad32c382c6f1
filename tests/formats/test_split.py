"""Splits: the same image in the same part, fractions on average, and tags shared out."""

import hashlib
import random
import subprocess
import sys
from collections import Counter

import pytest

from rasa.errors import InputError
from rasa.formats.split import split_of, stratified_splits

IDS = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(4000)]


def test_fractions_are_kept_on_average():
    counts = Counter(split_of(image_id, val=0.2, test=0.1) for image_id in IDS)
    # Four standard deviations of a binomial.
    assert abs(counts["val"] - 800) < 4 * (4000 * 0.2 * 0.8) ** 0.5
    assert abs(counts["test"] - 400) < 4 * (4000 * 0.1 * 0.9) ** 0.5


def test_seeds_differ_and_parts_do_not_depend_on_one_another():
    one, two = ([split_of(image_id, seed=seed) for image_id in IDS] for seed in (0, 1))
    same = sum(a == b for a, b in zip(one, two, strict=True))
    assert 0.62 < same / len(IDS) < 0.70  # 0.8² + 0.1² + 0.1² = 0.66


def test_a_larger_share_takes_from_train_alone():
    small = {image_id: split_of(image_id, val=0.1, test=0.1) for image_id in IDS}
    large = {image_id: split_of(image_id, val=0.3, test=0.2) for image_id in IDS}
    moved = {(small[image_id], large[image_id]) for image_id in IDS if small[image_id] != large[image_id]}
    assert moved == {("train", "val"), ("train", "test")}


def test_all_or_nothing():
    assert {split_of(image_id, val=0, test=0) for image_id in IDS} == {"train"}
    assert {split_of(image_id, val=1, test=0) for image_id in IDS} == {"val"}
    assert {split_of(image_id, val=0, test=1) for image_id in IDS} == {"test"}
    assert {split_of(image_id, val=0.9, test=0.1) for image_id in IDS} == {"val", "test"}


def test_the_same_in_every_process():
    code = "from rasa.formats.split import split_of; print(*[split_of(str(i)) for i in range(50)])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [split_of(str(i)) for i in range(50)]


@pytest.mark.parametrize("shares", [(-0.1, 0.1), (0.6, 0.5), (float("nan"), 0)])
def test_impossible_shares(shares):
    val, test = shares
    with pytest.raises(InputError, match="val and test must be shares"):
        split_of("a", val=val, test=test)
    with pytest.raises(InputError, match="val and test must be shares"):
        stratified_splits([], val=val, test=test)


# By tag


def tagged(count=1000, seed=0):
    """Images with common and rare tags, as photos have: the n-th tag on about every n-th image squared."""
    chance = random.Random(seed)
    names = [f"tag {number}" for number in range(1, 13)]
    return [(IDS[i], {tag for number, tag in enumerate(names, 1) if chance.random() < 1 / number**2 / 1.2})
            for i in range(count)]  # fmt: skip


def test_every_tag_has_its_share():
    images = tagged()
    parts = stratified_splits(images, val=0.2, test=0.2)
    of_tag = {tag: [parts[image_id] for image_id, tags in images if tag in tags] for _, tags in images for tag in tags}
    assert len(of_tag) == 12
    worst = worst_by_hash = 0.0
    for tag, found in of_tag.items():
        by_hash = [split_of(image_id, val=0.2, test=0.2) for image_id, tags in images if tag in tags]
        for part in ("val", "test"):
            # A tag of five images or more is in every part.
            assert found.count(part) > 0
            worst = max(worst, abs(found.count(part) - 0.2 * len(found)))
            worst_by_hash = max(worst_by_hash, abs(by_hash.count(part) - 0.2 * len(found)))
    assert worst <= 3
    assert worst < worst_by_hash
    counts = Counter(parts.values())
    assert abs(counts["val"] - 200) <= 5
    assert abs(counts["test"] - 200) <= 5


def test_the_order_of_images_and_tags_makes_no_difference():
    images = tagged(300)
    shuffled = [(image_id, sorted(tags, reverse=True)) for image_id, tags in images]
    random.Random(1).shuffle(shuffled)
    assert stratified_splits(images) == stratified_splits(shuffled)
    assert list(stratified_splits(shuffled)) == [image_id for image_id, _ in shuffled]
    assert stratified_splits(images, seed=1) != stratified_splits(images)


def test_an_image_that_comes_again_is_one_image():
    images = tagged(100)
    assert stratified_splits([*images, *images[:50]]) == stratified_splits(images)


def test_images_without_tags_are_shared_out_too():
    parts = stratified_splits([(image_id, ()) for image_id in IDS[:100]], val=0.1, test=0.1)
    assert Counter(parts.values()) == {"train": 80, "val": 10, "test": 10}


def test_a_part_without_a_share_gets_nothing():
    assert set(stratified_splits(tagged(50), val=0.0, test=0.0).values()) == {"train"}
    assert set(stratified_splits(tagged(50), val=0.5, test=0.5).values()) == {"val", "test"}
    assert stratified_splits([]) == {}
