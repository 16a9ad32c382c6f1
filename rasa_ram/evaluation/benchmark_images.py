"""Where the images of a benchmark are: its names may lack endings and have folders that the user's copy has not."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from rasa.errors import ImageError, InputError
from rasa.io.images import to_image
from rasa.types import Image
from rasa_ram.evaluation.benchmarks.benchmark import check_image_name

_ENDINGS = ("", ".jpg", ".jpeg", ".png", ".JPEG", ".JPG", ".webp")


class BenchmarkImages:
    """The folder of a benchmark's images; a :class:`rasa_ram.images.ImageReader` that tells when images change.

    Args:
        folder: It.

    Raises:
        InputError: If it is no folder.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise InputError(f"{folder} is no folder of images")
        self.folder = folder

    def __call__(self, image: str) -> Image:
        """Read an image.

        Raises:
            FormatError: If the name leads out of the folder.
            ImageError: If there is no such file, or it cannot be read.
        """
        return to_image(self.path(image))

    def path(self, image: str) -> Path:
        """The file of an image: its name with or without an ending and, failing that, without its folders.

        Raises:
            FormatError: If the name leads out of the folder.
            ImageError: If there is no such file.
        """
        check_image_name(image)
        for candidate in self._candidates(image):
            if candidate.is_file():
                return candidate
        raise ImageError(f"{self.folder} has no image {image!r}, with or without an ending; check the folder")

    def describe(self) -> Mapping[str, Any]:
        """The folder, links followed."""
        return {"folder": str(self.folder.resolve())}

    def stamp(self, images: Sequence[str]) -> str:
        """sha256 of the files' names, sizes and times, of all that a file system notes of a change."""
        digest = hashlib.sha256()
        for image in images:
            digest.update(json.dumps([image, self._state(image)]).encode())
        return digest.hexdigest()

    def _state(self, image: str) -> Sequence[Any] | None:
        try:
            path = self.path(image)
            told = path.stat()
        except (ImageError, OSError):
            return None  # not there, or not for us
        # A copy may keep the time of its content; that of the file itself is then another one.
        return [str(path.relative_to(self.folder)), told.st_size, told.st_mtime_ns, told.st_ctime_ns]

    def _candidates(self, image: str) -> Iterator[Path]:
        for name in dict.fromkeys((image, PurePosixPath(image).name)):
            for ending in _ENDINGS:
                yield self.folder / f"{name}{ending}"
