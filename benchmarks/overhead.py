"""What the pipeline itself costs: everything that is neither a model's call nor image decoding.

    python benchmarks/overhead.py [--photos FOLDER] [--repeats N] [--skip-lite]

Prints milliseconds an image with zero-cost fake models, and the share of the
preset lite's time. Models are timed by wrapping their one method.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import rasa
from rasa.stages import Detect, Segment, Tag
from rasa.testing import FakeDetector, FakeSegmenter, FakeTagger, sample_image

PHOTOS = Path(__file__).parent.parent / "examples" / "photos"
MODEL_OF = {Tag: ("tagger", "tag"), Detect: ("detector", "detect"), Segment: ("segmenter", "segment")}


class Timed:
    """A model whose one method adds up its time."""

    def __init__(self, model: Any, method: str) -> None:
        self.seconds = 0.0
        self._call: Callable[..., Any] = getattr(model, method)
        setattr(self, method, self._timed)

    def _timed(self, *arguments: Any) -> Any:
        start = perf_counter()
        try:
            return self._call(*arguments)
        finally:
            self.seconds += perf_counter() - start


def with_timers(pipeline: rasa.Pipeline) -> tuple[rasa.Pipeline, list[Timed]]:
    """The same stages around timed models."""
    stages: list[Any] = []
    timers: list[Timed] = []
    for stage in pipeline.stages:
        attribute, method = MODEL_OF.get(type(stage), (None, ""))
        if attribute is not None:
            timers.append(Timed(getattr(stage, attribute), method))
            stages.append(replace(stage, **{attribute: timers[-1]}))
        else:
            stages.append(stage)
    return rasa.Pipeline(*stages), timers


def overhead(pipeline: rasa.Pipeline, sources: list[Any], repeats: int) -> tuple[float, float]:
    """Median seconds an image of (the whole call, the part that is neither model nor decoding)."""
    timed, timers = with_timers(pipeline)
    timed(sources[0])
    wholes, owns = [], []
    for source in sources * repeats:
        for timer in timers:
            timer.seconds = 0.0
        start = perf_counter()
        result = timed(source)
        whole = perf_counter() - start
        wholes.append(whole)
        owns.append(whole - sum(timer.seconds for timer in timers) - result.timings["decode"])
    return median(wholes), median(owns)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, default=PHOTOS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--skip-lite", action="store_true")
    arguments = parser.parse_args()

    image = sample_image(height=375, width=500)
    for count in (2, 20):
        names = [f"tag {i}" for i in range(count)]
        fakes = rasa.Pipeline(FakeTagger(names), FakeDetector(), FakeSegmenter())
        _, own = overhead(fakes, [image], 100 * arguments.repeats)
        print(f"fake models, 500 x 375, {count:2d} instances: {own * 1e3:.2f} ms an image (target: under 3)")
    if arguments.skip_lite:
        return
    whole, own = overhead(rasa.load("lite"), list(rasa.find_images([arguments.photos])), arguments.repeats)
    print(f"lite: {own * 1e3:.2f} ms of {whole * 1e3:.0f} ms an image, {own / whole:.2%} (target: under 5 %)")


if __name__ == "__main__":
    main()
