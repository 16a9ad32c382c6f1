"""The steps of a pipeline, one file each; every one fits :class:`rasa.protocols.Stage`."""

from rasa.stages.detect import Detect
from rasa.stages.filter import Filter
from rasa.stages.segment import Segment
from rasa.stages.suppress import Suppress
from rasa.stages.tag import Tag

__all__ = ["Detect", "Filter", "Segment", "Suppress", "Tag"]
