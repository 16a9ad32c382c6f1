"""Visual Genome's annotation files as records: region descriptions as captions, objects and attributes as tags."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from rasa.errors import InputError
from rasa_ram.data.manifest_faults import OnBad, ReadReport, RowError
from rasa_ram.data.manifest_json_lists import read_lists
from rasa_ram.data.manifest_rows import RowCheck, caption_problem
from rasa_ram.data.manifest_tags import TagFinder
from rasa_ram.data.records import Record
from rasa_ram.vocabulary import Vocabulary


def read_visual_genome(
    folder: Path,
    *,
    vocabulary: Vocabulary | None = None,
    on_bad: OnBad = "stop",
    report: ReadReport | None = None,
) -> Iterator[Record]:
    """Records of ``region_descriptions.json``, in its order; read as a stream.

    ``image_data.json`` says where the images are, such as ``VG_100K_2/1.jpg``; without it they are called ``1.jpg``.
    With a vocabulary, ``objects.json`` and ``attributes.json``, as far as they are there, give the tags.

    Args:
        folder: Holds the files. Of the tags and paths of 108,077 images some 60 MB are in memory.
        vocabulary: What the ids of the tags are positions in. A name without a tag is counted in
            ``report.unmapped``, once per object.
        on_bad: ``"stop"`` at an entry that breaks the format, or ``"skip"`` and count it. An empty description loses
            only itself, and an image all of whose descriptions are bad is kept without captions.
        report: Counts what was read and what was skipped.

    Raises:
        FormatError: At a bad entry, unless they are skipped.
        InputError: If a file cannot be read, or there is no ``region_descriptions.json``.
    """
    report = ReadReport() if report is None else report
    folder = Path(folder)
    regions = folder / "region_descriptions.json"
    if not regions.is_file():
        raise InputError(
            f"there is no {regions}; unpack region_descriptions.json.zip of Visual Genome 1.2 or 1.4 there"
        )

    def check(name: str) -> RowCheck:
        return RowCheck(source=str(folder / name), on_bad=on_bad, report=report)

    paths = _paths(folder / "image_data.json", check("image_data.json"))
    tags = None if vocabulary is None else _tags(folder, check, TagFinder(vocabulary, report))
    return _records(regions, check(regions.name), paths, tags)


def _records(
    regions: Path, check: RowCheck, paths: dict[int, str], tags: dict[int, tuple[int, ...]] | None
) -> Iterator[Record]:
    for _, number, item in read_lists(regions, check):
        try:
            image = _image_id(item, "id")
            captions = tuple(_phrases(item, image, number, check))
        except RowError as error:
            check.fail(error, number)
            continue
        check.report.records += 1
        yield Record(
            image_path=paths.get(image, f"{image}.jpg"),
            captions=captions,
            parsed_ids=((),) * len(captions),
            tag_ids=None if tags is None else tags.get(image, ()),
        )


def _phrases(item: dict[str, Any], image: int, number: int, check: RowCheck) -> Iterator[str]:
    for region in _list(item, "regions"):
        phrase = region.get("phrase") if isinstance(region, dict) else None
        problem = caption_problem(phrase)
        if problem is None:
            yield phrase.strip()  # type: ignore[union-attr]  # a string, or there would be a problem
        else:
            check.fail(RowError(problem.kind, f"a description {problem}", image=str(image)), number)


def _paths(path: Path, check: RowCheck) -> dict[int, str]:
    """Folder and name of each image, from its address."""
    paths = {}
    for _, number, item in read_lists(path, check) if path.is_file() else ():
        try:
            image = _image_id(item, "image_id")
            paths[image] = _path_in(item.get("url"), image)
        except RowError as error:
            check.fail(error, number)
    return paths


def _path_in(address: object, image: int) -> str:
    parts = PurePosixPath(str(address or "")).parts[-2:]
    if len(parts) < 2 or any(part in (".", "..") or not part.isprintable() for part in parts):
        raise RowError("no-image", f"image {image} has the address {ascii(address)[:80]}")
    return "/".join(parts)


def _tags(folder: Path, check: Callable[[str], RowCheck], finder: TagFinder) -> dict[int, tuple[int, ...]]:
    tags: dict[int, tuple[int, ...]] = {}
    for kind in ("objects", "attributes"):
        path, own = folder / f"{kind}.json", check(f"{kind}.json")
        for _, number, item in read_lists(path, own) if path.is_file() else ():
            try:
                image = _image_id(item, "image_id", "id")
                ids = finder.ids(label for entry in _list(item, kind) for label in _labels(entry, kind))
            except RowError as error:
                own.fail(error, number)
            else:
                tags[image] = tuple(dict.fromkeys(tags.get(image, ()) + ids))
    return tags


def _labels(entry: Any, kind: str) -> list[str]:
    key = "names" if kind == "objects" else "attributes"
    labels = entry.get(key, []) if isinstance(entry, dict) else None  # most objects have no attributes
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise RowError("wrong-type", f"{key!r} must be a list of strings, got {ascii(labels)[:80]}")
    return labels


def _list(item: dict[str, Any], key: str) -> list[Any]:
    value = item.get(key)
    if not isinstance(value, list):
        raise RowError("wrong-type", f"{key!r} must be a list, got {ascii(value)[:80]}")
    return value


def _image_id(item: Any, *keys: str) -> int:
    for key in keys:
        if isinstance(item, dict) and type(item.get(key)) is int:
            return int(item[key])
    raise RowError("wrong-type", f"expected an object with a whole number {keys[0]!r}, got {ascii(item)[:80]}")
