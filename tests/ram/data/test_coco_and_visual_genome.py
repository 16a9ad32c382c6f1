"""COCO's and Visual Genome's annotation files as records; pycocotools is the peer for COCO."""

import json

import pytest
from pycocotools.coco import COCO

from rasa.errors import FormatError, InputError
from rasa_ram.data.coco_captions import read_coco
from rasa_ram.data.manifest import ReadReport
from rasa_ram.data.manifest_tags import TagFinder
from rasa_ram.data.records import Record
from rasa_ram.data.visual_genome import read_visual_genome
from rasa_ram.vocabulary import Vocabulary

TAGS = Vocabulary(("dog", "cat", "television", "person"), synonyms=((), (), ("TV", "tv set"), ("man", "woman")))
IMAGES = [{"id": 7, "file_name": "7.jpg"}, {"id": 3, "file_name": "3.jpg"}, {"id": 5, "file_name": "5.jpg"}]
CAPTIONS = [{"id": i, "image_id": image, "caption": text} for i, (image, text) in enumerate(
    [(3, "a cat"), (7, "a dog\n"), (3, "ein Kätzchen"), (7, "two dogs")])]  # fmt: skip
CATEGORIES = [{"id": 18, "name": "dog"}, {"id": 72, "name": "tv"}, {"id": 88, "name": "teddy bear"}]
BOXES = [{"id": i, "image_id": image, "category_id": category} for i, (image, category) in enumerate(
    [(7, 18), (7, 72), (7, 18), (3, 88), (3, 88)])]  # fmt: skip


def write(path, content):
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


@pytest.fixture
def captions(tmp_path):
    return write(
        tmp_path / "captions.json", {"info": {"a": 1}, "images": IMAGES, "licenses": [{}], "annotations": CAPTIONS}
    )


@pytest.fixture
def instances(tmp_path):
    return write(tmp_path / "instances.json", {"annotations": BOXES, "images": IMAGES, "categories": CATEGORIES})


def test_captions_and_tags_join(captions, instances):
    report = ReadReport()
    records = list(read_coco(captions, instances=instances, vocabulary=TAGS, folder="train2017", report=report))
    assert records == [
        Record(image_path="train2017/7.jpg", captions=("a dog\n", "two dogs"), parsed_ids=((), ()), tag_ids=(0, 2)),
        Record(image_path="train2017/3.jpg", captions=("a cat", "ein Kätzchen"), parsed_ids=((), ()), tag_ids=()),
        Record(image_path="train2017/5.jpg", tag_ids=()),
    ]
    assert (report.records, report.bad, report.unmapped) == (3, 0, {"teddy bear": 2})


def test_either_file_alone(captions, instances):
    assert [(r.image_path, r.captions, r.tag_ids) for r in read_coco(captions)][1] == (
        "3.jpg",
        ("a cat", "ein Kätzchen"),
        None,
    )
    assert [r.tag_ids for r in read_coco(None, instances=instances, vocabulary=TAGS)] == [(0, 2), (), ()]
    with pytest.raises(InputError, match="give the captions, the instances, or both"):
        read_coco(None)
    with pytest.raises(InputError, match="become tags of a vocabulary; give it"):
        read_coco(None, instances=instances)


def test_pycocotools_finds_the_same(captions, instances, capsys):
    said, seen = COCO(str(captions)), COCO(str(instances))
    names = {c["id"]: c["name"] for c in seen.loadCats(seen.getCatIds())}
    for record in read_coco(captions, instances=instances, vocabulary=Vocabulary(tuple(names.values()))):
        (image,) = [image for image in IMAGES if image["file_name"] == record.image_path]
        assert list(record.captions) == [a["caption"] for a in said.loadAnns(said.getAnnIds(imgIds=[image["id"]]))]
        known = {names[a["category_id"]] for a in seen.loadAnns(seen.getAnnIds(imgIds=[image["id"]]))}
        assert {tuple(names.values())[tag] for tag in record.tag_ids} == known
    assert "index created" in capsys.readouterr().out


def test_labels_find_names_before_synonyms_and_case_before_none():
    table = Vocabulary(("Polish", "polish", "bow", "tie"), synonyms=((), (), ("Tie", "knot"), ()))
    report = ReadReport()
    finder = TagFinder(table, report)
    assert [finder.ids([label]) for label in ("Polish", "polish", "POLISH", "tie", "Tie", "TIE", " Knot ")] == [
        (0,), (1,), (1,), (3,), (2,), (3,), (2,),
    ]  # fmt: skip
    homonyms = Vocabulary(("bat", "ball", "bat"), allow_repeats=True)
    assert TagFinder(homonyms, report).ids(["ball", "Bat", "none"]) == (1, 0, 2)
    assert report.unmapped == {"none": 1}


def test_bad_entries_of_coco(tmp_path):
    path = write(tmp_path / "c.json", {
        "images": [*IMAGES, {"id": 9}, {"id": "x", "file_name": "x"}, 5, {"id": 10, "file_name": ""}],
        "annotations": [
            {"image_id": 3, "caption": ""}, {"image_id": 3, "caption": "x" * 10_001},
            {"image_id": 3, "caption": "a\x00"}, {"image_id": 99, "caption": "whose?"},
            {"caption": "whose?"}, {"image_id": 7}, *CAPTIONS,
        ],
    })  # fmt: skip
    report = ReadReport()
    records = list(read_coco(path, on_bad="skip", report=report))
    assert [record.captions for record in records] == [("a dog\n", "two dogs"), ("a cat", "ein Kätzchen"), ()]
    assert dict(report.counts) == {
        "no-image": 3, "wrong-type": 4, "empty-caption": 1, "long-caption": 1, "bad-characters": 1,
    }  # fmt: skip
    with pytest.raises(FormatError, match=r"c\.json: record 3: image 9: has no file_name"):
        list(read_coco(path))


def test_broken_json_of_coco(tmp_path, captions):
    captions.write_bytes(captions.read_bytes()[:-30])
    with pytest.raises(
        FormatError, match=r"record 3: broken JSON at byte \d+: .*3 entries of 'annotations' were read before"
    ):
        list(read_coco(captions))
    report = ReadReport()
    records = list(read_coco(captions, on_bad="skip", report=report))
    assert [len(record.captions) for record in records] == [1, 2, 0]
    assert dict(report.counts) == {"broken-file": 1}
    with pytest.raises(InputError, match=r"cannot read .*none\.json"):
        list(read_coco(tmp_path / "none.json"))


# Visual Genome


@pytest.fixture
def genome(tmp_path):
    write(tmp_path / "region_descriptions.json", [
        {"id": 2, "regions": [{"phrase": "a man ", "image_id": 2}, {"phrase": "the tv is on"}]},
        {"id": 1, "regions": []},
        {"id": 4, "regions": [{"phrase": "a kite"}]},
    ])  # fmt: skip
    write(tmp_path / "image_data.json", [
        {"image_id": 1, "url": "https://example.org/rak248/VG_100K_2/1.jpg"},
        {"image_id": 2, "url": "https://example.org/rak248/VG_100K/2.jpg"},
    ])  # fmt: skip
    write(tmp_path / "objects.json", [
        {"image_id": 1, "objects": [{"names": ["Dog"], "x": 1}, {"names": ["dog", "kite"]}]},
        {"image_id": 2, "objects": [{"names": ["man"]}, {"names": ["tv_set"]}, {"names": ["woman"]}]},
    ])  # fmt: skip
    write(
        tmp_path / "attributes.json",
        [{"image_id": 2, "attributes": [{"names": ["x"], "attributes": ["cat", "tall"]}, {"names": ["y"]}]}],
    )
    return tmp_path


def test_regions_objects_and_attributes_join(genome):
    report = ReadReport()
    assert list(read_visual_genome(genome, vocabulary=TAGS, report=report)) == [
        Record(image_path="VG_100K/2.jpg", captions=("a man", "the tv is on"), parsed_ids=((), ()), tag_ids=(3, 2, 1)),
        Record(image_path="VG_100K_2/1.jpg", tag_ids=(0,)),
        Record(image_path="4.jpg", captions=("a kite",), parsed_ids=((),), tag_ids=()),
    ]
    assert (report.records, report.unmapped) == (3, {"kite": 1, "tall": 1})


def test_regions_alone(tmp_path, genome):
    for name in ("image_data", "objects", "attributes"):
        (genome / f"{name}.json").unlink()
    assert [(r.image_path, r.tag_ids) for r in read_visual_genome(genome)] == [
        ("2.jpg", None),
        ("1.jpg", None),
        ("4.jpg", None),
    ]
    (genome / "region_descriptions.json").unlink()
    with pytest.raises(InputError, match=r"there is no .*region_descriptions\.json; unpack"):
        read_visual_genome(genome)


def test_bad_entries_of_visual_genome(genome):
    write(genome / "region_descriptions.json", [
        {"id": 2, "regions": [{"phrase": ""}, {"phrase": "ok"}, {"phrase": 5}, 3]},
        {"regions": []}, 7, {"id": 3, "regions": {}},
    ])  # fmt: skip
    write(genome / "objects.json", [{"image_id": 2, "objects": [{"names": "man"}]}, {"objects": []}])
    write(
        genome / "image_data.json", [{"image_id": 2, "url": "https://example.org/../x"}, {"image_id": 3, "url": None}]
    )
    report = ReadReport()
    (record,) = read_visual_genome(genome, vocabulary=TAGS, on_bad="skip", report=report)
    assert (record.image_path, record.captions, record.tag_ids) == ("2.jpg", ("ok",), (1,))
    assert dict(report.counts) == {"empty-caption": 1, "wrong-type": 7, "no-image": 2}
    with pytest.raises(FormatError, match=r"image_data\.json: record 0: image 2 has the address"):
        list(read_visual_genome(genome, vocabulary=TAGS))
