"""What the user points at, as a stream of places where images are: nothing is decoded, and no list is kept."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from rasa.errors import ImageError, InputError
from rasa.io.find import IMAGE_SUFFIXES, StrPath
from rasa.io.images import printable
from rasa.labelling import manifests, video
from rasa.labelling.addresses import is_address
from rasa.labelling.archives import list_tar, list_zip
from rasa.labelling.locators import Locator
from rasa.labelling.objects import IN_MANIFESTS, Entry, list_objects, object_at, protocol_of
from rasa.labelling.ordering import natural_key
from rasa.labelling.video import check_step

_TARS = (".tar", ".tar.gz", ".tgz")
_HOLDERS = frozenset({".tar", ".gz", ".tgz", ".zip"}) | video.SUFFIXES | manifests.SUFFIXES


@dataclass(frozen=True, slots=True)
class Found:
    """One place where an image should be.

    Attributes:
        path: What the user calls it, printable: the path as it was given, or the archive with the member's name.
        locator: Where to read it.
        size: Bytes of the file, archive or video; -1 where that is not known without reading.
        mtime_ns: Time of its last change, nanoseconds, or a number that stands for an object's ETag; -1 where there
            is none.
        error: Why it cannot be read, where listing shows that already; "" otherwise.
    """

    path: str
    locator: Locator
    size: int = -1
    mtime_ns: int = -1
    error: str = ""


@dataclass(frozen=True, slots=True)
class Frames:
    """Which frames of a video are wanted: every n-th, or one every so many seconds; one a second if neither is given.

    Raises:
        InputError: If both are given, or one is not above 0.
    """

    every: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        check_step(self.every, self.seconds)


def find_sources(sources: Iterable[StrPath] | StrPath, frames: Frames | None = None) -> Iterator[Found]:
    """List what ``sources`` hold, in their order; see :func:`rasa.labelling.plan.plan_images`.

    Raises:
        InputError: If there is no source, one does not exist, or a pattern matches nothing.
        FormatError: If a manifest is malformed.
        DependencyError: If the package that an address needs is not installed.
    """
    given = [sources] if isinstance(sources, str | os.PathLike) else list(sources)
    if not given:
        raise InputError("nothing to label: name a folder, a pattern, a manifest, an archive or a video")
    for source in given:
        yield from _expand(os.fspath(source), frames or Frames())


def _expand(source: str, frames: Frames) -> Iterator[Found]:
    if _is_folder(source):
        return _walk(source)
    if os.path.lexists(source):
        return _listed(source, frames)
    if is_address(source):
        return iter([_found(source, Path())])
    if protocol_of(source):
        return _objects(source)
    matches = glob.glob(source, recursive=True) if glob.has_magic(source) else []  # noqa: PTH207  (absolute patterns)
    if not matches:
        where = "; check the path" if not glob.has_magic(source) else ": the pattern matches nothing"
        raise InputError(f"{printable(source)!r} does not exist{where} (the working folder is {str(Path.cwd())!r})")
    ordered = sorted(matches, key=lambda match: [natural_key(part) for part in Path(match).parts])
    return (found for match in ordered if _is_source(match) for found in _expand(match, frames))


def _objects(address: str) -> Iterator[Found]:
    if Path(address).suffix.lower() in _HOLDERS:
        raise InputError(f"{printable(address)!r}: archives, videos and manifests are read from a disk only; copy it")
    return map(_found_object, list_objects(address))


def _found_object(entry: Entry) -> Found:
    locator = Locator("object", entry.address, size=entry.size)
    return Found(printable(entry.address), locator, entry.size, entry.mark, entry.error)


def _is_source(match: str) -> bool:
    """Whether a pattern means it: no hidden file, and nothing that is no image and holds none."""
    path = Path(match)
    suffix = path.suffix.lower()
    return not path.name.startswith(".") and (suffix in IMAGE_SUFFIXES | _HOLDERS or _is_folder(match))


def _listed(path: str, frames: Frames) -> Iterator[Found]:
    """The images of one file, which is one itself unless its suffix says otherwise."""
    name = path.lower()
    if name.endswith(_TARS):
        return _inside(path, list_tar(path))
    if name.endswith(".zip"):
        return _inside(path, list_zip(path))
    if name.endswith(tuple(video.SUFFIXES)):
        return _inside(path, video.list_frames(path, frames.every, frames.seconds))
    if name.endswith(tuple(manifests.SUFFIXES)):
        return _manifest(path)
    return iter([found_file(path)])


def _inside(path: str, locators: Iterator[Locator]) -> Iterator[Found]:
    """What an archive or video holds; a damaged one gives what comes before the damage, and a row for that."""
    outer = found_file(path)
    try:
        for locator in locators:
            inner = f"frame {locator.position}" if locator.kind == "video" else printable(locator.member)
            yield replace(outer, path=f"{outer.path}::{inner}", locator=locator)
    except ImageError as error:
        yield replace(outer, error=str(error))


def _manifest(path: str) -> Iterator[Found]:
    try:
        for number, text in enumerate(manifests.read_manifest(path), start=1):
            if text:
                yield _found(text, Path(path).parent)
            else:
                row, locator = (
                    f"{printable(path)}::row {number}",
                    Locator("file", str(Path(path).absolute()), "", number),
                )
                yield Found(row, locator, error=f"{row} has neither path nor url")
    except OSError as error:
        raise InputError(f"{printable(path)!r} cannot be read: {error.strerror or error}") from error


def _found(text: str, folder: Path) -> Found:
    if is_address(text):
        return Found(printable(text), Locator("url", text))
    if protocol := protocol_of(text):
        if protocol in IN_MANIFESTS:
            return _found_object(object_at(text))
        error = f"{printable(text)!r}: a manifest may not name {protocol}://, only {', '.join(sorted(IN_MANIFESTS))}"
        return Found(printable(text), Locator("object", text), error=error)
    return found_file(str(folder / text))


def found_file(path: str) -> Found:
    """The place of one file; that it is missing or no file shows when it is read."""
    locator = Locator("file", str(Path(path).absolute()))
    try:
        status = Path(path).stat()
    except (OSError, ValueError):
        return Found(printable(path), locator)
    return Found(printable(path), locator, status.st_size, status.st_mtime_ns)


def _walk(folder: str) -> Iterator[Found]:
    """Files with the suffix of an image below ``folder``, each linked folder once."""
    seen: set[tuple[int, int]] = set()
    # One level each: only names are kept, and folders may be nested deeper than Python recurses.
    levels = [(folder, iter([""]))]
    while levels:
        above, names = levels[-1]
        name = next(names, None)
        if name is None:
            levels.pop()
            continue
        path = os.path.join(above, name) if name else above  # noqa: PTH118  (a Path a file takes half of the time)
        if not _is_folder(path):
            yield found_file(path)
            continue
        try:
            levels.append((path, iter(_wanted_names(path, seen))))
        except OSError as error:
            reason = f"folder {printable(path)!r} cannot be read: {error.strerror}; change its permissions"
            yield Found(printable(path), Locator("file", str(Path(path).absolute())), error=reason)


def _wanted_names(folder: str, seen: set[tuple[int, int]]) -> list[str]:
    status = Path(folder).stat()
    # A link may lead back to a folder above it.
    if (status.st_dev, status.st_ino) in seen:
        return []
    seen.add((status.st_dev, status.st_ino))
    with os.scandir(folder) as entries:
        return sorted((entry.name for entry in entries if _is_wanted(entry)), key=natural_key)


def _is_wanted(entry: os.DirEntry[str]) -> bool:
    if entry.name.startswith("."):
        return False
    # Images are most of it, and of those nothing but the name is asked.
    return os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES or _is_folder(entry.path)  # noqa: PTH122


def _is_folder(path: str) -> bool:
    # The method of Path raises for a link to itself, and for what may not be looked at.
    return os.path.isdir(path)  # noqa: PTH112
