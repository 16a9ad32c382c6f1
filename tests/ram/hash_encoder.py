"""A text encoder without weights, for tests; needs NumPy alone."""

import hashlib

import numpy as np

LABEL_WIDTH = 32


class HashEncoder:
    """A text encoder without weights: a text's vector is drawn from its hash; counts what it encodes."""

    identity = "hash-encoder"

    def __init__(self, width=LABEL_WIDTH):
        self.width = width
        self.texts = []

    def prompts(self, tag):
        return [f"a photo of a {tag}.", f"a drawing of a {tag}."]

    def encode(self, texts):
        self.texts.extend(texts)
        seeds = [int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") for text in texts]
        return np.stack([np.random.default_rng(seed).standard_normal(self.width) for seed in seeds]).astype(np.float32)
