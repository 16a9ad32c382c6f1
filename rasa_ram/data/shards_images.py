"""The image files that records name: found inside one folder, bounded, and told by their first bytes."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO

from rasa.io.images import file_format
from rasa_ram.data.manifest_faults import RowError
from rasa_ram.data.records import Record

# A photo of 200 megapixels as PNG; more is no training image.
MAX_IMAGE_BYTES = 256 * 2**20


def read_images_from(folder: Path, *, check: Callable[[IO[bytes]], None] | None = None) -> Callable[[Record], bytes]:
    """A function that reads the image of a record from ``folder``, and nothing outside it.

    Args:
        folder: What ``image_path`` is relative to.
        check: Called with each image as a file, to refuse it, such as :func:`rasa_ram.data.check.check_header`.
    """

    def read(record: Record) -> bytes:
        path = image_file(record, folder)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise RowError("broken-image", f"cannot read {path}: {error.strerror}") from error
        if check is not None:
            check(io.BytesIO(data))
        return data

    return read


def image_file(record: Record, folder: Path) -> Path:
    """Where a record's image is.

    Raises:
        RowError: If that is outside ``folder``, there is no such file, or it is too long.
    """
    pure = PurePosixPath(record.image_path.replace("\\", "/"))
    if pure.is_absolute() or ".." in pure.parts or Path(record.image_path).is_absolute():
        raise RowError("outside-folder", f"image_path leads out of {folder}")
    path = Path(folder) / record.image_path
    try:
        status = os.stat(path)  # noqa: PTH116  (14 million times)
    except (OSError, ValueError) as error:  # a path with a zero byte is a ValueError
        why = getattr(error, "strerror", None) or error
        raise RowError("missing-image", f"there is no image {path}: {why}") from error
    if not stat.S_ISREG(status.st_mode):
        raise RowError("broken-image", f"{path} is no plain file")
    if not 0 < status.st_size <= MAX_IMAGE_BYTES:
        raise RowError("broken-image", f"{path} has {status.st_size} bytes, expected 1 to {MAX_IMAGE_BYTES}")
    return path


def image_suffix(data: bytes, *, name: str) -> str:
    """The ending that a file with these bytes should have, without the period.

    Raises:
        ImageError: If they are of a format that is not read, or their header is broken.
    """
    kind, _ = file_format(io.BytesIO(data), name=name)
    return "jpg" if kind == "JPEG" else kind.lower()
