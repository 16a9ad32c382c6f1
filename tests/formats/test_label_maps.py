"""Label maps: the pixels of masks that do not overlap, and a count of what overlap loses."""

import json
from dataclasses import replace

import numpy as np
import PIL.Image
import pytest
from hypothesis import HealthCheck, given, settings

from rasa.errors import FormatError, InputError
from rasa.formats.label_maps import read_instance_maps, read_semantic_maps, write_instance_maps, write_semantic_maps
from rasa.ops.colors import tag_color
from rasa.ops.label_maps import label_map
from tests.formats.samples import MANY_LABELS, assert_same, assert_same_tags, classes_of, datasets, disc, named_samples
from tests.formats.samples import sample_of as sample

NAMED = named_samples()
# Those whose masks do not overlap.
APART = ["no objects", "one pixel", "image of one pixel", "holes", "part in a hole", "parts", "diagonal", "jpeg",
         "boxes only", "empty mask", "tags only"]  # fmt: skip
PAIRS = {"semantic": (write_semantic_maps, read_semantic_maps), "instance": (write_instance_maps, read_instance_maps)}


def seen_parts(given):
    """Each mask without what is hidden by others."""
    found = given.result.instances
    if found.masks is None or not len(found):
        return found.masks
    values = label_map(found.masks, scores=found.mask_scores)
    return np.stack([values == i + 1 for i in range(len(found))])


def assert_classes_come_back(read, given):
    """Check the areas of the classes."""
    masks, labels, size = seen_parts(given), given.result.instances.labels, given.result.size
    expected = {}
    for mask, label in zip(() if masks is None else masks, labels, strict=masks is not None):
        if mask.any():
            expected[label] = expected.get(label, np.zeros(size, np.bool_)) | mask
    back = read.result.instances
    assert sorted(back.labels) == sorted(expected)
    for label, mask in zip(back.labels, () if back.masks is None else back.masks, strict=True):
        np.testing.assert_array_equal(mask, expected[label])
    assert_same_tags(read.result.tags, given.result.tags)
    assert (read.file_name, read.split, read.id, read.result.size) == (given.file_name, given.split, given.id, size)


@pytest.mark.parametrize("name", APART)
def test_apart_nothing_is_lost(tmp_path, name):
    report = write_instance_maps(tmp_path / "d", [NAMED[name]], classes=classes_of([NAMED[name]]) or ["dog"])
    (read,) = read_instance_maps(tmp_path / "d")
    assert_same([read], [NAMED[name]])
    assert read.read_bytes() == NAMED[name].read_bytes()
    assert not {key for key in report.lost if key != "objects without a mask"}


@pytest.mark.parametrize("name", NAMED)
def test_objects_keep_what_is_seen_of_them(tmp_path, name):
    write_instance_maps(tmp_path / "d", [NAMED[name]], classes=classes_of([NAMED[name]]) or ["dog"])
    (read,) = read_instance_maps(tmp_path / "d")
    assert_same([read], [NAMED[name]], masks=False)
    if len(read.result.instances) and NAMED[name].result.instances.masks is not None:
        np.testing.assert_array_equal(read.result.instances.masks, seen_parts(NAMED[name]))


@pytest.mark.parametrize("name", NAMED)
def test_classes_keep_their_areas(tmp_path, name):
    write_semantic_maps(tmp_path / "d", [NAMED[name]], classes=[*classes_of([NAMED[name]]), "another"])
    (read,) = read_semantic_maps(tmp_path / "d")
    assert_classes_come_back(read, NAMED[name])


@given(datasets())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_dataset(tmp_path_factory, dataset):
    classes, samples = dataset
    folder = tmp_path_factory.mktemp("maps")
    report = write_instance_maps(folder / "instances", samples, classes=classes)
    assert_same(list(read_instance_maps(folder / "instances")), samples, masks=False)
    for read, given_sample in zip(read_instance_maps(folder / "instances"), samples, strict=True):
        if len(read.result.instances):
            np.testing.assert_array_equal(read.result.instances.masks, seen_parts(given_sample))
    hidden = sum(
        int(given_sample.result.instances.masks.sum() - seen_parts(given_sample).sum()) for given_sample in samples
    )
    assert report.lost["pixels of masks hidden by others"] == hidden
    write_semantic_maps(folder / "semantic", samples, classes=classes)
    for read, given_sample in zip(read_semantic_maps(folder / "semantic"), samples, strict=True):
        assert_classes_come_back(read, given_sample)


def test_values_palette_and_legend(tmp_path):
    given_sample = NAMED["overlap"]
    write_semantic_maps(tmp_path / "d", [given_sample], classes=["cat", "犬", "dog"])
    (path,) = (tmp_path / "d" / "maps").iterdir()
    with PIL.Image.open(path) as image:
        image.load()
    assert image.mode == "P"
    small, large = given_sample.result.instances.masks[1], given_sample.result.instances.masks[0]
    values = np.asarray(image)
    assert set(values[small].tolist()) == {1}
    assert set(values[large & ~small].tolist()) == {3}
    np.testing.assert_array_equal(np.asarray(image.convert("RGB"))[small][0], tag_color("cat"))
    assert image.convert("RGB").getpixel((63, 47)) == (0, 0, 0)
    legend = json.loads((tmp_path / "d" / "legend.json").read_text(encoding="utf-8"))
    assert legend["classes"][1] == {"id": 2, "name": "犬", "color": list(tag_color("犬"))}


def test_colours_of_255_classes_differ(tmp_path):
    write_semantic_maps(tmp_path / "d", [], classes=MANY_LABELS[:150])
    legend = json.loads((tmp_path / "d" / "legend.json").read_text(encoding="utf-8"))
    assert len({tuple(entry["color"]) for entry in legend["classes"]}) > 100


@pytest.mark.parametrize(("count", "mode"), [(255, "P"), (256, "I;16")])
@pytest.mark.parametrize("kind", PAIRS)
def test_16_bits_when_needed(tmp_path, kind, count, mode):
    write, read = PAIRS[kind]
    masks = np.eye(300, dtype=np.bool_).reshape(300, 15, 20)[:count]
    given_sample = sample(masks, MANY_LABELS[:count], seed=1)
    write(tmp_path / "d", [given_sample], classes=MANY_LABELS[:count])
    (path,) = (tmp_path / "d" / "maps").iterdir()
    with PIL.Image.open(path) as image:
        assert image.mode == mode
    (back,) = read(tmp_path / "d")
    assert_same([back], [given_sample], scores=kind == "instance", mask_scores=kind == "instance")


def test_what_is_lost_is_counted(tmp_path):
    front, behind = disc((40, 40), (20, 20), 5), disc((40, 40), (20, 24), 9)
    other = disc((40, 40), (20, 29), 3)
    given_sample = sample([behind, front, other], ["dog", "cat", "dog"], seed=3)
    report = write_semantic_maps(tmp_path / "d", [given_sample], classes=["dog", "cat"])
    hidden = int((front & behind).sum())
    assert report.lost == {
        "pixels of masks hidden by others": hidden, "objects merged with others of their class": 1,
        "scores of objects": 3, "scores of masks": 3}  # fmt: skip
    area = (behind | other).sum()
    assert report.worst_iou == (pytest.approx(1 - hidden / area), "photos/3.png", "dog")
    report = write_instance_maps(tmp_path / "e", [given_sample], classes=["dog", "cat"])
    assert report.lost == {"pixels of masks hidden by others": hidden + int((other & behind).sum())}


@pytest.mark.parametrize("kind", PAIRS)
def test_the_same_bytes_every_time(tmp_path, kind):
    for name in ("one", "two"):
        PAIRS[kind][0](tmp_path / name, list(NAMED.values()), classes=classes_of(NAMED.values()))
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert len(files) == 2 * len(NAMED) + 2
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


@pytest.mark.parametrize("kind", PAIRS)
def test_inputs_that_do_not_fit(tmp_path, kind):
    write = PAIRS[kind][0]
    with pytest.raises(InputError, match="'dog', which is not among the 1 classes"):
        write(tmp_path / "d", [NAMED["parts"]], classes=["cat"])
    one, two = replace(NAMED["parts"], file_name="x.png"), replace(NAMED["parts"], file_name="x.jpg")
    with pytest.raises(InputError, match=r"two images have the map 'x\.png'; give them stems"):
        write(tmp_path / "d", [one, two], classes=["dog"])
    assert list(tmp_path.iterdir()) == []


def test_too_many_classes(tmp_path):
    with pytest.raises(InputError, match="at most 65535 classes, got 65536"):
        write_semantic_maps(tmp_path / "d", [], classes=[str(number) for number in range(65536)])


# Broken files


def changed(folder, kind, **changes):
    """A data set with one line, changed."""
    PAIRS[kind][0](folder, [NAMED["overlap"]], classes=["dog", "cat"])
    path = folder / "images.jsonl"
    entry = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(entry | changes) + "\n", encoding="utf-8")


BAD = {
    "path out": ({"file_name": "../x.png"}, "no path inside"),
    "map out": ({"map": "/etc/passwd"}, "no path inside"),
    "no map": ({"map": "x.png"}, r"x\.png is no label map"),
    "size": ({"height": 7}, r"has size \(48, 64\) and mode P, expected \(7, 64\)"),
    "huge": ({"height": 10**12}, "is stated to have"),
    "split": ({"split": "all"}, "line 1: split must be one of"),
    "tags": ({"tags": 5}, "line 1: tags are no list"),
}


@pytest.mark.parametrize("kind", PAIRS)
@pytest.mark.parametrize("name", BAD)
def test_broken_lines_are_named(tmp_path, kind, name):
    changes, message = BAD[name]
    changed(tmp_path / "d", kind, **changes)
    with pytest.raises(FormatError, match=message):
        list(PAIRS[kind][1](tmp_path / "d"))


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        ([], "the map has value 2, more than the line has objects"),
        (5, "more than the line has objects"),
        ([{"label": "dog"}, {}], "line 1: KeyError: 'box'"),
        ([{"label": "cow", "box": [0, 0, 1, 1], "score": 1}] * 2, "object 1 is 'cow', which the legend lacks"),
        ([{"label": "dog", "box": [0, 0, 1, 1], "score": 7}] * 2, r"line 1: scores must be in \[0, 1\]"),
        ([{"label": "dog", "box": [3, 0, 1, 1], "score": 1}] * 2, "line 1: boxes must be xyxy"),
    ],
)
def test_broken_objects_are_named(tmp_path, objects, message):
    changed(tmp_path / "d", "instance", objects=objects)
    with pytest.raises(FormatError, match=message):
        list(read_instance_maps(tmp_path / "d"))


def test_a_value_that_the_legend_lacks(tmp_path):
    changed(tmp_path / "d", "semantic")
    (path,) = (tmp_path / "d" / "maps").iterdir()
    PIL.Image.new("L", (64, 48), 9).save(path)
    with pytest.raises(FormatError, match="the map has value 9, the legend 2 classes"):
        list(read_semantic_maps(tmp_path / "d"))


@pytest.mark.parametrize("text", ["{", "[1]", "\xff", "[" * 100_000])
@pytest.mark.parametrize("kind", PAIRS)
def test_no_index(tmp_path, kind, text):
    changed(tmp_path / "d", kind)
    (tmp_path / "d" / "images.jsonl").write_text(text, encoding="latin-1")
    with pytest.raises(FormatError, match=r"images\.jsonl, line 1"):
        list(PAIRS[kind][1](tmp_path / "d"))


@pytest.mark.parametrize("kind", PAIRS)
def test_missing_files(tmp_path, kind):
    with pytest.raises(InputError, match=r"cannot read .*legend\.json"):
        list(PAIRS[kind][1](tmp_path))
    changed(tmp_path / "d", kind)
    (tmp_path / "d" / "images.jsonl").unlink()
    with pytest.raises(InputError, match=r"cannot read .*images\.jsonl"):
        list(PAIRS[kind][1](tmp_path / "d"))
    (tmp_path / "d" / "legend.json").write_text('{"classes": [{"id": 2, "name": "x"}]}')
    with pytest.raises(FormatError, match="the ids of the classes are not 1 to 1"):
        list(PAIRS[kind][1](tmp_path / "d"))
