"""What a step of the data engine changed: counts and examples by tag, and precision and recall where truth is known."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rasa._files import write_atomically
from rasa.types import Failure
from rasa_ram.engine.provenance import (
    BOTH,
    CAPTIONED,
    GENERATED,
    NOT_FOUND,
    OUTLIER,
    UNCONFIRMED,
    UNSEEN,
    TagNote,
    name_of,
)

# Image to the ids of all tags that it truly has: what is not there counts as absent.
Truth = Mapping[str, frozenset[int]]

_CHANGES = (CAPTIONED, GENERATED, OUTLIER, UNCONFIRMED, BOTH, NOT_FOUND, UNSEEN)
_EXAMPLES = 3  # kept of each change of each tag
_FAILURES = 20  # named in the report; all are in failures.jsonl
_SHOWN = 50  # tags in the readable table; all are in the JSON file


@dataclass(slots=True)
class Hits:
    """Tags of images whose truth is known."""

    given: int = 0
    right: int = 0
    true: int = 0

    def quality(self) -> dict[str, float | None]:
        """Precision and recall in [0, 1]; None where nothing was given, or nothing is true."""
        return {
            "precision": self.right / self.given if self.given else None,
            "recall": self.right / self.true if self.true else None,
        }


@dataclass
class Tally:
    """Counts what changed, image by image; what it holds grows with the number of tags, not of images.

    Attributes:
        names: Of the ids.
        truth: Of some of the images, or None.
    """

    names: Sequence[str]
    truth: Truth | None = None
    images: int = 0
    failures: list[dict[str, str]] = field(default_factory=list)
    failed: int = 0
    judged: int = 0
    _before: Counter[int] = field(default_factory=Counter)
    _after: Counter[int] = field(default_factory=Counter)
    _changes: dict[str, Counter[int]] = field(default_factory=lambda: {what: Counter() for what in _CHANGES})
    _examples: dict[tuple[int, str], list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    _hits: dict[str, dict[int, Hits]] = field(
        default_factory=lambda: {when: defaultdict(Hits) for when in ("before", "after")}
    )

    def add(self, image_path: str, before: Sequence[int], after: Sequence[int], notes: Sequence[TagNote]) -> None:
        """Count one image.

        Args:
            image_path: Its name.
            before: Its distinct tags.
            after: Its distinct tags now.
            notes: Of tags that came or went; others are not looked at.
        """
        self.images += 1
        self._before.update(before)
        self._after.update(after)
        for note in notes:
            if note.what in self._changes:
                self._changes[note.what][note.tag] += 1
                self._keep_example(image_path, note)
        truth = None if self.truth is None else self.truth.get(image_path)
        if truth is not None:
            self.judged += 1
            for when, tags in (("before", before), ("after", after)):
                _judge(self._hits[when], tags, truth)

    def fail(self, image_path: str, failure: Failure) -> None:
        """Count an image that could not be read, beside :meth:`add`."""
        self.failed += 1
        if len(self.failures) < _FAILURES:
            self.failures.append({"image_path": image_path, "kind": failure.kind, "message": failure.message})

    def report(self) -> dict[str, Any]:
        """All figures as JSON values: ``images``, ``failed``, ``overall``, and ``tags`` in the order of ids."""
        tags = sorted(self._before.keys() | self._after.keys() | self._hits["before"].keys())
        return {
            "images": self.images,
            "failed": self.failed,
            "failures": self.failures,
            "overall": {**self._overall_counts(), **self._overall_quality()},
            "tags": [self._row(tag) for tag in tags],
        }

    def _keep_example(self, image_path: str, note: TagNote) -> None:
        kept = self._examples[note.tag, note.what]
        if len(kept) < _EXAMPLES:
            known = {"image_path": image_path, "score": note.score, "distance": note.distance}
            kept.append({key: value for key, value in known.items() if value is not None})

    def _overall_counts(self) -> dict[str, int]:
        changes = {what: counter.total() for what, counter in self._changes.items()}
        return {"before": self._before.total(), **changes, "after": self._after.total()}

    def _overall_quality(self) -> dict[str, Any]:
        if self.truth is None:
            return {}
        total = {when: _summed(hits.values()) for when, hits in self._hits.items()}
        quality = {f"{name}_{when}": value for when, hits in total.items() for name, value in hits.quality().items()}
        return {"judged_images": self.judged, **quality}

    def _row(self, tag: int) -> dict[str, Any]:
        changes = {what: counter[tag] for what, counter in self._changes.items()}
        row = {"id": tag, "tag": name_of(self.names, tag), "before": self._before[tag], **changes}
        row["after"] = self._after[tag]
        if self.truth is not None:
            for when, hits in self._hits.items():
                known = hits[tag] if tag in hits else Hits()
                row |= {f"{name}_{when}": value for name, value in known.quality().items()}
        examples = {what: self._examples[tag, what] for what in _CHANGES if (tag, what) in self._examples}
        return row | ({"examples": examples} if examples else {})


def write_report(folder: Path, title: str, figures: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Write ``report.json`` with all figures and settings, and ``report.md`` to be read.

    Args:
        folder: Where they go.
        title: Of the page.
        figures: From :meth:`Tally.report`.
        settings: Of the step: models, thresholds.

    Raises:
        OutputError: If they cannot be written.
    """
    with write_atomically(folder / "report.json", text=True) as file:
        json.dump({"step": title, "settings": dict(settings), **figures}, file, indent=1)
        file.write("\n")
    with write_atomically(folder / "report.md", text=True) as file:
        file.write(markdown(title, figures))


def markdown(title: str, figures: Mapping[str, Any]) -> str:
    """The figures as a page: all tags together, then the :data:`_SHOWN` tags with most changes."""
    overall, rows = figures["overall"], figures["tags"]
    columns = [what for what in _CHANGES if overall[what]]
    rates = [key for key in overall if key.startswith(("precision", "recall"))]
    changed = sorted(rows, key=lambda row: (-sum(row[what] for what in columns), row["id"]))[:_SHOWN]
    head = ["tag", "before", *columns, "after", *(rate.replace("_", " ") for rate in rates)]
    body = [{"tag": "all tags", **overall}, *changed]
    lines = [
        f"# {title}",
        "",
        f"{figures['images']} images, {figures['failed']} of them unreadable and left as they were.",
        *([f"Precision and recall on {overall['judged_images']} images whose tags are known."] if rates else []),
        "",
        _line(head),
        _line(["---", *["---:"] * (len(head) - 1)]),
        *(_line([_cell(row[key]) for key in ("tag", "before", *columns, "after", *rates)]) for row in body),
        "",
        f"{len(rows)} tags; the {len(changed)} with most changes are shown, all are in report.json, with examples.",
    ]
    lines += [f"- unreadable: {_plain(item['image_path'])}: {_plain(item['message'])}" for item in figures["failures"]]
    return "\n".join(lines) + "\n"


def _judge(hits: dict[int, Hits], tags: Sequence[int], truth: frozenset[int]) -> None:
    for tag in tags:
        hits[tag].given += 1
        hits[tag].right += tag in truth
    for tag in truth:
        hits[tag].true += 1


def _summed(hits: Any) -> Hits:
    total = Hits()
    for one in hits:
        total = Hits(total.given + one.given, total.right + one.right, total.true + one.true)
    return total


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else _plain(str(value))


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _plain(text: str) -> str:
    """On one line, and without what would end a cell."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text).replace("|", "\\|")
