"""Frames of videos as images, by OpenCV.

A frame is found by counting from the start, never by seeking, which is off by some frames with many codecs. Its
bytes are a PNG of its pixels; OpenCV of another version may decode other ones, and then the frame has changed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from rasa.errors import DependencyError, ImageError, InputError
from rasa.io.images import MAX_PIXELS, printable
from rasa.labelling.handles import Handles
from rasa.labelling.locators import Locator

SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv"})
DEFAULT_SECONDS = 1.0


def check_step(every: int | None, seconds: float | None) -> None:
    """Check which frames are wanted.

    Raises:
        InputError: If both are given, or one is not above 0.
    """
    if every is not None and seconds is not None:
        raise InputError("every and seconds both say which frames of a video are taken; give one of them")
    if every is not None and (isinstance(every, bool) or not isinstance(every, int) or every < 1):
        raise InputError(f"every must be a whole number of frames of at least 1, got {every!r}")
    if seconds is not None and not (isinstance(seconds, int | float) and 0 < seconds < math.inf):
        raise InputError(f"seconds must be a number above 0, got {seconds!r}")


def list_frames(path: str, every: int | None, seconds: float | None) -> Iterator[Locator]:
    """Every n-th frame of a video, or one every so many seconds by its frame rate; one a second unless given.

    Raises:
        ImageError: If it cannot be opened, has no frames, or does not state its frame rate and ``every`` is None.
        DependencyError: If OpenCV is not installed.
    """
    at = str(Path(path).absolute())
    reader = _Reader(at)
    try:
        step = every or reader.step(DEFAULT_SECONDS if seconds is None else seconds)
        while reader.grab():
            if reader.position % step == 0:
                yield Locator("video", at, "", reader.position)
        if reader.position < 0:
            raise ImageError(f"video {printable(path)!r} has no frame that can be read")
    finally:
        reader.close()


def read_frame(locator: Locator) -> bytes:
    """One frame as PNG; cheap for the frame after the last one read.

    Raises:
        ImageError: If the video is gone or damaged, or has no such frame.
        DependencyError: If OpenCV is not installed.
    """
    reader = _reader(locator.at)
    if reader.position > locator.position:
        _readers.drop(locator.at)
        reader = _reader(locator.at)
    while reader.position < locator.position:
        if not reader.grab():
            _readers.drop(locator.at)
            raise ImageError(f"video {printable(locator.at)!r} has no frame {locator.position}; it is cut off")
    return reader.png()


def _reader(path: str) -> _Reader:
    try:
        return _readers.get(path)
    except OSError as error:
        raise ImageError(f"video {printable(path)!r} cannot be opened: {error.strerror}") from error


class _Reader:
    """An open video; ``position`` is the number of the frame that was grabbed last, -1 before the first."""

    def __init__(self, path: str) -> None:
        try:
            self._cv2: Any = import_module("cv2")
        except ImportError as error:
            raise DependencyError('videos need the package "opencv-python"; install the extra "lite"') from error
        self._name = printable(path)
        try:
            # FFmpeg alone: others take a name such as %03d.avi for a pattern of files.
            self._capture = self._cv2.VideoCapture(path, self._cv2.CAP_FFMPEG)
        except (UnicodeError, self._cv2.error) as error:
            raise ImageError(f"video {self._name!r} cannot be opened: {error}") from error
        if not self._capture.isOpened():
            raise ImageError(f"video {self._name!r} cannot be opened; it is damaged or of an unknown format")
        width, height = (int(self._capture.get(side)) for side in (3, 4))  # CAP_PROP_FRAME_WIDTH and _HEIGHT
        if width * height > MAX_PIXELS:
            self.close()
            raise ImageError(f"video {self._name!r} has frames of {width}x{height}, the limit is {MAX_PIXELS} pixels")
        self.position = -1

    def step(self, seconds: float) -> int:
        rate = float(self._capture.get(self._cv2.CAP_PROP_FPS))
        if not 0 < rate < 1000:
            raise ImageError(f"video {self._name!r} states no frame rate; give every, a number of frames")
        return max(1, round(seconds * rate))

    def grab(self) -> bool:
        found = bool(self._capture.grab())
        self.position += found
        return found

    def png(self) -> bytes:
        found, pixels = self._capture.retrieve()
        if not found:
            raise ImageError(f"frame {self.position} of video {self._name!r} cannot be decoded")
        done, data = self._cv2.imencode(".png", pixels, [self._cv2.IMWRITE_PNG_COMPRESSION, 1])
        if not done:
            raise ImageError(f"frame {self.position} of video {self._name!r} cannot be made a PNG")
        return bytes(data)

    def close(self) -> None:
        self._capture.release()


_readers: Handles[_Reader] = Handles(_Reader)
