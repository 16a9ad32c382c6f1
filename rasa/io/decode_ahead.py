"""Decode images in threads, a bounded number of them ahead of whoever consumes them."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter
from typing import Any, TypeVar

from rasa.errors import InputError
from rasa.io.images import to_image
from rasa.types import Image

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """What became of one source.

    Attributes:
        name: What results call the image.
        seconds: Time that reading and decoding took.
        image: None if it could not be read.
        error: Why not; None if it could.
    """

    name: str
    seconds: float
    image: Image | None = None
    error: InputError | None = None


def decode(source: Any, *, index: int | None = None) -> Decoded:
    """Read one source; a broken one becomes a ``Decoded`` with an error, nothing is raised for it.

    Args:
        source: Anything that :func:`rasa.io.images.to_image` reads.
        index: Position in a list, which names a source that has no name of its own.
    """
    name = _name_of(source, index)
    start = perf_counter()
    try:
        image = to_image(source, name=name)
    except InputError as error:
        return Decoded(name, perf_counter() - start, error=error)
    return Decoded(name, perf_counter() - start, image=image)


def decode_ahead(sources: Iterable[Any], pool: ThreadPoolExecutor, *, window: int) -> Generator[Decoded]:
    """Decode ``sources`` in ``pool``, in order, at most ``window`` ahead of the consumer.

    Closing the iterator cancels what has not begun.
    """
    return ahead(lambda item: decode(item[1], index=item[0]), enumerate(sources), pool=pool, window=window)


def ahead(
    work: Callable[[T], Decoded], items: Iterable[T], *, pool: ThreadPoolExecutor, window: int
) -> Generator[Decoded]:
    """``work`` on each of ``items`` in ``pool``, in order, at most ``window`` ahead of the consumer.

    Closing the iterator cancels what has not begun.
    """
    waiting: deque[Future[Decoded]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= window:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def _name_of(source: Any, index: int | None) -> str:
    if isinstance(source, Image):
        return source.name
    if isinstance(source, str | os.PathLike):
        # Names that are no valid unicode stay printable.
        return os.fsencode(source).decode("utf-8", errors="backslashreplace")
    filename = getattr(source, "filename", None) or getattr(source, "name", None)
    if isinstance(filename, str) and filename:
        return filename
    return "image" if index is None else f"image-{index}"
