"""The folder of a dataset: it appears whole or not at all, and a reader never leaves it."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from rasa.errors import FormatError, ImageError, InputError, OutputError, RasaError
from rasa.formats.samples import Sample, WriteReport
from rasa.io._decode import MAX_FILE_BYTES, MAX_PIXELS, decode_image, file_format

# How an image that is turned is written again: without loss where the format can, else with full colour.
_AGAIN: dict[str, dict[str, Any]] = {
    "AVIF": {"quality": 95, "subsampling": "4:4:4"},
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"lossless": True},
}
_LOSSY = {"AVIF", "JPEG"}


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Fill a folder that appears under its name only once it is whole.

    Args:
        folder: Where the dataset goes; absent or empty. Missing parents are made.

    Yields:
        A temporary folder beside it, to be filled. It is renamed when the block ends, and removed if the block fails.

    Raises:
        OutputError: If ``folder`` is a file or holds something, or anything in the block cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as parent:
        ...     with new_folder(Path(parent) / "dataset") as part:
        ...         _ = (part / "labels.txt").write_text("dog")
        ...     sorted(path.name for path in Path(parent).iterdir())
        ['dataset']
    """
    target = Path(os.path.abspath(folder))  # noqa: PTH100  (keeps links, which resolve() follows)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        _check_free(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(target)
        part.mkdir()
        yield part
        _check_free(target)
        if target.exists():
            target.rmdir()
        part.rename(target)
    except RasaError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error}; choose a writable folder with room") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def samples_to_write(samples: Iterable[Sample], report: WriteReport) -> Iterator[Sample]:
    """The samples that have labels; images that failed are counted as lost, the others as written."""
    for sample in samples:
        if not sample.result.ok:
            report.lose("images that failed")
            continue
        report.images += 1
        yield sample


def save_image(folder: Path, sample: Sample, *, report: WriteReport, under: str = "images") -> None:
    """Write the image file of ``sample`` to ``folder / under / sample.file_name``.

    The bytes are those that were found. Only an image that its EXIF data turns is written upright, in the same
    format, because many readers of datasets ignore the turn and the labels are for the upright image.

    Args:
        folder: Of the dataset.
        sample: Its image is counted as lost where it has none.
        report: Counts what is lost.
        under: Folder of the images within ``folder``, such as ``"images/train"``; made if it is not there.

    Raises:
        InputError: If the folder holds a file of that name already.
        ImageError: If an image that is to be turned cannot be decoded.
        OSError: If it cannot be written; :func:`new_folder` makes an OutputError of it.
    """
    data = image_bytes(sample, report=report)
    if data is None:
        return
    path = folder / under / sample.file_name
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("xb") as file:
            file.write(data)
    except FileExistsError as error:
        raise InputError(f"two images are called {sample.file_name!r}; give each a file_name of its own") from error


def image_bytes(sample: Sample, *, report: WriteReport) -> bytes | None:
    """The image file of ``sample``, as :func:`save_image` writes it; None and counted as lost where there is none.

    Raises:
        ImageError: If an image that is to be turned cannot be decoded.
    """
    if sample.read_bytes is None:
        report.lose("image files that were not given")
        return None
    return _upright(sample.read_bytes(), sample.result.name, report)


def inside(folder: Path, name: str, *, where: str) -> Path:
    r"""The path of ``name`` in ``folder``, as a file of untrusted origin states it.

    Args:
        folder: That must not be left.
        name: Relative path, with ``/`` or ``\``.
        where: What states the name, for the error: a file and the place in it.

    Raises:
        FormatError: If the name is empty or absolute, or leads out of ``folder``, by ``..`` or by a link.
    """
    parts = name.replace("\\", "/").split("/") if isinstance(name, str) else []
    plain = all(part not in {"", ".."} and ":" not in part and "\0" not in part for part in parts)
    path = folder.joinpath(*parts) if parts and plain else None
    if path is None or not path.resolve().is_relative_to(folder.resolve()):
        raise FormatError(f"{where}: {name!r} is no path inside {folder}; use relative paths without '..'")
    return path


def plain_name(name: str) -> str:
    """A file name without folders, distinct where ``name`` is: ``"a/1.jpg"`` becomes ``"a__1.jpg"``."""
    return name.replace("\\", "/").replace("/", "__")


def image_reader(path: Path) -> Callable[[], bytes] | None:
    """What ``Sample.read_bytes`` of the image at ``path`` is: None where there is no such file."""
    return partial(read_bounded, path) if path.is_file() else None


def read_bounded(path: Path, *, limit: int = MAX_FILE_BYTES) -> bytes:
    """The bytes of a file.

    Raises:
        ImageError: If it cannot be read or has more than ``limit`` bytes.
    """
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise ImageError(f"cannot read {path}: {error.strerror}") from error
    if len(data) > limit:
        raise ImageError(f"{path} has more than {limit} bytes")
    return data


def _check_free(target: Path) -> None:
    if target.is_dir():
        if next(target.iterdir(), None) is not None:
            raise OutputError(f"{target} is not empty; remove what is there, or choose another folder")
    elif target.exists() or target.is_symlink():
        raise OutputError(f"{target} is a file; choose another folder")


def _remove_stale(target: Path) -> None:
    # Parts of killed writers; a part whose process lives may be growing.
    for part in target.parent.glob(f".{_escaped(target.name)}.*.part"):
        pid = part.name[len(target.name) + 2 : -len(".part")]
        if pid.isdecimal() and (int(pid) == os.getpid() or not _lives(int(pid))):
            shutil.rmtree(part, ignore_errors=True)


def _escaped(name: str) -> str:
    return "".join(f"[{character}]" if character in "*?[" else character for character in name)


def _lives(pid: int) -> bool:
    if os.name != "posix":
        return True  # elsewhere os.kill(pid, 0) ends the process
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _upright(data: bytes, name: str, report: WriteReport) -> bytes:
    try:
        kind, orientation = file_format(io.BytesIO(data), name=name)
    except ImageError:
        return data  # what rasa cannot read, others may
    if orientation not in range(2, 9):
        return data
    image = decode_image(io.BytesIO(data), name=name, max_pixels=MAX_PIXELS)
    kept = {key: image.info[key] for key in ("icc_profile", "transparency") if image.info.get(key) is not None}
    file = io.BytesIO()
    # A new image has none of the metadata that would turn it a second time.
    image.info = {}
    image.save(file, format=kind, **_AGAIN.get(kind, {}), **kept)
    report.lose("image files that were turned upright and encoded again", kind in _LOSSY)
    return file.getvalue()
