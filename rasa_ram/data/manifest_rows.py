"""Rows of annotation files as records, and what is checked of each.

A row is an object with the published keys: ``image_path``, ``caption`` (a list, or one string as in the karpathy files
of COCO), ``union_label_id`` and ``parse_label_id`` (both may be missing). ``image`` is read for ``image_path``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from rasa.errors import FormatError, InputError
from rasa_ram.data.manifest_faults import Fault, FaultKind, OnBad, ReadReport, RowError
from rasa_ram.data.records import Record

# The 30 words that are trained on (captions.py) have some 200 bytes, and the longest alt texts of the web some kB.
MAX_CAPTION_BYTES = 10_000
# Longer than any path that Linux opens (PATH_MAX).
MAX_PATH_BYTES = 4096

# Controls other than tab and line ends, which captions of the web hold and cleaning removes; halves of characters.
_BAD_CHARACTERS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_REMEDY = "mend the file, or skip such records (on_bad='skip', --on-bad skip); `rasa-ram data check` lists all of them"


@dataclass(slots=True, kw_only=True)
class RowCheck:
    """Turns the rows of one file into records, and acts on those that cannot be.

    Attributes:
        source: The file, for messages.
        on_bad: Whether a bad row is counted and skipped, or stops the reading. Where it is skipped, a bad caption
            is left out alone, with its row of ids, if the record has another one or tags.
        report: Where it is counted.
        vocabulary_size: Number of tags, which bounds the ids; None bounds them not.
        max_caption_bytes: Longest caption, in bytes of UTF-8.

    Raises:
        InputError: If a setting is out of range.
    """

    source: str
    on_bad: OnBad = "stop"
    report: ReadReport = field(default_factory=ReadReport)
    vocabulary_size: int | None = None
    max_caption_bytes: int = MAX_CAPTION_BYTES

    def __post_init__(self) -> None:
        if self.on_bad not in ("skip", "stop"):
            raise InputError(f'on_bad must be "skip" or "stop", got {self.on_bad!r}')
        if self.vocabulary_size is not None and self.vocabulary_size < 1:
            raise InputError(f"vocabulary_size must be at least 1, got {self.vocabulary_size}")
        if self.max_caption_bytes < 1:
            raise InputError(f"max_caption_bytes must be at least 1, got {self.max_caption_bytes}")

    def record(self, row: object, number: int) -> Record | None:
        """The record of a row, without bad captions; None if it is bad and bad ones are skipped.

        Raises:
            FormatError: If it is bad and that stops the reading.
        """
        try:
            record = self._parsed(row, number)
        except RowError as error:
            self.fail(error, number, error.__cause__)
            return None
        self.report.records += 1
        return record

    def fail(self, error: RowError, number: int, cause: BaseException | None = None) -> None:
        """Count a bad row, or stop.

        Raises:
            FormatError: If ``on_bad`` is ``"stop"``.
        """
        fault = Fault(kind=error.kind, source=self.source, number=number, image=error.image, why=str(error))
        if self.on_bad == "stop":
            raise FormatError(f"{fault}; {_REMEDY}") from cause
        self.report.add(fault)

    def _parsed(self, row: object, number: int) -> Record:
        if not isinstance(row, Mapping):
            raise RowError("wrong-type", f"expected an object, got {_short(row)}")
        image = _image_of(row)
        try:
            captions = _captions_of(row.get("caption"))
            bad = next(self._caption_errors(captions), None)
            if bad is not None and self.on_bad == "stop":
                raise bad
            parsed = self._parsed_ids(row, captions)
            union = row.get("union_label_id")
            tags = None if union is None else self._ids("union_label_id", union)
            if bad is not None and not tags and sum(1 for _ in self._caption_errors(captions)) == len(captions):
                raise bad
        except RowError as error:
            error.image = image
            raise
        if bad is not None:
            captions, parsed = self._without_bad(captions, parsed, number, image)
        rows, distinct = parsed, tags
        if any(len(set(ids)) != len(ids) for ids in (*parsed, tags or ())):
            rows = tuple(tuple(dict.fromkeys(ids)) for ids in parsed)
            distinct = None if tags is None else tuple(dict.fromkeys(tags))
            self._note("repeated-id", "an id stands twice in one list; it is read once", number, image)
        return Record(image_path=image, captions=captions, parsed_ids=rows, tag_ids=distinct)

    def _caption_errors(self, captions: tuple[str, ...]) -> Iterator[_CaptionError]:
        for position, text in enumerate(captions):
            problem = caption_problem(text, self.max_caption_bytes)
            if problem is not None:
                yield _CaptionError(position, problem)

    def _without_bad(
        self, captions: tuple[str, ...], parsed: tuple[tuple[int, ...], ...], number: int, image: str
    ) -> tuple[tuple[str, ...], tuple[tuple[int, ...], ...]]:
        """The good captions and their rows; each bad one is counted."""
        bad = set()
        for error in self._caption_errors(captions):
            bad.add(error.position)
            self._note(error.kind, f"{error}; it is left out", number, image)
        self.report.captions_left_out += len(bad)
        good = [i for i in range(len(captions)) if i not in bad]
        return tuple(captions[i] for i in good), tuple(parsed[i] for i in good)

    def _note(self, kind: FaultKind, why: str, number: int, image: str) -> None:
        """Count what is mended."""
        self.report.add(Fault(kind=kind, source=self.source, number=number, image=image, why=why, mended=True))

    def _parsed_ids(self, row: Mapping[str, Any], captions: tuple[str, ...]) -> tuple[tuple[int, ...], ...]:
        value = row.get("parse_label_id")
        if value is None:
            return ((),) * len(captions)
        if (
            isinstance(row.get("caption"), str)
            and isinstance(value, list)
            and not any(isinstance(v, list) for v in value)
        ):
            value = [value]  # one caption that is no list has one row that need not be in a list
        if not isinstance(value, list):
            raise RowError("wrong-type", f"parse_label_id must be a list of lists, got {_short(value)}")
        if len(value) != len(captions):
            raise RowError("row-count", f"parse_label_id has {len(value)} rows for {len(captions)} captions")
        return tuple(self._ids("parse_label_id", ids) for ids in value)

    def _ids(self, key: str, value: object) -> tuple[int, ...]:
        if not isinstance(value, list):
            raise RowError("wrong-type", f"{key} must hold lists of ids, got {_short(value)}")
        size = self.vocabulary_size
        bound = _MAX_ID if size is None else size
        # True is an int to isinstance. This way takes a third of the loop's time, which names the culprit.
        if not value or (set(map(type, value)) == {int} and min(value) >= 0 and max(value) < bound):
            return tuple(value)
        for tag in value:
            if type(tag) is not int:
                raise RowError("wrong-type", f"{key} must hold whole numbers, got {_short(tag)}")
            if not 0 <= tag < bound:
                raise RowError("id-range", f"{key} has id {_short(tag)}; {_id_range(size)}")
        return tuple(value)


_MAX_ID = 2**31  # int32 in Parquet


def row_of(record: Record) -> dict[str, Any]:
    """A record as a row with the published keys; ``union_label_id`` is left out where it is None."""
    row: dict[str, Any] = {"image_path": record.image_path, "caption": list(record.captions)}
    if record.tag_ids is not None:
        row["union_label_id"] = list(record.tag_ids)
    row["parse_label_id"] = [list(ids) for ids in record.parsed_ids]
    return row


def caption_problem(text: object, max_bytes: int = MAX_CAPTION_BYTES) -> RowError | None:
    """What is wrong with a caption; None if nothing is."""
    if not isinstance(text, str):
        return _no_string(text)
    if not text or text.isspace():
        return RowError("empty-caption", "is empty")
    bad = _BAD_CHARACTERS.search(text)
    if bad is not None:
        return RowError("bad-characters", f"holds the control character U+{ord(bad[0]):04X} at position {bad.start()}")
    if len(text) * 4 > max_bytes and (size := len(text.encode())) > max_bytes:
        return RowError("long-caption", f"has {size} bytes, at most {max_bytes} are read: {_short(text)}")
    return None


def path_problem(image: object) -> RowError | None:
    """What is wrong with the name of an image; None if nothing is."""
    if image is None or image == "":
        return RowError("no-image", "has no image_path")
    if not isinstance(image, str):
        return RowError("wrong-type", f"image_path must be a string, got {_short(image)}")
    if _BAD_CHARACTERS.search(image) or "\n" in image or "\r" in image:
        return RowError("bad-characters", f"image_path holds a control character: {_short(image)}")
    if image.isspace():
        return RowError("no-image", "image_path is blank")
    if len(image) * 4 > MAX_PATH_BYTES and len(image.encode()) > MAX_PATH_BYTES:
        return RowError("wrong-type", f"image_path has over {MAX_PATH_BYTES} bytes: {_short(image)}")
    return None


def _image_of(row: Mapping[str, Any]) -> str:
    image = row.get("image_path", row.get("image"))
    problem = path_problem(image)
    if problem is not None:
        raise problem
    return str(image)


class _CaptionError(RowError):
    def __init__(self, position: int, problem: RowError) -> None:
        super().__init__(problem.kind, f"caption {position} {problem}")
        self.position = position


def _captions_of(value: object) -> tuple[str, ...]:
    captions = [value] if isinstance(value, str) else [] if value is None else value
    if not isinstance(captions, list):
        raise RowError("wrong-type", f"caption must be a list of strings, got {_short(value)}")
    for position, text in enumerate(captions):
        if not isinstance(text, str):
            raise _CaptionError(position, _no_string(text))
    return tuple(captions)


def _no_string(value: object) -> RowError:
    return RowError("wrong-type", f"must be a string, got {_short(value)}")


def _id_range(size: int | None) -> str:
    return (
        f"ids are below {_MAX_ID} and not negative" if size is None else f"the vocabulary has ids from 0 to {size - 1}"
    )


def _short(value: object) -> str:
    # A number of a million digits takes minutes to print.
    if isinstance(value, int) and abs(value) >= 2**64:
        return "a number of over 19 digits"
    text = ascii(value[:40]) if isinstance(value, str | list) else ascii(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
