"""What the writers of COCO instances and of COCO panoptic share: a JSON file per split, filled as images come."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from rasa.formats._spool import JsonLists
from rasa.formats.samples import SPLITS, Sample
from rasa.types import Tags


class CocoFiles:
    """The files ``annotations/PREFIX_SPLIT.json`` of those splits that have images; of train if none has.

    Args:
        folder: Of the dataset.
        prefix: ``"instances"`` or ``"panoptic"``.
        closing: Closes the files.
    """

    def __init__(self, folder: Path, prefix: str, closing: ExitStack) -> None:
        self._folder, self._prefix, self._closing = folder / "annotations", prefix, closing
        self._files: dict[str, JsonLists] = {}
        self._tags: dict[str, Counter[str]] = {}
        self._folder.mkdir()

    def add_image(self, sample: Sample, number: int) -> None:
        """Append the entry of an image, which has the id ``number``."""
        height, width = sample.result.size
        entry: dict[str, Any] = {"id": number, "file_name": sample.file_name, "height": height, "width": width}
        if sample.id:
            entry["sha256"] = sample.id
        if len(sample.result.tags):
            entry["tags"] = tags_entry(sample.result.tags)
        self._file_of(sample.split).add("images", entry)
        self._tags[sample.split].update(sample.result.tags.names)

    def add_annotation(self, split: str, entry: Mapping[str, Any]) -> None:
        """Append an annotation of an image of that split."""
        self._file_of(split).add("annotations", entry)

    def finish(self, categories: Sequence[Mapping[str, Any]]) -> None:
        """End the files, each with all categories."""
        if not self._files:
            self._file_of(SPLITS[0])
        for split, file in self._files.items():
            info = {
                "description": "labelled with rasa",
                "split": split,
                "tags": dict(sorted(self._tags[split].items())),
            }
            file.finish({"categories": categories, "licenses": [], "info": info})

    def _file_of(self, split: str) -> JsonLists:
        if split not in self._files:
            path = self._folder / f"{self._prefix}_{split}.json"
            self._files[split] = self._closing.enter_context(JsonLists(path, ("images", "annotations")))
            self._tags[split] = Counter()
        return self._files[split]


def scores_of(sample: Sample, i: int) -> dict[str, float]:
    """``score`` of object ``i``, and ``mask_score`` if there is one."""
    found = sample.result.instances
    entry = {"score": float(found.scores[i])}
    if found.mask_scores is not None:
        entry["mask_score"] = float(found.mask_scores[i])
    return entry


def tags_entry(tags: Tags) -> list[dict[str, Any]]:
    """Tags as JSON: name and score, and the kind where it is known."""
    kinds = tags.kinds or ("",) * len(tags)
    rows = zip(tags.names, tags.scores.astype(np.float64).tolist(), kinds, strict=True)
    return [{"name": name, "score": score} | ({"kind": kind} if kind else {}) for name, score, kind in rows]
