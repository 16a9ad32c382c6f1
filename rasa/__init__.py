"""RASA: recognise anything, segment anything.

>>> import rasa
>>> pipeline = rasa.load("lite")                  # doctest: +SKIP
>>> result = pipeline("photo.jpg")                # doctest: +SKIP
>>> result.tags.names, result.instances.labels    # doctest: +SKIP

Names are looked up on first use (PEP 562): NumPy alone takes about 0.2 s to import,
which ``rasa --help`` and ``rasa --version`` need not pay.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rasa._version import __version__

if TYPE_CHECKING:
    from rasa.errors import InputError, RasaError
    from rasa.io.images import find_images, to_image
    from rasa.io.results import read_results, write_results
    from rasa.labelling.label import label, open_dataset
    from rasa.loading import load
    from rasa.pipeline import Pipeline
    from rasa.protocols import Detector, Segmenter, Stage, Tagger
    from rasa.stages import Detect, DetectAndSegment, Filter, Segment, Suppress, Tag
    from rasa.types import Image, Instances, Masks, Result, Tags

_HOMES = {
    "Detect": "rasa.stages",
    "DetectAndSegment": "rasa.stages",
    "Detector": "rasa.protocols",
    "Filter": "rasa.stages",
    "Image": "rasa.types",
    "InputError": "rasa.errors",
    "Instances": "rasa.types",
    "Masks": "rasa.types",
    "Pipeline": "rasa.pipeline",
    "RasaError": "rasa.errors",
    "Result": "rasa.types",
    "Segment": "rasa.stages",
    "Segmenter": "rasa.protocols",
    "Stage": "rasa.protocols",
    "Suppress": "rasa.stages",
    "Tag": "rasa.stages",
    "Tagger": "rasa.protocols",
    "Tags": "rasa.types",
    "find_images": "rasa.io.images",
    "label": "rasa.labelling.label",
    "load": "rasa.loading",
    "open_dataset": "rasa.labelling.label",
    "read_results": "rasa.io.results",
    "to_image": "rasa.io.images",
    "write_results": "rasa.io.results",
}

__all__ = [
    "Detect",
    "DetectAndSegment",
    "Detector",
    "Filter",
    "Image",
    "InputError",
    "Instances",
    "Masks",
    "Pipeline",
    "RasaError",
    "Result",
    "Segment",
    "Segmenter",
    "Stage",
    "Suppress",
    "Tag",
    "Tagger",
    "Tags",
    "__version__",
    "find_images",
    "label",
    "load",
    "open_dataset",
    "read_results",
    "to_image",
    "write_results",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'rasa' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
