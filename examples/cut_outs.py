"""A folder of photos to cut-outs: every object alone on a transparent ground, and one label map per photo.

python examples/cut_outs.py [PHOTOS] [FOLDER]
"""

import sys
from pathlib import Path

import numpy as np
import PIL.Image

import rasa
from rasa.draw import mask_map

PHOTOS = Path(__file__).parent / "photos"


def main(photos: str | Path = PHOTOS, folder: str | Path = "out/cut_outs") -> None:
    """Write one PNG per object and one label map per photo under ``folder``."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    stream = rasa.load("lite").stream_with_images(rasa.find_images([photos]), on_error="skip")
    for done in stream:
        if done.image is None:
            print(f"left out: {done.result.failure.message}")
            continue
        stem, found = Path(done.result.name).stem, done.result.instances
        for i, (label, box, mask) in enumerate(zip(found.labels, found.boxes, found.masks, strict=True)):
            x1, y1 = np.floor(box[:2]).astype(int)
            x2, y2 = np.ceil(box[2:]).astype(int)
            alpha = np.where(mask, 255, 0).astype(np.uint8)
            cut = np.dstack([done.image.pixels, alpha])[y1:y2, x1:x2]
            PIL.Image.fromarray(cut).save(Path(folder) / f"{stem}_{i}_{label.replace(' ', '_')}.png")
        mask_map(done.result).save(Path(folder) / f"{stem}_masks.png")
        print(f"{stem}: {', '.join(found.labels) or 'nothing'}")


if __name__ == "__main__":
    main(*sys.argv[1:])
