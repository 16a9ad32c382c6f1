"""The steps of a pipeline, one file each; every one fits :class:`rasa.protocols.Stage`."""

from rasa.stages.detect import Detect
from rasa.stages.detect_and_segment import DetectAndSegment
from rasa.stages.filter import Filter
from rasa.stages.in_turn import InTurn
from rasa.stages.segment import Segment
from rasa.stages.suppress import Suppress
from rasa.stages.tag import Tag

__all__ = ["Detect", "DetectAndSegment", "Filter", "InTurn", "Segment", "Suppress", "Tag"]
