"""The captioner with a tiny untrained Tag2Text and RAM: steering, batches, limits and errors."""

import copy
import warnings

import numpy as np
import pytest
import torch

from rasa.errors import ConfigError, ContractError, InputError, RasaWarning
from rasa.types import Image
from rasa_ram.builders import build
from rasa_ram.captioner import Caption, RamCaptioner, SearchOptions, load_captioner
from rasa_ram.checkpoint import save
from rasa_ram.config import RamConfig, SwinConfig, TextConfig
from rasa_ram.tokenizer import CaptionTokenizer
from rasa_ram.vocabulary import Vocabulary

TAGS = ("dog", "hat", "street", "red", "dog")
WORDS = "a picture of dog hat red street sky | tree on in"
PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS.split())
VISION = SwinConfig(image_size=32, embed_dim=8, depths=(1, 1), heads=(1, 2), window=4)
TEXT = TextConfig(vocab_size=len(PIECES) + 2, width=16, layers=3, heads=4, intermediate=32, max_positions=48)


def config(family="tag2text", **changes):
    sizes = {"num_tags": len(TAGS), "width": 16, "heads": 2, "intermediate": 32, "text": TEXT}
    return RamConfig(family=family, vision=VISION, **(sizes | changes))


def tiny(family="tag2text", seed=1):
    """A model whose random weights are large enough for the image and the tags to matter."""
    torch.manual_seed(seed)
    model = build(config(family))
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if tensor.ndim > 1:
                tensor.copy_(torch.randn_like(tensor) * (2 if "embeddings" in name else 1.5 / tensor.shape[-1] ** 0.5))
    return model


@pytest.fixture(scope="module")
def model():
    return tiny()


@pytest.fixture(scope="module")
def vocabulary():
    return Vocabulary(TAGS, allow_repeats=True).with_thresholds(0.5)


@pytest.fixture(scope="module")
def tokenizer():
    return CaptionTokenizer(PIECES)


@pytest.fixture(scope="module")
def captioner(model, vocabulary, tokenizer):
    return RamCaptioner(model, vocabulary, tokenizer=tokenizer, options=SearchOptions(max_length=14, min_length=6))


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(3)
    sizes = [(20, 33), (64, 7), (32, 32), (1, 1), (50, 40)]
    return [Image(rng.integers(0, 256, (*size, 3), np.uint8), name=f"photo-{i}") for i, size in enumerate(sizes)]


def assert_same(some, others):
    assert [caption.text for caption in some] == [caption.text for caption in others]
    assert [caption.tags for caption in some] == [caption.tags for caption in others]
    np.testing.assert_allclose([c.score for c in some], [c.score for c in others], rtol=1e-4)


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_batching_changes_nothing(model, vocabulary, tokenizer, images, batch_size, beams):
    options = SearchOptions(beams=beams, max_length=12, min_length=6)
    captioner = RamCaptioner(model, vocabulary, tokenizer=tokenizer, batch_size=batch_size, options=options)
    one_by_one = [captioner.caption([image])[0] for image in images]
    assert len({caption.text for caption in one_by_one}) > 1, "captions that are all alike show nothing"
    assert_same(captioner.caption(images), one_by_one)
    tags = [["dog"], [], ["hat", "sky"], ["red dog"], ["tree"]]
    one_by_one = [captioner.caption([image], [names])[0] for image, names in zip(images, tags, strict=True)]
    assert_same(captioner.caption(images, tags), one_by_one)


def test_no_images_are_no_captions(captioner):
    assert captioner.caption([]) == []
    assert captioner.caption([], []) == []


def test_tags_of_the_user_steer_the_text(captioner, images):
    texts = [captioner.caption(images[:1], [names])[0].text for names in (["dog"], ["hat", "sky"], ["red street"], [])]
    assert len(set(texts)) == 4


def test_tags_of_the_model_are_those_above_their_thresholds(model, vocabulary, tokenizer, images, captioner):
    found = captioner.caption(images)
    assert any(caption.tags for caption in found)
    # Passing the same tags by hand is the same as letting the model find them.
    assert_same(captioner.caption(images, [caption.tags for caption in found]), found)
    strict = RamCaptioner(model, vocabulary.with_thresholds(1.0), tokenizer=tokenizer)
    assert [caption.tags for caption in strict.caption(images)] == [()] * len(images)
    everything = RamCaptioner(model, vocabulary.with_thresholds(0.0), tokenizer=tokenizer)
    # In the order of the vocabulary, and a word with two meanings twice, as the published code joins them.
    assert [caption.tags for caption in everything.caption(images)] == [TAGS] * len(images)


def test_denied_tags_do_not_steer(model, vocabulary, tokenizer, images):
    captioner = RamCaptioner(model, vocabulary.with_thresholds(0.0), tokenizer=tokenizer, deny=["dog"])
    assert captioner.caption(images[:1])[0].tags == ("hat", "street", "red")
    assert vocabulary.thresholds is not None
    assert (vocabulary.thresholds == np.float32(0.5)).all()
    with pytest.raises(InputError, match="cat"):
        RamCaptioner(model, vocabulary, tokenizer=tokenizer, deny=["cat"])


def test_options_hold_for_a_call_and_change_nothing_else(captioner, images):
    before = captioner.caption(images[:2])
    for length in (7, 9):
        longer = captioner.caption(images[:2], max_length=length, min_length=length, beams=2)
        # No end is allowed below the full length: all places behind the prompt hold words.
        assert [len(caption.text.split()) for caption in longer] == [length - 4] * 2
    assert_same(captioner.caption(images[:2]), before)


def test_too_many_tags_are_cut_with_a_warning(captioner, images):
    many = ["dog", "hat"] * 15
    with pytest.warns(RasaWarning, match="reads 40 tokens and the 30 tags of 'photo-1' are longer") as caught:
        cut = captioner.caption(images[:2], [["sky"], many])
    assert caught[0].filename == __file__
    # 38 places hold 19 tags and their bars.
    with pytest.warns(RasaWarning, match="are longer"):
        same = captioner.caption(images[1:2], [many[:20]])
    assert cut[1].text == same[0].text
    assert cut[1].tags == tuple(many)


def test_tags_that_just_fit_are_not_warned_about(captioner, images):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        captioner.caption(images[:1], [["dog"] * 19])


def test_a_ram_captioner_says_that_it_is_untuned_once(tokenizer, vocabulary, images):
    with pytest.warns(RasaWarning, match="RAM's own captioner was not tuned by its authors; use Tag2Text") as caught:
        captioner = RamCaptioner(tiny("ram"), vocabulary, tokenizer=tokenizer)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        caption = captioner.caption(images[:1], [["dog"]])[0]
    assert isinstance(caption, Caption)
    assert caption.score < 0


@pytest.mark.parametrize(
    ("tags", "options", "message"),
    [
        ([["dog"]], {}, "tags must be one list per image, 2, got 1"),
        (["dog", "hat"], {}, r'got a string; for one image pass \[\["dog", "hat"\]\]'),
        ("dog", {}, "got a string"),
        ([["dog"], [" "]], {}, "tags must be non-empty strings, got ' '"),
        ([["dog"], [3]], {}, "tags must be non-empty strings, got 3"),
        (None, {"beam": 3}, "unknown option 'beam'; did you mean \"beams\"?"),
        (None, {"num_beams": 3}, "unknown option 'num_beams'"),
        (None, {"beams": 0}, "beams must be a whole number of at least 1"),
        (None, {"max_length": 49}, "max_length must be at most the model's 48, got 49"),
        (None, {"max_length": 4, "min_length": 0}, "max_length counts the 4 start tokens"),
    ],
)
def test_wrong_arguments_are_refused(captioner, images, tags, options, message):
    with pytest.raises(InputError, match=message):
        captioner.caption(images[:2], tags, **options)


def test_parts_that_do_not_fit_are_refused(model, vocabulary, tokenizer):
    with pytest.raises(InputError, match="this ram-plus has no captioner; load Tag2Text"):
        RamCaptioner(build(config("ram-plus", text=None)), vocabulary, tokenizer=tokenizer)
    with pytest.raises(InputError, match="the vocabulary must have the model's 5 tags, got 2"):
        RamCaptioner(model, Vocabulary(("dog", "hat")), tokenizer=tokenizer)
    with pytest.raises(InputError, match="the tokenizer must have the model's 19 ids, got 20"):
        RamCaptioner(model, vocabulary, tokenizer=CaptionTokenizer([*PIECES, "boat"]))
    with pytest.raises(InputError, match="batch_size must be at least 1 image, got 0"):
        RamCaptioner(model, vocabulary, tokenizer=tokenizer, batch_size=0)


def test_a_model_without_numbers_is_reported_with_its_image(vocabulary, tokenizer, images):
    broken = tiny()
    with torch.no_grad():
        broken.captioner.tag_encoder.embeddings.word_embeddings.weight.fill_(torch.nan)
    captioner = RamCaptioner(broken, vocabulary, tokenizer=tokenizer)
    with pytest.raises(ContractError, match="no number for the tags of 'photo-0'; check its weights"):
        captioner.caption(images)


def test_steps_with_a_cache_give_the_logits_of_the_whole_caption(model):
    torch.manual_seed(1)
    memory, tag_ids = torch.randn(2, 5, VISION.width), torch.randint(5, 17, (2, 40))
    caption_ids = torch.randint(5, 17, (2, 9))
    with torch.no_grad():
        states = model.captioner.encode_tags(tag_ids, torch.ones_like(tag_ids), memory)
        whole = model.captioner(caption_ids, torch.ones_like(caption_ids), states)
        cache = model.captioner.new_cache()
        stepwise = [model.captioner.step(caption_ids[:, :4], states, cache)]
        stepwise += [model.captioner.step(caption_ids[:, i : i + 1], states, cache) for i in range(4, 9)]
    torch.testing.assert_close(torch.stack(stepwise, dim=1), whole[:, 3:], rtol=1e-4, atol=1e-5)


def test_padding_of_the_caption_and_of_the_tags_is_not_read(model):
    torch.manual_seed(2)
    memory, ids = torch.randn(1, 5, VISION.width), torch.randint(5, 17, (1, 8))
    mask = torch.tensor([[1, 1, 1, 1, 1, 0, 0, 0]])
    other = torch.where(mask == 1, ids, 16 - ids % 3)
    assert (other != ids).any()
    with torch.no_grad():
        states = [model.captioner.encode_tags(tokens, mask, memory)[:, :5] for tokens in (ids, other)]
        logits = [model.captioner(tokens, mask, states[0])[:, :5] for tokens in (ids, other)]
    torch.testing.assert_close(states[0], states[1])
    torch.testing.assert_close(logits[0], logits[1])


def test_shared_modules_stay_shared():
    for model in (copy.deepcopy(tiny()), tiny().double(), reloaded()):
        layer, shared = model.captioner.tag_encoder.encoder.layer[1], model.tag_decoder.layers[1]
        assert layer.crossattention.self.key.weight is shared.attention.key.weight
        assert layer.output.LayerNorm.bias is shared.output_norm.bias
        assert model.captioner.tag_encoder.encoder.layer[2].output.dense is not shared.output


def reloaded():
    model = build(config())
    model.load_state_dict(tiny().state_dict(), assign=True)
    return model


def test_a_captioner_that_cannot_share_is_refused():
    with pytest.raises(ConfigError, match="has 1 layers and must have at least the 2 of the tag decoder"):
        build(config(text=TextConfig(vocab_size=19, width=16, layers=1, heads=4, intermediate=32)))
    with pytest.raises(ConfigError, match=r"must have its shape \(32, 16\), got \(64, 16\)"):
        build(config(text=TextConfig(vocab_size=19, width=16, layers=3, heads=4, intermediate=64)))


def test_a_saved_captioner_is_a_folder_that_captions(model, vocabulary, tokenizer, captioner, tmp_path):
    images = [Image(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8))]
    save(model, tmp_path / "model", vocabulary)
    options = {"tokenizer": tokenizer, "options": SearchOptions(max_length=14, min_length=6)}
    assert load_captioner(tmp_path / "model", **options).caption(images) == captioner.caption(images)
    save(model, tmp_path / "bare")
    with pytest.raises(InputError, match=r"bare does not tell its tags; pass vocabulary= \(--vocabulary\)"):
        load_captioner(tmp_path / "bare", **options)
    assert load_captioner(tmp_path / "bare", vocabulary, **options).caption(images) == captioner.caption(images)
