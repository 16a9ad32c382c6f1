"""The tokenizer and the captions of tags that people really have."""

import inspect
import json

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from transformers import BertTokenizer as PeerTokenizer
from transformers.models.grounding_dino import modeling_grounding_dino as peer_model

from rasa.adapters.grounding_dino.text import DELIMITERS, PAD, BertTokenizer, token_blocks
from rasa.errors import FormatError, InputError, WeightsError
from rasa.ops.phrases import CLS, MAX_TOKENS, SEP, STOP
from rasa.weights import find
from tests.adapters.reference import reference_folder
from tests.adapters.tiny import save_tiny_vocabulary, tiny_vocabulary

VOCABULARY = tiny_vocabulary()
PIECES = {i: piece for piece, i in VOCABULARY.items()}


@pytest.fixture(scope="module")
def tokenizer():
    return BertTokenizer(VOCABULARY)


@pytest.fixture(scope="module")
def peer():
    """The tokenizer of transformers with the same vocabulary."""
    return PeerTokenizer(VOCABULARY)


@pytest.fixture(scope="module")
def real():
    if (path := find("bert-base-uncased.vocab")) is None:
        pytest.skip("bert-base-uncased.vocab is not cached; run `rasa weights fetch bert-base-uncased.vocab`")
    return BertTokenizer.read(path)


def spelt(caption):
    return [" ".join(PIECES[caption.token_ids[i]] for i in span) for span in caption.spans]


# Tags


@pytest.mark.parametrize(
    ("tag", "pieces"),
    [
        ("Cat", "cat"),
        ("  remote   cat\n", "r ##e ##m ##o ##t ##e cat"),
        ("fire-hydrant", "fire - hydrant"),
        ("St. Dog (large), wooden?", "s ##t dog ( large ) , wooden"),
        ("t-shirt", "t - shirt"),
        ("Café", "c ##a ##f ##e"),
        ("skateboards", "skate ##board ##s"),
        ("[SEP] cat", "[ s ##e ##p ] cat"),
        ("teddy's", "teddy ' s"),
    ],
)
def test_a_tag_becomes_one_phrase_whatever_it_is_made_of(tokenizer, tag, pieces):
    (caption,) = tokenizer.captions(["dog", tag])
    assert spelt(caption) == ["dog", pieces]
    assert [i for i, token in enumerate(caption.token_ids) if token == STOP] == [span[-1] + 1 for span in caption.spans]
    assert (caption.token_ids[0], caption.token_ids[-1]) == (CLS, SEP)


def test_of_tags_with_equal_tokens_the_first_is_asked_for(tokenizer):
    (caption,) = tokenizer.captions(["dog", "Cat", "cat", "cat.", "dog", "CAT ?", "cat boat", "cat b"])
    assert spelt(caption) == ["dog", "cat", "cat boat", "cat b"]
    assert caption.owners == (0, 1, 6, 7)


def test_a_tag_may_be_asked_for_in_other_words(tokenizer):
    prompts = {"hydrant": ("a red fire hydrant", "hydrant"), "pet": ["cat", "dog"], "vase": "glass vase", "unused": "x"}
    (caption,) = tokenizer.captions(["hydrant", "dog", "pet", "vase"], prompts=prompts)
    assert spelt(caption) == ["a red fire hydrant", "hydrant", "dog", "cat", "glass vase"]
    assert caption.owners == (0, 0, 1, 2, 3)


def test_no_tags_make_no_captions(tokenizer):
    assert tokenizer.captions([]) == []


@pytest.mark.parametrize("tag", ["", " ", ".", "?", ". ? ...", "\u200b"])
def test_a_tag_without_words_is_refused(tokenizer, tag):
    with pytest.raises(InputError, match=r"^tag .* has no tokens besides periods.*give the tag an English prompt"):
        tokenizer.captions(["dog", tag])


@pytest.mark.parametrize(("tag", "unknown"), [("猫 toy", "猫"), ("dog 🐶", "🐶"), ("ж", "ж"), ("a" * 101, "a" * 101)])
def test_a_tag_with_an_unknown_word_is_refused(tokenizer, tag, unknown):
    with pytest.raises(InputError, match=f"^tag '{tag}' holds '{unknown}', which the detector's vocabulary lacks"):
        tokenizer.captions(["dog", tag])


def test_a_prompt_that_cannot_be_read_is_named_with_its_tag(tokenizer):
    with pytest.raises(InputError, match=r"^prompt '猫' of tag 'cat' holds '猫'"):
        tokenizer.captions(["cat"], prompts={"cat": "猫"})
    with pytest.raises(InputError, match=r"^prompt '\.' of tag 'cat' has no tokens"):
        tokenizer.captions(["cat"], prompts={"cat": ["kitten", "."]})
    with pytest.raises(InputError, match=r"^tag 'cat' has an empty list of prompts"):
        tokenizer.captions(["cat"], prompts={"cat": []})
    assert spelt(tokenizer.captions(["猫"], prompts={"猫": "cat"})[0]) == ["cat"]


def test_a_tag_over_the_limit_is_refused(tokenizer):
    assert len(tokenizer.captions(["dog " * 253])[0]) == MAX_TOKENS
    with pytest.raises(InputError, match=r"has a phrase of 254 tokens, and a caption has room for 253"):
        tokenizer.captions(["dog " * 254])


def test_one_text_in_place_of_a_list_of_tags_is_refused(tokenizer):
    with pytest.raises(InputError, match=r"got the single string 'cat'; pass \['cat'\]"):
        tokenizer.captions("cat")


# Against transformers


@given(st.lists(st.text(max_size=12), max_size=6))
@settings(deadline=None)
def test_tags_one_by_one_are_tokens_of_the_joined_caption(tokenizer, peer, tags):
    assume(not {*"[]"} & {*"".join(tags)})  # there "[SEP]" in a tag ends the caption; here it is text
    expected = peer(" . ".join(tags), add_special_tokens=False)["input_ids"]
    assert [i for tag in tags for i in tokenizer.encode(tag)] == [i for i in expected if i not in DELIMITERS]


@given(st.data(), st.integers(1, 3), st.integers(1, 14))
@settings(deadline=None)
def test_token_blocks_equal_those_of_transformers(data, batch, length):
    token = st.sampled_from([2000, 2000, 2001, *DELIMITERS])
    rows = data.draw(st.lists(st.lists(token, max_size=length), min_size=batch, max_size=batch))
    ids = np.full((batch, length + 1), PAD)
    for row, tokens in zip(ids, rows, strict=True):
        row[: len(tokens) + 1] = [CLS, *tokens]
    sees, positions = token_blocks(ids)
    peer_blocks = peer_model.generate_masks_with_special_tokens_and_transfer_map
    takes_delimiters = "special_tokens" in inspect.signature(peer_blocks).parameters  # not in all releases
    arguments = [torch.from_numpy(ids), *([torch.tensor(DELIMITERS)] if takes_delimiters else [])]
    expected_sees, expected_positions = peer_blocks(*arguments)
    np.testing.assert_array_equal(sees, expected_sees.numpy())
    np.testing.assert_array_equal(positions, expected_positions.numpy())


def test_token_blocks_of_no_captions():
    sees, positions = token_blocks(np.zeros((0, 5), np.int64))
    assert (sees.shape, positions.shape) == ((0, 5, 5), (0, 5))


# The list of RAM's tags


@pytest.fixture(scope="module")
def ram_tags():
    path = reference_folder("labels") / "ram_tag_list.txt"
    return path.read_text(encoding="utf-8").splitlines()


def test_the_tags_of_ram_fill_as_few_captions_as_can_be(real, ram_tags):
    captions = real.captions(ram_tags)
    phrases, _ = real.phrases(ram_tags)
    tokens = sum(len(phrase) + 1 for phrase in phrases)
    assert len(ram_tags) == 4585
    assert sorted(owner for caption in captions for owner in caption.owners) == list(range(4585))
    for caption in captions:
        for span, owner in zip(caption.spans, caption.owners, strict=True):
            assert [caption.token_ids[i] for i in span] == phrases[owner]
    assert len(captions) == -(-tokens // (MAX_TOKENS - 2)) == 48
    assert max(map(len, captions)) - min(map(len, captions)) <= 2
    assert max(map(len, captions)) <= MAX_TOKENS


def test_the_tags_of_ram_are_read_as_transformers_reads_their_captions(real, ram_tags):
    peer = PeerTokenizer(str(find("bert-base-uncased.vocab")))
    for caption in real.captions(ram_tags):
        text = " . ".join(ram_tags[owner] for owner in caption.owners) + " ."
        assert peer(text)["input_ids"] == list(caption.token_ids)


# Vocabularies


def write_description(folder, kind="WordPiece", vocabulary=None):
    model = {"type": kind, "vocab": VOCABULARY if vocabulary is None else vocabulary}
    path = folder / "tokenizer.json"
    path.write_text(json.dumps({"version": "1.0", "model": model}), encoding="utf-8")
    return path


def test_a_vocabulary_is_read_from_a_file_or_the_folder_of_a_model(tmp_path, tokenizer, peer):
    text, description = tmp_path / "text", tmp_path / "description"
    text.mkdir()
    description.mkdir()
    sources = [save_tiny_vocabulary(text), text, write_description(description), description]
    peer.save_pretrained(tmp_path / "saved")
    for source in (*sources, tmp_path / "saved"):
        assert BertTokenizer.read(source).encode("A red Skateboard!") == tokenizer.encode("A red Skateboard!")


def test_the_published_vocabulary_comes_from_the_cache(real, monkeypatch, tmp_path):
    assert BertTokenizer.published().encode("remote control") == real.encode("remote control")
    monkeypatch.setenv("RASA_CACHE", str(tmp_path))
    monkeypatch.setenv("RASA_OFFLINE", "1")
    monkeypatch.delenv("RASA_WEIGHTS", raising=False)
    with pytest.raises(WeightsError, match=r"bert-base-uncased\.vocab"):
        BertTokenizer.published()


def test_a_vocabulary_whose_delimiters_have_other_ids_is_refused():
    cased = VOCABULARY | {".": 119}  # as in bert-base-cased
    with pytest.raises(
        FormatError, match=r'has 119 for "\.", and Grounding DINO knows it as 1012; .*bert-base-uncased'
    ):
        BertTokenizer(cased)
    with pytest.raises(FormatError, match=r'has no id for "\[PAD\]"'):
        BertTokenizer({})
    with pytest.raises(FormatError, match=r'has no "\[UNK\]"'):
        BertTokenizer({piece: i for piece, i in VOCABULARY.items() if piece != "[UNK]"})


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("vocab.txt", b"[PAD]\n\n[UNK]\n", "line 2 of the WordPiece vocabulary is empty"),
        ("vocab.txt", b"[PAD]\ncat\ncat\n", "the WordPiece vocabulary has 'cat' twice"),
        ("vocab.txt", b"[PAD]\ncat\n", r'has no id for "\[CLS\]"'),
        ("vocab.txt", b"\xff\xfe", "cannot read the WordPiece vocabulary"),
        ("tokenizer.json", b"{", "cannot read .* as the tokenizer.json of a WordPiece tokenizer"),
        ("tokenizer.json", b"[]", "cannot read .* as the tokenizer.json of a WordPiece tokenizer"),
        ("tokenizer.json", b'{"model": {"type": "BPE"}}', "cannot read .*KeyError"),
        ("tokenizer.json", b'{"model": {"type": "BPE", "vocab": {"a": 0}}}', 'of the kind "BPE", expected "WordPiece"'),
        ("tokenizer.json", b'{"model": {"type": "WordPiece", "vocab": {"a": 0}}}', r'has no id for "\[PAD\]"'),
    ],
)
def test_a_file_that_holds_no_such_vocabulary_is_refused(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(FormatError, match=message) as refused:
        BertTokenizer.read(path)
    assert str(path) in str(refused.value)


def test_a_folder_or_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(FormatError, match=r"has neither tokenizer\.json nor vocab\.txt; add one"):
        BertTokenizer.read(tmp_path)
    with pytest.raises(FormatError, match="cannot read the WordPiece vocabulary"):
        BertTokenizer.read(tmp_path / "nowhere.txt")
