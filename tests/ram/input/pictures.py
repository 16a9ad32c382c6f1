"""Pictures that are made here, and records of them."""

import io

import numpy as np
import PIL.Image

from rasa_ram.data.records import Record

TAGS = 10


def picture(seed=0, size=(48, 64)):
    """Coloured blocks with a little noise: uint8 ``(height, width, 3)``; no two seeds alike."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    wide = PIL.Image.fromarray(coarse).resize(size[::-1], PIL.Image.Resampling.BICUBIC)
    return (np.asarray(wide).astype(int) + rng.integers(-6, 7, (*size, 3))).clip(0, 255).astype(np.uint8)


def coordinates(side=256):
    """A picture whose pixels say where they are: red is x, green is y, blue is a constant."""
    x, y = np.meshgrid(np.arange(side), np.arange(side))
    return np.stack([x, y, np.full_like(x, 250)], axis=2).astype(np.uint8)


def jpeg(pixels, **options):
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, "JPEG", quality=90, **options)
    return file.getvalue()


def write_pictures(folder, count):
    """Write ``count`` JPEGs and return their records: one or two captions each, and two tags."""
    folder.mkdir(exist_ok=True)
    for i in range(count):
        (folder / f"{i}.jpg").write_bytes(jpeg(picture(i)))
    return [record(i) for i in range(count)]


def record(i, **changes):
    captions = (f"A dog number {i}!", f"(Two) cats, {i}")[: 1 + i % 2]
    values = {
        "image_path": f"{i}.jpg",
        "captions": captions,
        "parsed_ids": ((i % TAGS,), ((i + 1) % TAGS, i % TAGS))[: 1 + i % 2],
        "tag_ids": (i % TAGS, (i + 3) % TAGS),
    }
    return Record(**(values | changes))


class Deadly:
    """A reader that ends its process, as one that ran out of memory does."""

    def __call__(self, image_path):
        import os

        os._exit(9)


def same(first, second):
    """Whether two batches hold the same, bit by bit."""
    pairs = [(first.pixels, second.pixels), (first.targets, second.targets)]
    pairs += [(first.teacher_pixels, second.teacher_pixels)]
    if first.captions is not None:
        names = ("tag_ids", "tag_mask", "caption_ids", "caption_mask")
        pairs += [(getattr(first.captions, name), getattr(second.captions, name)) for name in names]
    equal = all((a is b is None) or bool((a.shape == b.shape) and (a == b).all()) for a, b in pairs)
    return equal and first.image_paths == second.image_paths and first.texts == second.texts
