"""Readers of benchmarks: the published files, miniature ones of the other formats, and what is wrong with files."""

import random
import warnings
from collections import Counter

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools.coco import COCO as PeerCOCO  # noqa: N811

from rasa.errors import FormatError, InputError, RasaWarning
from rasa_ram.evaluation.benchmarks.ade20k import clean_subset, read_ade20k
from rasa_ram.evaluation.benchmarks.benchmark import Benchmark
from rasa_ram.evaluation.benchmarks.class_words import _tables, dropped_from_ade20k, prefer
from rasa_ram.evaluation.benchmarks.coco import read_coco
from rasa_ram.evaluation.benchmarks.known import BENCHMARKS, open_benchmark, split_by_vocabulary
from rasa_ram.evaluation.benchmarks.nus_wide import read_nus_wide
from rasa_ram.evaluation.benchmarks.table import read_table
from rasa_ram.evaluation.benchmarks.tag_lists import read_tag_lists
from tests.ram import reference
from tests.ram.evaluation.made_files import COCO, PANOPTIC, write_ade20k, write_json, write_lines, write_nus_wide


@pytest.fixture(scope="module")
def labels():
    folder = reference.reference_folder().parent / "labels"
    if not folder.is_dir():
        pytest.skip(f"no published label files in {folder}")
    return folder


def shown(benchmark):
    return {
        image: {name for name, there in zip(benchmark.classes, row, strict=True) if there}
        for image, row in zip(benchmark.images, benchmark.truth, strict=True)
    }


# The published files


@pytest.mark.parametrize(("name", "stem"), [
    ("openimages-common-214", "openimages_common_214_ram"),
    ("openimages-rare-200", "openimages_rare_200_ram"),
])  # fmt: skip
def test_openimages_as_published(labels, name, stem):
    annotations = labels / f"{stem}_annots.txt"
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the counts are as published
        benchmark = open_benchmark(name, annotations, labels / f"{stem}_taglist.txt")
    lines = annotations.read_text(encoding="utf-8").splitlines()
    assert benchmark.truth.shape == (len(lines), BENCHMARKS[name].classes)
    assert benchmark.truth.any(axis=0).all(), "a class without positives"
    found = shown(benchmark.take_images(range(0, len(lines), 97), note="some"))
    for line in lines[::97]:
        image, *tags = line.split(",")
        assert found[image] == set(tags)
    counts = Counter(tag for line in lines for tag in set(line.split(",")[1:]))
    assert dict(zip(benchmark.classes, benchmark.truth.sum(axis=0), strict=True)) == counts


def test_the_annotations_by_tag2text_ids_are_the_same_ones(labels):
    names = (labels / "tag2text_ori_tag_list.txt").read_text(encoding="utf-8").splitlines()
    stem = "openimages_common_214_tag2text"
    ids = open_benchmark("openimages-common-214-ids", labels / f"{stem}_idannots.txt",
                         labels / f"{stem}_tagidlist.txt", vocabulary=names)  # fmt: skip
    stem = "openimages_common_214_ram"
    own = open_benchmark("openimages-common-214", labels / f"{stem}_annots.txt", labels / f"{stem}_taglist.txt")
    assert ids.images == own.images
    assert ids.class_ids.tolist()[:3] == [3, 8, 16]
    assert ids.classes[0] == names[3]
    shared = [(i, own.classes.index(name)) for i, name in enumerate(ids.classes) if name in own.classes]
    assert len(shared) == 193
    left, right = np.array(shared).T
    np.testing.assert_array_equal(ids.truth[:, left], own.truth[:, right])


# HICO and ImageNet-multi: places in the list


def test_places_in_the_list_count_from_0_and_may_be_missing(tmp_path):
    annotations = write_lines(tmp_path / "a.txt", "x_1.jpg,2 0", "x_2.jpg", "x_3.jpg,1", "")
    tags = write_lines(tmp_path / "t.txt", "missile", "tench", "missile")
    benchmark = read_tag_lists(annotations, tags, name="mini", labels="places")
    assert benchmark.images == ("x_1.jpg", "x_2.jpg", "x_3.jpg")
    np.testing.assert_array_equal(benchmark.truth, [[1, 0, 1], [0, 0, 0], [0, 1, 0]])


def test_hico_is_asked_for_without_underscores_and_other_counts_are_told(tmp_path):
    annotations = write_lines(tmp_path / "a.txt", "x.jpg,1")
    tags = write_lines(tmp_path / "t.txt", "person board airplane", "person sit_on airplane")
    with pytest.warns(RasaWarning) as told:
        benchmark = open_benchmark("hico-600", annotations, tags)
    assert [str(w.message).split(",")[0] for w in told] == [
        "hico-600 has 600 classes as published", "hico-600 has 9658 images as published"]  # fmt: skip
    assert benchmark.classes[1] == "person sit_on airplane"
    assert benchmark.asked[1] == "person sit on airplane"


def test_splitting_by_a_vocabulary(tmp_path):
    annotations = write_lines(tmp_path / "a.txt", "x.jpg,0 2", "y.jpg,1")
    benchmark = read_tag_lists(annotations, write_lines(tmp_path / "t.txt", "Tench", "hen", "fox"), name="in",
                               labels="places")  # fmt: skip
    common = split_by_vocabulary(benchmark, ["tench", "fox", "car"], common=True)
    rest = split_by_vocabulary(benchmark, ["tench", "fox", "car"], common=False)
    assert (common.name, common.classes) == ("in-common", ("Tench", "fox"))
    assert (rest.name, rest.classes) == ("in-uncommon", ("hen",))
    np.testing.assert_array_equal(rest.truth, [[0], [1]])
    with pytest.raises(InputError, match="has no common classes"):
        split_by_vocabulary(benchmark, ["car"], common=True)


# COCO, against pycocotools


def test_coco_instances_are_pycocotools_ones(tmp_path, capsys):
    random.seed(4)
    content = COCO | {
        "images": [{"id": i * 3, "file_name": f"{i:012}.jpg"} for i in range(40)],
        "categories": [{"id": i * 2 + 1, "name": f"thing {i}"} for i in range(12)],
    }
    content["annotations"] = [
        {"id": i, "image_id": random.randrange(40) * 3, "category_id": random.randrange(12) * 2 + 1, "iscrowd": i % 2}
        for i in range(150)
    ]
    path = write_json(tmp_path / "instances.json", content)
    benchmark, peer = read_coco(path, name="mini"), PeerCOCO(path)
    capsys.readouterr()
    assert benchmark.classes == tuple(c["name"] for c in peer.loadCats(sorted(peer.getCatIds())))
    for row, image in enumerate(peer.loadImgs(peer.getImgIds())):
        assert benchmark.images[row] == image["file_name"]
        found = {a["category_id"] for a in peer.loadAnns(peer.getAnnIds(imgIds=image["id"], iscrowd=None))}
        assert set(np.flatnonzero(benchmark.truth[row]) * 2 + 1) == found


def test_coco_by_hand_with_our_words(tmp_path):
    benchmark = read_coco(write_json(tmp_path / "i.json", COCO), name="mini")
    assert shown(benchmark) == {"a.jpg": {"person"}, "b.jpg": {"airplane"}, "c.jpg": set()}
    assert benchmark.words == (("person",), ("airplane", "plane", "aeroplane"))
    assert prefer(benchmark, ["Plane", "person"])[1] == ("Plane", "airplane", "aeroplane")


def test_panoptic(tmp_path):
    benchmark = read_coco(write_json(tmp_path / "p.json", PANOPTIC), name="mini")
    assert benchmark.asked == ("person", "tree")
    assert shown(benchmark) == {"a.jpg": {"tree-merged"}, "b.jpg": set(), "c.jpg": {"person", "tree-merged"}}


@pytest.mark.parametrize(("change", "message"), [
    ({"annotations": [{"image_id": 5, "category_id": 1}]}, r"annotations\[0\]: image 5 is not in the file's list"),
    ({"annotations": [{"image_id": 7, "category_id": "1"}]}, '"category_id" must be a whole number'),
    ({"annotations": [[]]}, '"image_id" must be a whole number'),
    ({"images": [{"id": 1, "file_name": "../x.jpg"}]}, r"images\[0\]: an image must be a path inside its folder"),
    ({"images": []}, 'has no "images"'),
    ({"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}, "two categories have the same id"),
])  # fmt: skip
def test_broken_coco(tmp_path, change, message):
    with pytest.raises(FormatError, match=message):
        read_coco(write_json(tmp_path / "i.json", COCO | change), name="mini")


@pytest.mark.parametrize("data", [b"", b"{", b"[1, 2", b'{"images": [{"id": 1, "file_n\xff', b"\x00" * 20, b"[]"])
def test_no_json(tmp_path, data):
    (tmp_path / "i.json").write_bytes(data)
    with pytest.raises(FormatError, match=r"i\.json"):
        read_coco(tmp_path / "i.json", name="mini")


# ADE20k


def test_ade20k_and_the_clean_subset(tmp_path):
    masks, objects = write_ade20k(tmp_path, ADE_val_1=[[0, 1], [1, 10]], ADE_val_2=[[3, 3], [0, 0]], ADE_val_3=[[0, 0]])
    benchmark = read_ade20k(masks, objects, name="ade")
    assert shown(benchmark) == {"ADE_val_1": {"wall", "windowpane"}, "ADE_val_2": {"base"}, "ADE_val_3": set()}
    assert benchmark.asked[9] == "window"
    clean = clean_subset(benchmark, name="clean")
    assert clean.classes == ("wall", "building", "windowpane")
    assert "our protocol" in clean.notes[-1]
    assert clean.images == benchmark.images


def test_the_clean_subset_leaves_143_and_says_why():
    dropped = dropped_from_ade20k()
    assert 150 - len(dropped) == 143
    assert all(len(reason) > 20 for reason in dropped.values())


def test_every_word_stands_for_one_class_of_its_table():
    for name in ("coco", "ade20k"):
        firsts = Counter(words[0] for words in _tables()[name].values())
        assert max(firsts.values()) == 1
        assert all(len(set(words)) == len(words) for words in _tables()[name].values())


def test_broken_ade20k(tmp_path):
    masks, objects = write_ade20k(tmp_path, a=[[0, 1]], b=[[11, 0]])
    with pytest.raises(FormatError, match=r"b\.png: a pixel has class 11, there are 10"):
        read_ade20k(masks, objects, name="ade")
    PIL.Image.new("RGB", (2, 2)).save(masks / "b.png")
    with pytest.raises(FormatError, match=r"b\.png: expected 8-bit labels"):
        read_ade20k(masks, objects, name="ade")
    (masks / "b.png").write_bytes((masks / "a.png").read_bytes()[:45])
    with pytest.raises(FormatError, match=r"b\.png is no label image"):
        read_ade20k(masks, objects, name="ade")
    with pytest.raises(InputError, match="must be a folder with the label images"):
        read_ade20k(objects, objects, name="ade")
    write_lines(objects, "1\t0.1\twall", "3\t0.1\tsky")
    with pytest.raises(FormatError, match="line 2: expected number 2"):
        read_ade20k(masks, objects, name="ade")


# NUS-WIDE


def test_nus_wide(tmp_path):
    benchmark = read_nus_wide(write_nus_wide(tmp_path), name="nus")
    assert shown(benchmark) == {"actor/0001_2.jpg": {"beach"}, "zoo/0003_1.jpg": {"airport", "beach"}}


def test_broken_nus_wide(tmp_path):
    folder = write_nus_wide(tmp_path)
    write_lines(folder / "truth" / "Labels_beach_Test.txt", "1", "0")
    with pytest.raises(FormatError, match="must have 3 lines"):
        read_nus_wide(folder, name="nus")
    write_lines(folder / "truth" / "Labels_beach_Test.txt", "1", "x", "0")
    with pytest.raises(FormatError, match="line 2: expected 0 or 1, got 'x'"):
        read_nus_wide(folder, name="nus")
    (folder / "lists" / "Concepts81.txt").unlink()
    with pytest.raises(InputError, match=r"has no Concepts81\.txt"):
        read_nus_wide(folder, name="nus")


# CSV

TAGS = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=6)


@given(st.dictionaries(st.from_regex(r"[a-z]{1,5}\.jpg", fullmatch=True), st.sets(TAGS, max_size=4), min_size=1))
def test_both_kinds_of_csv_say_the_same(tmp_path_factory, images):
    import csv

    classes = sorted({tag for tags in images.values() for tag in tags} - {"id", "path", "file_name", "image", "tag"})
    images = {image: tags & set(classes) for image, tags in images.items()}
    if not classes:
        return
    folder = tmp_path_factory.mktemp("csv")
    with (folder / "rows.csv").open("w", encoding="utf-8", newline="") as file:
        rows = [(image, tag) for image, tags in images.items() for tag in sorted(tags) or [""]]
        csv.writer(file).writerows([("path", "tag"), *rows])
    with (folder / "columns.csv").open("w", encoding="utf-8", newline="") as file:
        table = [(image, *(int(tag in tags) for tag in classes)) for image, tags in images.items()]
        csv.writer(file).writerows([("path", *classes), *table])
    by_rows, by_columns = (read_table(folder / f"{kind}.csv", name="mini") for kind in ("rows", "columns"))
    assert shown(by_rows) == shown(by_columns) == images


@pytest.mark.parametrize(("text", "message"), [
    ("name,tag\na.jpg,cat\n", "line 1: expected a column id, path, file_name, image"),
    ("path,cat,cat\na.jpg,1,0\n", "two columns have the same name"),
    ("path,cat\na.jpg,2\n", "line 2: column 'cat' must hold 0 or 1, got '2'"),
    ("path,cat\na.jpg,1\na.jpg,0\n", "line 3: image 'a.jpg' stands twice"),
    ("path,cat\na.jpg\n", "line 2: expected 2 cells, got 1"),
    ("path,tag\n/etc/passwd,cat\n", "line 2: an image must be a path inside its folder"),
    ('path,tag\n"a.jpg,cat\n', "is no CSV"),
    ("", "line 1: expected"),
    ("path,tag\na.jpg,\n", "1 images and 0 classes"),
])  # fmt: skip
def test_broken_csv(tmp_path, text, message):
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    with pytest.raises(FormatError, match=message):
        read_table(tmp_path / "t.csv", name="mini")


# Text files from the internet


@pytest.mark.parametrize(("line", "message"), [
    ("test/1,carr", "line 2: 'carr' is none of the 2 labels; did you mean"),
    ("test/0,car", "line 2: image 'test/0' stands twice"),
    ("..\\x,car", "line 2: an image must be a path inside its folder"),
    (",car", "line 2: an image must be a path"),
    ("x" * 1_000_001, "line 2: more than 1000000 characters"),
])  # fmt: skip
def test_broken_lines(tmp_path, line, message):
    tags = write_lines(tmp_path / "t.txt", "car", "dog")
    with pytest.raises(FormatError, match=message):
        read_tag_lists(write_lines(tmp_path / "a.txt", "test/0,car", line), tags, name="mini")


def test_bytes_that_are_no_text(tmp_path):
    tags = write_lines(tmp_path / "t.txt", "car")
    (tmp_path / "a.txt").write_bytes(b"test/0,car\n\xff\xfe,car\n")
    with pytest.raises(FormatError, match="is no text in UTF-8"):
        read_tag_lists(tmp_path / "a.txt", tags, name="mini")
    with pytest.raises(InputError, match="cannot read"):
        read_tag_lists(tmp_path / "none.txt", tags, name="mini")


def test_names_of_benchmarks(tmp_path):
    with pytest.raises(InputError, match='unknown benchmark "coco80"; did you mean'):
        open_benchmark("coco80", tmp_path)
    with pytest.raises(InputError, match="needs its list of classes"):
        open_benchmark("hico-600", tmp_path)


def test_what_a_benchmark_refuses():
    truth = np.zeros((1, 2), bool)
    with pytest.raises(InputError, match=r"truth must have shape \(2, 2\)"):
        Benchmark("b", ("a", "c"), ("x", "y"), truth)
    with pytest.raises(InputError, match="stands twice"):
        Benchmark("b", ("a", "a"), ("x",), np.zeros((2, 1), bool))
    with pytest.raises(InputError, match="at least one word for each of the 2 classes"):
        Benchmark("b", ("a",), ("x", "y"), truth, words=(("x",), ()))
    one = Benchmark("b", ("a",), ("x", "y"), truth)
    assert one.fingerprint == Benchmark("c", ("a",), ("x", "y"), ~truth).fingerprint
    assert one.fingerprint != Benchmark("b", ("a",), ("x", "z"), truth).fingerprint
