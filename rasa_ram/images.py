"""Images of records by their paths, decoded as inference decodes them: by :func:`rasa.to_image`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rasa.io.images import MAX_PIXELS, to_image
from rasa.types import Image


class ImageReader(Protocol):
    """Gives the image of a record; where workers read, it must be possible to pickle it."""

    def __call__(self, image_path: str, /) -> Image:
        """The image that a record calls ``image_path``.

        Raises:
            ImageError: If it cannot be read; whoever asked decides whether to go on.
        """
        ...


@dataclass(frozen=True, slots=True)
class ImageFolder:
    """Reads images by their paths relative to ``folder``.

    Attributes:
        folder: Where relative paths begin; an absolute path is read as it stands.
        max_pixels: Largest height times width, checked before decoding.
    """

    folder: str | os.PathLike[str]
    max_pixels: int = MAX_PIXELS

    def __call__(self, image_path: str) -> Image:
        """Read one image, which is called as its file.

        Raises:
            ImageError: If there is no such file, or :func:`rasa.to_image` refuses it.
        """
        return to_image(Path(self.folder) / image_path, max_pixels=self.max_pixels)
