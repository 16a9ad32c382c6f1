"""Which files are meant: paths, folders and patterns expanded to a list of images."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from rasa.errors import InputError

StrPath = str | os.PathLike[str]

IMAGE_SUFFIXES = frozenset(
    {".avif", ".bmp", ".dib", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".mpo", ".png", ".tif", ".tiff", ".webp"}
)


def find_images(paths: Iterable[StrPath] | StrPath, *, recursive: bool = True) -> list[Path]:
    """Expand files, folders and patterns such as ``photos/**/*.jpg``, each file once.

    A file that is named is taken whatever its suffix. Folders and patterns yield the files
    with one of ``IMAGE_SUFFIXES``, in natural order (``img2`` before ``img10``); names that
    begin with a dot are passed over. Broken links and pipes with such a suffix are
    listed too, so that reading them fails aloud. Linked folders are followed, each once.

    Args:
        paths: What to expand, in this order; one path alone may stand for a list of one.
        recursive: Whether to look into the folders of a folder.

    Raises:
        InputError: If a path does not exist, a pattern matches nothing, a folder may not be
            read, or no image is found at all.
    """
    given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    found: dict[Path, None] = {}
    for path in given:
        found.update(dict.fromkeys(_expand(path, recursive)))
    if not found:
        where = ", ".join(repr(os.fspath(path)) for path in given[:5]) or "an empty list of paths"
        raise InputError(f"no images in {where}; looked for the suffixes {', '.join(sorted(IMAGE_SUFFIXES))}")
    return list(found)


def _expand(given: StrPath, recursive: bool) -> Iterable[Path]:
    path = Path(given)
    if path.is_dir():
        return _walk(path, recursive, seen=set())
    if path.exists() or path.is_symlink():
        return [path]
    pattern = os.fspath(given)
    matches = glob.glob(pattern, recursive=True) if glob.has_magic(pattern) else []  # noqa: PTH207  (absolute patterns)
    if not matches:
        raise InputError(
            f"{pattern!r} does not exist; check the path (the working folder is {os.fspath(Path.cwd())!r})"
        )
    return _from_matches(sorted(map(Path, matches), key=_natural_key), recursive)


def _from_matches(matches: Iterable[Path], recursive: bool) -> Iterator[Path]:
    seen: set[tuple[int, int]] = set()
    for match in matches:
        if match.is_dir():
            yield from _walk(match, recursive, seen)
        elif _is_image_name(match):
            yield match


def _walk(folder: Path, recursive: bool, seen: set[tuple[int, int]]) -> Iterator[Path]:
    try:
        status = folder.stat()
        # A link may lead back to a folder above it.
        if (status.st_dev, status.st_ino) in seen:
            return
        seen.add((status.st_dev, status.st_ino))
        entries = sorted(folder.iterdir(), key=_natural_key)
    except OSError as error:
        raise InputError(f"folder {os.fspath(folder)!r} cannot be read: {error.strerror}") from error
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            if recursive:
                yield from _walk(entry, recursive, seen)
        elif _is_image_name(entry):
            yield entry


def _is_image_name(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES


def _natural_key(path: Path) -> tuple[list[list[str | int]], str]:
    # Splitting by a group alternates text and number, so that like is compared with like.
    parts = [
        [int(piece) if i % 2 else piece for i, piece in enumerate(re.split(r"([0-9]+)", part.casefold()))]
        for part in path.parts
    ]
    return parts, os.fspath(path)
