"""Batches of training samples from WebDataset shards, for sets of millions of images.

    shards = sorted(Path("cc12m").glob("*.tar"))
    loader = ShardLoader(shards, settings=LoaderSettings(batch_size=52, num_tags=4585, workers=8), rank=3, ranks=8)

The shards come in another order in each epoch, and the samples of every ``window`` in a row of that order are mixed,
as a shuffle buffer does. But the position of each is known beforehand, from an index of the tar files: an
interrupted epoch goes on at once at any batch, no image is read that is not shown, and every process has equally many
batches whatever the sizes of the shards. The processes share the window that is read just then, so that together
they read each byte once; on a network disk, choose a window of few shards.
"""  # fmt: skip

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rasa.arrays import IntArray
from rasa.errors import InputError
from rasa_ram.data.loader import check_names
from rasa_ram.data.loader_feed import BatchFeed
from rasa_ram.data.loader_report import BadSamples
from rasa_ram.data.loader_samples import CaptionTexts, LoaderSettings, SampleMaker
from rasa_ram.data.samples import Samples
from rasa_ram.data.sampling import sequential, shuffled_in_windows
from rasa_ram.data.shard_source_index import ShardIndex, ShardItems, index_shards

# Samples that are mixed with each other: four shards as rasa-ram writes them, two of cc12m's.
WINDOW = 20_000


class ShardLoader:
    """A :class:`BatchSource` of tar shards; see :class:`TrainingLoader` for what its batches depend on.

    Args:
        shards: Paths of uncompressed tar files, or their index; the same list in the same order for each process.
        settings: What to make of them; ``order`` is ``"shuffled"`` or ``"sequential"``.
        captions: For models with a captioner; None leaves that part out.
        window: Samples that are mixed with each other.
        rank: Number of this process, from 0.
        ranks: Processes that share each epoch.

    Attributes:
        bad: What was left out so far: counts, and examples by name. Each kind is warned of once.

    Raises:
        FormatError: If a shard is broken and ``on_bad`` is ``"stop"``; else its good part is used, with a warning.
        InputError: If a shard cannot be read, there are too few samples for a batch, or a setting does not fit.
    """

    def __init__(
        self,
        shards: Sequence[Path] | ShardIndex,
        *,
        settings: LoaderSettings,
        captions: CaptionTexts | None = None,
        window: int = WINDOW,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        check_names(captions, settings)
        index = shards if isinstance(shards, ShardIndex) else index_shards(shards, on_bad=settings.on_bad)
        maker = SampleMaker(ShardItems(index, num_tags=settings.num_tags, on_bad=settings.on_bad), settings, captions)
        self._feed = BatchFeed(maker, _order(index, settings, window), count=len(index), rank=rank, ranks=ranks)
        self.bad: BadSamples = self._feed.bad

    def __len__(self) -> int:
        """Batches of an epoch, the same for every process; what is left over at the end is dropped."""
        return len(self._feed)

    def batches(self, epoch: int, *, first: int = 0) -> Iterator[Samples]:
        """The batches of ``epoch``, counted from 0, beginning with number ``first``. One epoch is read at a time.

        Raises:
            InputError: If ``epoch`` or ``first`` is out of range; at a batch, if a sample is bad and ``on_bad`` is
                ``"stop"``, or nearly all are bad.
            WorkerError: At a batch, if a worker process died.
        """
        return self._feed.batches(epoch, first=first)

    def close(self) -> None:
        """End the worker processes, which otherwise stay for the next epoch; reading on starts them again."""
        self._feed.close()


def _order(index: ShardIndex, settings: LoaderSettings, window: int) -> Callable[[int], IntArray]:
    if settings.order == "class_balanced":
        raise InputError("class_balanced needs records by number; use TrainingLoader, or shards in shuffled order")
    if window < 1:
        raise InputError(f"window must be at least 1 sample, got {window}")
    if settings.order == "sequential":
        return lambda _epoch: sequential(len(index))
    return lambda epoch: shuffled_in_windows(index.counts.tolist(), window, seed=settings.seed, epoch=epoch)
