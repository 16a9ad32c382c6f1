"""The lite preset's segmenter: fidelity of its network, quality, robustness and repeatability of its masks."""

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
cv2 = pytest.importorskip("cv2")

from rasa.adapters.lite import grabcut  # noqa: E402
from rasa.adapters.lite._dinov2_network import DinoV2Config, DinoV2Focus  # noqa: E402
from rasa.adapters.lite.dinov2 import crop_features, grid_size, load_dinov2, photo_features  # noqa: E402
from rasa.adapters.lite.onnx_weights import read_onnx_weights  # noqa: E402
from rasa.adapters.lite.segmenter import LiteSegmenter, build_segmenter  # noqa: E402
from rasa.errors import FormatError, InputError, RasaWarning, WeightsError  # noqa: E402
from rasa.protocols import Segmenter  # noqa: E402
from rasa.testing import check_segmenter  # noqa: E402
from rasa.types import Image  # noqa: E402
from rasa.weights import fetch  # noqa: E402

CHECKPOINT = "dinov2-vits14.focus"
TINY = DinoV2Config(width=24, depth=2, heads=3, table_size=5, decoder_widths=(8, 8, 8))


@pytest.fixture(scope="module")
def tiny():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = DinoV2Focus(TINY)
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    return network.eval().requires_grad_(False)


@pytest.fixture(params=["patches", "colour"])
def segmenter(request, tiny):
    return LiteSegmenter(tiny if request.param == "patches" else None)


@pytest.fixture(scope="module")
def real(checkpoint_file):
    return LiteSegmenter(load_dinov2(checkpoint_file(CHECKPOINT)))


def disc(*, height=160, width=200, centre=(90, 80), radius=40, seed=0):
    """An orange disc on bluish noise: the photo, its mask and its box."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(60, 120, (height, width, 3)) + np.array([0, 20, 60])
    y, x = np.mgrid[:height, :width] + 0.5
    mask = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 < radius**2
    pixels[mask] = rng.integers(0, 50, (mask.sum(), 3)) + np.array([200, 120, 20])
    box = np.array([centre[0] - radius, centre[1] - radius, centre[0] + radius, centre[1] + radius], np.float32)
    return Image(pixels.clip(0, 255).astype(np.uint8)), mask, box


def iou(mask, other):
    return (mask & other).sum() / (mask | other).sum()


def rows(*boxes):
    return np.array(boxes, np.float32).reshape(-1, 4)


def segment(segmenter, image, boxes):
    return segmenter.segment([image], [boxes])[0]


def test_it_keeps_the_promises_of_a_segmenter(segmenter):
    assert isinstance(segmenter, Segmenter)
    check_segmenter(segmenter, tolerance=0)


def test_grabcut_alone_finds_a_disc_on_noise():
    image, mask, box = disc()
    found = segment(LiteSegmenter(None), image, box[None])
    assert found.scores is None
    assert iou(found.masks[0], mask) > 0.95


def test_the_network_finds_a_disc_on_noise(real):
    image, mask, box = disc()
    found = segment(real, image, box[None])
    assert iou(found.masks[0], mask) > 0.95
    assert found.scores[0] > 0.5


def test_no_boxes_give_no_masks(segmenter):
    found = segment(segmenter, disc()[0], np.zeros((0, 4), np.float32))
    assert found.masks.shape == (0, 160, 200)


@pytest.mark.parametrize("box", [(50, 40, 50, 90), (50, 40, 90, 40), (300, 10, 400, 50), (-80, -80, -10, -10)], ids=str)
def test_a_box_without_area_inside_the_image_has_an_empty_mask(segmenter, box):
    found = segment(segmenter, disc()[0], rows(box))
    assert not found.masks.any()
    assert found.scores is None or found.scores[0] == 0


def test_a_box_partly_outside_is_cut_to_the_image(segmenter):
    image, _, _ = disc(centre=(10, 80))
    outside, cut = (segment(segmenter, image, rows(box)) for box in [(-30, 40, 50, 120), (0, 40, 50, 120)])
    assert outside.masks.any()
    assert np.array_equal(outside.masks, cut.masks)


@pytest.mark.parametrize("size", [(1, 1), (1, 20000), (20000, 1), (2, 3), (5, 5), (13, 300)], ids=str)
def test_odd_sizes(segmenter, size):
    height, width = size
    image = Image(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))
    found = segment(segmenter, image, rows((0, 0, width, height), (0, 0, width / 2, height)))
    assert found.masks.shape == (2, height, width)
    # A box of the whole image has no surroundings to compare with: something is found, at the least.
    assert segment(segmenter, image, rows((0, 0, width, height))).masks.any()


def test_a_very_thin_box_is_filled(segmenter):
    found = segment(segmenter, disc()[0], rows((20, 30, 22, 90)))
    assert found.masks[0, 30:90, 20:22].all()
    assert found.masks.sum() == 120


def test_a_mask_hardly_leaves_its_box(segmenter):
    image, _, box = disc()
    mask = segment(segmenter, image, box[None]).masks[0]
    x1, y1, x2, y2 = (int(value) for value in box)
    mask = mask.copy()
    mask[y1 - 4 : y2 + 4, x1 - 4 : x2 + 4] = False
    assert not mask.any()


def test_many_boxes(tiny):
    rng = np.random.default_rng(1)
    image = Image(rng.integers(0, 256, (120, 160, 3), dtype=np.uint8))
    corners = rng.uniform((0, 0), (120, 90), (200, 2))
    boxes = np.hstack([corners, corners + rng.uniform(0, 60, (200, 2))]).astype(np.float32)
    found = segment(LiteSegmenter(tiny), image, boxes)
    assert found.masks.shape == (200, 120, 160)
    assert found.masks.reshape(200, -1).any(axis=1).mean() > 0.5


def test_a_large_photo_is_worked_on_at_the_resolution_of_the_crop(segmenter):
    import tracemalloc

    small, mask, box = disc()
    image = Image(cv2.resize(small.pixels, (6000, 4800)))
    tracemalloc.start()
    found = segment(segmenter, image, box[None] * 30)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.masks.shape == (1, 4800, 6000)
    # The mask itself has 29 MB, and the crop's mask is scaled up in float32; the photo has 86 MB.
    assert peak < 150e6
    if found.scores is None:
        assert iou(found.masks[0], cv2.resize(mask.astype(np.uint8), (6000, 4800)) > 0) > 0.95


def test_two_equal_boxes_get_equal_masks(segmenter):
    image, _, box = disc()
    found = segment(segmenter, image, rows(box, box))
    assert found.masks[0].any()
    assert np.array_equal(found.masks[0], found.masks[1])


def test_masks_of_different_objects_do_not_overlap(segmenter):
    image, _, _ = disc()
    found = segment(segmenter, image, rows((10, 20, 110, 140), (70, 20, 180, 140), (60, 60, 100, 100)))
    assert (found.masks.sum(axis=0) <= 1).all()


def test_a_small_object_in_front_keeps_its_pixels():
    image, mask, box = disc(radius=25)
    pixels = image.pixels.copy()
    pixels[20:140, 20:180][~mask[20:140, 20:180]] = (30, 200, 30)
    found = segment(LiteSegmenter(None), Image(pixels), rows((20, 20, 180, 140), box))
    assert iou(found.masks[1], mask) > 0.95
    assert not (found.masks[0] & mask).sum() > 0.05 * mask.sum()


def test_repeated_calls_agree_whatever_opencv_drew_in_between(segmenter):
    image, _, box = disc()
    boxes = rows(box, (20, 20, 120, 140))
    first = segment(segmenter, image, boxes)
    cv2.setRNGSeed(7)
    cv2.randu(np.zeros((9, 9)), 0, 1)
    second = segment(segmenter, image, boxes)
    assert np.array_equal(first.masks, second.masks)
    assert first.scores is None or np.array_equal(first.scores, second.scores)


def test_the_callers_random_numbers_are_left_alone(segmenter):
    image, _, box = disc()

    def draw(between):
        cv2.setRNGSeed(3)
        numbers = [cv2.randu(np.zeros((4, 4)), 0, 1).copy()]
        between()
        numbers.append(cv2.randu(np.zeros((4, 4)), 0, 1).copy())
        return numbers

    expected = draw(lambda: None)
    assert not np.array_equal(*expected)
    np.testing.assert_array_equal(draw(lambda: segment(segmenter, image, box[None])), expected)


def test_a_batch_of_mixed_sizes_equals_its_images_alone(segmenter):
    images = [disc(seed=i, height=100 + 30 * i, width=220 - 20 * i, centre=(60, 50), radius=30)[0] for i in range(3)]
    boxes = [rows(*[(30, 20, 90, 80), (5, 5, 60, 70), (40, 30, 99, 99)][:i]) for i in range(3)]
    batch = segmenter.segment(images, boxes)
    for image, box, masks in zip(images, boxes, batch, strict=True):
        assert np.array_equal(segment(segmenter, image, box).masks, masks.masks)


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([], "1 images need as many arrays of boxes, got 0"),
        ([np.zeros((2, 3), np.float32)], r"boxes of 'image' must have shape \(any, 4\), got \(2, 3\)"),
        ([rows((0, 0, np.nan, 5))], "boxes of 'image' must be finite"),
    ],
)
def test_wrong_boxes_are_refused(segmenter, boxes, message):
    with pytest.raises(InputError, match=message):
        segmenter.segment([disc()[0]], boxes)


def test_without_the_checkpoint_it_warns_and_cuts_by_colour(monkeypatch, tmp_path):
    monkeypatch.setenv("RASA_CACHE", str(tmp_path))
    monkeypatch.setenv("RASA_OFFLINE", "1")
    monkeypatch.delenv("RASA_WHEELS", raising=False)
    with pytest.raises(WeightsError):
        fetch(CHECKPOINT)
    with pytest.warns(RasaWarning, match=f"GrabCut alone, .* {CHECKPOINT}"):
        segmenter = build_segmenter()
    image, mask, box = disc()
    assert iou(segment(segmenter, image, box[None]).masks[0], mask) > 0.95
    assert segmenter.describe()["method"] == "grabcut"


def test_it_describes_itself_as_plain_json(segmenter, checkpoint_file):
    assert json.loads(json.dumps(segmenter.describe()))["model"] == "lite-segmenter"
    checkpoint_file(CHECKPOINT)
    assert build_segmenter().describe()["sha256"].startswith("198644e37de36674")


def test_tidy_drops_specks_and_fills_pinholes():
    mask = np.zeros((40, 40), bool)
    mask[5:25, 5:25] = True
    mask[10, 10] = False  # a pinhole of 1 in 400
    mask[14:19, 14:19] = False  # a hole of 25 in 400 stays
    mask[30, 30] = True  # a speck
    tidied = grabcut.tidy(mask)
    assert tidied[10, 10]
    assert not tidied[16, 16]
    assert not tidied[30, 30]
    assert not grabcut.tidy(np.zeros((3, 3), bool)).any()


def test_photo_features_are_computed_once_for_each_image(tiny):
    image, other = disc()[0], disc(seed=1)[0]
    features = photo_features(tiny, image)
    assert photo_features(tiny, image) is features
    assert photo_features(tiny, other) is not features
    height, width = grid_size(image.size, side=518, patch_size=14)
    assert features.tokens.shape == (height // 14, width // 14, TINY.width)
    assert features.importance.shape == (8 * height // 14, 8 * width // 14)
    np.testing.assert_allclose(np.linalg.norm(features.tokens, axis=-1), 1, rtol=1e-5)
    assert 0 <= features.importance.min() <= features.importance.max() <= 1


def test_photo_features_go_with_their_image(tiny):
    import gc
    import weakref

    image = disc()[0]
    gone = weakref.ref(photo_features(tiny, image).tokens)
    del image
    gc.collect()
    assert gone() is None


def test_crops_in_one_batch_are_as_each_alone(tiny):
    crops = [disc(height=84, width=98, centre=(40, 40), radius=20, seed=i)[0].pixels for i in range(3)]
    for crop, features in zip(crops, crop_features(tiny, crops), strict=True):
        alone = crop_features(tiny, [crop])[0]
        np.testing.assert_allclose(features.tokens, alone.tokens, atol=1e-5)
        np.testing.assert_allclose(features.importance, alone.importance, atol=1e-5)


def test_sides_must_be_whole_patches(tiny):
    with pytest.raises(InputError, match=r"multiples of 14 px, got \(28, 30\)"):
        tiny(torch.zeros(1, 3, 28, 30))


@pytest.mark.parametrize("size", [(518, 518), (224, 224), (280, 420)], ids=str)
def test_tokens_equal_those_of_timm(checkpoint_file, size):
    timm = pytest.importorskip("timm")
    network = load_dinov2(checkpoint_file(CHECKPOINT))
    reference = timm.create_model("vit_small_patch14_dinov2", pretrained=False, img_size=size)
    backbone = {k: v for k, v in network.state_dict().items() if not k.startswith("decoder.")}
    height, width = size[0] // 14, size[1] // 14
    # timm resizes the position table with antialiasing, the file's graph without: each gets the graph's.
    table = network._positions(height, width).flatten(2).transpose(1, 2)
    backbone["pos_embed"] = torch.cat([network.pos_embed[:, :1], table], dim=1)
    reference.load_state_dict(backbone, strict=True)
    pixels = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = reference.eval().forward_features(pixels)[:, 1:].unflatten(1, (height, width))
        tokens, _ = network(pixels)
    torch.testing.assert_close(tokens, expected, rtol=1e-5, atol=1e-5)


# What ONNX Runtime 1.31.1 answers for the file's own graph, at every 40th pixel from (12, 12), given `wavy_disc()`.
ONNX_IMPORTANCE = [
    [0.311453, 0.318913, 0.319032, 0.312818, 0.318910, 0.316820],
    [0.318585, 0.325168, 0.445565, 0.482412, 0.332058, 0.334347],
    [0.317261, 0.280552, 0.988149, 0.988616, 0.292727, 0.329998],
    [0.302984, 0.312041, 0.987854, 0.989866, 0.323690, 0.319400],
    [0.306158, 0.325166, 0.337313, 0.329906, 0.313675, 0.326318],
    [0.320808, 0.324364, 0.327923, 0.328944, 0.311609, 0.317269],
]


def wavy_disc():
    y, x = np.mgrid[:224, :224].astype(np.float32)
    inside = (x - 112) ** 2 + (y - 100) ** 2 < 50**2
    return np.stack([np.sin(x / 9 + k) * np.cos(y / (13 + k)) + inside for k in range(3)])[None].astype(np.float32)


def test_importance_equals_that_of_the_graph_in_the_file(checkpoint_file):
    network = load_dinov2(checkpoint_file(CHECKPOINT))
    with torch.inference_mode():
        _, logits = network(torch.from_numpy(wavy_disc()))
        # The graph resizes the logits to the input's size, and takes the sigmoid after that.
        sized = torch.nn.functional.interpolate(logits[None], size=(224, 224), mode="bilinear")
    importance = sized.sigmoid()[0, 0, 12::40, 12::40]
    np.testing.assert_allclose(importance.numpy(), ONNX_IMPORTANCE, atol=5e-5)


def test_an_unfit_file_is_refused(tmp_path, checkpoint_file):
    path = tmp_path / "weights.onnx"
    path.write_bytes(b"")
    with pytest.raises(FormatError, match="no float32 weights"):
        load_dinov2(path)
    with pytest.raises(InputError, match="floating-point type"):
        load_dinov2(checkpoint_file(CHECKPOINT), dtype="int8")


def test_onnx_initialisers_are_named_after_their_reader_where_they_have_no_name(tmp_path):
    def field(number, payload):
        size = len(payload)  # as a varint, of two bytes where one does not do
        return bytes([number << 3 | 2, *([size] if size < 128 else [size & 127 | 128, size >> 7])]) + payload

    def tensor(name, values, shape, kind=1):
        dims = b"".join(bytes([1 << 3, length]) for length in shape)
        return field(5, dims + bytes([2 << 3, kind]) + field(8, name) + field(9, values.tobytes()))

    values = np.arange(6, dtype="<f4")
    node = field(1, field(1, b"x") + field(1, b"onnx::MatMul_7") + field(3, b"/fc/MatMul"))
    graph = node + tensor(b"onnx::MatMul_7", values, (2, 3)) + tensor(b"bias", values, (6,))
    graph += tensor(b"steps", np.zeros(2, "<i8"), (2,), kind=7)
    path = tmp_path / "tiny.onnx"
    path.write_bytes(field(7, graph))
    weights = read_onnx_weights(path)
    assert list(weights) == ["/fc/MatMul", "bias"]
    np.testing.assert_array_equal(weights["/fc/MatMul"], values.reshape(2, 3))

    path.write_bytes(field(7, tensor(b"short", values, (7,))))
    with pytest.raises(FormatError, match=r"'short' of shape \[7\] has 24 bytes"):
        read_onnx_weights(path)


def test_masks_reach_the_required_quality(real, root):
    """The three reference masks of the project; issue 2 asks for a mean of 0.92 and none under 0.80."""
    import os

    shared = Path(os.environ.get("RASA_SHARED", root.parent / "shared"))
    folder = shared / "research" / "lite" / "masks"
    if not folder.is_dir():
        pytest.skip(f"no reference masks in {folder}; set RASA_SHARED")
    import skimage
    import sklearn.datasets
    from PIL import Image as Picture

    homes = [Path(skimage.__file__).parent / "data", Path(sklearn.datasets.__file__).parent / "images"]
    ious = []
    objects = json.loads((folder / "objects.json").read_text())
    for entry in objects:
        path = next(home / entry["image"] for home in homes if (home / entry["image"]).exists())
        image = Image(np.array(Picture.open(path).convert("RGB")))
        reference = np.array(Picture.open(folder / entry["mask"])) > 0
        ious.append(iou(segment(real, image, rows(entry["box"])).masks[0], reference))
    assert len(ious) == 3
    assert np.mean(ious) >= 0.92, ious
    assert min(ious) >= 0.80, ious
