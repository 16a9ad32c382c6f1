"""Photos with tags and without captions, as people have them: a folder, or a table."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from rasa.errors import FormatError, InputError
from rasa.io.find import IMAGE_SUFFIXES
from rasa_ram.data.records import Record
from rasa_ram.vocabulary import Vocabulary, tag_problem

# The first of these columns that a table has names the photo.
_IMAGE_COLUMNS = ("image", "path", "file_name", "id")
# The first of these that occurs in a cell separates its tags.
_SEPARATORS = ("|", ";", ",")


@dataclass(frozen=True, slots=True)
class TaggedPhoto:
    """A photo and its tags.

    Attributes:
        path: Relative to the photos' folder, with ``/`` between folders.
        tags: Distinct; none is a photo on which none of the tags is to be seen.
    """

    path: str
    tags: tuple[str, ...]


def read_tagged_photos(source: Path) -> list[TaggedPhoto]:
    """Read photos with tags from a folder or a table.

    A folder holds either a text file beside each photo, of the same name, with a tag on each line; or a folder for each
    tag with its photos, which may lie in deeper folders. A photo whose text file is empty or absent has no tags
    where others have such files.

    A table is a CSV file. Its columns are ``image`` (or ``path``, ``file_name``, ``id``) and either ``tag``, with a row
    for each tag of a photo, or ``tags``, with all of them separated by ``|``, else ``;``, else ``,``.

    Returns:
        Photos in the order of their paths.

    Raises:
        InputError: If ``source`` is neither, cannot be read, or holds no photo with a tag.
        FormatError: If the table is malformed, or a tag is; the message says where.
    """
    if source.is_dir():
        found = _from_folder(source)
    elif source.suffix.lower() == ".csv":
        found = _from_table(source)
    else:
        raise InputError(f"{source} is neither a folder of photos nor a .csv file")
    if not any(found.values()):
        raise InputError(
            f"{source} holds no photo with a tag; make a folder for each tag, put a text file beside each photo, or "
            'write a CSV file with the columns "image" and "tags"'
        )
    return [TaggedPhoto(path, tuple(dict.fromkeys(tags))) for path, tags in sorted(found.items())]


def tag_counts(photos: Iterable[TaggedPhoto]) -> dict[str, int]:
    """How many photos have each tag; the most frequent first, equal ones by name."""
    counts: dict[str, int] = {}
    for photo in photos:
        for tag in photo.tags:
            counts[tag] = counts.get(tag, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def split_photos(
    photos: Sequence[TaggedPhoto], *, share: float, seed: int
) -> tuple[list[TaggedPhoto], list[TaggedPhoto]]:
    """Part photos into those to learn from and those to check on, so that both have every tag where that can be.

    Photos are dealt by their rarest tag, as many of each as ``share`` says, at least one where a tag has two or more;
    the last photo of a tag is always one to learn from.

    Args:
        photos: All of them.
        share: Of the photos to check on, in [0, 1).
        seed: Of the choice.

    Raises:
        InputError: If ``share`` is out of range.
    """
    if not 0 <= share < 1:
        raise InputError(f"the share of photos to check on must be in [0, 1), got {share}")
    left = tag_counts(photos)  # photos of each tag that are not taken away
    groups: dict[str, list[int]] = {}
    for position, photo in enumerate(photos):
        rarest = min(photo.tags, key=lambda tag: (left[tag], tag), default="")
        groups.setdefault(rarest, []).append(position)
    generator, checked = np.random.default_rng(seed), set[int]()
    for _, members in sorted(groups.items()):
        wanted = max(round(share * len(members)), 1) if share and len(members) > 1 else 0
        for position in generator.permutation(members)[:wanted].tolist():
            if all(left[tag] > 1 for tag in photos[position].tags):
                checked.add(position)
                for tag in photos[position].tags:
                    left[tag] -= 1
    return (
        [photo for position, photo in enumerate(photos) if position not in checked],
        [photo for position, photo in enumerate(photos) if position in checked],
    )


def to_records(photos: Iterable[TaggedPhoto], vocabulary: Vocabulary) -> list[Record]:
    """The photos as training records, with tags as positions in ``vocabulary``; synonyms count as their tag.

    Raises:
        InputError: If a tag is none of the vocabulary's.
    """
    rows = name_to_rows(vocabulary)
    records = []
    for photo in photos:
        if unknown := next((tag for tag in photo.tags if tag not in rows), None):
            raise InputError(f"tag {unknown!r} of {photo.path} is not in the vocabulary; add it, or leave it out")
        ids = dict.fromkeys(row for tag in photo.tags for row in rows[tag])
        records.append(Record(image_path=photo.path, tag_ids=tuple(ids)))
    return records


def name_to_rows(vocabulary: Vocabulary) -> dict[str, tuple[int, ...]]:
    """Rows of every name and synonym; a name goes before a synonym of another tag."""
    rows: dict[str, tuple[int, ...]] = {}
    for position, words in enumerate(vocabulary.synonyms or ()):
        for word in words:
            rows.setdefault(word, (position,))
    return rows | {name: tuple(vocabulary.positions([name])) for name in dict.fromkeys(vocabulary.names)}


def _from_folder(folder: Path) -> dict[str, list[str]]:
    try:
        paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    except OSError as error:
        raise InputError(f"cannot read {folder}: {error}") from error
    beside = {path: path.with_suffix(".txt") for path in paths}
    names = {path: path.relative_to(folder).as_posix() for path in paths}
    if any(text.is_file() for text in beside.values()):
        return {names[path]: _lines(text) for path, text in beside.items()}
    loose = next((path for path in paths if path.parent == folder), None)
    if loose is not None:
        raise InputError(f"{loose} has no tag; put it into a folder named for its tag, or a text file beside it")
    return {name: [_checked(PurePosixPath(name).parts[0], str(path.parent))] for path, name in names.items()}


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        return []
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise FormatError(f"{path} is not UTF-8: {error}") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error}") from error
    return [_checked(line.strip(), f"{path}, line {n}") for n, line in enumerate(lines, 1) if line.strip()]


def _from_table(path: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for image, tags in _rows(path, csv.DictReader(file, strict=True)):
                found.setdefault(image, []).extend(tags)
    except (csv.Error, UnicodeDecodeError) as error:
        raise FormatError(f"{path} is not a readable CSV file: {error}") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error}") from error
    return found


def _rows(path: Path, reader: csv.DictReader[str]) -> Iterator[tuple[str, list[str]]]:
    columns = reader.fieldnames or ()
    image = next((name for name in _IMAGE_COLUMNS if name in columns), None)
    tags = next((name for name in ("tag", "tags") if name in columns), None)
    if image is None or tags is None:
        wanted = f'"tag" or "tags" and one of {", ".join(_IMAGE_COLUMNS)}'
        raise FormatError(f"{path}, line 1: expected the columns {wanted}, got {', '.join(columns) or 'none'}")
    for row in reader:
        yield _row(row, image, tags, where=f"{path}, line {reader.line_num}")


def _row(row: Mapping[str | None, str | None], image: str, tags: str, *, where: str) -> tuple[str, list[str]]:
    name, cell = (row.get(image) or "").strip(), row.get(tags)
    if not name or cell is None or None in row:
        raise FormatError(f"{where}: expected a photo and its tags, got {dict(row)!r:.100}")
    separator = next((mark for mark in _SEPARATORS if mark in cell), None) if tags == "tags" else None
    words = [cell] if separator is None else cell.split(separator)
    return name.replace("\\", "/"), [_checked(word.strip(), where) for word in words if word.strip()]


def _checked(tag: str, where: str) -> str:
    if problem := tag_problem(tag):
        raise FormatError(f"{where}: a tag {problem}")
    return tag
