"""The lite preset on a folder of labelled photos: is the true class among the tags, and seconds a photo.

    python benchmarks/lite.py [--photos FOLDER] [--threads 2] [--json] [--show]

FOLDER holds labels.csv (file, wnid, label: one ImageNet class each) and the photos. A photo is a hit if a tag
is the name of its class or of a parent; "own name" counts the name alone, "below the top" leaves out tags that
cover more than 100 classes, such as animal. Precision cannot be told from one label a photo; "agree" is the share
of tags that cover the true class, a lower bound. Exits with 1 below 92 % hits or above 3 s a photo.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as Picture

from rasa.adapters.lite.detector import LiteDetector, build_detector
from rasa.adapters.lite.segmenter import LiteSegmenter, build_segmenter
from rasa.adapters.lite.tagger import LiteTagger, build_tagger
from rasa.adapters.lite.vocabulary import imagenet_index, load_vocabulary
from rasa.types import Image, Instances, Tags

SHARED = Path(os.environ.get("RASA_SHARED", Path(__file__).resolve().parent.parent.parent / "shared"))
LEAST_HITS, MOST_SECONDS = 0.92, 3.0
WIDE = 100  # classes


def read_photos(folder: Path) -> Iterator[tuple[Image, str]]:
    """Each photo with its WordNet id, decoded one at a time."""
    with (folder / "labels.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            yield Image(np.array(Picture.open(folder / row["file"]).convert("RGB")), row["file"]), row["wnid"]


def judge(tags: Tags, true_class: int) -> dict[str, float]:
    words = [load_vocabulary().words[name] for name in tags.names]
    right = [word for word in words if true_class in word.classes]
    return {
        "hit": bool(right),
        "own_name": any(len(word.classes) == 1 for word in right),
        "below_top": any(len(word.classes) <= WIDE for word in right),
        "tags": len(words),
        "agree": len(right),
    }


def make_tags(tagger: LiteTagger, image: Image) -> tuple[Tags, float]:
    start = time.perf_counter()
    return tagger.tag([image])[0], time.perf_counter() - start


def make_boxes(detector: LiteDetector, image: Image, tags: Tags) -> tuple[Instances, float]:
    start = time.perf_counter()
    return detector.detect([image], [tags.names])[0], time.perf_counter() - start


def make_masks(segmenter: LiteSegmenter, image: Image, boxes: np.ndarray) -> float:
    start = time.perf_counter()
    segmenter.segment([image], [boxes])
    return time.perf_counter() - start


def run(folder: Path, *, show: bool) -> list[dict[str, Any]]:
    tagger, detector, segmenter = build_tagger(), build_detector(), build_segmenter()
    # The first call pays for warming up.
    first, _ = next(read_photos(folder))
    make_masks(segmenter, first, make_boxes(detector, first, make_tags(tagger, first)[0])[0].boxes)
    rows = []
    for image, wnid in read_photos(folder):
        tags, tag_seconds = make_tags(tagger, image)
        found, box_seconds = make_boxes(detector, image, tags)
        mask_seconds = make_masks(segmenter, image, found.boxes)
        seconds = {"tag_s": tag_seconds, "box_s": box_seconds, "mask_s": mask_seconds}
        seconds["total_s"] = sum(seconds.values())
        rows.append({"file": image.name, **judge(tags, imagenet_index(wnid)), "boxes": len(found), **seconds})
        if show:
            print(
                image.name, "ok" if rows[-1]["hit"] else "MISSED", list(tags.names), list(found.labels), file=sys.stderr
            )
    return rows


def summarise(rows: list[dict[str, Any]]) -> dict[str, float]:
    means = {key: float(np.mean([row[key] for row in rows])) for key in rows[0] if key != "file"}
    means["agree"] /= max(means["tags"], 1e-9)
    return {"photos": len(rows), **means, "slowest_s": max(row["total_s"] for row in rows)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, default=SHARED / "photos", metavar="FOLDER")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--show", action="store_true", help="print the tags of each photo on stderr")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    figures = summarise(run(arguments.photos, show=arguments.show))
    if arguments.json:
        print(json.dumps(figures))
    else:
        print("\n".join(f"{key:12}{value:9.3f}" for key, value in figures.items()))
    return int(figures["hit"] < LEAST_HITS or figures["total_s"] > MOST_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
