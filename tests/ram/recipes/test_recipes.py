"""Recipes: which there are, what they say, how they are overridden, and what is refused."""

import math
import string
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rasa.errors import ConfigError
from rasa_ram import builders
from rasa_ram.config import TextConfig
from rasa_ram.training.config import build_config, config_text, config_values, load_recipe, recipe_values, recipes
from rasa_ram.training.toml_values import merge, read_override, write_table
from tests.ram.recipes.tiny_recipe import write_tiny_recipe

# Table D2 of the survey of the published code and papers: architecture, images per GPU, peak and lowest rate, epochs.
TABLE = {
    "pretrain_ram_swin_b_224": ("ram-swin-b-224", 52, 1e-4, 5e-7, 5),
    "pretrain_ram_swin_l_224": ("ram-swin-l-224", 52, 1e-4, 5e-7, 5),
    "pretrain_ram_plus": ("ram-plus-swin-l-224", 52, 1e-4, 5e-7, 5),
    "pretrain_tag2text": ("tag2text-swin-b-224", 80, 1e-4, 5e-7, 5),
    "finetune_ram_384": ("ram-swin-l-384", 26, 5e-6, 0, 2),
    "finetune_ram_plus_384": ("ram-plus-swin-l-384", 26, 5e-6, 0, 2),
    "finetune_tag2text_384": ("tag2text-swin-b-384", 36, 5e-6, 0, 2),
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The file of a tiny recipe."""
    return write_tiny_recipe(tmp_path_factory.mktemp("tiny") / "recipe")


def test_the_recipes_of_the_papers_are_there():
    assert set(TABLE) | {"finetune_own_tags"} <= set(recipes())
    assert all(recipes().values())


@pytest.mark.parametrize("name", recipes())
def test_every_recipe_loads_and_survives_being_written(name, tmp_path):
    config = load_recipe(name)
    path = tmp_path / "again.toml"
    path.write_text(config_text(config), encoding="utf-8")
    assert load_recipe(path) == config


@pytest.mark.parametrize("name", TABLE)
def test_recipes_say_what_the_table_of_the_papers_says(name):
    config = load_recipe(name)
    schedule, views = config.schedule, config.data.views
    found = (config.model.architecture, config.data.batch_size, schedule.peak, schedule.floor, config.run.epochs)
    assert found == TABLE[name]
    assert config.run.weight_decay == 0.05
    assert schedule.kind == ("step" if name.startswith("pretrain") else "cosine")
    assert (views.scale, views.flip, views.operations, views.magnitude) == ((0.2, 1.0), 0.5, 2, 5)
    assert config.data.max_words == 30
    assert views.size == int(config.model.architecture[-3:])
    assert views.teacher_size == (None if "tag2text" in name else 224)
    assert config.data.targets == ("caption" if "tag2text" in name else "known")


def test_summed_losses_of_ram_plus_count_as_those_of_the_published_batch():
    for name in ("pretrain_ram_plus", "finetune_ram_plus_384"):
        config = load_recipe(name)
        assert config.run.loss_images == config.data.batch_size
    # What is rescaled to the caption loss has no size of its own.
    assert load_recipe("pretrain_ram_swin_l_224").run.loss_images is None


@pytest.mark.parametrize("name", builders.ARCHITECTURES)
def test_architectures_are_the_sizes_of_their_names(name):
    config = builders.architecture(name)
    assert config.family == name.partition("-swin")[0]
    assert config.vision.image_size == int(name[-3:])
    assert config.vision.embed_dim == {"b": 128, "l": 192}[name[-5]]


def test_architectures_are_those_of_the_published_models():
    text = TextConfig()
    assert builders.architecture("ram-swin-l-384", text=text) == builders.ram_swin_l_384(text=text)
    assert builders.architecture("ram-swin-l-224") == builders.ram_swin_l_224()
    assert builders.architecture("ram-plus-swin-l-384") == builders.ram_plus_swin_l_384()
    assert builders.architecture("tag2text-swin-b-384", text=text) == builders.tag2text_swin_b_384(text=text)


def test_paths_of_a_file_are_relative_to_it_and_those_of_overrides_to_the_folder(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = load_recipe(tiny, ["data.images=elsewhere", 'data.manifests=["more.json"]'])
    assert config.model.label_vectors == tiny.parent / "vectors.npy"
    assert config.model.vocabulary == str(tiny.parent / "tags.txt")
    assert config.data.images == tmp_path / "elsewhere"
    assert config.data.manifests == (tmp_path / "more.json",)
    assert load_recipe("pretrain_tag2text").model.vocabulary == "ram-swin-l.14m"  # a name, not a file


def test_overrides_are_toml_values_and_win_in_their_order(tiny):
    config = load_recipe(tiny, ["run.epochs=3", "run.ema=0.9", "run.epochs=4", "run.precision=bfloat16", "summary=new"])
    assert (config.run.epochs, config.run.ema, config.run.precision, config.summary) == (4, 0.9, "bfloat16", "new")
    assert load_recipe(tiny, ["data.images="]).data.images is None


def test_a_data_setting_reaches_the_loader(tiny):
    config = load_recipe(tiny, ["data.order=class_balanced", "data.balance_power=1", "data.on_bad=stop", "run.seed=7"])
    settings = config.data.loader_settings(num_tags=4, seed=config.run.seed)
    assert (settings.order, settings.balance_power, settings.on_bad, settings.seed) == ("class_balanced", 1, "stop", 7)
    assert (settings.batch_size, settings.workers, settings.num_tags, settings.texts) == (3, 0, 4, False)
    assert settings.views == config.data.views
    assert config.data.loader_settings(num_tags=4585, seed=0, texts=True).texts


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["run.epoch=3"], r'recipe .*tiny\.toml: unknown key "run\.epoch"; did you mean "epochs"\?'),
        (["modell.captioner=true"], r'unknown key "modell"; did you mean "model"\?'),
        (["model.sizes.vision.windows=2"], r'unknown key "model\.sizes\.vision\.windows"; did you mean "window"\?'),
        (["run.epochs=many"], r"run\.epochs must be a whole number, got 'many'; write digits"),
        (["run.epochs=1.5"], r"run\.epochs must be a whole number, got 1\.5"),
        (["run.epochs=true"], r"run\.epochs must be a whole number, got True"),
        (["run.clip_norm=inf"], r"run\.clip_norm must be a finite number, got inf"),
        (["model.captioner=1"], r"model\.captioner must be true or false, got 1"),
        (["data.manifests=a.json"], r"data\.manifests must be a list"),
        (["data.views.scale=[0.2]"], r"data\.views\.scale must have 2 values, got 1"),
        (["model=ram"], r"model must be a table, got 'ram'"),
        (["model.text_encoder=bert"], r"model\.text_encoder must be one of 'clip', 'minilm', got 'bert'"),
        (["run.epochs=0"], r"\[run\] epochs must be a whole number of at least 1, got 0"),
        (["run.precision=fp16"], r"run\.precision must be one of 'float32', 'bfloat16', got 'fp16'"),
        (["data.batch_size=0"], r"\[data\] batch_size must be at least 1, got 0"),
        (["data.batch_size="], r'the key "data\.batch_size" is missing; give it a value'),
        (["data.views.size=32"], r"data\.views\.size is 32 and the model reads 64 pixels"),
        (["data.views.flip=2"], r"\[data\.views\] flip must be in \[0, 1\], got 2"),
        (["data.repeats=[1, 2]"], r"repeats must be a number of at least 1 for each manifest, got \[1, 2\]"),
        (['data.shards=["a.tar"]'], r"give either shards, or manifests and images"),
        (["schedule.kind=linear"], r"schedule\.kind must be one of .* got 'linear'"),
        (["schedule.kind=step"], r'kept belongs to the kind "step", and it needs one'),
        (["schedule.kind=constant"], r'floor belongs to the kinds "step" and "cosine"'),
        (["schedule.warmup_start=1e-6"], r"warmup_start has no effect without warmup_steps"),
        (["schedule.floor=1"], r"\[schedule\] floor must be at most the peak 0\.001, got 1"),
        (["model.architecture=ram-swin-l-224"], r"\[model\] give either architecture, a name, or sizes"),
        (["model.sizes=", "model.architecture=ram-swin-x-224"], r'unknown architecture "ram-swin-x-224"; did you mean'),
        (["model.sizes.family=ram-plus"], r"ram-plus has no captioner"),
        (["model.captioner=false"], r"run\.parts has captions and the model no captioner"),
        (['run.parts=["texts"]'], r"run\.parts: ram does not learn from texts; it has captions, image_features"),
        (["run.parts="], r"run\.parts needs CLIP's view of the image; set data\.views\.teacher_size = 224"),
        (
            ["data.views.teacher_size=224"],
            r"run\.parts has no use for CLIP's view of the image; leave teacher_size out",
        ),
        (["run.epochs"], r'an override must be written key=value, such as run\.epochs=3, got "run\.epochs"'),
        (["run..epochs=3"], r"an override must be written key=value"),
        (["data.manifests=[a"], r"no TOML value: \[a; quote it for the shell"),
    ],
)
def test_what_is_wrong_is_named_with_its_key(tiny, overrides, message):
    with pytest.raises(ConfigError, match=message):
        load_recipe(tiny, overrides)


def test_files_that_are_no_recipes_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r'unknown recipe "pretrain_tag2txt"; did you mean "pretrain_tag2text"\?'):
        load_recipe("pretrain_tag2txt")
    with pytest.raises(ConfigError, match=r"gone\.toml: there is no such file"):
        load_recipe(tmp_path / "gone.toml")
    (tmp_path / "bad.toml").write_bytes(b"a = [\n")
    with pytest.raises(ConfigError, match=r"bad\.toml: no valid TOML"):
        load_recipe(tmp_path / "bad.toml")
    (tmp_path / "bad.toml").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match=r"bad\.toml: not a readable UTF-8 text file"):
        load_recipe(tmp_path / "bad.toml")


def test_a_recipe_of_values_is_the_same_as_of_the_file(tiny):
    assert build_config(recipe_values(tiny), name="tiny") == load_recipe(str(tiny))
    assert Path(config_values(load_recipe(tiny))["data"]["images"]).is_dir()


KEYS = st.text(string.ascii_letters + string.digits + "-_ .äß\"'\\", min_size=1, max_size=6)
PLAIN = st.one_of(
    st.booleans(),
    st.integers(-(2**60), 2**60),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=("Cs",)), max_size=12),
)
VALUES = st.one_of(PLAIN, st.lists(PLAIN, max_size=3))
TABLES = st.dictionaries(KEYS, st.one_of(VALUES, st.dictionaries(KEYS, VALUES, min_size=1, max_size=3)), max_size=4)


@given(TABLES)
def test_written_tables_are_read_back(table):
    assert tomllib.loads(write_table(table)) == table


@given(TABLES, TABLES)
def test_merging_keeps_what_the_other_does_not_say_and_takes_the_rest(one, other):
    merged = merge(one, other)
    assert merged.keys() == one.keys() | other.keys()
    assert merge(merged, other) == merged
    assert all(merged[key] == other[key] for key in other if not isinstance(other[key], dict))


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_survive_an_override(value):
    ((_, table),) = read_override(f"a.b={value!r}").items()
    assert math.isclose(table["b"], value, rel_tol=0, abs_tol=0)
