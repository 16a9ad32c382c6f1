"""Where the images of a benchmark are: its names may lack endings and have folders that the user's copy has not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from rasa.errors import ImageError, InputError
from rasa.io.images import to_image
from rasa.types import Image
from rasa_ram.evaluation.benchmarks.benchmark import check_image_name

_ENDINGS = ("", ".jpg", ".jpeg", ".png", ".JPEG", ".JPG", ".webp")


class BenchmarkImages:
    """The folder of a benchmark's images; a :class:`rasa_ram.images.ImageReader`.

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

    def _candidates(self, image: str) -> Iterator[Path]:
        for name in dict.fromkeys((image, PurePosixPath(image).name)):
            for ending in _ENDINGS:
                yield self.folder / f"{name}{ending}"
