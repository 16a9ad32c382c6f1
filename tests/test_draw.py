"""Pictures of results: what is painted, where labels go, and what stays untouched."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest
import supervision as sv
from hypothesis import given
from hypothesis import strategies as st

from rasa.draw import PALETTE, annotate, mask_map, place_labels, side_by_side, tag_color
from rasa.draw.colors import text_color
from rasa.draw.legend import BACKGROUND, flow, ranges
from rasa.draw.overlay import Style
from rasa.draw.text import line_height, missing_letters, shorten, text_alpha
from rasa.errors import InputError, RasaWarning
from rasa.types import Failure, Image, Instances, Result, Tags

ROOT = Path(__file__).parents[1]
COMMON = ["person", "dog", "car", "cat", "chair", "table", "bottle", "cup", "bicycle", "bird", "horse", "boat"]
COMMON += ["tree", "flower", "bus", "truck", "book", "tv", "sofa", "motorcycle"]
has_unicode_font = pytest.mark.skipif(not hasattr(cv2, "FontFace"), reason="OpenCV 4 carries no font for Chinese")


def photo(height=200, width=300, seed=0):
    small = np.random.default_rng(seed).integers(40, 216, (8, 8, 3), np.uint8)
    return Image(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), name="photo.jpg")


def ellipse(size, box):
    mask = np.zeros(size, np.uint8)
    x1, y1, x2, y2 = box
    axes = (max(1, int(x2 - x1) // 2 - 2), max(1, int(y2 - y1) // 2 - 2))
    cv2.ellipse(mask, (int(x1 + x2) // 2, int(y1 + y2) // 2), axes, 0, 0, 360, 1, -1)
    return mask > 0


def result_for(image, boxes, labels, *, masks=True, tags=("street",)):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    found = Instances(
        boxes=boxes,
        scores=np.linspace(0.95, 0.4, len(boxes)).astype(np.float32),
        labels=tuple(labels),
        masks=np.array([ellipse(image.size, box) for box in boxes]).reshape(-1, *image.size) if masks else None,
    )
    return Result(image.name, image.size, Tags(tuple(tags), np.linspace(0.9, 0.5, len(tags))), found)


def random_result(image, count, *, seed=0, masks=True):
    rng = np.random.default_rng(seed)
    height, width = image.size
    corner = rng.uniform(0, 0.8, (count, 2)) * [width, height]
    extent = rng.uniform(0.05, 0.2, (count, 2)) * [width, height]
    labels = [COMMON[i % 6] for i in range(count)]
    return result_for(image, np.hstack([corner, corner + extent]), labels, masks=masks)


@pytest.fixture(scope="module")
def scene():
    image = photo()
    return image, result_for(image, [(20, 60, 120, 180), (150, 80, 270, 190), (60, 90, 90, 130)], ["dog", "car", "dog"])


def area(image, size):
    return image.pixels[: size[0], : size[1]]


# Colours


def test_colours_never_change():
    expected = {"person": (132, 90, 252), "dog": (252, 198, 102), "car": (0, 180, 0), "cat": (204, 90, 60)}
    expected |= {"chair": (72, 240, 198), "狗": (210, 126, 252), "golden retriever": (72, 240, 198)}
    assert {tag: tag_color(tag) for tag in expected} == expected
    code = "from rasa.draw.colors import tag_color; print(tag_color('dog'))"
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | {"PYTHONHASHSEED": "7"},
        capture_output=True,
        check=True,
    )
    assert run.stdout.strip() == str(expected["dog"]).encode()


def test_case_and_spaces_make_no_colour():
    assert tag_color(" Golden  Retriever\n") == tag_color("golden retriever")


def oklab(colors):
    linear = np.asarray(colors) / 255
    linear = np.where(linear <= 0.04045, linear / 12.92, ((linear + 0.055) / 1.055) ** 2.4)
    to_lms = [[0.4122, 0.5363, 0.0514], [0.2119, 0.6807, 0.1074], [0.0883, 0.2817, 0.6300]]
    to_lab = [[0.2105, 0.7936, -0.0041], [1.9780, -2.4286, 0.4506], [0.0259, 0.7828, -0.8087]]
    return np.cbrt(linear @ np.array(to_lms).T) @ np.array(to_lab).T


def nearest(tags):
    lab = oklab([tag_color(tag) for tag in tags])
    return min(np.linalg.norm(a - b) for a, b in combinations(lab, 2))


def test_common_tags_are_told_apart():
    # 0.02 is about the least difference that an eye sees between large patches.
    assert nearest(COMMON[:5]) > 0.2
    assert nearest(COMMON) > 0.085
    lab = oklab(PALETTE)
    assert min(np.linalg.norm(a - b) for a, b in combinations(lab, 2)) > 0.085


def test_text_contrasts_with_every_colour():
    assert {text_color(color) for color in PALETTE} == {(0, 0, 0), (255, 255, 255)}
    lightness = oklab(PALETTE)[:, 0]
    for color, light in zip(PALETTE, lightness, strict=True):
        assert abs(light - (text_color(color)[0] > 0)) > 0.27


# Placement of labels

boxes = st.lists(
    st.tuples(*(st.floats(-50, 450, width=32) for _ in range(4))).map(
        lambda b: (min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]), max(b[1], b[3]))
    ),
    max_size=25,
)


def disjoint(a, b, gap):
    return a[2] + gap <= b[0] or b[2] + gap <= a[0] or a[3] + gap <= b[1] or b[3] + gap <= a[1]


@given(
    boxes,
    st.integers(1, 90),
    st.integers(1, 30),
    st.tuples(st.integers(1, 400), st.integers(1, 400)),
    st.integers(0, 4),
)
def test_labels_stay_inside_and_apart(boxes, width, height, picture_wh, gap):
    sizes = [(width + i % 5, height) for i in range(len(boxes))]
    places = place_labels(np.array(boxes).reshape(-1, 4), sizes, picture_wh, gap=gap)
    found = [place for place in places if place is not None]
    for (x1, y1, x2, y2), size in ((p, s) for p, s in zip(places, sizes, strict=True) if p is not None):
        assert (x2 - x1, y2 - y1) == size
        assert x1 >= 0
        assert y1 >= 0
        assert x2 <= picture_wh[0]
        assert y2 <= picture_wh[1]
    assert all(disjoint(a, b, gap) for a, b in combinations(found, 2))
    assert places == place_labels(np.array(boxes).reshape(-1, 4), sizes, picture_wh, gap=gap)
    if boxes and (width + 4 <= picture_wh[0] and height <= picture_wh[1]):
        assert found  # the first always finds room


@given(st.floats(0, 300), st.floats(0, 300), st.floats(1, 100), st.floats(1, 100))
def test_a_label_touches_its_box(x, y, width, height):
    ((x1, y1, x2, y2),) = place_labels([[x, y, x + width, y + height]], [(40, 12)], (400, 400))
    assert x1 <= x + width + 1
    assert x2 >= x - 1
    assert y1 <= y + height + 1
    assert y2 >= y - 1


def test_where_labels_go():
    assert place_labels([[10, 20, 50, 60]], [(30, 8)], (100, 100)) == [(10, 12, 40, 20)]
    assert place_labels([[10, 0, 50, 60]], [(30, 8)], (100, 100)) == [(10, 0, 40, 8)]
    # The place above is that of a smaller object: the label moves off it.
    ((x1, y1, x2, y2), _) = place_labels([[10, 50, 90, 90], [10, 30, 90, 49]], [(30, 8), (30, 8)], (100, 100))
    assert disjoint((x1, y1, x2, y2), (10, 30, 90, 49), 0)
    assert place_labels([[0, 0, 9, 9]], [(11, 5)], (10, 10)) == [None]
    assert place_labels(np.zeros((0, 4)), [], (10, 10)) == []
    with pytest.raises(InputError, match=r"boxes must have shape \(1, 4\), got \(2, 4\); pass one size per box"):
        place_labels(np.zeros((2, 4)), [(1, 1)], (10, 10))


# Text


def test_text_lines_share_their_height():
    for size in (11, 24, 120):
        assert {text_alpha(text, size).shape[0] for text in ("dog", "狗", "Ég", "", "собака")} == {line_height(size)}
    assert text_alpha("dog 0.97", 20).max() == 255
    assert text_alpha("a\n\tb\x1b\u200b", 20).shape == text_alpha("a b", 20).shape


def test_no_ink_is_cut_off():
    for text in ("Ågjpqy|", "Éjß", "ÑÇ", "كلب"):
        alpha = text_alpha(text, 40)
        assert alpha[0].max() == 0, text
        assert alpha[-1].max() == 0, text


@has_unicode_font
@pytest.mark.parametrize("text", ["dog", "Bücherregal", "собака", "σκύλος", "狗", "犬 0.97", "개", "كلب", "כלב"])
def test_scripts_are_drawn_not_boxed(text):
    assert missing_letters(text) == frozenset()
    # Letters that were all drawn as the same box would look alike.
    letters = [text_alpha(letter, 40) for letter in dict.fromkeys(text) if letter.isalpha()]
    assert not any(np.array_equal(a, b) for a, b in combinations(letters, 2))


def test_what_no_font_draws_is_named():
    image = photo()
    assert missing_letters("dog \U0001f436") == {"\U0001f436"}
    np.testing.assert_array_equal(text_alpha("\U0001f436", 20), text_alpha("U+1F436", 20))
    with pytest.warns(RasaWarning, match=r"no font here draws U\+1F436 in the tags of 'photo.jpg'") as caught:
        annotate(image, result_for(image, [(10, 50, 90, 90)], ["dog \U0001f436"]))
    assert len(caught) == 1
    assert caught[0].filename == __file__


def test_long_text_is_shortened():
    text = "a very long tag that nobody can read"
    short = shorten(text, 12, 90)
    assert short.endswith("…")
    assert text.startswith(short[:-1])
    assert 60 < text_alpha(short, 12).shape[1] <= 90
    assert shorten("dog", 12, 90) == "dog"


# Pictures


@pytest.mark.parametrize("draw", [annotate, side_by_side])
def test_nothing_that_comes_in_is_changed(scene, draw):
    image, result = scene
    before = image.pixels.copy(), result.to_json()
    pixels = np.array(image.pixels)  # writable, as a caller's own array is
    draw(Image(pixels, name=image.name), result)
    np.testing.assert_array_equal(pixels, before[0])
    assert result.to_json() == before[1]


@pytest.mark.parametrize("seed", range(5))
def test_only_masks_boxes_and_labels_change(seed):
    image = photo(240, 360, seed)
    result = random_result(image, 4, seed=seed)
    style = Style.for_size(image.size)
    allowed = np.zeros(image.size, np.uint8)
    for mask, box in zip(result.instances.masks, result.instances.boxes, strict=True):
        x1, y1, x2, y2 = (round(float(v)) for v in box)
        allowed |= mask.astype(np.uint8)
        cv2.rectangle(allowed, (x1, y1), (x2, y2), 1, 1)
    reach = 2 * style.line + 1
    allowed = cv2.dilate(allowed, np.ones((reach, reach), np.uint8)) > 0
    plain = area(annotate(image, result, labels=False), image.size)
    np.testing.assert_array_equal(plain[~allowed], image.pixels[~allowed])
    assert (plain[allowed] != image.pixels[allowed]).any(axis=1).mean() > 0.5
    # Labels may go elsewhere, but they are small and change nothing but themselves.
    labelled = area(annotate(image, result), image.size)
    extra = (labelled != plain).any(axis=2)
    assert 0 < extra.mean() < 0.15


def test_switches_are_obeyed(scene):
    image, result = scene
    bare = annotate(image, result, masks=False, boxes=False, labels=False, legend=False)
    np.testing.assert_array_equal(bare.pixels, image.pixels)
    default = annotate(image, result)
    for switch in ("masks", "boxes", "labels", "legend", "scores"):
        other = annotate(image, result, **{switch: False})
        changed = other.pixels.shape != default.pixels.shape or (other.pixels != default.pixels).any()
        assert changed, switch
    assert annotate(image, result, legend=False).size == image.size


def test_boxes_have_their_tags_colours(scene):
    image, result = scene
    drawn = annotate(image, result, masks=False, labels=False, legend=False).pixels
    for box, label in zip(result.instances.boxes.astype(int), result.instances.labels, strict=True):
        assert tuple(drawn[box[3], (box[0] + box[2]) // 2]) == tag_color(label)
        assert tuple(drawn[(box[1] + box[3]) // 2, box[0]]) == tag_color(label)


def test_tints_are_those_of_supervision(scene):
    image, result = scene
    found = result.instances
    drawn = annotate(image, result, boxes=False, labels=False, legend=False).pixels
    palette = sv.ColorPalette([sv.Color(*tag_color(label)[::-1]) for label in found.labels])
    annotator = sv.MaskAnnotator(palette, opacity=0.42, color_lookup=sv.ColorLookup.INDEX)
    detections = sv.Detections(xyxy=found.boxes, mask=found.masks, class_id=np.arange(len(found)))
    expected = annotator.annotate(image.pixels.copy(), detections)
    edges = np.zeros(image.size, np.uint8)
    for mask in found.masks:
        edges |= cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((7, 7), np.uint8))
    inner = edges == 0
    assert np.abs(drawn[inner].astype(int) - expected[inner]).max() <= 1
    assert (drawn[inner] != image.pixels[inner]).any(axis=1).sum() > 5000


def test_masks_are_outlined_in_solid_colour(scene):
    image, result = scene
    drawn = annotate(image, result, boxes=False, labels=False, legend=False).pixels
    mask = result.instances.masks[1].astype(np.uint8)
    rim = (mask - cv2.erode(mask, cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3)))) > 0
    difference = np.abs(drawn[rim].astype(int) - tag_color("car")).max(axis=1)
    assert np.percentile(difference, 75) < 20  # the rest is where the line is anti-aliased


def test_the_legend_never_covers_the_photo(scene):
    image, result = scene
    whole, bare = annotate(image, result), annotate(image, result, legend=False)
    np.testing.assert_array_equal(area(whole, image.size), bare.pixels)
    assert whole.name == image.name
    strip = whole.pixels[image.size[0] :]
    assert strip.shape[1] == image.size[1]
    colours = {tuple(int(c) for c in color) for color in strip.reshape(-1, 3)[::1]}
    assert {tag_color("dog"), tag_color("car"), tag_color("street"), BACKGROUND} <= colours


def test_the_legend_wraps_and_ends():
    image = photo()
    many = Result("x", image.size, Tags(tuple(f"a tag with number {i}" for i in range(300)), np.full(300, 0.5)))
    few = Result("x", image.size, Tags(("a tag",), np.full(1, 0.5)))
    one, all_of_them = (annotate(image, result).size[0] - 200 for result in (few, many))
    assert one < 35
    assert 3 * one < all_of_them < 8 * one  # six rows, the last of which counts the rest


def test_flow_and_ranges():
    assert flow([30, 30, 30], 70, 5) == [(0, 0), (0, 35), (1, 0)]
    assert flow([90, 10], 50, 5) == [(0, 0), (1, 0)]
    assert flow([], 50, 5) == []
    assert ranges([1, 2, 3, 7, 9, 10]) == "1-3, 7, 9, 10"
    assert ranges([]) == ""


def test_many_objects_become_numbers():
    image = photo(240, 360)
    few, many = (random_result(image, count, masks=False) for count in (4, 50))
    with_scores, without = (annotate(image, many, boxes=False, legend=False, scores=s).pixels for s in (True, False))
    np.testing.assert_array_equal(with_scores, without)  # numbers have no scores
    changed = {
        count: (annotate(image, result, boxes=False, legend=False).pixels != image.pixels).any(axis=2).mean() / count
        for count, result in ((4, few), (50, many))
    }
    assert changed[50] < changed[4] / 2  # a number takes less room than a name
    plain = annotate(image, few).size[0]
    assert annotate(image, many).size[0] > plain  # the legend lists the numbers


def test_labels_grow_with_the_picture():
    heights = {}
    for width in (300, 1200, 6000):
        style = Style.for_size((width * 2 // 3, width))
        heights[width] = style.font
        assert style.line >= 1
    assert heights[300] >= 11
    assert 0.015 < heights[1200] / 1200 < 0.03
    assert 0.015 < heights[6000] / 6000 < 0.03


def test_side_by_side(scene):
    image, result = scene
    both = side_by_side(image, result)
    bare = annotate(image, result, legend=False)
    height, width = image.size
    np.testing.assert_array_equal(both.pixels[:height, :width], image.pixels)
    np.testing.assert_array_equal(both.pixels[:height, -width:], bare.pixels)
    assert 2 * width < both.size[1] < 2 * width + 12
    assert both.size[0] > height
    assert side_by_side(image, result, legend=False).size[0] == height


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (30, 2000), (2000, 30), (12, 12)])
@pytest.mark.parametrize("masks", [True, False])
def test_every_shape_of_picture(size, masks):
    image = photo(*size)
    box = (0, 0, size[1], size[0])
    for result in (Result("x", size), result_for(image, [box, box], ["dog", "a long name of a thing"], masks=masks)):
        for draw in (annotate, side_by_side):
            drawn = draw(image, result)
            assert drawn.size[0] > size[0]
            assert drawn.size[1] >= size[1]


def test_odd_instances():
    image = photo(60, 80)
    outside = [(-30, -30, -10, -10), (200, 200, 300, 300), (-1e30, 10, 1e30, 20), (5, 5, 5, 5)]
    masks = np.zeros((4, 60, 80), bool)
    masks[1, 30, 40] = True  # one pixel
    masks[2, :, ::2] = True
    masks[3] = True
    found = Instances(np.array(outside, np.float32), np.array([0, 1, 0.5, 0.5], np.float32), tuple("abcd"), masks)
    drawn = annotate(image, Result("x", image.size, instances=found), boxes=False, labels=False).pixels
    assert tuple(drawn[30, 40]) == tag_color("b")
    assert annotate(image, Result("x", image.size, instances=found)).size[1] >= 80
    # Masks in another memory order are the same masks.
    turned = np.ascontiguousarray(masks.transpose(2, 1, 0)).transpose(2, 1, 0)
    other = Result("x", image.size, instances=Instances(found.boxes, found.scores, found.labels, turned))
    np.testing.assert_array_equal(annotate(image, other, boxes=False, labels=False).pixels, drawn)


def test_a_failed_result_says_why():
    image = photo()
    failed = Result("photo.jpg", (0, 0), failure=Failure("decode", "ImageError", "image 'photo.jpg' is broken"))
    drawn = annotate(image, failed)
    np.testing.assert_array_equal(area(drawn, image.size), image.pixels)
    reddish = (drawn.pixels[200:].astype(int)[..., 0] - drawn.pixels[200:, :, 2] > 80).sum()
    assert reddish > 100
    assert (annotate(image, Result("x", image.size)).pixels[200:] != BACKGROUND).any()  # "nothing found"


def test_a_result_of_another_picture_is_refused(scene):
    _, result = scene
    with pytest.raises(InputError, match=r"picture of size \(200, 300\) .*, but image 'photo.jpg' has \(100, 100\)"):
        annotate(photo(100, 100), result)


# Label maps


def saved_and_read(image):
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return PIL.Image.open(io.BytesIO(buffer.getvalue()))


def test_mask_map_round_trip(scene):
    _, result = scene
    masks = result.instances.masks
    drawn = saved_and_read(mask_map(result))
    assert drawn.mode == "P"
    values = np.asarray(drawn)
    np.testing.assert_array_equal(values == 0, ~masks.any(axis=0))
    np.testing.assert_array_equal(values == 3, masks[2])  # the small dog lies in front of the large one
    np.testing.assert_array_equal(values == 1, masks[0] & ~masks[2])
    np.testing.assert_array_equal(values == 2, masks[1])
    palette = np.array(drawn.getpalette()).reshape(-1, 3)[:4].tolist()
    assert palette[:3] == [[0, 0, 0], list(tag_color("dog")), list(tag_color("car"))]
    assert palette[3] not in palette[:3]  # a shade of its own


@pytest.mark.parametrize(("count", "mode"), [(255, "P"), (256, "I;16"), (300, "I;16")])
def test_mask_maps_of_many(count, mode):
    masks = np.zeros((count, 20, 20), bool)
    masks.reshape(count, -1)[np.arange(count), np.arange(count)] = True
    found = Instances(np.zeros((count, 4)), np.ones(count), ("dog",) * count, masks)
    drawn = saved_and_read(mask_map(Result("x", (20, 20), instances=found)))
    assert drawn.mode == mode
    values = np.asarray(drawn).ravel()
    np.testing.assert_array_equal(values[:count], np.arange(1, count + 1))
    assert not values[count:].any()


def test_mask_maps_of_nothing():
    empty = mask_map(Result("x", (4, 6)))
    assert (empty.size, empty.mode, empty.getextrema()) == ((6, 4), "P", (0, 0))
    image = photo()
    with pytest.raises(InputError, match="has 1 instances but no masks; run a segmenter first"):
        mask_map(result_for(image, [(1, 1, 9, 9)], ["dog"], masks=False))
    with pytest.raises(InputError, match=r"'bad.jpg' has no picture: its size is \(0, 0\)"):
        mask_map(Result("bad.jpg", (0, 0), failure=Failure("decode", "ImageError", "broken")))


# How fast, and what is needed


def seconds(call, repeat):
    call()  # fonts are loaded once
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def test_speed_on_a_small_photo():
    image = photo(375, 500)
    result = random_result(image, 5)
    assert seconds(lambda: annotate(image, result), 5) < 0.06


@pytest.mark.slow
def test_speed_on_24_megapixels():
    image = photo(4000, 6000)
    result = result_for(
        image, [(0, 0, 6000, 4000), *((i * 900, 500, i * 900 + 2000, 3500) for i in range(4))], COMMON[:5]
    )
    assert seconds(lambda: annotate(image, result), 2) < 3


@pytest.mark.parametrize("package", ["supervision", "cv2"])
def test_a_missing_package_is_named(package):
    code = f"""if True:
        import sys
        sys.modules[{package!r}] = None
        try:
            import rasa.draw
        except ImportError as error:
            print(type(error).__name__, error)
    """
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.startswith(f'DependencyError rasa.draw needs "{package}"; install the extra "lite"')
