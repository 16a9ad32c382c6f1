"""Configuration: one source for TOML keys, overrides and flags; wrong values refused with the cure."""

import json
import math
import sys
from dataclasses import FrozenInstanceError, fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rasa.config import PipelineConfig, load_preset_config, presets, read_config
from rasa.errors import ConfigError, DependencyError, UnknownModelError
from rasa.loading import load, preset_checkpoints, resolve_device, stages_of
from rasa.pipeline import Pipeline
from rasa.registry import Model, register, unregister
from rasa.stages import InTurn
from rasa.types import Image, Instances, Masks, Tags

UNIT = [item.name for item in fields(PipelineConfig) if item.metadata["most"] == 1]
NUMBERS = [item.name for item in fields(PipelineConfig) if item.metadata["kind"] in (int, float)]
SWITCHES = [item.name for item in fields(PipelineConfig) if item.metadata["kind"] is bool]
TEXTS = [item.name for item in fields(PipelineConfig) if item.metadata["kind"] is str]


def config(**values):
    return PipelineConfig(**{"tagger": "t", "detector": "d"} | values)


class Recorder:
    """A model of all roles that remembers how it was built."""

    def __init__(self, **options):
        self.options = options

    def describe(self):
        return {"model": "recorder", **self.options}


class RecordingTagger(Recorder):
    def tag(self, images):
        return [Tags(("a", "b"), [0.9, 0.4]) for _ in images]


class RecordingDetector(Recorder):
    def detect(self, images, tags):
        boxes = [[0, 0, 8, 8], [8, 8, 10, 10], [20, 20, 30, 30]]
        return [Instances(boxes, [0.9, 0.8, 0.2], (names[0],) * 3) for names in tags]


class RecordingSegmenter(Recorder):
    def segment(self, images, boxes):
        return [Masks(np.ones((len(b), *image.size), bool)) for image, b in zip(images, boxes, strict=True)]


class RecordingBoth(RecordingDetector):
    def detect_and_segment(self, images, tags):
        found = zip(images, super().detect(images, tags), strict=True)
        return [replace(one, masks=np.ones((len(one), *image.size), bool)) for image, one in found]


@pytest.fixture
def recorders():
    kinds = {"tagger": RecordingTagger, "detector": RecordingDetector, "segmenter": RecordingSegmenter}
    kinds["detector-segmenter"] = RecordingBoth
    for role, kind in kinds.items():
        register(Model(f"recording-{role}", role, kind, checkpoints=(f"{role}.x",), fallbacks={"shared.x": "less"}))
    yield
    for role in kinds:
        unregister(f"recording-{role}")


@pytest.fixture
def toml(tmp_path, recorders):
    path = tmp_path / "mine.toml"
    path.write_text(
        'tagger = "recording-tagger"\ndetector = "recording-detector"\nsegmenter = "recording-segmenter"\n',
        encoding="utf-8",
    )
    return path


def test_numbers_texts_and_switches_cover_all_fields():
    assert len(UNIT) == 4
    assert SWITCHES == ["objects_only", "low_memory", "compile"]
    assert len(NUMBERS) + len(TEXTS) + len(SWITCHES) == len(fields(PipelineConfig)) == 15


@pytest.mark.parametrize("item", fields(PipelineConfig), ids=lambda item: item.name)
def test_every_field_has_help_and_is_in_the_docstring(item):
    assert item.metadata["help"]
    assert f"{item.name}: {item.metadata['help']}" in PipelineConfig.__doc__


def test_a_config_is_frozen():
    with pytest.raises(FrozenInstanceError):
        config().device = "cuda"


@given(st.sampled_from(UNIT), st.floats(0, 1))
def test_every_number_from_0_to_1_is_a_threshold(name, value):
    assert getattr(config(**{name: value}), name) == value


@given(st.sampled_from(NUMBERS), st.one_of(st.floats(max_value=-1e-300), st.just(math.nan), st.just(math.inf)))
def test_numbers_out_of_range_are_refused(name, value):
    with pytest.raises(ConfigError, match=f"{name} must be a (whole )?number"):
        config(**{name: value})


@given(st.sampled_from(UNIT), st.floats(min_value=1, exclude_min=True, allow_infinity=False))
def test_a_threshold_above_1_is_refused(name, value):
    with pytest.raises(ConfigError, match=f"{name} must be a number from 0 to 1, got "):
        config(**{name: value})


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [True, False, "0.3", [0.3]])
def test_what_is_no_number_is_refused(name, value):
    with pytest.raises(
        ConfigError, match=f"{name} must be a .*number, got .*{'without quotes' * isinstance(value, str)}"
    ):
        config(**{name: value})


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("value", [3, True, ["cpu"]])
def test_what_is_no_text_is_refused(name, value):
    with pytest.raises(ConfigError, match=f"{name} must be text, got "):
        config(**{name: value})


@pytest.mark.parametrize("name", SWITCHES)
@pytest.mark.parametrize("value", ["true", 1, 0, None])
def test_what_is_neither_true_nor_false_is_refused(name, value):
    with pytest.raises(ConfigError, match=f"{name} must be true or false, got {value!r}"):
        config(**{name: value})


def test_a_fraction_is_no_count():
    with pytest.raises(ConfigError, match=r"max_instances must be a whole number, got 2\.5$"):
        config(max_instances=2.5)


def test_numpy_numbers_become_plain_ones():
    made = config(box_threshold=np.float32(0.25), max_instances=np.int64(3))
    assert type(made.box_threshold) is float
    assert type(made.max_instances) is int
    assert json.loads(json.dumps(made.to_dict())) == made.to_dict()


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "CPU", ""])
def test_an_unknown_device_is_refused(device):
    with pytest.raises(ConfigError, match=f'device must be "cpu", "cuda", "cuda:1", "mps" or "auto", got "{device}"'):
        config(device=device)


def test_an_unknown_dtype_is_refused():
    with pytest.raises(ConfigError, match='dtype must be one of float32, float16, bfloat16, got "half"'):
        config(dtype="half")


def test_a_pipeline_needs_a_model():
    with pytest.raises(ConfigError, match="at least one of tagger, detector and segmenter"):
        PipelineConfig()


def test_an_empty_model_name_is_refused():
    with pytest.raises(ConfigError, match="tagger must name a model, got an empty text; leave the key out for none"):
        config(tagger=" ")


toml_values = st.fixed_dictionaries(
    {"tagger": st.sampled_from(["a", "b-c.d"]), "detector": st.sampled_from(["a", "b"])},
    optional={
        "segmenter": st.just("s"),
        "summary": st.text(st.characters(codec="ascii", min_codepoint=32, exclude_characters='"\\\x7f')),
        "tag_threshold": st.floats(0, 1),
        "min_area": st.integers(0, 10**6),
        "max_instances": st.integers(0, 10**6),
        "device": st.sampled_from(["cpu", "cuda:3", "auto"]),
        "dtype": st.sampled_from(["float32", "bfloat16"]),
    },
)


@given(toml_values)
def test_a_file_says_the_same_as_arguments(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("toml") / "x.toml"
    lines = (f'{key} = "{value}"' if isinstance(value, str) else f"{key} = {value!r}" for key, value in values.items())
    path.write_text("\n".join(lines), encoding="utf-8")
    assert read_config(path) == PipelineConfig(**values)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'tagger = "t"\nbox_treshold = 0.3',
            r'unknown option "box_treshold"; did you mean "box_threshold"\? \(options: ',
        ),
        ('tagger = "t"\ntag_threshold = 1.5', "tag_threshold must be a number from 0 to 1, got 1.5"),
        ('tagger = "t"\nbox_threshold = 0.3', "box_threshold has no effect without a detector; name a detector, or"),
        ('tagger = "t"\n[thresholds]\nbox = 1', 'unknown option "thresholds"'),
        ('tagger = "t"\nsummary = x\n', r"no valid TOML: .*line 2"),
        ("tagger = t", r"no valid TOML: .*line 1"),
    ],
)
def test_a_wrong_file_names_itself_and_the_cure(tmp_path, text, message):
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"mine\.toml: {message}"):
        read_config(path)


def test_unreadable_files(tmp_path):
    (tmp_path / "latin.toml").write_bytes('summary = "ä"'.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"latin\.toml: not a readable UTF-8 text file"):
        read_config(tmp_path / "latin.toml")
    with pytest.raises(ConfigError, match=r"no\.toml: there is no such file; `rasa presets` lists"):
        read_config(tmp_path / "no.toml")
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(ConfigError, match=r"folder\.toml: not a readable"):
        read_config(tmp_path / "folder.toml")


def test_all_presets_are_valid_and_name_known_models():
    assert "lite" in presets()
    for name in presets():
        assert load_preset_config(name).summary
        assert load_preset_config(name).models
        assert preset_checkpoints(name)


def test_the_lite_preset():
    made = load_preset_config("lite")
    assert (made.tagger, made.detector, made.segmenter) == ("lite-tagger", "lite-detector", "lite-segmenter")
    assert (made.device, made.dtype) == ("cpu", "float32")
    assert {"efficientnet-lite0.in1k", "ssd-mobilenet-v2.coco", "dinov2-vits14.focus"} <= set(
        preset_checkpoints("lite")
    )


@pytest.mark.parametrize(("typo", "meant"), [("lit", "lite"), ("light", "ram-light"), ("ram_best", "ram-best")])
def test_an_unknown_preset_gets_a_suggestion(typo, meant):
    with pytest.raises(UnknownModelError, match=rf'unknown preset "{typo}"; did you mean "{meant}"\? \(`rasa presets`'):
        load(typo)


def test_load_builds_the_stages_of_the_config(toml):
    pipeline = load(toml)
    assert isinstance(pipeline, Pipeline)
    assert [type(stage).__name__ for stage in pipeline.stages] == ["Tag", "Detect", "Filter", "Suppress", "Segment"]
    result = pipeline(Image(np.zeros((32, 32, 3), np.uint8)))
    assert result.instances.labels == ("a", "a")  # the box of 2 x 2 px is under min_area
    assert result.provenance["preset"] == str(toml)
    assert PipelineConfig(**result.provenance["config"]) == read_config(toml)
    assert json.loads(result.to_json())["provenance"]["config"]["nms_threshold"] == 0.5


def test_thresholds_that_are_not_given_are_left_to_the_model(toml):
    tag, detect, *_, segment = load(str(toml)).stages
    assert (
        tag.tagger.options
        == detect.detector.options
        == segment.segmenter.options
        == {"device": "cpu", "dtype": "float32"}
    )


def test_every_override_is_obeyed(toml):
    given_numbers = {
        "tag_threshold": 0,
        "box_threshold": 0.5,
        "nms_threshold": 0.25,
        "merge_threshold": 0.75,
        "min_area": 0,
        "max_instances": 1,
    }
    assert set(given_numbers) == set(NUMBERS)
    pipeline = load(toml, dtype="bfloat16", **given_numbers)
    tag, detect, narrow, suppress, segment = pipeline.stages
    assert tag.tagger.options == {"device": "cpu", "dtype": "bfloat16", "tag_threshold": 0}
    assert detect.detector.options == {"device": "cpu", "dtype": "bfloat16", "box_threshold": 0.5}
    assert segment.segmenter.options == {"device": "cpu", "dtype": "bfloat16"}
    assert (narrow.box_threshold, narrow.min_area, narrow.max_instances) == (0.5, 0, 1)
    assert (suppress.nms_threshold, suppress.merge_threshold) == (0.25, 0.75)
    assert pipeline.provenance["config"] | given_numbers == pipeline.provenance["config"]
    assert len(pipeline(Image(np.zeros((32, 32, 3), np.uint8))).instances) == 1


def test_the_detector_is_asked_only_for_objects_unless_told_otherwise(toml):
    assert load(toml).stages[1].objects_only is True
    assert load(toml, objects_only=False).stages[1].objects_only is False
    with pytest.raises(ConfigError, match="objects_only must be true or false, got 1"):
        load(toml, objects_only=1)
    with pytest.raises(ConfigError, match="objects_only has no effect without a detector"):
        PipelineConfig.from_mapping({"tagger": "x", "objects_only": True})


def test_models_can_be_left_out_by_override(toml):
    stages = load(toml, tagger=None, segmenter=None).stages
    assert [type(stage).__name__ for stage in stages] == ["Detect", "Filter", "Suppress"]
    assert [type(stage).__name__ for stage in load(toml, detector=None, segmenter=None).stages] == ["Tag"]


def test_overrides_that_nothing_would_read_are_refused(toml):
    with pytest.raises(ConfigError, match="tag_threshold has no effect without a tagger"):
        load(toml, tagger=None, tag_threshold=0.3)
    toml.write_text(toml.read_text(encoding="utf-8") + "tag_threshold = 0.3\n", encoding="utf-8")
    assert load(toml, tagger=None).stages  # what the file says of a tagger may rest


def test_an_unknown_override_is_refused(toml):
    with pytest.raises(ConfigError, match=r'unknown option "treshold"; did you mean ".*threshold"'):
        load(toml, treshold=0.3)
    with pytest.raises(ConfigError, match="box_threshold must be a number from 0 to 1, got 7"):
        load(toml, box_threshold=7)


def test_a_model_of_another_role_is_refused(toml):
    with pytest.raises(ConfigError, match='detector must name a detector, got "recording-tagger", which is a tagger'):
        load(toml, detector="recording-tagger")


def test_a_detector_may_give_the_masks_too(toml):
    pipeline = load(toml, detector="recording-detector-segmenter", segmenter=None, box_threshold=0.5)
    stages = [type(stage).__name__ for stage in pipeline.stages]
    assert stages == ["Tag", "DetectAndSegment", "Filter", "Suppress"]
    assert pipeline.stages[1].model.options == {"device": "cpu", "dtype": "float32", "box_threshold": 0.5}
    found = pipeline(Image(np.zeros((32, 40, 3), np.uint8))).instances
    assert found.masks.shape == (len(found), 32, 40) == (1, 32, 40)


def test_a_segmenter_after_a_detector_with_masks_is_refused(toml):
    message = 'detector "recording-detector-segmenter" gives the masks too, .*leave segmenter out'
    with pytest.raises(ConfigError, match=message):
        load(toml, detector="recording-detector-segmenter")


@pytest.mark.parametrize("field", ["tagger", "segmenter"])
def test_a_detector_with_masks_is_a_detector_only(toml, field):
    message = f'{field} must name a {field}, got "recording-detector-segmenter", which is a detector-segmenter'
    with pytest.raises(ConfigError, match=message):
        load(toml, **{field: "recording-detector-segmenter"})


def test_an_unknown_model_in_a_file_is_named(toml):
    with pytest.raises(UnknownModelError, match=r'unknown model "recording-tager"; did you mean "recording-tagger"\?'):
        load(toml, tagger="recording-tager")


def test_checkpoints_of_a_preset_come_once_and_in_order(toml):
    assert preset_checkpoints(toml) == ("tagger.x", "shared.x", "detector.x", "segmenter.x")


def test_a_path_object_is_a_file_whatever_its_name(tmp_path):
    with pytest.raises(ConfigError, match="there is no such file"):
        load(tmp_path / "lite")


def test_devices_are_checked_against_this_machine():
    torch = pytest.importorskip("torch")
    assert resolve_device("cpu") == "cpu"
    assert resolve_device("auto") in {"cpu", "cuda", "mps"}
    beyond = f"cuda:{torch.cuda.device_count()}"
    with pytest.raises(ConfigError, match=f'device "{beyond}" is not there; PyTorch .* sees: cpu'):
        resolve_device(beyond)


def test_a_device_without_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)  # what Python takes for "not installed"
    assert resolve_device("auto") == "cpu"
    with pytest.raises(DependencyError, match='device "cuda" needs the package "torch"; install the extra "lite"'):
        resolve_device("cuda")


def test_presets_live_beside_the_code():
    folder = Path(sys.modules["rasa.config"].__file__).parent / "presets"
    assert tuple(sorted(path.stem for path in folder.glob("*.toml"))) == presets()


class MovingTagger(RecordingTagger):
    def to(self, device):
        self.moved = [*getattr(self, "moved", []), device]


@pytest.fixture
def moving(recorders):
    register(Model("moving-tagger", "tagger", MovingTagger))
    yield PipelineConfig(tagger="moving-tagger", device="cuda:1", low_memory=True)
    unregister("moving-tagger")


def test_low_memory_loads_models_at_home_and_moves_them_for_each_batch(moving):
    [stage] = stages_of(moving)
    assert isinstance(stage, InTurn)
    assert stage.model.options == {"device": "cpu", "dtype": "float32"}
    assert Pipeline(stage)(Image(np.zeros((8, 8, 3), np.uint8))).tags.names == ("a", "b")
    assert stage.model.moved == ["cuda:1", "cpu"]


@pytest.mark.parametrize("device", ["cpu", "auto"])
def test_low_memory_on_the_cpu_is_refused(toml, device, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ConfigError, match='low_memory saves memory of a GPU, and on device "cpu" all models share'):
        load(toml, device=device, low_memory=True)


def test_low_memory_needs_models_that_move(moving):
    message = "low_memory moves models .* RecordingTagger of stage 'tag' has no method to\\(device\\) for that; leave"
    with pytest.raises(ConfigError, match=message):
        stages_of(replace(moving, tagger="recording-tagger"))


def build_compiled(*, device, dtype, compile=False):  # noqa: A002
    return RecordingTagger(device=device, dtype=dtype, compile=compile)


def test_compile_goes_to_the_models_that_take_it(toml):
    register(Model("compiled-tagger", "tagger", build_compiled))
    try:
        tag, detect, *_, segment = load(toml, tagger="compiled-tagger", compile=True).stages
        assert tag.tagger.options["compile"] is True
        assert "compile" not in {*detect.detector.options, *segment.segmenter.options}
        assert load(toml, tagger="compiled-tagger").stages[0].tagger.options["compile"] is False
    finally:
        unregister("compiled-tagger")
    with pytest.raises(ConfigError, match=r"compile has no effect on recording-tagger, .*; leave it out"):
        load(toml, compile=True)
