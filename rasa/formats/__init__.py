"""Dataset formats: each a writer with its reader, imported when it is asked for.

>>> find_format("yolo-segment").masks
'outlines'
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from rasa._suggest import did_you_mean
from rasa.errors import DependencyError, InputError, RasaError

if TYPE_CHECKING:
    from rasa.formats.samples import Sample, WriteReport

Masks = Literal["exact", "flat", "outlines", ""]


@dataclass(frozen=True, slots=True)
class Format:
    """A dataset format, and what it holds of a labelled image.

    Attributes:
        name: Such as ``"coco"``.
        summary: One line.
        module: Module of its two functions.
        writer: Name of ``write_x(folder, samples, *, classes)``.
        reader: Name of ``read_x(folder)``.
        images: Whether the image files are in it.
        boxes: Whether boxes of objects are.
        masks: ``"exact"``; ``"flat"`` where a pixel belongs to one object alone, so that masks which overlap lose
            some; ``"outlines"`` where a mask may change a little; or ``""``.
        scores: Whether scores of objects are.
        tags: ``"scored"`` where tags of images are, with their scores; or ``""``.
        of_tags: Whether its classes are the tags of images, and not the labels of objects.
        options: Further keywords of the writer.
    """

    name: str
    summary: str
    module: str
    writer: str
    reader: str
    images: bool = True
    boxes: bool = True
    masks: Masks = ""
    scores: bool = False
    tags: Literal["scored", ""] = ""
    of_tags: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    def write(self, folder: Path, samples: Iterable[Sample], *, classes: Sequence[str]) -> WriteReport:
        """Write a dataset; see :mod:`rasa.formats.samples`.

        Args:
            folder: Absent or empty.
            samples: May be a stream.
            classes: Names of the classes; ids are positions.

        Raises:
            DependencyError: If a package is missing.
            InputError: If a label is not among ``classes``.
            OutputError: If the folder is not empty or cannot be written.
        """
        report: WriteReport = self._load(self.writer)(folder, samples, classes=classes, **self.options)
        return report

    def read(self, folder: Path) -> Iterator[Sample]:
        """Read a dataset, image by image.

        Raises:
            DependencyError: If a package is missing.
            FormatError: If a file does not hold what it should.
            InputError: If a file cannot be read.
        """
        samples: Iterator[Sample] = self._load(self.reader)(folder)
        return samples

    def _load(self, function: str) -> Callable[..., Any]:
        try:
            found: Callable[..., Any] = getattr(import_module(self.module), function)
        except ImportError as error:
            if isinstance(error, RasaError):
                raise
            raise DependencyError(f'format "{self.name}" needs "{error.name}"; install the extra "label"') from error
        return found


_HERE = "rasa.formats."

FORMATS: Mapping[str, Format] = MappingProxyType({
    entry.name: entry
    for entry in (
        Format(
            "coco", "COCO instances, masks as run lengths", _HERE + "coco", "write_coco", "read_coco",
            masks="exact", scores=True, tags="scored",
        ),
        Format(
            "coco-polygons", "COCO instances, masks as polygons", _HERE + "coco", "write_coco", "read_coco",
            masks="outlines", scores=True, tags="scored", options={"masks": "polygons"},
        ),
        Format(
            "coco-panoptic", "COCO panoptic, a PNG and a JSON entry an image", _HERE + "panoptic",
            "write_panoptic", "read_panoptic", masks="flat", scores=True, tags="scored",
        ),
        Format(
            "yolo-detect", "YOLO boxes with data.yaml", _HERE + "yolo", "write_yolo_detect", "read_yolo",
        ),
        Format(
            "yolo-segment", "YOLO outlines with data.yaml, one line an object", _HERE + "yolo",
            "write_yolo_segment", "read_yolo", masks="outlines",
        ),
        Format(
            "voc", "Pascal VOC, XML and segmentation PNGs", _HERE + "voc", "write_voc", "read_voc",
            masks="flat", scores=True,
        ),
        Format(
            "semantic-maps", "PNGs of class ids with palette and legend", _HERE + "label_maps",
            "write_semantic_maps", "read_semantic_maps", boxes=False, masks="flat", tags="scored",
        ),
        Format(
            "instance-maps", "PNGs of object ids with palette and legend", _HERE + "label_maps",
            "write_instance_maps", "read_instance_maps", boxes=False, masks="flat", scores=True, tags="scored",
        ),
        Format(
            "labelme", "LabelMe, a JSON file an image", _HERE + "labelme", "write_labelme", "read_labelme",
            masks="exact", scores=True, tags="scored",
        ),
        Format(
            "label-studio", "Label Studio pre-annotations with brush masks", _HERE + "label_studio",
            "write_label_studio", "read_label_studio", masks="exact", scores=True, tags="scored",
        ),
        Format(
            "cvat", "CVAT for images 1.1, XML", _HERE + "cvat", "write_cvat", "read_cvat",
            masks="exact", scores=True, tags="scored",
        ),
        Format(
            "tags-csv", "tags of images, one CSV row a tag", _HERE + "tag_table", "write_tags_csv", "read_tags_csv",
            images=False, boxes=False, tags="scored", of_tags=True,
        ),
        Format(
            "tags-parquet", "tags of images, zeros, ones and scores in Parquet", _HERE + "tag_parquet",
            "write_tags_parquet", "read_tags_parquet", images=False, boxes=False, tags="scored", of_tags=True,
        ),
        Format(
            "hf-datasets", "Hugging Face datasets, Parquet with images", _HERE + "hf_datasets",
            "write_hf_datasets", "read_hf_datasets", masks="exact", scores=True, tags="scored",
        ),
        Format(
            "webdataset", "WebDataset, tar shards", _HERE + "webdataset", "write_webdataset", "read_webdataset",
            masks="exact", scores=True, tags="scored",
        ),
    )
})  # fmt: skip
"""Every format by name."""

# Short names, for what is meant most often.
_ALIASES = {"yolo": "yolo-segment", "tags": "tags-csv", "huggingface": "hf-datasets"}


def find_format(name: str) -> Format:
    """The format called ``name``; ``"yolo"`` is yolo-segment, ``"tags"`` tags-csv, ``"huggingface"`` hf-datasets.

    Raises:
        InputError: If there is none.
    """
    full = _ALIASES.get(name, name)
    if full not in FORMATS:
        hint = did_you_mean(name, [*FORMATS, *_ALIASES])
        raise InputError(f'unknown format "{name}"{hint} (`rasa formats` lists all {len(FORMATS)})')
    return FORMATS[full]
