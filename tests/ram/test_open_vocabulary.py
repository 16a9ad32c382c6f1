"""Tags that the model was not trained on: names, descriptions in any number, the cache, and memory."""

import hashlib
import logging
import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from rasa.errors import ConfigError, ContractError, InputError, RasaWarning, WeightsError
from rasa.testing import check_tagger, sample_images
from rasa_ram.label_cache import LABELS_PER_FILE, encode_labels
from rasa_ram.tagger import OPEN_THRESHOLD, RamTagger
from rasa_ram.text_encoder import TextEncoder
from tests.ram.hash_encoder import LABEL_WIDTH, HashEncoder
from tests.ram.tiny import NAMES, VOCABULARY, tiny_model

ROOT = Path(__file__).parents[2]
IMAGES = sample_images()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RASA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def ram():
    return RamTagger(tiny_model("ram"), VOCABULARY)


@pytest.fixture(scope="module")
def ram_plus():
    return RamTagger(tiny_model("ram-plus"), VOCABULARY)


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


# Names


def test_new_names_are_scored_by_their_vectors(ram):
    encoder = HashEncoder()
    tagger = ram.with_tags(["zebra", "giraffe"], text_encoder=encoder)
    vectors = [unit(unit(encoder.encode(encoder.prompts(name))).mean(axis=0)) for name in ("zebra", "giraffe")]
    model = tiny_model("ram")
    model.label_embedding.vectors.data[:2] = torch.from_numpy(np.stack(vectors))
    np.testing.assert_allclose(tagger.scores(IMAGES), RamTagger(model, VOCABULARY).scores(IMAGES)[:, :2], atol=1e-6)


@pytest.mark.parametrize("family", ["ram", "ram_plus"])
def test_seen_and_new_tags_mix(request, family):
    base = request.getfixturevalue(family)
    mixed = base.with_tags(["zebra", "bus", "giraffe", "cat"], text_encoder=HashEncoder())
    assert mixed.vocabulary.names == ("zebra", "bus", "giraffe", "cat")
    scores = mixed.scores(IMAGES)
    np.testing.assert_allclose(scores[:, [1, 3]], base.scores(IMAGES)[:, [11, 0]], atol=1e-6)
    alone = base.with_tags(["giraffe"], text_encoder=HashEncoder()).scores(IMAGES)
    np.testing.assert_allclose(scores[:, [2]], alone, atol=1e-6)
    assert np.ptp(scores[:, 0]) > 0
    check_tagger(mixed)
    for tags in mixed.tag(IMAGES):
        assert tags.names == tuple(mixed.vocabulary.names[i] for i in tags.ids)


def test_the_first_tagger_stays_as_it_was(ram):
    before = ram.scores(IMAGES), ram.vocabulary, ram.describe()
    ram.with_tags(["zebra"], text_encoder=HashEncoder(), thresholds=0.1).tag(IMAGES)
    np.testing.assert_array_equal(ram.scores(IMAGES), before[0])
    assert (ram.vocabulary, ram.describe()) == before[1:]


def test_tags_that_are_all_seen_need_no_text_encoder(ram, ram_plus):
    for tagger in (ram, ram_plus):
        part = tagger.with_tags(["sky", "cat"])
        np.testing.assert_allclose(part.scores(IMAGES), tagger.scores(IMAGES)[:, [5, 0]], atol=1e-6)


def test_tags_keep_their_thresholds_unless_told(ram):
    names = ["bus", "zebra", "cat"]
    model = tiny_model("ram")

    def thresholds(tagger, **options):
        found = tagger.with_tags(names, text_encoder=HashEncoder(), **options).vocabulary.thresholds
        return [round(float(value), 4) for value in found]

    assert thresholds(ram) == [0.8, OPEN_THRESHOLD, 0.2]
    assert thresholds(ram, thresholds=0.3) == [0.3, 0.3, 0.3]
    assert thresholds(ram, thresholds=[0.1, 0.2, 0.3]) == [0.1, 0.2, 0.3]
    assert thresholds(ram, thresholds={"zebra": 0.9}) == [0.8, 0.9, 0.2]
    assert thresholds(RamTagger(model, VOCABULARY, threshold=0.4)) == [0.4, 0.4, 0.4]
    assert thresholds(RamTagger(model, VOCABULARY.with_thresholds(None))) == [0.68, OPEN_THRESHOLD, 0.68]


def test_other_options_carry_over():
    tagger = RamTagger(tiny_model("ram"), VOCABULARY, top_k=1, provenance={"checkpoint": "x"})
    new = tagger.with_tags(["zebra", "cat"], text_encoder=HashEncoder(), thresholds=0)
    assert [len(tags) for tags in new.tag(IMAGES)] == [1] * len(IMAGES)
    assert new.describe()["checkpoint"] == "x"
    assert new.describe()["threshold"] == "by tag"
    assert new.describe()["tags"] == 2


def test_describe_sees_the_vectors(ram, ram_plus):
    other = HashEncoder()
    other.identity = "another"
    other.prompts = lambda tag: [tag]
    taggers = [
        ram,
        ram.with_tags(["cat", "zebra"], text_encoder=HashEncoder()),
        ram.with_tags(["cat", "zebra"], text_encoder=other),
        ram_plus.with_tags(["cat", "zebra"], descriptions={"zebra": ["striped"]}, text_encoder=other),
        ram_plus.with_tags(["cat", "zebra"], descriptions={"cat": ["striped"]}, text_encoder=other),
    ]
    assert len({tagger.describe()["labels"] for tagger in taggers}) == len(taggers)
    assert ram.with_tags(["cat"]).describe()["labels"] == "own"


# Descriptions


def descriptions_of(count, name="zebra"):
    return [f"A {name}, look {number}." for number in range(count)]


def by_hand(tagger, groups):
    """Score tags whose description vectors are ``groups``, one by one, with nothing filled up."""
    model = tiny_model("ram-plus", dtype=torch.float64)
    from rasa_ram.preprocess import preprocess

    columns = []
    with torch.inference_mode():
        memory = model.encode_image(torch.from_numpy(preprocess(IMAGES, 64)).double())
        for group in groups:
            pooled = torch.nn.functional.normalize(memory[:, 0], dim=-1)
            vectors = torch.from_numpy(group).double()
            fit = pooled @ vectors.T * model.label_embedding.reweight_scale.exp()
            mixed = fit.softmax(dim=-1) @ vectors
            hidden = torch.relu(model.label_embedding.proj(mixed))[:, None]
            hidden = model.tag_decoder(hidden, model.tag_decoder.project(memory))
            columns.append(model.fc(hidden)[:, 0, 0].sigmoid().float().numpy())
    return np.stack(columns, axis=1)


def test_any_number_of_descriptions_per_tag(ram_plus):
    encoder = HashEncoder()
    counts = {"zebra": 1, "giraffe": 2, "okapi": 3, "gnu": 51, "eland": 4, "oryx": 9}
    described = {name: descriptions_of(count, name) for name, count in counts.items()}
    tagger = ram_plus.with_tags(["cat", *counts], descriptions=described, text_encoder=encoder)
    groups = [unit(encoder.encode(texts)) for texts in described.values()]
    scores = tagger.scores(IMAGES)
    np.testing.assert_allclose(scores[:, 1:], by_hand(tagger, groups), atol=1e-6)
    np.testing.assert_allclose(scores[:, 0], ram_plus.scores(IMAGES)[:, 0], atol=1e-6)


def test_as_many_descriptions_as_published_give_the_published_path():
    """Tags described 51 times each score as a model whose own table holds the same vectors."""
    described = {name: descriptions_of(51, name) for name in NAMES[:4]}
    encoder = HashEncoder()
    table = tiny_model("ram-plus", descriptions=51)
    for row, texts in enumerate(described.values()):
        vectors = torch.from_numpy(unit(encoder.encode(texts)))
        table.label_embedding.vectors.data[row * 51 : (row + 1) * 51] = vectors
    expected = RamTagger(table, VOCABULARY, allow=NAMES[:4]).scores(IMAGES)
    tagger = RamTagger(tiny_model("ram-plus", descriptions=51), VOCABULARY)
    described_anew = tagger.with_tags(NAMES[:4], descriptions=described, text_encoder=encoder)
    np.testing.assert_allclose(described_anew.scores(IMAGES), expected, atol=1e-6)
    assert np.abs(expected - tagger.scores(IMAGES)[:, :4]).max() > 0.01, "describing anew must change something"


def test_the_order_of_descriptions_does_not_matter(ram_plus):
    texts = descriptions_of(7)
    one, other = (
        ram_plus.with_tags(["zebra"], descriptions={"zebra": order}, text_encoder=HashEncoder()).scores(IMAGES)
        for order in (texts, texts[::-1])
    )
    np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.parametrize(
    ("family", "names", "descriptions", "message"),
    [
        ("ram", [], None, "needs at least one tag, got none"),
        ("ram", "zebra", None, r"got the single string 'zebra'; pass \['zebra'\]"),
        ("ram", ["zebra", "zebra"], None, "tag 'zebra' stands at positions 0 and 1"),
        ("ram", ["x" * 10_000], None, "tag 0 has 10000 characters, at most 200"),
        ("ram", ["zebra"], {"zebra": ["striped"]}, "only ram-plus weighs descriptions, this model is ram"),
        ("ram-plus", ["zebra"], {"zebar": ["striped"]}, r'"zebar", which is none of the 1 .*did you mean "zebra"\?'),
        ("ram-plus", ["zebra"], {"zebra": []}, "descriptions of 'zebra' must be a sequence of at least one sentence"),
        ("ram-plus", ["zebra"], {"zebra": "striped"}, "must be a sequence of at least one sentence, got 'striped'"),
        ("ram-plus", ["zebra"], {"zebra": ["striped", " "]}, "descriptions of 'zebra' must be non-empty strings"),
        ("tag2text", ["zebra"], None, "tag2text learned its tags as a table .* choose some with allow="),
    ],
)
def test_bad_tags_are_refused(family, names, descriptions, message):
    tagger = RamTagger(tiny_model(family), VOCABULARY)
    with pytest.raises(InputError, match=message):
        tagger.with_tags(names, descriptions=descriptions, text_encoder=HashEncoder())


def test_a_text_encoder_of_another_space_is_refused(ram):
    with pytest.raises(InputError, match="needs label vectors of 32 channels, the text encoder gives 48"):
        ram.with_tags(["zebra"], text_encoder=HashEncoder(width=48))


@pytest.mark.parametrize("bad", [np.zeros((2, 32)), np.full((2, 32), np.nan), np.ones((1, 32)), np.ones(32)])
def test_a_text_encoder_that_breaks_its_promise(ram, bad):
    encoder = HashEncoder()
    encoder.encode = lambda texts: bad
    with pytest.raises(ContractError, match=r"the text encoder (must return one vector per text|returned a vector)"):
        ram.with_tags(["zebra"], text_encoder=encoder)


# The cache


def test_vectors_are_kept(ram, cache):
    first, second = HashEncoder(), HashEncoder()
    scores = [ram.with_tags(["zebra", "gnu"], text_encoder=encoder).scores(IMAGES) for encoder in (first, second)]
    np.testing.assert_array_equal(*scores)
    assert len(first.texts) == 4
    assert second.texts == []
    assert len(list((cache / "labels").rglob("*.vectors"))) == 1
    third = HashEncoder()
    ram.with_tags(["gnu", "oryx"], text_encoder=third)
    assert third.texts == third.prompts("oryx")


def test_another_encoder_or_other_prompts_share_nothing(cache):
    other = HashEncoder()
    other.identity = "another"
    prompted = HashEncoder()
    prompted.prompts = lambda tag: [tag]
    for encoder in (HashEncoder(), other, prompted):
        encode_labels(encoder, ["zebra"])
        assert encoder.texts


def test_many_labels_take_several_files(cache):
    names = [f"thing {number}" for number in range(LABELS_PER_FILE + 3)]
    vectors = encode_labels(HashEncoder(), names)
    assert len(list((cache / "labels").rglob("*.vectors"))) == 2
    again = HashEncoder()
    np.testing.assert_array_equal(encode_labels(again, names[::-1]), vectors[::-1])
    assert again.texts == []
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "foreign"])
def test_a_damaged_file_is_found_and_made_again(cache, caplog, damage):
    vectors = encode_labels(HashEncoder(), ["zebra", "gnu"])
    [path] = (cache / "labels").rglob("*.vectors")
    data = path.read_bytes()
    flipped = data[:-2] + bytes([data[-2] ^ 64]) + data[-1:]
    path.write_bytes({"cut": data[:-7], "flip": flipped, "empty": b"", "foreign": b"no vectors at all"}[damage])
    again = HashEncoder()
    with caplog.at_level(logging.WARNING, logger="rasa_ram.label_cache"):
        np.testing.assert_array_equal(encode_labels(again, ["zebra", "gnu"]), vectors)
    assert len(again.texts) == 4
    assert "damaged; they are encoded again" in caplog.text
    [path] = (cache / "labels").rglob("*.vectors")
    assert hashlib.sha256(path.read_bytes()).hexdigest() == path.stem


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path, caplog):
    blocked = tmp_path / "file"
    blocked.write_text("a file where a folder should be")
    with caplog.at_level(logging.WARNING, logger="rasa_ram.label_cache"):
        vectors = encode_labels(HashEncoder(), ["zebra"], folder=blocked)
    assert vectors.shape == (1, LABEL_WIDTH)
    assert "cannot keep label vectors" in caplog.text


def test_two_processes_share_a_cache(cache):
    code = """
        import sys
        import numpy as np
        from rasa_ram.label_cache import encode_labels
        from tests.ram.hash_encoder import HashEncoder
        names = [f"thing {number}" for number in range(1500)]
        print("ready", flush=True)
        sys.stdin.readline()
        order = names if sys.argv[1] == "0" else names[::-1]
        vectors = encode_labels(HashEncoder(), order)
        assert np.array_equal(vectors, encode_labels(HashEncoder(), order))
        print(vectors[order.index("thing 7")].tobytes().hex(), flush=True)
    """
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    running = [subprocess.Popen([*command, str(i)], env=environment, **pipes) for i in range(2)]
    for process in running:
        assert process.stdout.readline() == "ready\n"
    for process in running:
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=100) for process in running]
    assert [process.returncode for process in running] == [0, 0], answers
    assert answers[0][0] == answers[1][0] != ""
    files = [path for path in (cache / "labels").rglob("*") if path.is_file()]
    assert all(hashlib.sha256(path.read_bytes()).hexdigest() == path.stem for path in files)
    encoder = HashEncoder()
    encode_labels(encoder, [f"thing {number}" for number in range(1500)])
    assert encoder.texts == []


# Many tags


def peak_growth_mb(work):
    """Run ``work`` and return by how many MB the resident memory grew at most, and what it returned."""
    process, done, sizes = psutil.Process(), threading.Event(), []
    start = process.memory_info().rss

    def watch():
        while not done.wait(0.002):
            sizes.append(process.memory_info().rss)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        answer = work()
    finally:
        done.set()
        thread.join()
    return (max(sizes, default=start) - start) / 1e6, answer


def test_many_tags_in_chunks_are_as_in_one_piece():
    names = [f"thing {number}" for number in range(3000)]
    wide = tiny_model("ram-plus", dtype=torch.float64)
    whole, parts = (
        RamTagger(wide, VOCABULARY, chunk=chunk).with_tags([*NAMES, *names], text_encoder=HashEncoder())
        for chunk in (5000, 7)
    )
    np.testing.assert_array_equal(parts.scores(IMAGES), whole.scores(IMAGES))
    assert [tags.names for tags in parts.tag(IMAGES)] == [tags.names for tags in whole.tag(IMAGES)]


def test_a_hundred_thousand_tags_take_little_memory():
    """Decoded in one piece, 8 images by 100,000 tags by 48 channels would take 150 MB for each of several tensors."""

    class Fast(HashEncoder):
        def prompts(self, tag):
            return [tag]

        def encode(self, texts):
            numbers = np.array([float(text.rpartition(" ")[2]) for text in texts], np.float32)
            return np.sin(numbers[:, None] * np.arange(1, self.width + 1, dtype=np.float32)) + 0.01

    names = [f"thing {number}" for number in range(1, 100_001)]
    tagger = RamTagger(tiny_model("ram"), VOCABULARY).with_tags(names, text_encoder=Fast())
    tagger.scores(IMAGES[:1])
    grown, scores = peak_growth_mb(lambda: tagger.scores(IMAGES))
    assert scores.shape == (len(IMAGES), 100_000)
    assert grown < 60, f"grew by {grown:.0f} MB"
    few = RamTagger(tiny_model("ram"), VOCABULARY).with_tags(names[-5:], text_encoder=Fast()).scores(IMAGES)
    np.testing.assert_allclose(scores[:, -5:], few, atol=1e-6)


# open_clip


@pytest.fixture(scope="module")
def clip():
    """A small CLIP of open_clip with random weights, as its published ones are not in reach of the tests."""
    import open_clip

    from rasa_ram.text_encoder import OpenClipTextEncoder

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = open_clip.CLIP(
            LABEL_WIDTH,
            vision_cfg={"image_size": 32, "layers": 1, "width": 32, "patch_size": 16, "head_width": 16},
            text_cfg={"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
        )
    return OpenClipTextEncoder(model, open_clip.get_tokenizer("ViT-B-16"), name="tiny", batch_size=64)


def test_open_clip_fits_the_role(clip):
    assert isinstance(clip, TextEncoder)
    assert isinstance(HashEncoder(), TextEncoder)
    assert len(clip.prompts("zebra")) == 80
    assert clip.prompts("zebra")[0] == "a bad photo of a zebra."


def test_open_clip_embeds_as_its_own_zero_shot_classifier(clip, cache):
    import open_clip

    names = ["zebra", "driver's seat"]
    classifier = open_clip.build_zero_shot_classifier(
        clip._model, clip._tokenizer, names, open_clip.OPENAI_IMAGENET_TEMPLATES, num_classes_per_batch=None
    )
    np.testing.assert_allclose(encode_labels(clip, names), classifier.T.numpy(), atol=1e-6)


def test_batches_of_texts_change_nothing(clip):
    texts = [f"a photo of {number} zebras" for number in range(130)]
    single = np.concatenate([clip.encode([text]) for text in texts[::43]])
    np.testing.assert_allclose(clip.encode(texts)[::43], single, atol=1e-6)


def test_a_text_that_is_too_long_is_cut_with_a_warning(clip):
    fits = " ".join(["zebra"] * 75)
    clip.encode([fits])
    with pytest.warns(RasaWarning, match="reads 77 tokens; the rest of 'zebra zebra.* is left out"):
        clip.encode([fits + " zebra"])


def test_the_identity_follows_the_weights(clip):
    import copy

    from rasa_ram.text_encoder import OpenClipTextEncoder

    same, other = (
        OpenClipTextEncoder(copy.deepcopy(clip._model), clip._tokenizer, name="tiny"),
        OpenClipTextEncoder(copy.deepcopy(clip._model), clip._tokenizer, name="tiny"),
    )
    other._model.ln_final.bias.data[3] += 1e-3
    assert same.identity == clip.identity != other.identity


def test_a_tagger_with_open_clip(ram, clip):
    tagger = ram.with_tags(["zebra", "cat"], text_encoder=clip)
    check_tagger(tagger)
    np.testing.assert_allclose(tagger.scores(IMAGES)[:, 1], ram.scores(IMAGES)[:, 0], atol=1e-6)


def test_weights_that_cannot_be_had_say_what_to_do(ram, monkeypatch):
    monkeypatch.setenv("RASA_OFFLINE", "1")
    monkeypatch.delenv("RASA_WEIGHTS", raising=False)
    with pytest.raises(WeightsError, match=r"clip-vit-b-16.openai.*RASA_OFFLINE"):
        ram.with_tags(["zebra"])


def test_weights_of_something_else_are_refused(tmp_path):
    from rasa_ram.text_encoder import load_text_encoder

    with pytest.raises(WeightsError, match=r"none.pt is no file; pass the weight file of CLIP ViT-B/16"):
        load_text_encoder(tmp_path / "none.pt")
    with pytest.raises(ConfigError, match=r"dtype of CLIP must be one of float32, .*, got 'int8'"):
        load_text_encoder(dtype="int8")


@pytest.mark.slow
def test_the_published_architecture_loads_from_a_file(tmp_path):
    """ViT-B/16 with random weights, through a file as the published one is."""
    import open_clip

    from rasa_ram.text_encoder import load_text_encoder

    model = open_clip.create_model("ViT-B-16-quickgelu", pretrained=None)
    torch.save(model.state_dict(), tmp_path / "clip.pt")
    encoder = load_text_encoder(tmp_path / "clip.pt")
    with torch.inference_mode():
        expected = model.encode_text(open_clip.get_tokenizer("ViT-B-16")(["a zebra"]), normalize=True).numpy()
    np.testing.assert_allclose(encoder.encode(["a zebra"]), expected, atol=1e-6)
    assert expected.shape == (1, 512)
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(WeightsError, match=r"other.pt does not hold the weights of CLIP ViT-B/16"):
        load_text_encoder(tmp_path / "other.pt")
