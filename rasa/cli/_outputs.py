"""The folder that ``rasa run`` fills: annotated pictures, masks, results.jsonl.

Every file appears under its name only once it is whole.
"""

from __future__ import annotations

import os
import tempfile
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import PIL.Image

from rasa._files import write_atomically
from rasa.errors import DependencyError, OutputError
from rasa.pipeline import Processed

# Formats without loss stay without loss; all others become JPEG, whatever they are called.
_LOSSLESS = {".bmp", ".png", ".tif", ".tiff"}
_JPEG = {"quality": 92, "subsampling": 0}  # labels are thin coloured strokes, which colour subsampling smears
_JPEG_SIDE = 65_500  # pixels; libjpeg writes no longer ones
_MAX_NAME_BYTES = 200  # of the 255 that file systems allow, so that the name of the temporary file fits too


@dataclass(frozen=True, slots=True)
class Output:
    """Where the files of one photo go; paths relative to the folder, None for what is not wanted."""

    picture: str | None
    mask: str | None


class OutputFolder:
    """A folder for the pictures, masks and results of one run.

    Args:
        folder: Made if it is not there.
        sources: The photos, in order.
        pictures: Whether annotated pictures are wanted.
        masks: Whether label maps are wanted.
        compare: Whether a picture shows the photo beside its annotation.
    """

    def __init__(self, folder: Path, sources: Sequence[Path], *, pictures: bool, masks: bool, compare: bool) -> None:
        self.folder, self.results = folder, folder / "results.jsonl"
        self._pictures, self._masks, self._compare = pictures, masks, compare
        self.outputs = [
            Output(
                f"annotated/{stem}{_picture_suffix(source)}" if pictures else None,
                f"masks/{stem}.png" if masks else None,
            )
            for source, stem in zip(sources, distinct_stems(sources), strict=True)
        ]

    def prepare(self, *, overwrite: bool) -> None:
        """Make the folders, and see that nothing is lost and all can be written, before any work is done.

        Raises:
            DependencyError: If the packages for pictures are not installed.
            OutputError: If a file is there already and ``overwrite`` is not given, or the folder is not writable.
        """
        self._import_draw()
        names = [name for output in self.outputs for name in (output.picture, output.mask) if name is not None]
        if not overwrite:
            for path in (self.results, *(self.folder / name for name in names)):
                if os.path.lexists(path):
                    raise OutputError(f"{path} is there already; give --overwrite to replace it, or another --out")
        try:
            for folder in dict.fromkeys([self.folder, *((self.folder / name).parent for name in names)]):
                folder.mkdir(parents=True, exist_ok=True)
                tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            raise OutputError(f"cannot write to {self.folder}: {error.strerror}; give another --out") from error

    def _import_draw(self) -> None:
        # It brings OpenCV and supervision, which `--help` and a run without pictures do without.
        if self._pictures or self._masks:
            try:
                self._draw = import_module("rasa.draw")
            except DependencyError as error:
                raise DependencyError(f"{error}; or give --no-pictures --no-masks") from error

    def write(self, output: Output, done: Processed) -> dict[str, str]:
        """Write the picture and the mask of one photo; none for a photo that failed.

        Returns:
            What was written: ``"picture"`` and ``"mask"`` to paths relative to the folder.

        Raises:
            OutputError: If a file cannot be written.
        """
        image, result = done.image, done.result
        if image is None or not result.ok:
            return {}
        files = {}
        if output.picture is not None:
            drawn = self._draw.side_by_side(image, result) if self._compare else self._draw.annotate(image, result)
            name = output.picture if max(drawn.size) <= _JPEG_SIDE else str(Path(output.picture).with_suffix(".png"))
            files["picture"] = self._save(name, PIL.Image.fromarray(drawn.pixels))
        if output.mask is not None and result.instances.masks is not None:
            files["mask"] = self._save(output.mask, self._draw.mask_map(result))
        return files

    def _save(self, name: str, picture: Any) -> str:
        path = self.folder / name
        jpeg = path.suffix == ".jpg"
        options = {"format": "JPEG", **_JPEG} if jpeg else {"format": "PNG"}
        with write_atomically(path, remedy="free some room or give another --out") as file:
            picture.save(file, **options)
        return name


def distinct_stems(sources: Iterable[Path]) -> list[str]:
    """One file name without suffix per photo: its own, with ``-2``, ``-3``, ... where an earlier photo took it.

    Names are the same to a file system that folds case or normalises accents, so they are the same here.
    What is no UTF-8 becomes a replacement sign, since results.jsonl has to spell the name.
    """
    taken: set[str] = set()
    stems = []
    for source in sources:
        own = os.fsencode(source.stem).decode("utf-8", "replace")
        number, stem = 1, _fitting(own, "")
        while (key := unicodedata.normalize("NFC", stem).casefold()) in taken:
            number += 1
            stem = _fitting(own, f"-{number}")
        taken.add(key)
        stems.append(stem)
    return stems


def _fitting(stem: str, ending: str) -> str:
    while len(os.fsencode(stem + ending)) > _MAX_NAME_BYTES:
        stem = stem[:-1]
    return stem + ending


def _picture_suffix(source: Path) -> str:
    return ".png" if source.suffix.lower() in _LOSSLESS else ".jpg"
