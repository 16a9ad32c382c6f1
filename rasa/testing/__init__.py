"""Public help for testing: zero-cost fakes, sample pictures, and the checks of every role.

A third party tests its own model with one line::

    from rasa.testing import check_detector
    check_detector(MyDetector(), tags=["cat", "dog"])
"""

from rasa.testing.conformance import (
    check_detector,
    check_detector_segmenter,
    check_segmenter,
    check_stage,
    check_tagger,
)
from rasa.testing.fakes import FakeDetector, FakeDetectorSegmenter, FakeSegmenter, FakeTagger
from rasa.testing.pictures import sample_image, sample_images

__all__ = [
    "FakeDetector",
    "FakeDetectorSegmenter",
    "FakeSegmenter",
    "FakeTagger",
    "check_detector",
    "check_detector_segmenter",
    "check_segmenter",
    "check_stage",
    "check_tagger",
    "sample_image",
    "sample_images",
]
