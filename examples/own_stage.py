"""Your own tags, and a stage of your own between detector and segmenter.

python examples/own_stage.py [PHOTO]
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import rasa
from rasa.ops.boxes import box_areas

PHOTO = Path(__file__).parent / "photos" / "astronaut.jpg"


@dataclass(frozen=True)
class KeepLarge:
    """Keep what covers at least ``share`` of the photo."""

    share: float

    def __call__(self, images: Sequence[rasa.Image], results: Sequence[rasa.Result]) -> list[rasa.Result]:
        """Results without their small instances."""
        kept = []
        for image, result in zip(images, results, strict=True):
            height, width = image.size
            large = box_areas(result.instances.boxes) >= self.share * height * width
            kept.append(result.with_instances(result.instances.take(large)))
        return kept


def main(photo: str | Path = PHOTO) -> None:
    """Look for two things in ``photo``, with and without the stage."""
    everything = rasa.load("lite")
    *boxes, segment = everything.stages
    only_large = rasa.Pipeline(*boxes, KeepLarge(share=0.2), segment)

    for pipeline in (everything, only_large):
        result = pipeline(photo, tags=["person", "helmet"])
        print(f"{pipeline}: {', '.join(result.instances.labels) or 'nothing'}")
        print("  seconds:", {stage: round(seconds, 3) for stage, seconds in result.timings.items()})


if __name__ == "__main__":
    main(*sys.argv[1:])
