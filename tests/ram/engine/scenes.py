"""Pictures of coloured columns, which rasa.testing.FakeDetector finds, with tags that are wrong on purpose."""

import numpy as np
import PIL.Image

from rasa.types import Image, Tags
from rasa_ram.data.records import Record

COLOURS = {
    "red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 50, 220),
    "yellow": (220, 210, 30), "cyan": (30, 210, 210), "purple": (170, 40, 190),
}  # fmt: skip
NAMES = tuple(COLOURS)
SIZE = 24  # pixels, divisible by the number of columns


def colour_of(name, rng):
    return np.clip(np.array(COLOURS[name]) + rng.normal(0, 12, 3), 0, 255).astype(np.uint8)


def columns(names, rng):
    """uint8 (SIZE, SIZE, 3): a column per name, from left to right."""
    width = SIZE // len(names)
    return np.concatenate([np.full((SIZE, width, 3), colour_of(name, rng), np.uint8) for name in names], axis=1)


class PlantedScenes:
    """Records of two tags each, some planted: their column has the colour of another tag.

    ``truth`` holds the ids that are right, ``planted`` the pairs (image_path, id) that are wrong.
    """

    def __init__(self, count, *, share, seed=0, wrong=None):
        rng = np.random.default_rng(seed)
        self.pixels, self.records, self.truth, self.planted = {}, [], {}, set()
        for number in range(count):
            path = f"{number:05d}.png"
            tags = rng.choice(len(NAMES), 2, replace=False).tolist()
            shown = []
            for tag in tags:
                others = [name for name in NAMES if name != NAMES[tag]]
                is_wrong = rng.random() < share
                shown.append((wrong or rng.choice(others)) if is_wrong and NAMES[tag] != wrong else NAMES[tag])
                if shown[-1] != NAMES[tag]:
                    self.planted.add((path, tag))
            self.pixels[path] = columns(shown, rng)
            self.records.append(Record(image_path=path, tag_ids=tuple(tags)))
            self.truth[path] = frozenset(tag for tag in tags if (path, tag) not in self.planted)

    def image(self, path):
        return Image(self.pixels[path], name=path)

    def write(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        for path, pixels in self.pixels.items():
            PIL.Image.fromarray(pixels).save(folder / path)


class MeanColour:
    """An embedder: the mean colour, about its middle."""

    def embed(self, crops):
        means = [crop.pixels.reshape(-1, 3).mean(axis=0) for crop in crops]
        return (np.array(means, np.float32).reshape(-1, 3) - 127) / 127


class ColourTagger:
    """A tagger: each column of pixels in an image votes for the nearest colour; scores are shares of votes."""

    def __init__(self, names=NAMES):
        self._names = names

    def tag(self, images):
        return [self._tags(image) for image in images]

    def _tags(self, image):
        row = image.pixels.mean(axis=0)  # (W, 3)
        table = np.array([COLOURS[name] for name in self._names])
        votes = np.bincount(((row[:, None] - table) ** 2).sum(2).argmin(1), minlength=len(table)) / len(row)
        order = [i for i in np.argsort(-votes, kind="stable") if votes[i] > 0]
        return Tags(tuple(self._names[i] for i in order), votes[order].astype(np.float32))

    def describe(self):
        return {"model": "colour-tagger", "names": list(self._names)}
