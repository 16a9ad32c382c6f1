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
from rasa.registry import Model, build, find_model, models, register, unregister
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


@pytest.mark.parametrize("model", registry._BUILT_IN, ids=lambda model: model.name)
def test_built_in_entries_name_a_file_that_exists(model):
    module, _, function = model.builder.partition(":")
    source = ROOT / f"{module.replace('.', '/')}.py"
    assert f"def {function}(" in source.read_text(encoding="utf-8")
    assert model.summary
    assert model.extra is not None


def test_checkpoints_of_built_in_entries_are_known():
    from rasa.weights import checkpoints

    named = {name for model in registry._BUILT_IN for name in (*model.checkpoints, *model.fallbacks)}
    known = checkpoints()
    assert len(named) >= 3
    assert named <= {getattr(checkpoint, "name", checkpoint) for checkpoint in known}


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
