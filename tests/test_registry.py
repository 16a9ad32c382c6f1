"""Model names, plugins and what happens when something is missing."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from rasa import registry
from rasa.errors import ContractError, DependencyError, InputError, RasaWarning, UnknownModelError
from rasa.registry import Model, build, find_model, models, register, takes_option, unregister
from rasa.types import Image, Tags

ROOT = Path(__file__).parents[1]


class OneTag:
    def __init__(self, device: str, dtype: str, tag_threshold: float) -> None:
        self.options = (device, dtype, tag_threshold)

    def tag(self, images):
        return [Tags.of(["thing"]) for _ in images]


def build_one_tag(*, device: str = "cpu", dtype: str = "float32", tag_threshold: float = 0.5) -> OneTag:
    return OneTag(device, dtype, tag_threshold)


@pytest.fixture
def one_tag():
    register(Model("one-tag", "tagger", build_one_tag, summary="a test"))
    yield "one-tag"
    unregister("one-tag")


def test_a_registered_model_is_listed_and_built(one_tag):
    assert one_tag in models()
    tagger = build(one_tag, device="cuda", tag_threshold=0)
    assert tagger.options == ("cuda", "float32", 0)
    [tags] = tagger.tag([Image(np.zeros((2, 2, 3), np.uint8))])
    assert tags.names == ("thing",)


def test_registering_again_replaces(one_tag):
    register(Model(one_tag, "tagger", build_one_tag, summary="second"))
    assert find_model(one_tag).summary == "second"


def test_unregister_takes_it_back(one_tag):
    register(Model("short-lived", "tagger", build_one_tag))
    unregister("short-lived")
    assert "short-lived" not in models()
    with pytest.raises(UnknownModelError, match='no model "one_tag" was registered; did you mean "one-tag"'):
        unregister("one_tag")


def test_the_models_of_the_lite_preset_are_there():
    roles = {name: model.role for name, model in models().items()}
    assert roles["lite-tagger"] == "tagger"
    assert roles["lite-detector"] == "detector"
    assert roles["lite-segmenter"] == "segmenter"


THRESHOLD_OF = {"tagger": "tag_threshold", "detector": "box_threshold", "detector-segmenter": "box_threshold"}


@pytest.mark.parametrize("model", registry.BUILT_IN, ids=lambda model: model.name)
def test_built_in_entries_name_builders_that_are_there(model):
    if model.missing_packages:
        pytest.skip(f"not installed: {', '.join(model.missing_packages)}")
    wanted = {"device", "dtype", THRESHOLD_OF.get(model.role, "dtype")}
    assert {option for option in wanted if takes_option(model.name, option)} == wanted
    assert not takes_option(model.name, "no_such_option")
    assert model.summary
    assert model.extra is not None


def test_takes_option_looks_at_the_builder(one_tag):
    assert takes_option(one_tag, "tag_threshold")
    assert not takes_option(one_tag, "compile")
    register(Model(one_tag, "tagger", lambda **options: None))
    assert not takes_option(one_tag, "compile")
    with pytest.raises(UnknownModelError, match='unknown model "one-tagg"'):
        takes_option("one-tagg", "compile")


def test_checkpoints_of_built_in_entries_are_known():
    from rasa.weights import checkpoints

    named = {name for model in registry.BUILT_IN for name in (*model.checkpoints, *model.fallbacks)}
    known = checkpoints()
    assert len(named) >= 20
    assert named <= {getattr(checkpoint, "name", checkpoint) for checkpoint in known}


def full_size(name):
    """The network of a built-in entry at its true size, without memory for its numbers."""
    import transformers

    from rasa_ram import builders
    from rasa_ram.config import TextConfig

    def sam(kind, width, layers, heads):
        every = [(index + 1) * layers // 4 - 1 for index in range(4)]
        vision = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads}
        config = getattr(transformers, f"{kind}Config")(vision_config=vision | {"global_attn_indexes": every})
        return getattr(transformers, f"{kind}Model")(config)

    def dino(**backbone):
        swin = {"window_size": 7, **backbone, "out_features": ["stage2", "stage3", "stage4"]}
        config = transformers.GroundingDinoConfig(backbone_config=transformers.SwinConfig(**swin))
        return transformers.GroundingDinoForObjectDetection(config)

    def sam2(width, blocks, heads, background=7):
        from transformers.models.sam2.configuration_sam2 import Sam2HieraDetConfig

        widths = [width * 2**stage for stage in range(4)]
        backbone = Sam2HieraDetConfig(
            hidden_size=width, num_attention_heads=heads, blocks_per_stage=blocks, embed_dim_per_stage=widths,
            num_attention_heads_per_stage=[heads * 2**stage for stage in range(4)],
            window_positional_embedding_background_size=[background] * 2,
        )  # fmt: skip
        vision = transformers.Sam2VisionConfig(backbone_config=backbone, backbone_channel_list=widths[::-1])
        return transformers.Sam2Model(transformers.Sam2Config(vision_config=vision))

    swin_t = {"embed_dim": 96, "depths": [2, 2, 6, 2], "num_heads": [3, 6, 12, 24]}
    swin_b = {"embed_dim": 128, "depths": [2, 2, 18, 2], "num_heads": [4, 8, 16, 32], "window_size": 12}
    networks = {
        "ram-swin-l.14m": lambda: builders.build(builders.ram_swin_l_384(text=TextConfig())),
        "ram-plus-swin-l.14m": lambda: builders.build(builders.ram_plus_swin_l_384()),
        "tag2text-swin-b.14m": lambda: builders.build(builders.tag2text_swin_b_384(text=TextConfig())),
        "grounding-dino-swin-t.ogc": lambda: dino(**swin_t),
        "grounding-dino-swin-b.cogcoor": lambda: dino(**swin_b),
        "grounding-dino-tiny.ogc": lambda: dino(**swin_t),
        "grounding-dino-base.cogcoor": lambda: dino(**swin_b),
        "sam-vit-b.sa1b": lambda: sam("Sam", 768, 12, 12),
        "sam-vit-l.sa1b": lambda: sam("Sam", 1024, 24, 16),
        "sam-vit-h.sa1b": lambda: sam("Sam", 1280, 32, 16),
        "sam-hq-vit-h.hq44k": lambda: sam("SamHQ", 1280, 32, 16),
        "sam2.1-hiera-t.sav": lambda: sam2(96, [1, 2, 7, 2], 1),
        "sam2.1-hiera-s.sav": lambda: sam2(96, [1, 2, 11, 2], 1),
        "sam2.1-hiera-b-plus.sav": lambda: sam2(112, [2, 3, 16, 3], 2, background=14),
        "sam2.1-hiera-l.sav": lambda: sam2(144, [2, 6, 36, 4], 2),
        "sam3.sa-co": lambda: transformers.Sam3Model(transformers.Sam3Config()),
        "sam3-segmenter.sa-co": lambda: transformers.Sam3TrackerModel(transformers.Sam3TrackerConfig()),
    }
    return networks[name]()


COUNTED = [model for model in registry.BUILT_IN if model.parameters is not None]


@pytest.mark.parametrize("model", COUNTED, ids=lambda model: model.name)
def test_parameters_are_those_of_the_networks(model):
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    with torch.device("meta"):
        network = full_size(model.name)
    assert sum(parameter.numel() for parameter in network.parameters()) == model.parameters


def test_all_but_the_small_models_are_counted():
    assert {model.name for model in registry.BUILT_IN} - {model.name for model in COUNTED} == {
        "lite-tagger",
        "lite-detector",
        "lite-segmenter",
    }


@pytest.mark.parametrize("model", [model for model in COUNTED if not model.folder], ids=lambda model: model.name)
def test_a_file_holds_the_parameters_of_its_model(model):
    from rasa.weights import checkpoints

    sizes = [checkpoints()[name].size for name in model.checkpoints]
    # RAM's files carry an optimizer's state too; float32 takes 4 bytes a number.
    assert 0.95 * 4 * model.parameters < max(sizes) < 4 * 4 * model.parameters


def test_a_folder_of_weights_is_looked_for_in_both_places(tmp_path, monkeypatch):
    monkeypatch.setenv("RASA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RASA_WEIGHTS", raising=False)
    folder = find_model("sam3.sa-co").folder
    assert folder.find() is None
    (folder.home / folder.name).mkdir(parents=True)
    assert folder.find() == tmp_path / "cache" / "weights" / "sam3.sa-co"
    monkeypatch.setenv("RASA_WEIGHTS", str(tmp_path / "mine"))
    assert folder.find() == tmp_path / "cache" / "weights" / "sam3.sa-co"
    (tmp_path / "mine" / "sam3.sa-co").mkdir(parents=True)
    assert folder.find() == tmp_path / "mine" / "sam3.sa-co"


@pytest.mark.parametrize("typo", ["lite-tager", "Lite-Tagger", "lite_tagger"])
def test_an_unknown_model_gets_a_suggestion(typo):
    with pytest.raises(
        UnknownModelError, match=rf'unknown model "{typo}"; did you mean "lite-tagger"\? \(`rasa models`'
    ):
        build(typo)


def test_a_name_like_nothing_gets_no_suggestion():
    with pytest.raises(UnknownModelError, match=rf'^unknown model "zzz" \(`rasa models` lists all {len(models())}\)$'):
        build("zzz")


def test_a_built_in_name_cannot_be_taken():
    with pytest.raises(InputError, match='"lite-tagger" is a built-in model; choose another name'):
        register(Model("lite-tagger", "tagger", build_one_tag))


def test_a_missing_package_names_the_extra(one_tag):
    register(Model(one_tag, "tagger", "nowhere:f", extra="lite", packages=("no_such_package", "json")))
    assert find_model(one_tag).missing_packages == ("no_such_package",)
    expected = '^model "one-tag" needs the package "no_such_package"; install the extra "lite"$'
    with pytest.raises(DependencyError, match=expected):
        build(one_tag)


def test_several_missing_packages_are_all_named(one_tag):
    register(Model(one_tag, "tagger", "nowhere:f", packages=("no_such_a", "no_such_b")))
    with pytest.raises(DependencyError, match=r'^model "one-tag" needs the packages "no_such_a", "no_such_b"; install'):
        build(one_tag)


@pytest.mark.parametrize("builder", ["no_such_module:f", "json:no_such_function"])
def test_a_builder_that_is_not_there(one_tag, builder):
    register(Model(one_tag, "tagger", builder))
    with pytest.raises(DependencyError, match=f'model "one-tag" cannot be imported from {builder}: '):
        build(one_tag)


def test_an_option_that_the_builder_does_not_take(one_tag):
    with pytest.raises(
        InputError,
        match=r'model "one-tag" takes no option "tag_treshold"; did you mean "tag_threshold"\? '
        r"\(it takes device, dtype, tag_threshold\)",
    ):
        build(one_tag, tag_treshold=0.3)


def test_a_builder_with_open_keywords_takes_any(one_tag):
    register(Model(one_tag, "tagger", lambda **options: build_one_tag(tag_threshold=options["flavour"])))
    assert build(one_tag, flavour=3).options[-1] == 3


def test_a_builder_must_return_its_role(one_tag):
    register(Model(one_tag, "detector", build_one_tag))
    with pytest.raises(ContractError, match=r'builder of model "one-tag" must return a detector, got .*OneTag'):
        build(one_tag)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"role": "taster"}, "has the role 'taster'; use one of tagger, detector, segmenter"),
        ({"builder": "module.function"}, "has the builder 'module.function'; write"),
        ({"builder": "module:"}, "has the builder 'module:'; write"),
        ({"packages": "torch"}, "packages of .* must be a tuple of strings"),
        ({"checkpoints": "a.b"}, "checkpoints of .* must be a tuple of strings"),
    ],
)
def test_a_malformed_entry_is_refused(arguments, message):
    fine = {"name": "x", "role": "tagger", "builder": build_one_tag}
    with pytest.raises(InputError, match=message):
        Model(**fine | arguments)


def write_distribution(folder: Path, entry_points: str, module: str) -> None:
    """Lay down what an installed plugin looks like: a module and its metadata."""
    (folder / "plugin_for_test.py").write_text(textwrap.dedent(module), encoding="utf-8")
    info = folder / "plugin_for_test-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin-for-test\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(f"[rasa.models]\n{entry_points}", encoding="utf-8")


PLUGIN = """
    from rasa.registry import Model
    from rasa.types import Tags

    class Tagger:
        def tag(self, images):
            return [Tags() for _ in images]

    def build(*, device, dtype):
        return Tagger()

    as_value = Model("plugged-value", "tagger", "plugin_for_test:build")

    def as_function():
        return Model("plugged-function", "tagger", "plugin_for_test:build")

    def raises():
        raise RuntimeError("out of order")

    def wrong():
        return "no model"

    def twice():
        return Model("lite-tagger", "tagger", "plugin_for_test:build")
"""


def test_plugins_are_found_by_entry_point(tmp_path):
    write_distribution(tmp_path, "a = plugin_for_test:as_value\nb = plugin_for_test:as_function\n", PLUGIN)
    code = """
        import json
        from rasa.registry import build, models
        built = type(build("plugged-function", device="cpu", dtype="float32")).__module__
        print(json.dumps([sorted(name for name in models() if name.startswith("plugged")), built]))
    """
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == [["plugged-function", "plugged-value"], "plugin_for_test"]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("plugin_for_test:raises", r'plugin "p" \(.*raises\) does not load: RuntimeError: out of order'),
        ("plugin_for_test:wrong", r'plugin "p" .* does not load: ContractError: it must be a rasa.registry.Model'),
        ("plugin_for_test:missing", r'plugin "p" .* does not load: AttributeError'),
        ("no_such_plugin_module:x", r'plugin "p" .* does not load: ModuleNotFoundError'),
        ("plugin_for_test:twice", 'a plugin offers a second model "lite-tagger"; it is ignored'),
    ],
)
def test_a_broken_plugin_is_a_warning(tmp_path, monkeypatch, target, message):
    write_distribution(tmp_path, f"p = {target}\n", PLUGIN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "plugin_for_test", raising=False)
    with pytest.warns(RasaWarning, match=message):
        found = models()
    assert found["lite-tagger"].builder == "rasa.adapters.lite.tagger:build_tagger"
