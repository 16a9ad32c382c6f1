"""The pipeline through its public face: roles, partial runs, batches, streams, failures, provenance."""

import gc
import json
import tracemalloc
from dataclasses import replace

import numpy as np
import PIL.Image
import pytest

from rasa import Detect, Filter, Image, Instances, Pipeline, Result, Segment, Suppress, Tag, Tags
from rasa.errors import ContractError, ImageError, InputError, StageError
from rasa.testing import FakeDetector, FakeSegmenter, FakeTagger, check_stage, sample_image, sample_images

FULL = (FakeTagger(["cat", "dog"]), FakeDetector(), FakeSegmenter())


@pytest.fixture
def pipeline():
    return Pipeline(*FULL)


def plain(result):
    """All of a result but its clock."""
    return {**result.to_dict(), "timings": list(result.timings)}


def test_three_bare_models_make_a_full_result(pipeline):
    result = pipeline(sample_image(height=60, width=80))
    assert isinstance(result, Result)
    assert result.ok
    assert result.size == (60, 80)
    assert result.tags.names == ("cat", "dog")
    assert result.instances.labels == ("cat", "dog")
    np.testing.assert_array_equal(result.instances.boxes, [[0, 0, 40, 60], [40, 0, 80, 60]])
    assert result.instances.masks.sum(axis=(1, 2)).tolist() == [2400, 2400]
    assert list(result.timings) == ["decode", "tag", "detect", "filter", "suppress", "segment"]
    assert all(seconds >= 0 for seconds in result.timings.values())


def test_mixed_sizes_in_one_batch_equal_one_by_one(pipeline):
    images = sample_images()
    batch = pipeline(images, batch_size=4)
    assert [plain(result) for result in batch] == [plain(pipeline(image)) for image in images]
    assert [result.name for result in batch] == [image.name for image in images]


def test_partial_pipelines():
    image = sample_image(height=60, width=80)
    assert len(Pipeline(FakeTagger())(image).instances) == 0
    only_boxes = Pipeline(FakeDetector())(image, tags=["bird"])
    assert only_boxes.tags.names == only_boxes.instances.labels == ("bird",)
    assert only_boxes.instances.masks is None
    masks = Pipeline(FakeSegmenter())(image, boxes=[[0, 0, 10, 20], [5, 5, 9, 9]], labels=["a", "b"])
    assert masks.instances.masks.sum(axis=(1, 2)).tolist() == [200, 16]
    assert masks.instances.labels == ("a", "b")
    assert Pipeline(FakeSegmenter())(image, boxes=[]).instances.masks.shape == (0, 60, 80)
    assert Pipeline(FakeDetector(), FakeSegmenter())(image).instances.masks.shape == (0, 60, 80)


def test_given_tags_and_boxes_leave_stages_out(pipeline):
    image = sample_image(height=60, width=80)
    tagged = pipeline(image, tags=["bird"])
    assert tagged.instances.labels == ("bird",)
    assert "tag" not in tagged.timings
    assert tagged.provenance["given"] == ["tags"]
    assert pipeline(image, tags=[]).instances.labels == ()
    # Given boxes are not filtered, however small or alike they are.
    boxed = pipeline(image, boxes=[[0, 0, 1, 1], [0, 0, 1, 1]])
    assert boxed.instances.labels == ("object", "object")
    assert list(boxed.timings) == ["decode", "segment"]
    assert [entry["stage"] for entry in boxed.provenance["stages"]] == ["segment"]


def test_each_image_of_a_list_may_have_its_own_tags_and_boxes(pipeline):
    images = sample_images()[:2]
    assert [r.tags.names for r in pipeline(images, tags=[["a"], ["b", "c"]])] == [("a",), ("b", "c")]
    assert [r.tags.names for r in pipeline(images, tags=["a", "b"])] == [("a", "b")] * 2
    boxes = [[[0, 0, 4, 4]], np.zeros((0, 4))]
    assert [len(r.instances) for r in pipeline(images, boxes=boxes, labels=[["x"], []])] == [1, 0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tags": "cat"}, r"the single string 'cat'; pass \['cat'\]"),
        ({"tags": [["a"]]}, "got 1 lists of tags for 2 images"),
        ({"boxes": [[[0, 0, 1, 1]]]}, "got 1 arrays of boxes for 2 images"),
        ({"labels": ["a"]}, "labels without boxes"),
        ({"boxes": [[[0, 0, 1, 1]]] * 2, "labels": [["a"]]}, "got 1 lists of labels"),
        ({"boxes": [[[5, 0, 1, 1]]] * 2}, "reversed"),
        ({"boxes": [[[np.nan, 0, 1, 1]]] * 2}, "NaN"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"on_error": "ignore"}, 'on_error must be "raise" or "skip"'),
    ],
)
def test_arguments_that_do_not_fit(pipeline, arguments, message):
    with pytest.raises(InputError, match=message):
        pipeline(sample_images()[:2], **arguments)


def test_own_stages_take_part():
    def shout(images, results):
        return [r.with_tags(replace(r.tags, names=tuple(n.upper() for n in r.tags.names))) for r in results]

    pipeline = Pipeline(Tag(FakeTagger(["cat"])), shout, Detect(FakeDetector()))
    result = pipeline(sample_image())
    assert result.instances.labels == ("CAT",)
    assert list(result.timings) == ["decode", "tag", "shout", "detect"]
    check_stage(shout)


def test_stages_are_taken_as_they_are_and_bare_detectors_get_defaults():
    names = [type(stage).__name__ for stage in Pipeline(*FULL).stages]
    assert names == ["Tag", "Detect", "Filter", "Suppress", "Segment"]
    chosen = Pipeline(Tag(FULL[0]), Detect(FULL[1]), Filter(min_area=10_000), Segment(FULL[2]))
    assert len(chosen.stages) == 4
    assert len(chosen(sample_image(height=60, width=80)).instances) == 0
    assert repr(chosen) == "Pipeline(tag -> detect -> filter -> segment)"


class Both(FakeTagger, FakeSegmenter):
    pass


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ((), "at least one model or stage"),
        ((FakeTagger,), r"got the class FakeTagger; pass FakeTagger\(...\)"),
        ((42,), "int is neither a model nor a stage"),
        ((Both(),), "Both fits several roles; wrap it"),
    ],
)
def test_what_is_no_pipeline(parts, message):
    with pytest.raises(InputError, match=message):
        Pipeline(*parts)


def test_provenance_says_what_made_the_result(pipeline):
    provenance = Pipeline(*FULL, extra={"preset": "fake"})(sample_image()).provenance
    assert provenance["preset"] == "fake"
    assert provenance["given"] == []
    assert {"rasa", "python", "numpy"} <= set(provenance["versions"])
    assert provenance["stages"][0] == {"stage": "tag", "model": "fake-tagger", "names": ["cat", "dog"]}
    assert provenance["stages"][3] == {"stage": "suppress", "nms_threshold": 0.5, "merge_threshold": 0.85}
    json.dumps(provenance)


def write(path, size=(40, 30)):
    PIL.Image.fromarray(sample_image(height=size[0], width=size[1]).pixels).save(path)
    return path


def test_every_kind_of_source(pipeline, tmp_path):
    path = write(tmp_path / "a.png")
    pixels = np.asarray(PIL.Image.open(path))
    sources = [path, str(path), path.read_bytes(), pixels, PIL.Image.open(path), Image(pixels, "mine")]
    results = pipeline(sources)
    assert all(np.array_equal(r.instances.boxes, results[0].instances.boxes) for r in results)
    assert [r.name for r in results][:3] == [str(path), str(path), "image-2"]
    assert results[-1].name == "mine"
    assert pipeline(pixels).name == "image"


def test_a_broken_image_is_named(pipeline, tmp_path):
    good, bad = write(tmp_path / "good.png"), tmp_path / "bad.jpg"
    bad.write_text("<html>")
    with pytest.raises(ImageError, match=r"bad\.jpg"):
        pipeline(bad)
    with pytest.raises(ImageError, match=r"bad\.jpg"):
        pipeline([good, bad])
    results = pipeline([good, bad, good], on_error="skip", batch_size=2)
    assert [r.ok for r in results] == [True, False, True]
    assert results[1].size == (0, 0)
    assert len(results[1].instances) == 0
    assert (results[1].failure.stage, results[1].failure.kind) == ("decode", "ImageError")
    assert "bad.jpg" in results[1].failure.message
    assert plain(Result.from_json(results[1].to_json())) == plain(results[1])


def collect(stream, seen):
    for result in stream:
        seen.append(result.name)


def test_stream_gives_what_comes_before_the_broken_image_first(pipeline, tmp_path):
    paths = [write(tmp_path / f"{i}.png") for i in range(5)]
    paths[3].write_bytes(paths[3].read_bytes()[:60])
    seen = []
    stream = pipeline.stream(paths, batch_size=2)
    with pytest.raises(ImageError, match=r"3\.png"):
        collect(stream, seen)
    assert seen == [str(path) for path in paths[:3]]
    skipped = list(pipeline.stream(paths, batch_size=2, on_error="skip"))
    assert [r.ok for r in skipped] == [True, True, True, False, True]


def fail_on(name):
    def fragile(images, results):
        if any(result.name == name for result in results):
            raise RuntimeError("CUDA error: out of memory")
        return list(results)

    return fragile


def test_a_failing_stage_names_itself_and_the_image_and_spares_the_rest():
    images = [sample_image(seed=seed) for seed in range(4)]
    culprit = images[2].name
    pipeline = Pipeline(FakeTagger(), fail_on(culprit), FakeDetector())
    with pytest.raises(StageError, match=f"stage 'fragile' failed on '{culprit}': RuntimeError: CUDA") as caught:
        pipeline(images)
    assert (caught.value.stage, caught.value.image) == ("fragile", culprit)
    assert isinstance(caught.value.__cause__, RuntimeError)
    results = pipeline(images, on_error="skip")
    assert [r.ok for r in results] == [True, True, False, True]
    assert results[2].failure.stage == "fragile"
    assert results[2].tags.names == ("cat", "dog")
    assert len(results[2].instances) == 0
    assert len(results[3].instances) == 2


@pytest.mark.parametrize(
    "stage",
    [
        lambda images, results: results[1:],
        lambda images, results: None,
        lambda images, results: [None for _ in results],
        lambda images, results: [replace(r, name="other") for r in results],
    ],
)
def test_a_stage_that_breaks_its_promise(stage):
    with pytest.raises(StageError, match="must return") as caught:
        Pipeline(stage)(sample_image())
    assert isinstance(caught.value.__cause__, ContractError)


def test_interrupts_pass_through():
    def interrupted(images, results):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Pipeline(interrupted)(sample_image(), on_error="skip")


def test_stream_is_lazy_ordered_and_bounded(pipeline):
    taken = []

    def endless():
        while True:
            taken.append(len(taken))
            yield sample_image(height=8, width=8 + len(taken) % 5)

    stream = pipeline.stream(endless(), batch_size=4, workers=3)
    assert not taken
    widths = [next(stream).size[1] for _ in range(10)]
    assert widths == [8 + i % 5 for i in range(1, 11)]
    assert len(taken) <= 12 + 2 * 4 + 3
    stream.close()


@pytest.mark.parametrize("sources", ["photos", b"photos"])
def test_stream_refuses_a_single_path(pipeline, sources):
    with pytest.raises(InputError, match="needs a list of images"):
        pipeline.stream(sources)


def test_stream_with_tags_and_images(pipeline, tmp_path):
    done = list(
        pipeline.stream_with_images([write(tmp_path / "a.png"), tmp_path / "none.png"], tags=["x"], on_error="skip")
    )
    assert done[0].image.size == done[0].result.size == (40, 30)
    assert done[0].result.instances.labels == ("x",)
    assert done[1].image is None
    assert not done[1].result.ok


def test_an_error_of_the_source_itself_comes_through(pipeline):
    def sources():
        yield sample_image()
        raise OSError("the share is gone")

    with pytest.raises(OSError, match="the share is gone"):
        list(pipeline.stream(sources()))


def test_a_stream_of_1000_images_keeps_memory_flat(tmp_path):
    path = write(tmp_path / "a.png", size=(200, 300))
    pipeline = Pipeline(*FULL)
    peaks = []
    tracemalloc.start()
    try:
        for i, result in enumerate(pipeline.stream([path] * 1000, batch_size=4)):
            assert result.ok
            if i in (499, 999):
                gc.collect()
                peaks.append(tracemalloc.get_traced_memory()[1])
                tracemalloc.reset_peak()
    finally:
        tracemalloc.stop()
    # How many decoded images wait at the moment of a peak is chance; one result kept per image would add 60 MB.
    in_flight = (2 * 4 + 2) * 200 * 300 * 3
    assert peaks[1] <= peaks[0] + in_flight


def test_empty_lists(pipeline):
    assert pipeline([]) == []
    assert list(pipeline.stream([])) == []


def test_an_image_without_tags_or_boxes_still_gets_zero_masks():
    class Blind:
        def detect(self, images, tags):
            return [Instances() for _ in images]

    result = Pipeline(FakeTagger([]), Blind(), FakeSegmenter())(sample_image(height=1, width=1))
    assert result.tags.names == ()
    assert result.instances.masks.shape == (0, 1, 1)
    assert Tags().scores.shape == (0,)
    assert Suppress()([sample_image()], [result])[0].instances.labels == ()
