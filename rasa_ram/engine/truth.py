"""The true tags of some images, to measure what a step of the data engine does."""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path

from rasa.errors import RasaWarning
from rasa_ram.data.manifest import SUFFIXES, read_records
from rasa_ram.data.own_tags import name_to_rows, read_tagged_photos
from rasa_ram.engine.report import Truth
from rasa_ram.vocabulary import Vocabulary


def read_truth(path: Path, vocabulary: Vocabulary) -> Truth:
    """Read the true tags of images; what is not there counts as absent.

    Args:
        path: A manifest, whose ids are those of ``vocabulary``; or a CSV file with the columns ``image`` and ``tag``
            or ``tags``, see :func:`rasa_ram.data.own_tags.read_tagged_photos`.
        vocabulary: Of the records. Tags of a CSV file that are neither a name nor a synonym in it are left out, with a
            :class:`rasa.errors.RasaWarning`.

    Returns:
        The image as the records name it to the ids of all its tags.

    Raises:
        InputError: If the file cannot be read.
        FormatError: If it is malformed.
    """
    if path.suffix.lower() in SUFFIXES:
        records = read_records(path, vocabulary_size=len(vocabulary))
        return {record.image_path: frozenset(record.known_ids) for record in records}
    rows, unknown, truth = name_to_rows(vocabulary), Counter[str](), {}
    for photo in read_tagged_photos(path):
        unknown.update(tag for tag in photo.tags if tag not in rows)
        truth[photo.path] = frozenset(row for tag in photo.tags for row in rows.get(tag, ()))
    if unknown:
        first = next(iter(unknown))
        warnings.warn(
            f"{len(unknown)} tags of {path} are not in the vocabulary, such as {first!r}; they count as unknown",
            RasaWarning,
            stacklevel=2,
        )
    return truth
