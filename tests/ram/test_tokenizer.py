"""WordPiece for tags and captions."""

import pytest

from rasa.errors import FormatError, InputError, WeightsError
from rasa_ram.tokenizer import MAX_TOKENS, CaptionTokenizer
from rasa_ram.training.objective import PROMPT_LENGTH

WORDS = "a picture of dog hat red cafe driver ' s street ##s ##v , . | [ ] sep enc do n ##t large"
PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS.split())


@pytest.fixture
def tokenizer():
    return CaptionTokenizer(PIECES)


def pieces(ids):
    return [[*PIECES, "[DEC]", "[ENC]"][i] for i in ids]


def test_tags_are_joined_marked_and_padded(tokenizer):
    tokens = tokenizer.encode_tags([["red hat", "dogs"], []])
    assert tokens.ids.shape == tokens.mask.shape == (2, MAX_TOKENS)
    assert pieces(tokens.ids[0][:7]) == ["[ENC]", "red", "hat", "|", "dog", "##s", "[SEP]"]
    assert pieces(tokens.ids[1][:3]) == ["[ENC]", "[SEP]", "[PAD]"]
    assert tokens.mask.sum(axis=1).tolist() == [7, 2]
    assert not tokens.cut.any()


def test_long_lists_of_tags_are_cut_and_say_so(tokenizer):
    tokens = tokenizer.encode_tags([["dog"] * 19, ["dog"] * 20])
    # 19 tags with 18 bars fill 37 of the 38 places between the first token and the last.
    assert tokens.cut.tolist() == [False, True]
    assert pieces(tokens.ids[1][-3:]) == ["dog", "|", "[SEP]"]
    assert tokens.mask[1].all()


def test_captions_are_padded_to_the_longest(tokenizer):
    tokens = tokenizer.encode_captions(["a red dog", "dog", "dog " * 60])
    assert tokens.ids.shape == (3, MAX_TOKENS)
    assert tokens.cut.tolist() == [False, False, True]
    short = tokenizer.encode_captions(["a red dog", "dog"])
    assert pieces(short.ids[1]) == ["[DEC]", "dog", "[SEP]", "[PAD]", "[PAD]"]
    assert tokenizer.encode_captions([]).ids.shape[0] == 0


def test_case_and_accents_do_not_count(tokenizer):
    assert pieces(tokenizer.encode_captions(["Café RED"]).ids[0]) == ["[DEC]", "cafe", "red", "[SEP]"]


def test_special_tokens_in_a_text_are_text(tokenizer):
    assert pieces(tokenizer.encode_tags([["[SEP]"]]).ids[0][:5]) == ["[ENC]", "[", "sep", "]", "[SEP]"]
    assert pieces(tokenizer.encode_tags([["[ENC]"]]).ids[0][:5]) == ["[ENC]", "[", "enc", "]", "[SEP]"]


def test_generated_ids_become_text_without_the_prompt(tokenizer):
    assert pieces(tokenizer.prompt_ids) == ["[DEC]", "a", "picture", "of"]
    assert len(tokenizer.prompt_ids) == PROMPT_LENGTH
    rest = ["driver", "'", "s", "dog", "##s", ",", "a", "[UNK]", "large", "##v", "street", ".", "[SEP]", "[PAD]"]
    ids = [*tokenizer.prompt_ids, *(PIECES.index(piece) for piece in rest)]
    assert tokenizer.decode(ids) == "driver's dogs, a largev street."
    assert tokenizer.decode([*tokenizer.prompt_ids, PIECES.index("[SEP]")]) == ""


def test_an_id_outside_of_the_vocabulary_is_refused(tokenizer):
    assert len(tokenizer) == len(PIECES) + 2
    with pytest.raises(InputError, match=rf"token ids must be in \[0, {len(PIECES) + 2}\), got {len(PIECES) + 2}"):
        tokenizer.decode([len(tokenizer)])


def test_a_vocabulary_file_is_read(tmp_path, tokenizer):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(PIECES) + "\n", encoding="utf-8")
    read = CaptionTokenizer.read(path)
    assert len(read) == len(tokenizer)
    assert read.prompt_ids == tokenizer.prompt_ids


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"[PAD]\n[UNK]\n[CLS]\n[MASK]\n", r"has no \[SEP\]; pass that of bert-base-uncased"),
        ("\n".join([*PIECES, "dog"]).encode(), "has 'dog' twice"),
        ("\n".join(["[PAD]", "", *PIECES[1:]]).encode(), "line 2 of the WordPiece vocabulary is empty"),
        (b"\xff\xfe", "cannot read the WordPiece vocabulary"),
        (None, "cannot read the WordPiece vocabulary"),
    ],
)
def test_a_wrong_vocabulary_file_is_refused_by_name(tmp_path, text, message):
    path = tmp_path / "vocab.txt"
    if text is not None:
        path.write_bytes(text)
    with pytest.raises(FormatError, match=message) as caught:
        CaptionTokenizer.read(path)
    assert "vocab.txt" in str(caught.value)


def test_the_published_vocabulary_is_a_checked_file(tmp_path, monkeypatch):
    monkeypatch.setenv("RASA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RASA_OFFLINE", "1")
    with pytest.raises(WeightsError, match=r"bert-base-uncased\.vocab"):
        CaptionTokenizer.published()
    # Another file of that name is not taken for it.
    (tmp_path / "vocab.txt").write_text("\n".join(PIECES), encoding="utf-8")
    monkeypatch.setenv("RASA_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsError, match=r"bert-base-uncased\.vocab"):
        CaptionTokenizer.published()
