"""A recipe of a tiny model on a dozen generated pictures, as files of a user."""

import json

import numpy as np
import PIL.Image

TAGS = ("cat", "dog", "sofa", "tree")
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "picture", "of", "cat", "dog", "on", "sofa", "tree")
RECIPE = """
summary = "tiny"

[model]
vocabulary = "tags.txt"
label_vectors = "vectors.npy"
captioner = true
wordpieces = "words.txt"

[model.sizes]
family = "ram"
label_width = 16
width = 24
heads = 2
intermediate = 48

[model.sizes.vision]
image_size = 64
embed_dim = 8
depths = [1, 2, 1, 1]
heads = [1, 1, 2, 2]
window = 2

[model.text]
vocab_size = 15
width = 24
layers = 2
heads = 2
intermediate = 48
max_positions = 48

[data]
manifests = ["data.json"]
images = "photos"
cache = "cache"
batch_size = 3
workers = 0

[data.views]
size = 64

[schedule]
kind = "cosine"
peak = 1e-3
floor = 0

[run]
epochs = 2
parts = ["captions"]
device = "cpu"
save_every = 3
log_every = 1
"""


def write_tiny_recipe(folder):
    """Write the recipe and all that it names; returns its path."""
    (folder / "photos").mkdir(parents=True)
    rng = np.random.default_rng(0)
    records = []
    for i in range(12):
        pixels = rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)
        PIL.Image.fromarray(pixels).save(folder / "photos" / f"{i}.png")
        tag = i % len(TAGS)
        caption = {
            "caption": [f"a {TAGS[tag]} on a sofa"],
            "parse_label_id": [[tag]],
            "union_label_id": [tag, 2 - tag % 2],
        }
        caption["union_label_id"] = sorted(set(caption["union_label_id"]))
        records.append({"image_path": f"{i}.png", **caption})
    (folder / "data.json").write_text(json.dumps(records), encoding="utf-8")
    (folder / "tags.txt").write_text("\n".join(TAGS) + "\n", encoding="utf-8")
    (folder / "words.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    vectors = rng.normal(size=(len(TAGS), 16)).astype(np.float32)
    np.save(folder / "vectors.npy", vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    path = folder / "tiny.toml"
    path.write_text(RECIPE, encoding="utf-8")
    return path
