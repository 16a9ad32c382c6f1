"""Images of records, read ahead by a few threads; what cannot be read is a failure of its record alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from rasa.errors import ContractError, ImageError
from rasa.types import Failure, Image
from rasa_ram.data.records import Record
from rasa_ram.images import ImageReader

Batch = list[tuple[Record, Image | Failure]]


def read_batches(records: Sequence[Record], images: ImageReader, *, batch_size: int, readers: int) -> Iterator[Batch]:
    """The records with their images, in order, ``batch_size`` at a time; the next batch is read meanwhile.

    Args:
        records: N records.
        images: Called from ``readers`` threads at once.
        batch_size: Records of a batch.
        readers: Threads.

    Raises:
        ContractError: If ``images`` gives something else than an image.
    """
    chunks = [records[start : start + batch_size] for start in range(0, len(records), batch_size)]
    with ThreadPoolExecutor(readers) as pool:

        def submit(chunk: Sequence[Record]) -> list[Future[Image | Failure]]:
            return [pool.submit(_read, images, record.image_path) for record in chunk]

        ahead = submit(chunks[0]) if chunks else []
        for number, chunk in enumerate(chunks):
            now, ahead = ahead, submit(chunks[number + 1]) if number + 1 < len(chunks) else []
            yield [(record, future.result()) for record, future in zip(chunk, now, strict=True)]


def _read(images: ImageReader, path: str) -> Image | Failure:
    try:
        image = images(path)
    except (ImageError, OSError) as error:
        return Failure("decode", type(error).__name__, str(error))
    if not isinstance(image, Image):
        raise ContractError(f"images({path!r}) must give a rasa.types.Image, got {type(image).__name__}")
    return image
