"""What `rasa` exports is a promise: this list changes on purpose only, with the changelog."""

import inspect

import pytest

import rasa

PUBLIC = [
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


def test_exports_are_the_checked_in_list():
    assert rasa.__all__ == sorted(PUBLIC)
    assert len([name for name in PUBLIC if name != "__version__"]) <= 25
    assert set(dir(rasa)) == set(PUBLIC)


@pytest.mark.parametrize("name", [name for name in PUBLIC if name != "__version__"])
def test_every_export_is_there_and_documented(name):
    doc = inspect.getdoc(getattr(rasa, name))
    assert doc
    assert len(doc.splitlines()[0]) < 88
    assert doc.splitlines()[0].endswith(".")


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Piepline'"):
        rasa.Piepline  # noqa: B018
