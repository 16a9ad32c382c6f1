"""IoU of the lite preset's masks with reference masks, from the reference boxes; and seconds a box.

    python benchmarks/lite_masks.py [--masks FOLDER] [--json]

Compares the box itself, GrabCut alone (what the preset falls back to) and the segmenter. FOLDER holds
objects.json, a list of {"name", "image", "label", "mask", "box" (xyxy, px), "size"}, and the masks as PNG;
images are looked for beside it and in the wheels of scikit-image and scikit-learn.
Exits with 1 if the segmenter's mean is under 0.92 or its worst under 0.80.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import skimage
import sklearn.datasets
from PIL import Image as Picture

from rasa.adapters.lite.segmenter import LiteSegmenter, build_segmenter
from rasa.types import Image

SHARED = Path(os.environ.get("RASA_SHARED", Path(__file__).resolve().parent.parent.parent / "shared"))
HOMES = (Path(skimage.__file__).parent / "data", Path(sklearn.datasets.__file__).parent / "images")
MEAN, WORST = 0.92, 0.80


def read_objects(folder: Path) -> list[tuple[str, Image, np.ndarray, np.ndarray]]:
    """Name, photo, box and mask of each object."""
    objects = []
    for entry in json.loads((folder / "objects.json").read_text()):
        path = next(home / entry["image"] for home in (folder, *HOMES) if (home / entry["image"]).exists())
        image = Image(np.array(Picture.open(path).convert("RGB")))
        mask = np.array(Picture.open(folder / entry["mask"]).convert("L")) > 127
        objects.append((entry["name"], image, np.array([entry["box"]], np.float32), mask))
    return objects


def measure(segmenter: LiteSegmenter, image: Image, box: np.ndarray, mask: np.ndarray) -> tuple[float, float]:
    """IoU and seconds."""
    start = time.perf_counter()
    found = segmenter.segment([image], [box])[0].masks[0]
    return iou(found, mask), time.perf_counter() - start


def iou(found: np.ndarray, mask: np.ndarray) -> float:
    return float((found & mask).sum() / (found | mask).sum())


def boxed(box: np.ndarray, mask: np.ndarray) -> float:
    filled = np.zeros_like(mask)
    x1, y1, x2, y2 = np.rint(box[0]).astype(int)
    filled[max(0, y1) : y2, max(0, x1) : x2] = True
    return iou(filled, mask)


def run(folder: Path) -> list[dict[str, Any]]:
    ours, colour = build_segmenter(), LiteSegmenter(None)
    objects = read_objects(folder)
    ours.segment([objects[0][1]], [objects[0][2]])  # the first call pays for warming up
    rows = []
    for name, image, box, mask in objects:
        # A new Image, so that nothing remembered about the photo helps.
        quality, seconds = measure(ours, Image(image.pixels), box, mask)
        fallback, _ = measure(colour, image, box, mask)
        rows.append({"name": name, "box": boxed(box, mask), "grabcut": fallback, "ours": quality, "seconds": seconds})
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--masks", type=Path, default=SHARED / "research" / "lite" / "masks", metavar="FOLDER")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    arguments = parser.parse_args()
    rows = run(arguments.masks)
    columns = ("box", "grabcut", "ours", "seconds")
    rows.append({"name": "mean", **{c: float(np.mean([row[c] for row in rows])) for c in columns}})
    if arguments.json:
        print(json.dumps(rows))
    else:
        print(f"{'':16}" + "".join(f"{column:>9}" for column in columns))
        for row in rows:
            print(f"{row['name']:16}" + "".join(f"{row[column]:9.3f}" for column in columns))
    return int(rows[-1]["ours"] < MEAN or min(row["ours"] for row in rows) < WORST)


if __name__ == "__main__":
    sys.exit(main())
