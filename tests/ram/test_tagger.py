"""RamTagger: its role, its thresholds and lists, and that a part of the vocabulary answers like the whole."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rasa import registry
from rasa.errors import ContractError, InputError, RasaWarning, UnknownModelError, WeightsError
from rasa.testing import check_tagger, sample_images
from rasa.types import KINDS, Image
from rasa.weights import checkpoints
from rasa_ram.builders import build
from rasa_ram.checkpoint import convert_file, save
from rasa_ram.checkpoint import load as load_model
from rasa_ram.config import TextConfig
from rasa_ram.preprocess import preprocess
from rasa_ram.published import denied_tags, load_vocabulary
from rasa_ram.tagger import THRESHOLD, RamTagger, load_tagger
from rasa_ram.vocabulary import Vocabulary
from tests.ram.tiny import NAMES, VOCABULARY, tiny_model

# Of rasa_ram/tag_kinds.toml, as made.
KIND_COUNTS = {
    "ram-swin-l.14m": {"object": 3565, "scene": 389, "action": 395, "attribute": 236},
    "tag2text-swin-b.14m": {"object": 2450, "scene": 302, "action": 365, "attribute": 312},
}
FAMILIES = ("ram", "ram-plus", "tag2text")
IMAGES = sample_images()


@pytest.fixture(scope="module", params=FAMILIES)
def model(request):
    return tiny_model(request.param)


@pytest.fixture(scope="module")
def ram():
    return tiny_model("ram")


def test_it_keeps_the_promises_of_a_tagger(model):
    tagger = RamTagger(model, VOCABULARY, batch_size=3)
    check_tagger(tagger)
    found = [tags.names for tags in tagger.tag(IMAGES)]
    assert len(set(found)) > 1, "a tagger that answers the same for all pictures tests nothing"
    assert 0 < sum(map(len, found)) < len(NAMES) * len(IMAGES)


def test_scores_are_the_models(model):
    with torch.inference_mode():
        expected = model(torch.from_numpy(preprocess(IMAGES, 64))).sigmoid().numpy()
    scores = RamTagger(model, VOCABULARY).scores(IMAGES)
    assert scores.dtype == np.float32
    assert scores.shape == (len(IMAGES), len(NAMES))
    assert np.ptp(scores, axis=0).max() > 0.01
    np.testing.assert_allclose(scores, expected, atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_batches_of_mixed_sizes_change_nothing(model, batch_size):
    single = np.concatenate([RamTagger(model, VOCABULARY).scores([image]) for image in IMAGES])
    np.testing.assert_allclose(RamTagger(model, VOCABULARY, batch_size=batch_size).scores(IMAGES), single, atol=1e-6)


@pytest.mark.parametrize("chunk", [1, 5, 12, 1000])
def test_chunks_of_the_vocabulary_change_nothing(model, chunk):
    wide = tiny_model(model.config.family, dtype=torch.float64)
    whole = RamTagger(wide, VOCABULARY).scores(IMAGES)
    np.testing.assert_array_equal(RamTagger(wide, VOCABULARY, chunk=chunk).scores(IMAGES), whole)


def test_no_images_give_no_rows(ram):
    tagger = RamTagger(ram, VOCABULARY)
    assert tagger.tag([]) == []
    assert tagger.scores([]).shape == (0, len(NAMES))
    assert tagger.scores([]).dtype == np.float32


def test_one_pixel_is_an_image(ram):
    [tags] = RamTagger(ram, VOCABULARY, threshold=0).tag([Image(np.zeros((1, 1, 3), np.uint8))])
    assert len(tags) == len(NAMES)


# Thresholds and lists


def tags_by_hand(scores, thresholds, names=NAMES):
    order = sorted(range(len(names)), key=lambda i: (-scores[i], i))
    return tuple(names[i] for i in order if scores[i] > thresholds[i])


def test_every_tag_has_its_own_threshold(model):
    tagger = RamTagger(model, VOCABULARY)
    for tags, scores in zip(tagger.tag(IMAGES), tagger.scores(IMAGES), strict=True):
        assert tags.names == tags_by_hand(scores, VOCABULARY.thresholds)
        assert tags.ids.tolist() == [NAMES.index(name) for name in tags.names]
        np.testing.assert_allclose(tags.scores, scores[tags.ids], atol=1e-6)
        assert (np.diff(tags.scores) <= 0).all()


@pytest.mark.parametrize("threshold", [0, 0.5, 1])
def test_one_threshold_overrides_all(ram, threshold):
    tagger = RamTagger(ram, VOCABULARY, threshold=threshold)
    scores = tagger.scores(IMAGES)
    found = [tags.names for tags in tagger.tag(IMAGES)]
    assert found == [tags_by_hand(row, [threshold] * len(NAMES)) for row in scores]
    assert {0: found[0] != (), 0.5: True, 1: found[0] == ()}[threshold]


def test_a_score_at_its_threshold_is_not_above_it(ram):
    scores = RamTagger(ram, VOCABULARY).scores(IMAGES[:1])[0]
    just_below = np.nextafter(scores, np.float32(0))
    [none] = RamTagger(ram, VOCABULARY.with_thresholds(scores)).tag(IMAGES[:1])
    [everything] = RamTagger(ram, VOCABULARY.with_thresholds(just_below)).tag(IMAGES[:1])
    assert none.names == ()
    assert len(everything) == len(NAMES)


def test_a_vocabulary_without_thresholds_uses_the_published_default(ram):
    tagger = RamTagger(ram, Vocabulary(NAMES))
    rows = zip(tagger.tag(IMAGES), tagger.scores(IMAGES), strict=True)
    assert all(tags.names == tags_by_hand(scores, [THRESHOLD] * len(NAMES)) for tags, scores in rows)


def test_top_k_keeps_the_best(model):
    everything = RamTagger(model, VOCABULARY, threshold=0).tag(IMAGES)
    best = RamTagger(model, VOCABULARY, threshold=0, top_k=3).tag(IMAGES)
    assert [tags.names for tags in best] == [tags.names[:3] for tags in everything]


def test_equal_scores_stand_in_the_order_of_the_vocabulary(ram):
    twins = tiny_model("ram")
    twins.label_embedding.vectors.data[:] = twins.label_embedding.vectors.data[:1].clone()
    [tags] = RamTagger(twins, VOCABULARY, threshold=0, chunk=1).tag(IMAGES[:1])
    assert tags.names == NAMES


def test_a_subset_answers_like_the_whole(model):
    whole = RamTagger(model, VOCABULARY)
    part = RamTagger(model, VOCABULARY, allow=["bus", "cat", "red"], deny=["red", "sky"])
    assert part.vocabulary.names == ("cat", "bus")
    assert part.vocabulary.ids.tolist() == [0, 11]
    np.testing.assert_allclose(part.scores(IMAGES), whole.scores(IMAGES)[:, [0, 11]], atol=1e-6)
    for few, all_ in zip(part.tag(IMAGES), whole.tag(IMAGES), strict=True):
        kept = [i for i, name in enumerate(all_.names) if name in {"cat", "bus"}]
        assert few.names == tuple(all_.names[i] for i in kept)
        assert few.ids.tolist() == all_.ids[kept].tolist()


def test_a_subset_is_cut_out_before_the_decoder(model, monkeypatch):
    sizes = []
    run = model.tag_decoder.forward

    def watch(hidden, *rest):
        sizes.append(hidden.shape[1])
        return run(hidden, *rest)

    monkeypatch.setattr(model.tag_decoder, "forward", watch)
    RamTagger(model, VOCABULARY, allow=["cat", "dog"]).tag(IMAGES[:2])
    assert sizes == [2]


def test_what_no_image_changes_is_computed_once(model, monkeypatch):
    tagger = RamTagger(model, VOCABULARY)

    def fail(*_):
        pytest.fail("computed again for an image")

    monkeypatch.setattr(model.tag_decoder, "first_query", fail)
    if model.config.family == "ram":
        monkeypatch.setattr(model.label_embedding, "forward", fail)
    assert len(tagger.tag(IMAGES[:1])) == 1


def test_meanings_of_a_word_are_one_tag_of_an_image():
    names = ("bank", "cat", "bank", "dog", "bank", *NAMES[5:])
    tagger = RamTagger(tiny_model("tag2text"), Vocabulary(names, allow_repeats=True), threshold=0)
    for tags, scores in zip(tagger.tag(IMAGES), tagger.scores(IMAGES), strict=True):
        assert sorted(tags.names) == sorted(set(names))
        place = tags.names.index("bank")
        assert tags.ids[place] == [0, 2, 4][int(np.argmax(scores[[0, 2, 4]]))]
        assert (np.diff(tags.scores) <= 0).all()
    denied = RamTagger(tiny_model("tag2text"), Vocabulary(names, allow_repeats=True), deny=["bank"])
    assert "bank" not in denied.vocabulary


# Number formats


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_ends_in_float32(dtype):
    exact = RamTagger(tiny_model("ram"), VOCABULARY).scores(IMAGES)
    tagger = RamTagger(tiny_model("ram", dtype=dtype), VOCABULARY)
    scores = tagger.scores(IMAGES)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, exact, atol=0.1)
    # After a sigmoid in bfloat16 all scores would be multiples of 2**-16 with 8 bits.
    assert not np.array_equal(scores, torch.from_numpy(scores).to(dtype).float().numpy())
    assert tagger.describe()["dtype"] == str(dtype).removeprefix("torch.")


def test_scores_that_are_no_numbers_are_refused():
    broken = tiny_model("ram")
    broken.fc.bias.data[:] = torch.nan
    with pytest.raises(ContractError, match=r"a score that is no number on 'sample-96x128-0'; use bfloat16"):
        RamTagger(broken, VOCABULARY).tag(IMAGES)


# What it is


def test_describe_says_what_decides_the_answer(ram):
    source = {"checkpoint": "ram-tiny.test", "sha256": "0" * 64}
    first = RamTagger(ram, VOCABULARY, provenance=source).describe()
    assert json.loads(json.dumps(first)) == {
        "model": "ram",
        **source,
        "tags": len(NAMES),
        "vocabulary": VOCABULARY.fingerprint,
        "labels": "own",
        "threshold": "by tag",
        "top_k": None,
        "dtype": "float32",
    }
    others = [
        RamTagger(ram, VOCABULARY, threshold=0.5),
        RamTagger(ram, VOCABULARY, top_k=2),
        RamTagger(ram, VOCABULARY, deny=["cat"]),
        RamTagger(ram, VOCABULARY.with_thresholds({"cat": 0.9})),
    ]
    descriptions = [first, *(other.describe() for other in others)]
    assert len({json.dumps(description) for description in descriptions}) == 5


def test_gradients_are_neither_recorded_nor_switched(ram):
    assert torch.is_grad_enabled()
    RamTagger(ram, VOCABULARY).tag(IMAGES[:1])
    assert torch.is_grad_enabled()
    assert all(parameter.grad is None for parameter in ram.parameters())


# Bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"threshold": 1.5}, r"threshold must be in \[0, 1\], got 1.5"),
        ({"threshold": float("nan")}, r"threshold must be in \[0, 1\], got nan"),
        ({"top_k": 0}, "top_k must be at least 1, got 0"),
        ({"chunk": 0}, "chunk must be at least 1, got 0"),
        ({"batch_size": -1}, "batch_size must be at least 1, got -1"),
        ({"allow": ["cta"]}, r'tag "cta" is not in the vocabulary of 12 tags; did you mean "cat"\?'),
        ({"deny": ["Sofa"]}, r'tag "Sofa" is not in the vocabulary of 12 tags; did you mean "sofa"\?'),
        ({"allow": ["cat", "cat"]}, "tag 'cat' is asked for twice"),
        ({"allow": "cat"}, "expected a sequence of tags, got the single string 'cat'"),
        ({"allow": []}, "allow and deny leave no tag to look for"),
        ({"allow": ["cat"], "deny": ["cat"]}, "allow and deny leave no tag to look for"),
    ],
)
def test_bad_arguments_are_refused(ram, arguments, message):
    with pytest.raises(InputError, match=message):
        RamTagger(ram, VOCABULARY, **arguments)


def test_a_vocabulary_that_does_not_fit_is_refused(ram):
    with pytest.raises(InputError, match=r"the vocabulary has 2 tags, the model 12; .* allow="):
        RamTagger(ram, VOCABULARY.subset(["cat", "dog"]))
    with pytest.raises(InputError, match="the ids must count the model's rows from 0 to 11, in order"):
        RamTagger(ram, VOCABULARY.subset(NAMES[::-1]))


def test_a_model_in_training_is_refused():
    with pytest.raises(InputError, match=r"training mode.*call model.eval\(\) first"):
        RamTagger(tiny_model("ram").train(), VOCABULARY)


# From files and names


@pytest.fixture
def published_lists(monkeypatch, tmp_path):
    root = Path(__file__).parents[2]
    folder = Path(os.environ.get("RASA_SHARED", root.parent / "shared")) / "reference" / "labels"
    if not folder.is_dir():
        pytest.skip(f"no published label lists in {folder}; set RASA_SHARED to the folder of reference/labels")
    monkeypatch.setenv("RASA_WEIGHTS", str(folder))
    monkeypatch.setenv("RASA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RASA_OFFLINE", "1")
    return folder


def test_the_published_vocabularies(published_lists):
    ram = load_vocabulary("ram-swin-l.14m")
    assert len(ram) == 4585
    assert ram.thresholds[ram.positions(["zoo", "zip", "body"])].tolist() == [np.float32(0.76), np.float32(0.65), 1]
    assert ram.translations["zh"][-1] == "动物园"
    assert load_vocabulary("ram-plus-swin-l.14m").fingerprint == ram.fingerprint
    assert denied_tags("ram-swin-l.14m") == ()


def test_the_published_vocabularies_know_which_tags_can_have_a_box(published_lists):
    for name, counts in KIND_COUNTS.items():
        table = load_vocabulary(name)
        assert {kind: table.kinds.count(kind) for kind in KINDS} == counts
    kinds = dict(zip(table.names, table.kinds, strict=True))
    told = {"dog": "object", "table": "object", "classroom": "scene", "summer": "scene", "swim": "action"}
    assert {tag: kinds[tag] for tag in (*told, "red")} == {**told, "red": "attribute"}


def test_another_list_has_no_kinds(published_lists, monkeypatch):
    changed = {name: replace(entry, sha256="0" * 64) for name, entry in checkpoints().items()}
    monkeypatch.setattr("rasa_ram.published.checkpoints", lambda: changed)
    assert load_vocabulary("ram-swin-l.14m").kinds is None


def test_tags_have_the_kinds_of_the_vocabulary():
    kinds = tuple((*KINDS, None)[i % 5] for i in range(len(VOCABULARY)))
    tagger = RamTagger(tiny_model("ram"), replace(VOCABULARY, kinds=kinds), threshold=0.0)
    found = tagger.tag(sample_images()[:1])[0]
    assert found.kinds == tuple(kinds[i] or "" for i in found.ids)
    assert {"object", "scene", ""} <= set(found.kinds)
    assert RamTagger(tiny_model("ram"), VOCABULARY, threshold=0.0).tag(sample_images()[:1])[0].kinds is None
    assert tagger.with_tags(NAMES[3::-1]).vocabulary.kinds == kinds[3::-1]


def test_the_published_vocabulary_of_tag2text(published_lists):
    table = load_vocabulary("tag2text-swin-b.14m")
    assert len(table) == 3429
    changed = [i for i, value in enumerate(table.thresholds) if value != np.float32(0.68)]
    # The indices in the published code.
    assert changed == [1167, 2701, 2828]
    assert set(table.thresholds[changed]) == {np.float32(0.7)}
    denied = sorted(table.positions(denied_tags("tag2text-swin-b.14m")))
    assert denied == [127, 2961, 3265, 3338, 3351, 3355, 3359]


def test_a_missing_translation_is_a_warning(published_lists, monkeypatch, tmp_path):
    for file in ("ram_tag_list.txt", "ram_tag_list_threshold.txt"):
        (tmp_path / file).write_bytes((published_lists / file).read_bytes())
    monkeypatch.setenv("RASA_WEIGHTS", str(tmp_path))
    with pytest.warns(RasaWarning, match="no Chinese names of the tags"):
        table = load_vocabulary("ram-swin-l.14m")
    assert len(table) == 4585
    assert table.translations == {}


def test_an_unknown_vocabulary():
    with pytest.raises(UnknownModelError, match=r'no published model is called "ram-swin-l"; did you mean "ram-swin-l'):
        load_vocabulary("ram-swin-l")


@pytest.mark.parametrize("name", ["ram-swin-l.14m", "ram-plus-swin-l.14m", "tag2text-swin-b.14m"])
def test_the_registry_names_what_is_missing(published_lists, name):
    with pytest.raises(WeightsError, match=rf'"{name}".*RASA_OFFLINE'):
        registry.build(name, device="cpu", dtype="float32")
    with pytest.raises(InputError, match=r"threshold must be in \[0, 1\], got 2"):
        registry.build(name, device="cpu", dtype="float32", tag_threshold=2)


def test_a_tagger_from_a_file(ram, tmp_path):
    path = tmp_path / "tiny.pt"
    torch.save(ram.state_dict(), path)
    loaded = load_model(path, config=ram.config)
    assert torch.equal(loaded.fc.weight, ram.fc.weight)
    folder = tmp_path / "tiny"
    convert_file(path, folder / "model.safetensors", ram.config)
    tagger = load_tagger(folder / "model.safetensors", VOCABULARY, dtype="float64", top_k=2)
    expected = RamTagger(tiny_model("ram", dtype=torch.float64), VOCABULARY, top_k=2)
    assert [tags.names for tags in tagger.tag(IMAGES)] == [tags.names for tags in expected.tag(IMAGES)]
    assert tagger.describe()["checkpoint"] == "model.safetensors"
    with pytest.raises(InputError, match=r"model.safetensors does not tell its tags; pass vocabulary="):
        load_tagger(folder / "model.safetensors")


@pytest.mark.slow
def test_a_compiled_tagger_answers_the_same(tmp_path, model):
    torch.save({"model": model.state_dict()}, tmp_path / "tiny.pth")
    file = convert_file(tmp_path / "tiny.pth", tmp_path / "tiny.safetensors", model.config)
    plain, compiled = (load_tagger(file, VOCABULARY, compile=choice) for choice in (False, True))
    np.testing.assert_allclose(compiled.scores(IMAGES[:2]), plain.scores(IMAGES[:2]), atol=1e-5)


def test_a_tagger_can_be_moved():
    tagger = RamTagger(tiny_model("ram-plus"), VOCABULARY, threshold=0.0)
    narrowed = tagger.with_tags(NAMES[:3])
    before = [each.scores(sample_images()[:2]) for each in (tagger, narrowed)]
    assert tagger.to("meta") is tagger
    assert all(tensor.is_meta for _, queries in tagger._queries for tensor in queries._tensors() if tensor is not None)
    assert not any(
        tensor.is_meta for _, queries in narrowed._queries for tensor in queries._tensors() if tensor is not None
    )
    with pytest.raises(InputError, match='unknown device "gpu"; give one of torch'):
        tagger.to("gpu")
    again = RamTagger(tiny_model("ram-plus"), VOCABULARY, threshold=0.0).to("cpu")
    for scores, each in zip(before, (again, again.with_tags(NAMES[:3])), strict=True):
        np.testing.assert_array_equal(each.scores(sample_images()[:2]), scores)


def test_a_runtime_that_cannot_be_moved_says_so():
    class Fixed:
        """Answers like a model, and stays where it is, as OpenVINO does."""

        def __init__(self, model):
            self.config, self.training = model.config, False
            self.parameters, self.queries = model.parameters, model.queries

    tagger = RamTagger(Fixed(tiny_model("ram")), VOCABULARY)
    with pytest.raises(InputError, match="Fixed cannot be moved to cuda; load the model with PyTorch"):
        tagger.to("cuda")


@pytest.mark.parametrize("family", ["ram", "ram-plus", "tag2text"])
def test_a_saved_model_is_a_folder_that_tags(family, tmp_path):
    model = tiny_model(family)
    path = save(model, tmp_path / "model", VOCABULARY)
    assert {file.name for file in path.parent.iterdir()} == {"config.json", "model.safetensors", "vocabulary.json"}
    loaded = load_tagger(path.parent)
    np.testing.assert_array_equal(loaded.scores(IMAGES), RamTagger(model, VOCABULARY).scores(IMAGES))
    assert loaded.vocabulary.fingerprint == VOCABULARY.fingerprint


def test_a_saved_captioner_keeps_its_ties(tmp_path):
    config = replace(
        tiny_model("tag2text").config,
        text=TextConfig(vocab_size=30, width=24, layers=2, heads=2, intermediate=48, max_positions=12),
    )
    model = build(config)
    loaded = load_model(save(model, tmp_path).parent, text=True)
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in loaded.state_dict().items())
    with pytest.raises(InputError, match="does not tell its tags"):
        load_tagger(tmp_path)
    with pytest.raises(InputError, match="the vocabulary has 2 tags, the model 12"):
        save(model, tmp_path, Vocabulary(("a", "b")))
