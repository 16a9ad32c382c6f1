"""Labels one shard: decode ahead in threads, models in batches, one row an image, all or nothing.

Every engine calls :meth:`Labeller.label`; what differs is only where the labeller lives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from rasa.errors import ImageError, InputError
from rasa.io.decode_ahead import Decoded, ahead
from rasa.io.images import to_image
from rasa.labelling.board import Died, Outcome, Task
from rasa.labelling.halving import InHalves, free_memory, is_out_of_memory
from rasa.labelling.locks import shard_lock
from rasa.labelling.plan import PlannedImage
from rasa.labelling.recipe import Recipe
from rasa.labelling.store import OK, LabelledRow, failed_rows, is_done, read_shard_with_timings, write_shard
from rasa.runner import Runner, build_seeds
from rasa.types import Failure

Moved = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Settings:
    """What the workers of one run share.

    Attributes:
        folder: The dataset.
        fingerprint: Of the run.
        batch_size: Images that go through the models together.
        decoders: Threads that decode.
        retry_failed: Whether images of finished shards that failed are labelled again.
    """

    folder: Path
    fingerprint: str
    batch_size: int = 8
    decoders: int = 2
    retry_failed: bool = False


class Labeller:
    """A pipeline, built once, that labels shards of a dataset."""

    def __init__(self, recipe: Recipe) -> None:
        """Build the pipeline.

        Raises:
            RasaError: If it cannot be built here.
        """
        pipeline = recipe.build()
        self.provenance = pipeline.provenance
        self._stages = [InHalves(stage) for stage in pipeline.stages]

    def label(self, task: Task, settings: Settings, *, moved: Moved) -> Outcome:
        """Do one task; its shard is written whole, or not at all.

        Args:
            task: What to do.
            settings: Of the run.
            moved: Told how many images of the shard are labelled, after every batch.

        Raises:
            OutputError: If the shard cannot be written.
            FormatError: If its part of the plan is damaged.
        """
        if task.row is not None:
            images = task.shard.images[task.row : task.row + 1]
            return Outcome("row", row=next(self._rows(images, settings)))
        with shard_lock(settings.folder, settings.fingerprint, task.shard) as held:
            if not held:
                return Outcome("taken")
            if is_done(settings.folder, settings.fingerprint, task.shard) and not settings.retry_failed:
                return Outcome("there", images=task.shard.count)
            return self._label_shard(task, settings, moved)

    def _label_shard(self, task: Task, settings: Settings, moved: Moved) -> Outcome:
        """Label all images of a shard, or those that failed where it is done, and write it whole."""
        start, place = perf_counter(), (settings.folder, settings.fingerprint, task.shard)
        images, rows, wanted = task.shard.images, dict[int, LabelledRow](), list(range(task.shard.count))
        if is_done(*place):
            rows, wanted = dict(enumerate(read_shard_with_timings(*place))), failed_rows(*place)
        chosen = [images[position] for position in wanted]
        found = _known_rows(chosen, [task.known[i] for i in wanted]) if task.known else self._rows(chosen, settings)
        for done, (position, row) in enumerate(zip(wanted, found, strict=True), 1):
            rows[position] = row
            if done % settings.batch_size == 0:
                moved(done)
        write_shard(*place, [rows[position] for position in range(len(images))])
        failed = sum(rows[position].status != OK for position in wanted)
        return Outcome("labelled", len(wanted), failed, perf_counter() - start)

    def _rows(self, images: Sequence[PlannedImage], settings: Settings) -> Iterator[LabelledRow]:
        size, seeds = settings.batch_size, build_seeds(None)
        runner = Runner(self._stages, self.provenance, seeds=seeds, batch_size=size, on_error="skip")
        window = 2 * size + settings.decoders
        with (
            ThreadPoolExecutor(settings.decoders, thread_name_prefix="rasa-decode") as pool,
            closing(ahead(read_image, images, pool=pool, window=window)) as decoded,
        ):
            for image, done in zip(images, runner.run(decoded), strict=True):
                # Encoded at once, so that a shard of masks need not fit into memory.
                yield LabelledRow.of(image, done.result)


def _known_rows(images: Sequence[PlannedImage], known: Sequence[LabelledRow | Died]) -> Iterator[LabelledRow]:
    for image, row in zip(images, known, strict=True):
        if isinstance(row, Died):
            yield LabelledRow.failed(image, Failure("worker", "WorkerDied", row.message))
        else:
            yield row


def read_image(image: PlannedImage) -> Decoded:
    """Read and decode one image of the plan; whatever is wrong with it becomes its error, nothing is raised."""
    start = perf_counter()
    try:
        pixels = to_image(image.read(), name=image.path)
    except InputError as error:
        return Decoded(image.path, perf_counter() - start, error=error)
    except Exception as error:  # noqa: BLE001  (a broken file must not end the run, whatever a decoder makes of it)
        if is_out_of_memory(error):
            free_memory()
        wrapped = ImageError(f"image {image.path!r} cannot be read: {type(error).__name__}: {error}")
        return Decoded(image.path, perf_counter() - start, error=wrapped)
    return Decoded(image.path, perf_counter() - start, image=pixels)
