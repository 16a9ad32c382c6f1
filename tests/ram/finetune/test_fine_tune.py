"""Fine-tuning on own tags, end to end with a tiny model and photos of two colours."""

import json

import numpy as np
import PIL.Image
import pytest
import torch
from typer.testing import CliRunner

from rasa.errors import ConfigError, WeightsError
from rasa.types import Image
from rasa_ram.checkpoint import save
from rasa_ram.cli.finetune import app
from rasa_ram.data.own_tags import read_tagged_photos
from rasa_ram.tagger import RamTagger, load_tagger
from rasa_ram.training.fresh_weights import draw_model
from rasa_ram.training.own_tags import REPORT, fine_tune, own_tags_settings
from tests.ram import tiny
from tests.ram.hash_encoder import HashEncoder
from tests.ram.tiny import NAMES, VOCABULARY

COLOURS = {"crimson": (200, 20, 40), "teal": (20, 130, 130)}
FAST = ("run.epochs=20", "run.device=cpu", "data.workers=0", "data.batch_size=8", "schedule.peak=0.003")


def tiny_model(family="ram"):
    """Fresh weights, whose queries are not yet drowned by what they attend to."""
    config = tiny.tiny_model(family).config
    model = draw_model(config, seed=1).eval()
    if family != "tag2text":
        model.label_embedding.vectors.data = tiny.tiny_model(family).label_embedding.vectors.data
    return model


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """16 photos of each of two new tags, some also of a tag that the model knows, and one that is broken."""
    folder, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for name, colour in COLOURS.items():
        for n in range(16):
            pixels = np.clip(np.array(colour) + random.normal(0, 20, (48, 64, 3)), 0, 255).astype(np.uint8)
            PIL.Image.fromarray(pixels).save(folder / f"{name}-{n}.png")
            (folder / f"{name}-{n}.txt").write_text(f"{name}\n" + ("sky\n" if n % 4 == 0 else ""), encoding="utf-8")
    (folder / "crimson-9.png").write_bytes(b"no photo")
    return folder


def tune(model, photos, out, *overrides, table=None, resume=False, **options):
    settings = own_tags_settings((*FAST, *overrides), **options)
    tagged = read_tagged_photos(table or photos)
    return fine_tune(
        model, VOCABULARY, tagged, photos, encoder=HashEncoder(), settings=settings, out=out, resume=resume
    )


@pytest.mark.filterwarnings("ignore::rasa.errors.RasaWarning")
@pytest.mark.parametrize(
    ("family", "learn"),
    [("ram", "head"), ("ram-plus", "vectors"), ("tag2text", "vectors")],
)
def test_new_tags_are_learned(family, learn, photos, tmp_path):
    model = tiny_model(family)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    report = tune(model, photos, tmp_path / "run", learn=learn, min_examples=1)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items()), "the model changed"
    figures = {tag.name: tag for tag in report.tags}
    assert {name for name, tag in figures.items() if tag.new} == set(COLOURS)
    assert sum(figures["crimson"].photos) == 16
    assert figures["crimson"].photos[1] in {2, 3, 4}
    assert figures["crimson"].after > 0.99
    assert figures["teal"].after > 0.99
    assert (figures["teal"].before is None) == (family == "tag2text")
    assert report.unreadable == ("crimson-9.png",)
    tagger = load_tagger(tmp_path / "run")
    assert tagger.vocabulary.names == (*NAMES, "crimson", "teal")
    names = [
        tags.names for tags in tagger.tag([Image(np.full((48, 64, 3), rgb, np.uint8)) for rgb in COLOURS.values()])
    ]
    assert ["crimson" in names[0], "teal" in names[0], "crimson" in names[1], "teal" in names[1]] == [1, 0, 0, 1]
    saved = json.loads((tmp_path / "run" / REPORT).read_text(encoding="utf-8"))
    assert [tag["name"] for tag in saved["tags"]] == list(figures)


@pytest.mark.filterwarnings("ignore::rasa.errors.RasaWarning")
@pytest.mark.parametrize("family", ["ram", "ram-plus", "tag2text"])
def test_vectors_alone_leave_all_other_tags_as_they_were(family, photos, tmp_path):
    model = tiny_model(family)
    tune(model, photos, tmp_path, "run.epochs=2", learn="vectors")
    images = [Image(np.random.default_rng(n).integers(0, 256, (40, 50, 3)).astype(np.uint8)) for n in range(3)]
    kept = [n for n, name in enumerate(NAMES) if name != "sky"]
    expected = RamTagger(model, VOCABULARY).scores(images)[:, kept]
    np.testing.assert_array_equal(load_tagger(tmp_path).scores(images)[:, kept], expected)


@pytest.mark.filterwarnings("ignore::rasa.errors.RasaWarning")
def test_other_tags_may_be_left_out(photos, tmp_path):
    tune(tiny_model(), photos, tmp_path, "run.epochs=1", keep_old=False)
    assert load_tagger(tmp_path).vocabulary.names == ("sky", "crimson", "teal")


@pytest.mark.filterwarnings("ignore::rasa.errors.RasaWarning")
def test_all_learns_the_image_encoder_too(photos, tmp_path):
    model = tiny_model()
    tune(model, photos, tmp_path, "run.epochs=1", learn="all")
    first = "visual_encoder.patch_embed.proj.weight"
    tuned = load_tagger(tmp_path)._model.state_dict()[first]
    assert not torch.equal(tuned, model.state_dict()[first])


@pytest.mark.filterwarnings("ignore::rasa.errors.RasaWarning")
def test_a_fine_tuning_is_resumed_to_the_same_weights_and_on_nothing_else(photos, tmp_path):
    tune(tiny_model(), photos, tmp_path / "run", "run.epochs=2", "run.max_steps=3")

    def resumed(*overrides, model=None, **options):
        return tune(model or tiny_model(), photos, tmp_path / "run", "run.epochs=2", *overrides, resume=True, **options)

    other = tmp_path / "other.csv"
    names = sorted(path.name for path in photos.glob("*.png"))
    renamed = {"crimson": "zebra", "teal": "yak"}
    rows = [f"{name},{renamed[name.split('-')[0]]}{'|sky' if n % 4 == 0 else ''}" for n, name in enumerate(names)]
    other.write_text("\n".join(["image,tags", *rows]), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"cannot resume .*data.photos to learn from was '\d+, .*data.tags was '14, "):
        resumed(table=other)
    with pytest.raises(ConfigError, match=r"data.complete was 'False' and is 'True'; set them back"):
        resumed(complete=True)
    with pytest.raises(ConfigError, match=r"data.learn was 'head' and is 'vectors'"):
        resumed(learn="vectors")
    with pytest.raises(ConfigError, match=r"data.photos to check on .* data.validation was '0.2' and is '0.3'"):
        resumed(validation=0.3)
    with pytest.raises(ConfigError, match=r"data.order was"):
        resumed("data.order='shuffled'")
    changed = tiny_model()
    changed.fc.bias.data += 1e-3
    with pytest.raises(ConfigError, match=r"data.model was"):
        resumed(model=changed)
    resumed()
    tune(tiny_model(), photos, tmp_path / "once", "run.epochs=2")
    files = [tmp_path / run / "model.safetensors" for run in ("run", "once")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_settings_are_checked():
    assert own_tags_settings().run.parts == ()
    with pytest.raises(ConfigError, match=r"validation must be in \[0, 1\), got 1"):
        own_tags_settings(validation=1)
    with pytest.raises(ConfigError, match="min_examples must be at least 1"):
        own_tags_settings(min_examples=0)
    with pytest.raises(ConfigError, match=r'unknown key "run.epoch"'):
        own_tags_settings(["run.epoch=3"])


def test_it_runs_in_one_process(photos, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="runs in one process; start it without torchrun"):
        tune(tiny_model(), photos, tmp_path)


@pytest.mark.filterwarnings("ignore::rasa.errors.RasaWarning")
def test_the_command(photos, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    save(tiny_model("tag2text"), tmp_path / "model", VOCABULARY)
    overrides = [argument for key in FAST for argument in ("--set", key)]
    command = [str(photos), "--model", str(tmp_path / "model"), "--out", str(tmp_path / "mine"), *overrides]
    done = CliRunner().invoke(app, [*command, "--set", "run.epochs=2", "--learn", "vectors"])
    assert done.exit_code == 0, done.output
    assert "crimson (new)" in done.stdout
    assert "photos that could not be read: 1, such as crimson-9.png" in done.stderr
    assert done.stdout.splitlines()[-1] == str(tmp_path / "mine")
    known = CliRunner().invoke(app, [*command, "--text-encoder", "bert"])
    assert (known.exit_code, "--text-encoder must be clip or minilm, got bert" in known.output) == (2, True)
    again = CliRunner().invoke(app, command)
    assert again.exit_code == 1
    assert isinstance(again.exception, ConfigError)
    assert "resume" in str(again.exception)


@pytest.mark.filterwarnings("ignore::rasa.errors.RasaWarning")
def test_the_command_fetches_no_text_encoder_where_every_tag_is_known(photos, tmp_path, monkeypatch):
    monkeypatch.setenv("RASA_OFFLINE", "1")
    monkeypatch.setenv("RASA_CACHE", str(tmp_path / "cache"))
    save(tiny_model(), tmp_path / "model", VOCABULARY)
    for name, old in (("cat", "crimson"), ("dog", "teal")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for n in range(4):
            (tmp_path / "photos" / name / f"{n}.png").write_bytes((photos / f"{old}-{n}.png").read_bytes())
    overrides = [argument for key in (*FAST, "run.epochs=1") for argument in ("--set", key)]
    command = ["--model", str(tmp_path / "model"), "--out", str(tmp_path / "mine"), *overrides]
    done = CliRunner().invoke(app, [str(tmp_path / "photos"), *command])
    assert done.exit_code == 0, done.output
    assert load_tagger(tmp_path / "mine").vocabulary.names == NAMES
    (tmp_path / "photos" / "dog").rename(tmp_path / "photos" / "zebra")
    new = CliRunner().invoke(app, [str(tmp_path / "photos"), *command])
    assert isinstance(new.exception, WeightsError)
    assert "clip-vit-b-16.openai" in str(new.exception)
