"""Names of labels as tag ids of a vocabulary."""

from __future__ import annotations

from collections.abc import Iterable

from rasa_ram.data.manifest_faults import ReadReport
from rasa_ram.vocabulary import Vocabulary


class TagFinder:
    """Finds the ids of labels by name or synonym, first as it is written, else without regard to case.

    Args:
        vocabulary: Ids are positions in it. A name that stands in it several times has all of them.
        report: Counts the labels without a tag, as ``unmapped``.
    """

    def __init__(self, vocabulary: Vocabulary, report: ReadReport) -> None:
        self._report = report
        self._ids: dict[str, tuple[int, ...]] = {}
        for position, name in enumerate(vocabulary.names):
            self._ids[name] = (*self._ids.get(name, ()), position)
        words = [(name, position) for position, name in enumerate(vocabulary.names)]
        words += [(word, position) for position, row in enumerate(vocabulary.synonyms or ()) for word in row]
        for word, position in words:
            # A name goes before a synonym of another tag, and of two the first.
            self._ids.setdefault(word, (position,))
            self._ids.setdefault(_key(word), self._ids[word])

    def ids(self, labels: Iterable[str]) -> tuple[int, ...]:
        """Distinct ids of labels, in order of appearance."""
        found: dict[int, None] = {}
        for label in labels:
            ids = self._ids.get(label) or self._ids.get(_key(label))
            if ids is None:
                self._report.add_unmapped(label)
            else:
                found.update(dict.fromkeys(ids))
        return tuple(found)


def _key(label: str) -> str:
    return " ".join(label.lower().replace("_", " ").split())
